"""The processes under torture: `dgreceiver serve`, any number over one inbox and one port; what strikes them is noted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..support import Ledger, until

ROOT = Path(__file__).parents[2]
DRAIN = 30  # seconds
UP_WITHIN, DOWN_WITHIN = 30.0, 75.0  # seconds


class Fleet:
    """All processes of a run; those that are told to go are no longer `serving`."""

    def __init__(
        self, ledger: Ledger, folder: Path, *, source: Path, port: int, environment: Mapping[str, str]
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._port = port
        self._environment = {**os.environ, **environment, "PYTHONPATH": f"{source}:{ROOT}"}
        self._all: list[subprocess.Popen[bytes]] = []
        self.serving: list[subprocess.Popen[bytes]] = []
        self.wanted = 1
        self.has_fallen = False  # a process has ended though nothing struck it

    # --- up

    async def fill(self) -> None:
        """Start as many as are wanted; wait until they receive."""
        await self._look_for_fallen()
        new = [self._start() for _ in range(self.wanted - len(self.serving))]
        self.serving += new
        await asyncio.gather(*(self._until_up(each) for each in new))
        await self._look_for_fallen()

    async def _look_for_fallen(self) -> None:
        for each in self.serving:
            if each.poll() is not None:
                self.has_fallen = True
                await self.gone(each)

    async def start_one_more(self) -> subprocess.Popen[bytes]:
        new = self._start()
        self.serving.append(new)
        await self._until_up(new)
        return new

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dgreceiver", "serve", "tests.torture.app:receiver"]
        options = ["--reuse-port", "--port", str(self._port), "--drain", str(DRAIN)]
        with (self._folder / f"log-{len(self._all):03}.txt").open("wb") as log:
            child = subprocess.Popen(
                command + options, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._all.append(child)
        self._ledger.note("started", None, pid=child.pid)
        return child

    async def _until_up(self, child: subprocess.Popen[bytes]) -> None:
        log = self._log(child)
        await until(lambda: child.poll() is not None or b"receiving on" in log.read_bytes(), within=UP_WITHIN)

    def _log(self, child: subprocess.Popen[bytes]) -> Path:
        return self._folder / f"log-{self._all.index(child):03}.txt"

    @property
    def logs(self) -> Iterable[Path]:
        return self._folder.glob("log-*.txt")

    # --- down

    def struck(self, some: Iterable[subprocess.Popen[bytes]], kind: str) -> None:
        """Note that these are about to end, and why."""
        for each in some:
            self._ledger.note("struck", None, pid=each.pid, kind=kind)

    async def kill(self, some: Sequence[subprocess.Popen[bytes]], kind: str) -> None:
        """kill -9, all at once."""
        self.struck(some, kind)
        await self.bury(some)

    async def bury(self, some: Sequence[subprocess.Popen[bytes]]) -> None:
        """kill -9 those that are not dead yet."""
        for each in some:
            each.kill()
        await asyncio.gather(*map(self.gone, some))

    async def stop(self, some: Sequence[subprocess.Popen[bytes]], kind: str) -> None:
        """SIGTERM; wait until they have ended in order."""
        self.struck(some, kind)
        for each in some:
            each.terminate()
        self.serving = [each for each in self.serving if each not in some]
        await asyncio.gather(*map(self.gone, some))

    async def gone(self, child: subprocess.Popen[bytes]) -> None:
        """Wait until it has ended, and note how; one that does not is killed, which is noted all the same."""
        with suppress(TimeoutError):
            await until(lambda: child.poll() is not None, within=DOWN_WITHIN)
        child.kill()
        self._ledger.note("gone", None, pid=child.pid, code=child.wait())
        self.serving = [each for each in self.serving if each is not child]

    def freeze(self, child: subprocess.Popen[bytes]) -> None:
        child.send_signal(signal.SIGSTOP)

    def thaw(self, child: subprocess.Popen[bytes]) -> None:
        child.send_signal(signal.SIGCONT)

    @property
    def living(self) -> list[subprocess.Popen[bytes]]:
        """All that run, those that are told to go among them."""
        return [each for each in self._all if each.poll() is None]

    def end(self) -> None:
        """Let nothing live on, whatever state it is in."""
        for each in self.living:
            each.kill()
            each.wait()
