"""How many callbacks a second are taken, how long one waits, and what it costs to store them first.

    python benchmarks/ingest.py --seconds 2 --repeats 3 --sizes 5k,150k

Runs each server alone on one core and loads it from another, in turns (A B C, A B C, …), and prints medians.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import load
from bodies import body_of
from load import Client, Load, LoadError, Measured
from servers import SERVERS, progress_of

HERE = Path(__file__).parent
START = 20.0  # seconds a server may take to listen
STOP = 60.0  # and to end
QUIET = 0.2  # without a handler's end: then all have ended
WARM = 1.0  # seconds of load before what is measured
ROOM = 4 << 30  # bytes that must be free on the disk
IN_MEMORY = {"tmpfs", "ramfs"}


class Failed(Exception):
    """A run did not do what it had to; its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run: this server, with bodies of this size, on a disk that is this much slower."""

    server: str
    size: int
    delay: float  # milliseconds added to every fsync


@dataclass(frozen=True, slots=True)
class Result:
    """What one run showed. Units: seconds, bytes."""

    server: str
    size: int
    delay: float
    rate: float
    p50: float
    p99: float
    cost: float  # the server's processor time for each answer, in seconds
    server_busy: float  # share of a core
    client_busy: float
    memory: int  # at its highest
    acknowledged: int
    stored: int | None  # None where nothing is stored, or nobody can say
    handled_rate: float | None  # a second, from the first request to the last handler
    lag: float | None  # from the last acknowledgement until all was handled


@dataclass(frozen=True, slots=True)
class Plan:
    """How each case is run."""

    seconds: float
    connections: int
    client: Client
    cores: tuple[int, int] | None  # of the server, of the load
    folder: Path
    shim: Path | None
    patience: float  # seconds to wait for handlers after the load


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="dgreceiver-bench-", dir=options.directory) as name:
        folder = Path(name)
        plan = _plan(options, folder)
        cases = _cases(options, plan)
        _announce(plan, cases, options.repeats)
        try:
            results = [_run_aloud(case, plan) for case in _in_turns(cases, options.repeats)]
        except Failed as error:
            print(f"\nfailed: {error}", file=sys.stderr)
            return 1
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    _report(results)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--servers", type=_names, default=["bare", "storing", "handling", "handwritten"], help=",".join(SERVERS))
    add("--sizes", type=_sizes, default=[5_000, 150_000, 2_000_000], help="of a body, such as 5k,150k,2m")
    add("--fsync-delays", type=_numbers, default=[0.0, 1.0, 5.0, 20.0], help="milliseconds added to each fsync")
    add("--seconds", type=float, default=4.0, help="of load in a run")
    add("--repeats", type=int, default=3)
    add("--connections", type=int, default=64)
    add("--client", choices=["own", "wrk"], default="own", help="wrk cannot keep up with 2 MB bodies")
    add("--patience", type=float, default=60.0, help="seconds to wait for handlers after the load")
    add("--directory", type=Path, default=_on_disk(), help="where the inboxes go, on a real disk (%(default)s)")
    add("--json", type=Path, help="a file for every single result")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SERVERS]:
        raise argparse.ArgumentTypeError(f"no server is called {unknown[0]}; there are {', '.join(SERVERS)}")
    return names


def _sizes(text: str) -> list[int]:
    units = {"k": 1_000, "m": 1_000_000}
    return [int(float(part.rstrip("km")) * units.get(part[-1:], 1)) for part in text.lower().split(",")]


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _on_disk() -> Path:
    """The usual temporary folder, or this one if that is kept in memory, where fsync costs nothing."""
    usual = Path(tempfile.gettempdir())
    return Path.cwd() if _filesystem(usual) in IN_MEMORY else usual


def _filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, or "unknown"."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holders = [(point, kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    return max(holders, key=lambda holder: len(holder[0]), default=("", "unknown"))[1]


def _plan(options: argparse.Namespace, folder: Path) -> Plan:
    if options.client == "wrk" and not shutil.which("wrk"):
        sys.exit("wrk is not installed; use --client own")
    if (kind := _filesystem(folder)) in IN_MEMORY:
        print(f"warning: {folder.parent} is {kind}: nothing is ever written to a disk; use --directory")
    if shutil.disk_usage(folder).free < ROOM:
        sys.exit(f"less than {ROOM >> 30} GiB are free in {folder.parent}; use --directory")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[-1]})
    return Plan(
        seconds=options.seconds,
        connections=options.connections,
        client=options.client,
        cores=(cores[0], cores[-1]) if len(cores) > 1 else None,
        folder=folder,
        shim=_build_shim(folder) if any(options.fsync_delays) else None,
        patience=options.patience,
    )


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


def _cases(options: argparse.Namespace, plan: Plan) -> list[list[Case]]:
    """Groups whose servers are compared with each other; a slower disk is only for those that store."""
    return [
        [Case(name, size, delay) for name in options.servers if SERVERS[name].stores or not delay]
        for delay in options.fsync_delays
        if plan.shim or not delay
        for size in options.sizes
    ]


def _in_turns(groups: list[list[Case]], repeats: int) -> Iterator[Case]:
    for group in groups:
        for _ in range(repeats):
            yield from group


def _announce(plan: Plan, groups: list[list[Case]], repeats: int) -> None:
    runs = repeats * sum(map(len, groups))
    where = f"server on core {plan.cores[0]}, load on core {plan.cores[1]}" if plan.cores else "one core for both"
    print(
        f"{runs} runs of {plan.seconds:g} s, about {runs * (plan.seconds + WARM + 3) / 60:.1f} minutes; "
        f"{plan.connections} connections by {'wrk' if plan.client == 'wrk' else 'a client of our own'}; {where}; "
        f"inboxes in {plan.folder.parent} ({_filesystem(plan.folder)})",
        flush=True,
    )


def _run_aloud(case: Case, plan: Plan) -> Result:
    slower = f", fsync +{case.delay:g} ms" if case.delay else ""
    print(f"  {case.server}, {_size(case.size)}{slower}: ", end="", flush=True)
    result = _run(case, plan)
    print(f"{result.rate:,.0f}/s", flush=True)
    return result


def _run(case: Case, plan: Plan) -> Result:
    """Start a server with an empty inbox, load it, wait for its handlers, end it, count what it stored."""
    with tempfile.TemporaryDirectory(dir=plan.folder) as name:
        folder = Path(name)
        body = body_of(case.size)
        with _server(case, plan, folder) as (process, port):
            try:
                warm = load.run(Load(port, body, plan.connections, WARM, run=1), plan.client)
                _await_handlers(case, folder, warm.acknowledged, plan.patience)
                before, began = _cpu_seconds(process.pid), time.monotonic()
                measured = load.run(Load(port, body, plan.connections, plan.seconds, run=2), plan.client)
            except LoadError as error:
                raise Failed(f"{case.server}, {_size(case.size)}: {error}\n{_last_words(folder)}") from error
            used, wall = _cpu_seconds(process.pid) - before, measured.ended - began
            acknowledged = warm.acknowledged + measured.acknowledged
            finished = _await_handlers(case, folder, acknowledged, plan.patience)
            memory = _peak_memory(process.pid)
        stored = _count(case, folder)
        handled = progress_of(folder).read()[0] if SERVERS[case.server].handles else None
        _verify(case, plan, measured, acknowledged=acknowledged, stored=stored, handled=handled)
    return Result(
        **asdict(case),
        rate=measured.rate,
        p50=measured.p50,
        p99=measured.p99,
        cost=used / measured.acknowledged,
        server_busy=used / wall,
        client_busy=measured.busy,
        memory=memory,
        acknowledged=acknowledged,
        stored=stored,
        handled_rate=None if finished is None else measured.acknowledged / (finished - began),
        lag=None if finished is None else max(0.0, finished - measured.ended),
    )


@contextlib.contextmanager
def _server(case: Case, plan: Plan, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that listens; ended on the way out, however that is taken."""
    port = _free_port()
    lifetime = START + WARM + plan.seconds + 2 * (plan.patience + load.GRACE) + STOP
    command = [sys.executable, str(HERE / "servers.py"), case.server, "--port", str(port), "--folder", str(folder)]
    command += ["--lifetime", str(int(lifetime))] + (["--core", str(plan.cores[0])] if plan.cores else [])
    environment = dict(os.environ)
    if case.delay:
        environment |= {"LD_PRELOAD": str(plan.shim), "SLOW_FSYNC_MS": str(case.delay)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _await_port(process, port, folder)
        yield process, port
        process.terminate()
        process.wait(STOP)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{case.server} did not end within {STOP:.0f} s\n{_last_words(folder)}") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    def listens() -> bool:
        if process.poll() is not None:
            raise Failed(f"the server ended before it listened\n{_last_words(folder)}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    if not _wait_until(listens, START):
        raise Failed(f"the server did not listen within {START:.0f} s\n{_last_words(folder)}")


def _wait_until(true: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _await_handlers(case: Case, folder: Path, acknowledged: int, seconds: float) -> float | None:
    """Wait until all was handled and nothing more is; when that was, or None if nothing handles."""
    if not SERVERS[case.server].handles:
        return None
    progress = progress_of(folder)
    if not _wait_until(lambda: progress.read()[0] >= acknowledged, seconds):
        raise Failed(
            f"{case.server}, {_size(case.size)}: {progress.read()[0]:,} of {acknowledged:,} were handled "
            f"{seconds:g} s after the load; use a shorter --seconds or a longer --patience"
        )
    while progress.read()[1] > time.monotonic() - QUIET:
        time.sleep(0.01)
    return progress.read()[1]


def _count(case: Case, folder: Path) -> int | None:
    """How many callbacks are in the inbox that a server left, or None if it keeps none."""
    server = SERVERS[case.server]
    if not server.stores:
        return None
    if server.ours:
        return asyncio.run(_count_ours(folder))
    with contextlib.closing(sqlite3.connect(folder / "inbox.db")) as database:
        return int(database.execute("SELECT count(*) FROM callback").fetchone()[0])


async def _count_ours(folder: Path) -> int:
    """By the package's own inbox: what waits or was done; what is dead or a conflict was not to be."""
    from dgreceiver.inbox.sqlite import SqliteInbox

    inbox = SqliteInbox(folder / "inbox.db", receiver="default", emit=lambda fact: None)
    await inbox.open()
    try:
        counts = await inbox.counts()
    finally:
        await inbox.close()
    return counts.get("waiting", 0) + counts.get("done", 0)


def _verify(
    case: Case, plan: Plan, measured: Measured, *, acknowledged: int, stored: int | None, handled: int | None
) -> None:
    """What was acknowledged is stored, what is stored was handled once, and nothing was answered before an fsync.

    wrk cuts its last requests off, in both loads: up to two for a connection may be stored without being counted.
    """
    spare = 2 * plan.connections if plan.client == "wrk" else 0
    which = f"{case.server}, {_size(case.size)}, fsync +{case.delay:g} ms"
    if stored is not None and not acknowledged <= stored <= acknowledged + spare:
        raise Failed(f"{which}: {acknowledged:,} were acknowledged, but {stored:,} are stored")
    if handled is not None and handled != stored:
        raise Failed(f"{which}: {stored} are stored, but {handled} were handled")
    if measured.least < case.delay / 1000:
        raise Failed(f"{which}: something was acknowledged after {measured.least * 1000:.1f} ms, before any fsync")


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _last_words(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-2000:].strip()


def _size(size: int) -> str:
    return f"{size / 1e6:g} MB" if size >= 1_000_000 else f"{size / 1e3:g} KB"


def _report(results: list[Result]) -> None:
    groups: dict[tuple[float, int], dict[str, list[Result]]] = {}
    for result in results:
        groups.setdefault((result.delay, result.size), {}).setdefault(result.server, []).append(result)
    for (delay, size), servers in groups.items():
        print(f"\n{_size(size)}, " + (f"fsync {delay:g} ms slower" if delay else "fsync as it is"))
        print(
            f"{'':12} {'requests/s':>10} {'(least–most)':>17} {'÷ bare':>7} {'÷ hand':>7} {'p50 ms':>8} {'p99 ms':>8} "
            f"{'µs each':>8} {'server':>7} {'load':>5} {'MiB':>5} {'handled/s':>10} {'lag s':>7}"
        )
        bare, hand = (_median(servers.get(name, []), "rate") for name in ("bare", "handwritten"))
        for name, runs in servers.items():
            print(_row(name, runs, bare, hand))


def _row(name: str, runs: list[Result], bare: float | None, hand: float | None) -> str:
    rates = [run.rate for run in runs]
    rate = median(rates)
    spread = f"({min(rates):,.0f}–{max(rates):,.0f})"
    by_bare, by_hand = ("" if of is None else f"{rate / of:.2f}" for of in (bare, hand))
    p50, p99, cost, server, client, memory = (
        _median(runs, column) or 0.0 for column in ("p50", "p99", "cost", "server_busy", "client_busy", "memory")
    )
    handled, lag = _median(runs, "handled_rate"), _median(runs, "lag")
    return (
        f"{name:12} {rate:10,.0f} {spread:>17} {by_bare:>7} {by_hand:>7} {p50 * 1e3:8.2f} {p99 * 1e3:8.2f} "
        f"{cost * 1e6:8,.0f} {server:7.0%} {client:5.0%} {memory / 2**20:5.0f} "
        f"{'' if handled is None else f'{handled:,.0f}':>10} {'' if lag is None else f'{lag:.2f}':>7}"
    )


def _median(runs: list[Result], column: str) -> float | None:
    values = [value for run in runs if (value := getattr(run, column)) is not None]
    return median(values) if values else None


if __name__ == "__main__":
    sys.exit(main())
