"""Servers as processes of their own: started, watched through /proc, ended, and nothing else with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
START = 30.0  # seconds a server may take to listen
STOP = 60.0  # and to end
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A run did not do what it had to; its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where servers run."""

    folder: Path  # on a real disk; each run has a folder of its own in it
    cores: tuple[int, int] | None  # of the servers, of the load
    shim: Path | None = None  # makes fsync slower

    @contextlib.contextmanager
    def room(self) -> Iterator[Path]:
        """A folder for one run."""
        path = self.folder / f"{time.monotonic_ns():x}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path)


def bench_in(folder: Path, *, slow: bool) -> Bench:
    """A bench whose load is this process, from now on on the last core; `slow`: with the shim for a slower fsync."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[-1]})
    return Bench(folder, (cores[0], cores[-1]) if len(cores) > 1 else None, _build_shim(folder) if slow else None)


def _build_shim(folder: Path) -> Path | None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        print("no C compiler (cc, gcc, clang): the runs with a slower fsync are left out")
        return None
    library = folder / "slow_fsync.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "slow_fsync.c"), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{compiler} failed, the runs with a slower fsync are left out: {done.stderr.strip()}")
        return None
    return library


class Running:
    """A server with all the processes that it started: a group of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.port = port
        self._process = process
        self._folder = folder

    def cpu_seconds(self) -> float:
        """User and system time of its processes, with all their threads."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._stats().values()) / TICK

    def memory(self) -> int:
        """Bytes that its processes have in memory now; what they share counts for each."""
        return self._memory("VmRSS:")

    def peak_memory(self) -> int:
        """The same, each process at its highest."""
        return self._memory("VmHWM:")

    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[], int | None]]:
        """Count the instructions that its processes run meanwhile, if `perf` may; how many, to be asked afterwards.

        What else the machine does adds nothing to them: they are to be compared where times are not. They are never to
        be counted while time is measured: at each change of threads the counter is set anew, which leaves a server of
        one thread as fast as it was and slows others down by a sixth to a third.
        """
        report = self._folder / "perf"
        command = ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(report), "-p"]
        if shutil.which("perf") is None:
            yield lambda: None
            return
        with subprocess.Popen([*command, ",".join(map(str, self._stats()))], stderr=subprocess.DEVNULL) as perf:
            time.sleep(0.1)  # it says nowhere that it has begun
            try:
                yield lambda: _instructions(report)
            finally:
                perf.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """kill -9, at whatever it is."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """Have it end by itself.

        Raises: Failed if it does not.
        """
        if self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"a server did not end within {STOP:.0f} s\n{self.last_words()}") from error

    def last_words(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:].strip()

    def listens(self) -> bool:
        if self._process.poll() is not None:
            raise Failed(f"a server ended before it listened\n{self.last_words()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _stats(self) -> Mapping[int, list[str]]:
        """The fields of /proc/PID/stat behind the name, for each process of the group. Source: proc(5)"""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._process.pid:
                    found[int(path.parent.name)] = fields
        return found

    def _memory(self, name: str) -> int:
        lines = [line for pid in self._stats() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _instructions(report: Path) -> int | None:
    counts = [line.split(",")[0] for line in report.read_text().splitlines() if ",instructions" in line]
    return int(counts[0]) if counts and counts[0].isdigit() else None


@contextlib.contextmanager
def serving(
    name: str, bench: Bench, folder: Path, *, seconds: float, delay: float = 0.0, handler: float = 0.0
) -> Iterator[Running]:
    """A server that listens; ended on the way out, however that is taken, and by itself some time after `seconds`.

    `delay`: milliseconds added to each fsync; `handler`: seconds that a handler takes.
    """
    port = _free_port()
    command = [sys.executable, str(HERE / "servers.py"), name, "--port", str(port), "--folder", str(folder)]
    command += ["--lifetime", str(int(START + seconds + STOP))]
    command += ["--core", str(bench.cores[0])] if bench.cores else []
    environment = {**os.environ, "BENCH_HANDLER_SECONDS": str(handler)}
    if delay:
        environment |= {"LD_PRELOAD": str(bench.shim), "SLOW_FSYNC_MS": str(delay)}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    running = Running(process, port, folder)
    try:
        if not wait_until(running.listens, START):
            raise Failed(f"{name} did not listen within {START:.0f} s\n{running.last_words()}")
        yield running
        running.end()
    finally:
        running.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
