"""Memory is handed out as bodies come, in order of arrival, and comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dgreceiver.errors import Busy, TooSlow
from dgreceiver.web.room import PIECE, Lease, Room

from ..support import until


def new_room(size: int = 10, *, stall: float = 60, whole: float = 60, **options: Any) -> Room:
    return Room(size, stall=stall, whole=whole, **options)


async def at_once() -> str:
    return "read"


async def never() -> None:
    await asyncio.Event().wait()


async def a_lease(room: Room, size: int) -> Lease:
    lease = room.lease()
    await lease.read(at_once, size)
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
    going_on = asyncio.create_task(first.read(at_once, 3))
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
    await lease.read(at_once, 1000)  # it has all already
    lease.came(1000)  # and a server that hands over more is not to be helped
    await lease.read(at_once, 1)
    lease.give_back()
    assert await is_all_there(room)


async def test_a_lease_grows_with_what_comes_and_gives_everything_back():
    room = new_room(10, patience=0.01)
    lease = await a_lease(room, 4)
    lease.came(1)
    assert lease.size == 1
    await lease.read(at_once, 3)
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
        await first.read(at_once, 5)
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
            await lease.read(at_once, 1)
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

    def __init__(self, room: Room) -> None:
        self._pieces: asyncio.Queue[int] = asyncio.Queue()
        self.task = asyncio.create_task(self._read(room))

    def bring(self, size: int) -> None:
        self._pieces.put_nowait(size)

    async def _read(self, room: Room) -> None:
        lease = room.lease()
        try:
            while True:
                lease.came(await lease.read(self._pieces.get, PIECE))
        finally:
            lease.give_back()

    @property
    def gave_way(self) -> bool:
        return self.task.done() and isinstance(self.task.exception(), TooSlow)


async def test_while_somebody_waits_who_has_brought_nothing_for_longest_gives_way_and_no_more_than_need_be():
    room = new_room(4 * PIECE, hurry=0.2)
    readers = [Reader(room) for _ in range(4)]
    await a_turn()
    async with asyncio.timeout(1):
        await a_lease(room, PIECE // 2)
    await until(readers[0].task.done)
    assert [reader.gave_way for reader in readers] == [True, False, False, False]
    for reader in readers:
        reader.task.cancel()


async def test_a_drip_is_no_way_to_stay():
    room, pieces = new_room(2 * PIECE, hurry=0.2), list[Lease]()
    reader = Reader(room)
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
    room = new_room(4 * PIECE, hurry=0.0)
    reader = Reader(room)
    await a_turn()
    for _ in range(10):
        (await a_lease(room, PIECE)).give_back()
    assert not reader.task.done()
    reader.task.cancel()


async def test_who_is_being_stored_is_not_slow():
    room = new_room(10, hurry=0.0, patience=0.3)
    storing = await a_lease(room, 10)
    with pytest.raises(Busy):
        await a_lease(room, 1)
    storing.give_back()
    assert await is_all_there(room)


async def test_one_is_told_to_give_way_and_then_no_other_before_it_has():
    room, lets_go = new_room(2 * PIECE, hurry=0.0, patience=0.5), asyncio.Event()

    async def read_slowly_and_linger() -> None:
        lease = room.lease()
        try:
            await lease.read(never, PIECE)
        finally:
            await lets_go.wait()
            lease.give_back()

    readers = [asyncio.create_task(read_slowly_and_linger()) for _ in range(2)]
    await a_turn()
    with pytest.raises(Busy):
        await a_lease(room, PIECE)
    assert [reader.cancelling() for reader in readers] == [0, 0]  # who was told has heard of it, and lingers
    lets_go.set()
    await until(readers[0].done)
    assert isinstance(readers[0].exception(), TooSlow)
    assert not readers[1].done()
    readers[1].cancel()
    await asyncio.wait(readers)
    assert await is_all_there(room)


# --- who is late


async def test_what_is_read_in_time_is_handed_on():
    assert await new_room(stall=0.05, whole=1.0).lease().read(at_once, 1) == "read"


async def test_a_read_that_stalls_is_ended():
    with pytest.raises(TooSlow):
        await new_room(stall=0.05).lease().read(never, 1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_read_of_nothing_may_not_stall_either():
    with pytest.raises(TooSlow):
        await new_room(stall=0.05).lease().read(never, 0)


async def test_a_whole_that_goes_on_for_too_long_is_ended_though_no_read_stalls():
    lease, reads = new_room(whole=0.1).lease(), 0

    async def drip() -> None:
        await asyncio.sleep(0.01)

    async def all_of_it() -> None:
        nonlocal reads
        while True:
            await lease.read(drip, 0)
            reads += 1

    with pytest.raises(TooSlow):
        await all_of_it()
    assert reads > 1


async def test_the_time_in_which_it_waits_for_room_is_not_that_of_its_sender():
    room = new_room(10, whole=0.3)
    first = await a_lease(room, 10)

    async def takes_its_time() -> None:
        await asyncio.sleep(0.2)

    async def reading() -> None:
        await room.lease().read(takes_its_time, 1)

    waiting = asyncio.create_task(reading())
    await asyncio.sleep(0.2)
    first.give_back()
    await waiting


async def test_each_reader_has_its_own_time():
    room = new_room(stall=0.1)
    stalled = [asyncio.create_task(reading_without_end(room)) for _ in range(3)]
    assert [await room.lease().read(at_once, 1) for _ in range(3)] == ["read"] * 3
    results = await asyncio.gather(*stalled, return_exceptions=True)
    assert {type(result) for result in results} == {TooSlow}


async def test_whoever_is_cancelled_by_others_is_cancelled():
    task = asyncio.create_task(reading_without_end(new_room(stall=0.05)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_whoever_is_cancelled_in_the_moment_when_its_time_is_over_is_cancelled():
    task = asyncio.create_task(reading_without_end(new_room(stall=0.05)))
    while not task.cancelling():  # noqa: ASYNC110 - by the room, and not a tick later
        await asyncio.sleep(0)
    task.cancel()  # before the task has heard of it
    await asyncio.wait([task])
    assert task.cancelled()


async def reading_without_end(room: Room) -> None:
    await room.lease().read(never, 1)


async def test_a_room_in_which_nobody_is_does_not_look():
    room = new_room(stall=0.02)
    (await a_lease(room, 1)).give_back()
    await until(lambda: not room._watching)
    with pytest.raises(TooSlow):
        await room.lease().read(never, 1)  # and begins again


async def test_an_error_of_a_read_comes_out():
    async def fails() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await new_room().lease().read(fails, 1)
