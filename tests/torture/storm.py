"""What strikes the processes: one fault after the other, as the schedule says."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, TypeVar

from ..support import Ledger, until
from .clock import WallClock
from .disk import Disk
from .fleet import Fleet
from .plan import BEGINNING, Act, Kind, schedule
from .senders import Post, open_stubborn_stream, send_again

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

T = TypeVar("T")

HOURS = 6  # by which the clock jumps, at most
HANDED_OVER_WITHIN = 60.0  # seconds
AT_STAKE = 1.0  # seconds before a power cut in which callbacks are acknowledged

Strike = Callable[[float], Awaitable[None]]


class Worst(random.Random):
    """Dice that always show the first: of what was not synced nothing is left."""

    def choice(self, seq: SupportsLenAndGetItem[T]) -> T:
        return seq[0]


class Storm:
    """Strikes until the time is over."""

    def __init__(self, fleet: Fleet, out: Post, *, disk: Disk, clock: WallClock, ledger: Ledger, folder: Path) -> None:
        self._fleet = fleet
        self._disk = disk
        self._clock = clock
        self._ledger = ledger
        self._out = out
        self._folder = folder
        self._handing_over: asyncio.Task[None] | None = None
        self._has_lost_power = False
        self.has_broken = False  # it shows already that something was lost
        self._strikes: Mapping[Kind, Strike] = {
            "kill": self._kill,
            "kill all": self._kill_all,
            "freeze": self._freeze,
            "stop": self._stop,
            "hand over": self._hand_over,
            "clock": self._jump,
            "disk full": self._fill_disk,
            "disk failing": self._fail_disk,
            "syncs failing": self._fail_syncs,
            "disk slow": self._slow_disk,
            "power cut": self._cut,
            "power cut while writing": self._cut_while_writing,
        }

    async def rage(self, seed: int, ends_at: float, *, least: Collection[Kind]) -> None:
        """Strike until that time, and on until each of the least has struck."""
        struck = set[Kind]()
        for act in schedule(seed):
            if time.monotonic() >= ends_at and struck >= set(least):
                break
            if self._handing_over and act.kind not in BEGINNING:
                await self._handing_over
                self._handing_over = None
                self._fleet.wanted = 2 + (seed % 2)
            await self._fleet.fill()
            if self._fleet.has_fallen or self.has_broken:
                return
            await self._strike(act)
            struck.add(act.kind)
        if self._handing_over:
            await self._handing_over

    async def _strike(self, act: Act) -> None:
        print(f"{act.kind}", end=" ... ", flush=True)
        await self._strikes[act.kind](act.roll)
        await asyncio.sleep(act.pause)

    def _one(self, roll: float) -> Popen[bytes]:
        return self._fleet.serving[int(roll * 1000) % len(self._fleet.serving)]

    @asynccontextmanager
    async def _trouble(self, kind: str) -> AsyncIterator[None]:
        since = time.monotonic()
        try:
            yield
        finally:
            self._ledger.note("trouble", None, kind=kind, since=since)

    # --- processes

    async def _kill(self, roll: float) -> None:
        await self._fleet.kill([self._one(roll)], "kill")

    async def _kill_all(self, roll: float) -> None:
        await self._fleet.kill(self._fleet.living, "kill all")

    async def _freeze(self, roll: float) -> None:
        frozen = self._one(roll)
        async with self._trouble("freeze"):
            self._fleet.freeze(frozen)
            try:
                await asyncio.sleep(0.5 + 3 * roll)
            finally:
                self._fleet.thaw(frozen)

    async def _stop(self, roll: float) -> None:
        await self._fleet.stop([self._one(roll)], "stop")

    async def _hand_over(self, roll: float) -> None:
        """A successor joins, then the owner is told to go, with a live socket and a handler that will not end."""
        [before] = self._fleet.serving
        over = asyncio.Event()
        stream = asyncio.create_task(open_stubborn_stream(self._out, over.wait()))
        await self._until_there("lingers-0")
        await self._fleet.start_one_more()
        await asyncio.sleep(0.5)  # in which a second owner would show itself
        self._handing_over = asyncio.create_task(self._see_over(before, stream, over))

    async def _see_over(self, before: Popen[bytes], stream: asyncio.Task[None], over: asyncio.Event) -> None:
        going = asyncio.create_task(self._fleet.stop([before], "hand over"))
        await self._until_there("lingered-1")
        over.set()
        await stream
        await going

    async def _until_there(self, name: str) -> None:
        with suppress(TimeoutError):  # what was to show will be seen missing
            await until((self._folder / name).exists, within=HANDED_OVER_WITHIN)

    # --- the clock

    async def _jump(self, roll: float) -> None:
        """Set the wall clock; every other time somebody starts by the new time beside those of the old."""
        async with self._trouble("clock"):
            self._clock.set(int((2 * roll - 1) * HOURS * 3600))
            await asyncio.sleep(0.3)

    # --- the disk

    async def _fill_disk(self, roll: float) -> None:
        self._disk.full()
        await self._mend_after("disk full", 0.5 + roll)

    async def _fail_disk(self, roll: float) -> None:
        self._disk.failing()
        await self._mend_after("disk failing", 0.5 + roll)

    async def _fail_syncs(self, roll: float) -> None:
        self._disk.failing_syncs()
        await self._mend_after("syncs failing", 0.5 + roll)

    async def _slow_disk(self, roll: float) -> None:
        self._disk.slow(sync=0.02 + 0.1 * roll, write=0.002)
        await self._mend_after("disk slow", 1.0 + roll)

    async def _mend_after(self, kind: str, seconds: float) -> None:
        async with self._trouble(kind):
            await asyncio.sleep(seconds)
            self._disk.mend()

    async def _cut(self, roll: float) -> None:
        await asyncio.sleep(AT_STAKE)  # who has just started has synced all that was there
        await self._fleet.kill(self._fleet.living, "power cut")
        await self._lose_power(roll)

    async def _cut_while_writing(self, roll: float) -> None:
        """The power goes in the middle of a write, whoever writes."""
        struck = self._fleet.living
        async with self._trouble("power cut while writing"):
            self._fleet.struck(struck, "power cut while writing")
            self._disk.die_at(20 + int(80 * roll))
            with suppress(TimeoutError):
                await until(lambda: any(each.poll() is not None for each in struck), within=3.0)
            await self._fleet.bury(struck)
        self._disk.mend()
        await self._lose_power(roll)

    async def _lose_power(self, roll: float) -> None:
        """What was not synced is gone, at first all of it, later by the dice; what was acknowledged is known again."""
        self._disk.cut(dice=self._out.dice(f"cut {roll}") if self._has_lost_power else Worst())
        self._has_lost_power = True
        await self._fleet.fill()
        answers = [answer for _, answer in await send_again(self._out, self._out.recent)]
        self.has_broken |= any(answer.said == "stored" for answer in answers) or all(not each.said for each in answers)
