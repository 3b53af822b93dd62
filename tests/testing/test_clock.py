"""Deepgram's time: sped up, or stepped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from dgreceiver import SetupError
from dgreceiver.testing import Clock, Emulator, SteppedClock
from dgreceiver.testing.ids import new_request_id


async def test_a_fast_clock_lets_more_time_pass():
    clock = Clock(speed=10_000)
    before = clock.now()
    async with asyncio.timeout(5):
        await clock.sleep(300)
    assert clock.now() - before >= timedelta(seconds=300)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_clock_has_to_move(speed):
    with pytest.raises(SetupError, match="does not move; write a number over 0, or use a SteppedClock"):
        Clock(speed=speed)


@pytest.mark.parametrize(
    ("clock", "seconds", "real"),
    [
        pytest.param(Clock(), 10, 10, id="as it is"),
        pytest.param(Clock(speed=4), 10, 2.5, id="faster"),
        pytest.param(Clock(speed=1000), 10, 0.5, id="not too fast for the receiver"),
        pytest.param(SteppedClock(), 10, 0.5, id="stepped"),
        pytest.param(SteppedClock(), 0.1, 0.1, id="never longer than was said"),
    ],
)
def test_a_receiver_is_given_real_time(clock, seconds, real):
    assert clock.patience(seconds) == real


async def test_only_an_emulator_on_a_clock_that_stands_still_is_advanced():
    with pytest.raises(SetupError, match=r"write Emulator\(clock=SteppedClock\(\)\)"):
        await Emulator().advance(30)


async def test_a_stepped_clock_wakes_each_at_its_time_and_stands_still_in_between():
    clock, woken = SteppedClock(), list[float]()
    start = clock.now()

    async def wake(*waits: float) -> None:
        for seconds in waits:
            await clock.sleep(seconds)
            woken.append((clock.now() - start).total_seconds())

    clock.spawn(wake(30, 30))
    clock.spawn(wake(10, 0, 90))
    await clock.advance(65)
    assert woken == [10, 10, 30, 60]
    assert clock.now() - start == timedelta(seconds=65)
    await clock.advance(35)
    await clock.idle()
    assert woken[-1] == 100


async def test_what_sleeps_ends_when_the_clock_stops():
    clock = SteppedClock()
    clock.spawn(clock.sleep(30))
    await clock.rest()
    await clock.stop()
    await clock.advance(30)


def test_ids_are_of_version_7_and_in_the_order_of_time():
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number) for number in range(50)]
    ids = [new_request_id(at) for at in times]
    assert ids == sorted(ids)
    assert {(UUID(each).version, UUID(each).variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert len({new_request_id(times[0]) for _ in range(50)}) == 50
