"""Reads that must not take for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dgreceiver.errors import TooSlow
from dgreceiver.web.watch import Watch

from ..support import until


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> str:
    return "read"


async def reading(watch: Watch, read: Any) -> Any:
    return await watch.over(read, watch.deadline())


async def test_what_is_read_in_time_is_handed_on():
    assert await reading(Watch(stall=0.05, whole=1.0), at_once) == "read"


async def test_a_read_that_stalls_is_ended():
    with pytest.raises(TooSlow):
        await reading(Watch(stall=0.05, whole=60.0), never)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_whole_that_goes_on_for_too_long_is_ended_though_no_read_stalls():
    watch, reads = Watch(stall=60.0, whole=0.1), 0

    async def drip() -> None:
        await asyncio.sleep(0.01)

    async def all_of_it() -> None:
        nonlocal reads
        deadline = watch.deadline()
        while True:
            await watch.over(drip, deadline)
            reads += 1

    with pytest.raises(TooSlow):
        await all_of_it()
    assert reads > 1


async def test_each_reader_has_its_own_time():
    watch = Watch(stall=0.1, whole=60.0)
    stalled = [asyncio.create_task(reading(watch, never)) for _ in range(3)]
    assert [await reading(watch, at_once) for _ in range(3)] == ["read"] * 3
    results = await asyncio.gather(*stalled, return_exceptions=True)
    assert {type(result) for result in results} == {TooSlow}


async def test_whoever_is_cancelled_by_others_is_cancelled():
    watch = Watch(stall=0.05, whole=60.0)
    task = asyncio.create_task(reading(watch, never))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_whoever_is_cancelled_in_the_moment_when_its_time_is_over_is_cancelled():
    watch = Watch(stall=0.05, whole=60.0)
    task = asyncio.create_task(reading(watch, never))
    while not task.cancelling():  # noqa: ASYNC110 - by the watch, and not a tick later
        await asyncio.sleep(0)
    task.cancel()  # before the task has heard of it
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_watch_with_nothing_to_look_at_does_not_look():
    watch = Watch(stall=0.02, whole=60.0)
    await reading(watch, at_once)
    await until(lambda: not watch._looking)
    with pytest.raises(TooSlow):
        await reading(watch, never)  # and begins again


async def test_an_error_of_a_read_comes_out():
    async def fails() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await reading(Watch(stall=0.05, whole=1.0), fails)
