"""Memory is handed out as bodies come, in order of arrival, and comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dgreceiver.errors import Busy, TooSlow
from dgreceiver.web.room import PIECE, Lease, Room
from dgreceiver.web.watch import Watch

from ..support import until


def new_room(size: int, **options: Any) -> Room:
    """A room in which nobody reads, so that nobody can be too slow."""
    return Room(size, end=lambda task: False, **options)


async def a_lease(room: Room, size: int) -> Lease:
    lease = room.lease()
    await lease.ahead(size)
    return lease


def taking(room: Room, size: int, into: list[Lease]) -> asyncio.Task[None]:
    async def take() -> None:
        into.append(await a_lease(room, size))

    return asyncio.create_task(take())


async def a_turn() -> None:
    """Let what can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def is_all_there(room: Room) -> bool:
    return (await a_lease(room, room.size)).size == room.size


# --- in order of arrival


async def test_who_comes_first_is_served_first_though_a_smaller_one_would_fit():
    room, large, small = new_room(10), list[Lease](), list[Lease]()
    first = await a_lease(room, 6)
    tasks = [taking(room, 8, large), taking(room, 1, small)]
    await a_turn()
    assert (large, small) == ([], [])
    first.give_back()
    await asyncio.gather(*tasks)
    assert (large[0].size, small[0].size) == (8, 1)


async def test_a_body_that_has_begun_goes_before_one_that_has_not():
    room, new = new_room(10), list[Lease]()
    first, second = await a_lease(room, 4), await a_lease(room, 6)
    beginning = taking(room, 3, new)
    await a_turn()
    going_on = asyncio.create_task(first.ahead(3))
    await a_turn()
    second.let_go(3)
    await going_on
    assert (first.size, new) == (7, [])
    second.give_back()
    await beginning


async def test_more_than_there_is_means_all_there_is():
    room = new_room(10)
    lease = await a_lease(room, 1000)
    assert lease.size == 10
    await lease.ahead(1000)  # it has all already
    lease.came(1000)  # and a server that hands over more is not to be helped
    await lease.ahead(1)
    lease.give_back()
    assert await is_all_there(room)


async def test_a_lease_grows_with_what_comes_and_gives_everything_back():
    room = new_room(10, patience=0.01)
    lease = await a_lease(room, 4)
    lease.came(1)
    assert lease.size == 1
    await lease.ahead(3)
    lease.came(9)  # a server may hand over more than it was asked for
    assert lease.size == 10
    with pytest.raises(Busy):
        await a_lease(room, 1)
    lease.let_go(8)
    assert lease.size == 2
    lease.give_back()
    lease.give_back()
    assert await is_all_there(room)


# --- who leaves


async def test_who_finds_no_room_in_time_is_told_so_and_takes_none():
    room = new_room(10, patience=0.01)
    first, second = await a_lease(room, 4), await a_lease(room, 4)
    with pytest.raises(Busy, match="no room for 3 bytes"):
        await a_lease(room, 3)
    with pytest.raises(Busy, match="no room for 5 bytes"):
        await first.ahead(5)
    first.give_back()
    second.give_back()
    assert await is_all_there(room)


async def test_who_leaves_lets_those_behind_in():
    room, large, small = new_room(10), list[Lease](), list[Lease]()
    await a_lease(room, 6)
    leaving, waiting = taking(room, 8, large), taking(room, 1, small)
    await a_turn()
    leaving.cancel()
    await waiting
    assert (large, small[0].size) == ([], 1)


async def test_who_leaves_in_the_moment_of_its_turn_gives_it_back():
    room, leases = new_room(10), list[Lease]()
    first = await a_lease(room, 6)
    leaving = taking(room, 8, leases)
    await a_turn()
    first.give_back()  # it is its turn, and it has not heard of it yet
    leaving.cancel()
    await until(leaving.done)
    assert leaving.cancelled()
    assert await is_all_there(room)


async def test_room_that_comes_back_as_somebody_gives_up_goes_to_who_stands_behind():
    room, gone, behind = new_room(10), list[Lease](), list[Lease]()
    held = await a_lease(room, 10)
    leaving, staying = taking(room, 8, gone), taking(room, 4, behind)
    await a_turn()
    leaving.cancel()
    held.give_back()  # in the same tick: the one who leaves has not left the queue yet
    await a_turn()
    assert (gone, [lease.size for lease in behind]) == ([], [4])
    behind[0].give_back()
    assert staying.done()
    assert await is_all_there(room)


# --- who gives way


async def grow(lease: Lease, size: int, ended: list[str], name: str) -> None:
    """A body that comes as fast as there is room for it."""
    try:
        while lease.size < size:
            await lease.ahead(1)
            lease.came(1)
            await asyncio.sleep(0)
        ended.append(name)
    except Busy:
        ended.append(f"{name} gave way")
    finally:
        lease.give_back()


async def test_of_bodies_that_wait_for_each_other_those_give_way_that_came_last():
    room, ended = new_room(10), list[str]()
    async with asyncio.timeout(1), asyncio.TaskGroup() as bodies:
        for name in ("first", "second", "third", "fourth"):
            bodies.create_task(grow(room.lease(), 5, ended, name))
    assert ended == ["fourth gave way", "third gave way", "first", "second"]
    assert await is_all_there(room)


class Reader:
    """A body on its way in, of which a sender says when a piece comes."""

    def __init__(self, room: Room, watch: Watch) -> None:
        self._pieces: asyncio.Queue[int] = asyncio.Queue()
        self.task = asyncio.create_task(self._read(room, watch))

    def bring(self, size: int) -> None:
        self._pieces.put_nowait(size)

    async def _read(self, room: Room, watch: Watch) -> None:
        lease, deadline = room.lease(), watch.deadline()
        try:
            while True:
                await lease.ahead(PIECE)
                lease.came(await watch.over(self._pieces.get, deadline))
        finally:
            lease.give_back()

    @property
    def gave_way(self) -> bool:
        return self.task.done() and isinstance(self.task.exception(), TooSlow)


async def test_while_somebody_waits_who_has_brought_nothing_for_longest_gives_way_and_no_more_than_need_be():
    watch = Watch(stall=60, whole=60)
    room = Room(4 * PIECE, end=watch.end, hurry=0.2)
    readers = [Reader(room, watch) for _ in range(4)]
    await a_turn()
    async with asyncio.timeout(1):
        await a_lease(room, PIECE // 2)
    await until(readers[0].task.done)
    assert [reader.gave_way for reader in readers] == [True, False, False, False]
    for reader in readers:
        reader.task.cancel()


async def test_a_drip_is_no_way_to_stay():
    watch = Watch(stall=60, whole=60)
    room, pieces = Room(2 * PIECE, end=watch.end, hurry=0.2), list[Lease]()
    reader = Reader(room, watch)
    await a_turn()
    waiting = taking(room, 2 * PIECE, pieces)

    async def drip() -> None:
        while not reader.task.done():
            reader.bring(1)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(1):
        await asyncio.gather(drip(), waiting)
    assert reader.gave_way


async def test_while_there_is_room_nobody_has_to_hurry():
    watch = Watch(stall=60, whole=60)
    room = Room(4 * PIECE, end=watch.end, hurry=0.0)
    reader = Reader(room, watch)
    await a_turn()
    for _ in range(10):
        (await a_lease(room, PIECE)).give_back()
    assert not reader.task.done()
    reader.task.cancel()


async def test_who_is_being_stored_is_not_slow():
    watch = Watch(stall=60, whole=60)
    room = Room(10, end=watch.end, hurry=0.0, patience=0.3)
    storing = await a_lease(room, 10)
    with pytest.raises(Busy):
        await a_lease(room, 1)
    storing.give_back()
    assert await is_all_there(room)


async def test_one_is_told_to_give_way_and_then_no_other_before_it_has():
    told = list[object]()

    def end(task: object) -> bool:
        told.append(task)
        return True

    room = Room(10, end=end, hurry=0.0, patience=0.5)
    leases = [await a_lease(room, 5) for _ in range(2)]
    waiting = taking(room, 6, list[Lease]())
    await until(lambda: told)
    with pytest.raises(Busy):
        await waiting
    assert len(told) == 1
    for lease in leases:
        lease.give_back()
    assert await is_all_there(room)
