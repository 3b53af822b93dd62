"""One run: processes and senders, the storm, the calm after it, and the verdict."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

from ..support import PASSWORD, Ledger, listen
from .clock import WallClock
from .disk import Disk
from .fleet import Fleet
from .plan import EVERY, KEY, LEAST, Kind
from .products import Products
from .senders import MARKER, Post, send_again, senders
from .storm import Storm
from .verdict import Account, Violation, pending, violations

CALM = 0.3  # of the time, at most 25 seconds: for what the storm has left
LONGEST_CALM = 25.0
ANSWERED_WITHIN = 30.0  # seconds of calm: what is sent on until it is acknowledged
QUIET = 10.0  # seconds without a handler after which nothing more is to be expected
APART = 36.0  # likewise, of the next LiveTranscript of a stream
ALL_KINDS_FROM = 60.0  # seconds from which a run has to have seen every kind of fault
LOOK = 0.3
SECRETS = (MARKER, KEY, PASSWORD, "authorization: ")


class Torture:
    """A run in a folder of its own. `source` is the code that is tortured."""

    def __init__(self, folder: Path, *, source: Path, seed: int, seconds: float) -> None:
        self._folder = folder
        self._seed = seed
        self._seconds = seconds
        self._ledger = Ledger(folder)
        disk = folder / "disk"
        disk.mkdir()
        (folder / "work").mkdir()
        self._inbox = disk / "inbox.db"
        self._disk = Disk(disk, folder / "work")
        self._clock = WallClock(folder)
        port = a_port()
        self._out = Post(self._ledger, port, seed)
        preload = f"{self._clock.environment['LD_PRELOAD']}:{self._disk.environment['LD_PRELOAD']}"
        environment = {
            **self._clock.environment,
            **self._disk.environment,
            "LD_PRELOAD": preload,
            "TORTURE_FOLDER": str(folder),
            "TORTURE_INBOX": str(self._inbox),
            "TORTURE_SEED": str(seed),
        }
        self._fleet = Fleet(self._ledger, folder, source=source, port=port, environment=environment)
        self._found: list[Violation] = []

    @property
    def _least(self) -> Collection[Kind]:
        """The faults without which a run of that length proves nothing."""
        return EVERY if self._seconds >= ALL_KINDS_FROM else LEAST

    def end(self) -> None:
        """Let no process live on."""
        self._fleet.end()

    async def run(self) -> tuple[Account, list[Violation]]:
        begun = time.monotonic()
        products = Products(self._out)
        storm = Storm(
            self._fleet, self._out, disk=self._disk, clock=self._clock, ledger=self._ledger, folder=self._folder
        )
        await self._fleet.fill()
        emulated = AsyncExitStack()
        url = await emulated.enter_async_context(products.emulator.serve())
        sending = [asyncio.ensure_future(each) for each in (*senders(self._out), *products.submitters(url))]
        try:
            ends_at = begun + self._seconds - min(LONGEST_CALM, CALM * self._seconds)
            await storm.rage(self._seed, ends_at, least=self._least)
            if storm.has_broken:
                self._found.append(Violation("lost", None, "what was acknowledged before a power cut is not known"))
            else:
                await self._calm_down(sending, products)
        finally:
            for each in sending:
                each.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await products.clock.stop()
            with suppress(TimeoutError):  # who waits for an answer that will not come is let go
                await asyncio.wait_for(emulated.aclose(), ANSWERED_WITHIN / 10)
        return self._judge()

    # --- the calm after the storm

    async def _calm_down(self, sending: Sequence[asyncio.Future[None]], products: Products) -> None:
        """Let all that was sent be acknowledged and handled; then look whether anything is left, or begins again."""
        print("calm")
        self._disk.mend()
        self._out.over = True
        await self._fleet.fill()
        if self._fleet.has_fallen:
            return
        await self._until_answered([*sending, asyncio.ensure_future(products.emulator.idle())])
        products.write_down(self._ledger)
        await self._until_handled()
        if self._found or violations(self._account()):
            return  # it will not get better
        await self._come_again()
        await self._fleet.stop(self._fleet.living, "stop")
        self._look_into_inbox()
        self._fleet.wanted = 1
        await self._fleet.fill()
        await asyncio.sleep(1.0)
        await self._fleet.stop(self._fleet.living, "stop")

    async def _until_answered(self, sending: Sequence[asyncio.Future[None]]) -> None:
        done, missing = await asyncio.wait(sending, timeout=ANSWERED_WITHIN)
        for each in done:
            each.result()
        for each in missing:
            each.cancel()
            self._found.append(Violation("refused", None, f"not acknowledged within {ANSWERED_WITHIN:g} s of calm"))

    async def _until_handled(self) -> None:
        """Wait until all that was acknowledged has been handled, and no longer than can be expected."""
        while missing := pending(account := self._account()):
            quiet = time.monotonic() - account.lines[-1]["at"]
            if quiet > (APART if all(":whole" in about for about in missing) else QUIET):
                return
            if any(violation.what != "lost" for violation in violations(account)):
                return
            await asyncio.sleep(LOOK)
        await asyncio.sleep(LOOK)

    async def _come_again(self) -> None:
        """Send once more what was acknowledged, as a retry that comes late."""
        for about, answer in await send_again(self._out, self._out.kept):
            if answer.said != "duplicate":
                self._found.append(Violation("doubled", about, f"a retry at the end was answered {answer}"))

    def _look_into_inbox(self) -> None:
        with closing(sqlite3.connect(self._inbox)) as connection:
            rows = connection.execute(
                "SELECT state, count(*) FROM dgreceiver_callback WHERE state IN ('waiting', 'leased') GROUP BY state"
            )
            for state, number in rows:
                self._found.append(Violation("lost", None, f"{number} are {state} though everything has been handled"))

    # --- the verdict

    def _account(self) -> Account:
        return Account(self._ledger.read())

    def _judge(self) -> tuple[Account, list[Violation]]:
        account = self._account()
        found = [*self._found, *violations(account), *self._leaks(), *self._vacuous(account)]
        return account, found

    def _leaks(self) -> Iterator[Violation]:
        for log in self._fleet.logs:
            text = log.read_text(errors="replace")
            for secret in SECRETS:
                if secret in text:
                    yield Violation("leaked", None, f"{log.name} holds a secret or a transcript")

    def _vacuous(self, account: Account) -> Iterator[Violation]:
        """Whether it proved anything."""
        if not account.strikes:
            yield Violation("vacuous", None, "no process was killed")
        acknowledged = sum(sent.acknowledged for sent in account.sent.values())
        if acknowledged < 3 * self._seconds:
            yield Violation("vacuous", None, f"only {acknowledged} callbacks were acknowledged")
        missing = set(self._least) - set(account.faults)
        if missing:
            yield Violation("vacuous", None, f"there was no {', no '.join(sorted(missing))}")


def a_port() -> int:
    with listen() as door:
        port: int = door.getsockname()[1]
        return port
