"""The clock by which the emulator waits: it can be sped up, or stepped by a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta

from ..errors import SetupError

LEAST_PATIENCE = 0.5  # seconds; the receiver is no faster because our clock is


class Clock:
    """Deepgram's time; `speed` of its seconds pass in one of ours. It knows all work that waits by it."""

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise SetupError(f"speed={speed} does not move; write a number over 0, or use a SteppedClock")
        self._speed = speed
        self._begun, self._origin = datetime.now(UTC), time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> datetime:
        """Deepgram's time: the clock began at the real one."""
        return self._begun + timedelta(seconds=(time.monotonic() - self._origin) * self._speed)

    async def sleep(self, seconds: float) -> None:
        """Wait for a while of Deepgram's time."""
        await asyncio.sleep(seconds / self._speed)

    def patience(self, seconds: float) -> float:
        """How long to wait for somebody who lives by the real clock.

        Units: real seconds: fewer the faster this clock is, but half a second is left to them.
        """
        return max(seconds / self._speed, min(seconds, LEAST_PATIENCE))

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Start some work that waits by this clock."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def idle(self) -> None:
        """Wait until all work has ended, retries included."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """End all work where it stands."""
        for task in self._tasks:
            task.cancel()
        await self.idle()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)


class SteppedClock(Clock):
    """A clock that stands still until it is advanced; what happens between two waits takes none of its time."""

    def __init__(self) -> None:
        super().__init__(speed=float("inf"))
        self._now = datetime.now(UTC)
        self._sleepers: dict[asyncio.Future[None], datetime] = {}  # when each is to wake
        self._stirred = asyncio.Event()

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers[sleeper] = self._now + timedelta(seconds=seconds)
        self._stirred.set()
        try:
            await sleeper
        finally:
            self._sleepers.pop(sleeper, None)

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass, and all that was to happen in them; returns when nothing but waiting is left."""
        until = self._now + timedelta(seconds=seconds)
        await self.rest()
        while (due := min(self._sleepers.values(), default=until)) <= until and self._sleepers:
            self._now = max(due, self._now)
            self._wake()
            await self.rest()
        self._now = until

    async def rest(self) -> None:
        """Wait until all work has ended or waits for the clock."""
        while len(self._tasks) > len(self._sleepers):
            self._stirred.clear()
            await self._stirred.wait()

    def _wake(self) -> None:
        for sleeper in [sleeper for sleeper, due in self._sleepers.items() if due <= self._now]:
            del self._sleepers[sleeper]
            sleeper.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        super()._ended(task)
        self._stirred.set()
