"""Memory is handed out in order of arrival, and comes back."""

from __future__ import annotations

import asyncio

import pytest

from dgreceiver.errors import Busy
from dgreceiver.web.room import Lease, Room

from ..support import until


def taking(room: Room, size: int, into: list[Lease]) -> asyncio.Task[None]:
    async def take() -> None:
        into.append(await room.take(size))

    return asyncio.create_task(take())


async def a_turn() -> None:
    """Let what can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_first_is_served_first_though_a_smaller_one_would_fit():
    room, large, small = Room(10), list[Lease](), list[Lease]()
    first = await room.take(6)
    tasks = [taking(room, 8, large), taking(room, 1, small)]
    await a_turn()
    assert (large, small) == ([], [])
    first.give_back()
    await asyncio.gather(*tasks)
    assert (large[0].size, small[0].size) == (8, 1)


async def test_more_than_there_is_means_all_there_is():
    room = Room(10)
    lease = await room.take(1000)
    assert lease.size == 10
    await lease.grow(1000)  # it has all already
    assert lease.size == 10


async def test_a_lease_grows_and_gives_everything_back():
    room = Room(10, patience=0.01)
    lease = await room.take(4)
    await lease.grow(3)
    await lease.grow(5)
    with pytest.raises(Busy):
        await room.take(1)
    lease.give_back()
    lease.give_back()
    assert (await room.take(10)).size == 10


async def test_who_finds_no_room_in_time_is_told_so_and_takes_none():
    room = Room(10, patience=0.01)
    first, second = await room.take(4), await room.take(4)
    with pytest.raises(Busy, match="no room for 3 bytes"):
        await room.take(3)
    with pytest.raises(Busy, match="no room for 5 bytes"):
        await first.grow(5)
    first.give_back()
    second.give_back()
    assert (await room.take(10)).size == 10


async def test_who_leaves_lets_those_behind_in():
    room, large, small = Room(10), list[Lease](), list[Lease]()
    await room.take(6)
    leaving, waiting = taking(room, 8, large), taking(room, 1, small)
    await a_turn()
    leaving.cancel()
    await waiting
    assert (large, small[0].size) == ([], 1)


async def test_who_leaves_in_the_moment_of_its_turn_gives_it_back():
    room, leases = Room(10), list[Lease]()
    first = await room.take(6)
    leaving = taking(room, 8, leases)
    await a_turn()
    first.give_back()  # it is its turn, and it has not heard of it yet
    leaving.cancel()
    await until(leaving.done)
    assert leaving.cancelled()
    assert (await room.take(10)).size == 10


async def test_room_that_comes_back_as_somebody_gives_up_goes_to_who_stands_behind():
    room, gone, behind = Room(10), list[Lease](), list[Lease]()
    held = await room.take(10)
    leaving, staying = taking(room, 8, gone), taking(room, 4, behind)
    await a_turn()
    leaving.cancel()
    held.give_back()  # in the same tick: the one who leaves has not left the queue yet
    await a_turn()
    assert (gone, [lease.size for lease in behind]) == ([], [4])
    assert (await room.take(6)).size == 6
    assert staying.done()
