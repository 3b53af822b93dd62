"""How many callbacks a second are taken, how long one waits, and what it costs to store them first.

    python benchmarks/ingest.py --seconds 2 --repeats 3 --sizes 5k,150k --connections 1,64

Runs each server alone on one core and loads it from another, in turns (A B C, A B C, …), and prints medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import load
from bodies import body_of
from ends import Ends
from load import Client, Load, LoadError
from running import Bench, Failed, bench_in, serving, wait_until
from servers import SERVERS
from turns import ratio

QUIET = 0.2  # seconds without a handler's end: then all have ended
WARM = 1.0  # seconds of load before what is measured
COUNTED = 0.5  # and after it, while instructions are counted
ROOM = 4 << 30  # bytes that must be free on the disk
IN_MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True, slots=True)
class Case:
    """One run: this server, with bodies of this size, on a disk that is this much slower."""

    server: str
    size: int
    connections: int
    delay: float  # milliseconds added to every fsync


@dataclass(frozen=True, slots=True)
class Result:
    """What one run showed. Units: seconds, bytes."""

    server: str
    size: int
    connections: int
    delay: float
    rate: float
    p50: float
    p99: float
    least: float
    cost: float  # the server's processor time for each answer, in seconds
    instructions: float | None  # and what it executed, for each answer; counted in a load of their own
    server_busy: float  # share of a core
    client_busy: float
    memory: int  # at its highest
    acknowledged: int
    handled_rate: float | None  # a second, from the first request to the last handler
    lag: float | None  # from the last acknowledgement until all was handled
    stored: int | None = None  # None where nothing is stored
    handled: int | None = None  # None where nothing handles


@dataclass(frozen=True, slots=True)
class Plan:
    """How each case is run. Units: seconds."""

    bench: Bench
    seconds: float
    client: Client = "own"
    patience: float = 60.0  # to wait for handlers after the load


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="dgreceiver-bench-", dir=options.directory) as name:
        folder = Path(name)
        _check(options, folder)
        bench = bench_in(folder, slow=any(options.fsync_delays))
        plan = Plan(bench, options.seconds, options.client, options.patience)
        cases = _cases(options, bench)
        _announce(plan, cases, options.repeats)
        try:
            results = [run_aloud(case, plan) for case in in_turns(cases, options.repeats)]
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
    add("--servers", type=_names, default=["bare", "storing", "handling", "fastapi"], help=",".join(SERVERS))
    add("--sizes", type=_sizes, default=[5_000, 150_000, 2_000_000], help="of a body, such as 5k,150k,2m")
    add("--fsync-delays", type=_numbers, default=[0.0, 1.0, 5.0, 20.0], help="milliseconds added to each fsync")
    add("--seconds", type=float, default=4.0, help="of load in a run")
    add("--repeats", type=int, default=3)
    add("--connections", type=_sizes, default=[64], help="at once, such as 1,16,64,256")
    add("--client", choices=["own", "wrk"], default="own", help="wrk cannot keep up with 2 MB bodies")
    add("--patience", type=float, default=60.0, help="seconds to wait for handlers after the load")
    add("--directory", type=Path, default=on_disk(), help="where the inboxes go, on a real disk (%(default)s)")
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


def on_disk() -> Path:
    """The usual temporary folder, or this one if that is kept in memory, where fsync costs nothing."""
    usual = Path(tempfile.gettempdir())
    return Path.cwd() if filesystem(usual) in IN_MEMORY else usual


def filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, or "unknown"."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holders = [(point, kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    return max(holders, key=lambda holder: len(holder[0]), default=("", "unknown"))[1]


def _check(options: argparse.Namespace, folder: Path) -> None:
    if options.client == "wrk" and not shutil.which("wrk"):
        sys.exit("wrk is not installed; use --client own")
    if (kind := filesystem(folder)) in IN_MEMORY:
        print(f"warning: {folder.parent} is {kind}: nothing is ever written to a disk; use --directory")
    if shutil.disk_usage(folder).free < ROOM:
        sys.exit(f"less than {ROOM >> 30} GiB are free in {folder.parent}; use --directory")


def _cases(options: argparse.Namespace, bench: Bench) -> list[list[Case]]:
    """Groups whose servers are compared with each other; a slower disk is only for those that store."""
    return [
        [Case(name, size, connections, delay) for name in options.servers if SERVERS[name].stores or not delay]
        for delay in options.fsync_delays
        if bench.shim or not delay
        for connections in options.connections
        for size in options.sizes
    ]


def in_turns(groups: list[list[Case]], repeats: int) -> Iterator[Case]:
    for group in groups:
        for _ in range(repeats):
            yield from group


def _announce(plan: Plan, groups: list[list[Case]], repeats: int) -> None:
    runs = repeats * sum(map(len, groups))
    cores = plan.bench.cores
    where = f"server on core {cores[0]}, load on core {cores[1]}" if cores else "one core for both"
    print(
        f"{runs} runs of {plan.seconds:g} s, about {runs * (plan.seconds + WARM + 3) / 60:.1f} minutes, loaded by "
        f"{'wrk' if plan.client == 'wrk' else 'a client of our own'}; {where}; "
        f"inboxes in {plan.bench.folder.parent} ({filesystem(plan.bench.folder)})",
        flush=True,
    )


def run_aloud(case: Case, plan: Plan) -> Result:
    print(f"  {_named(case)}: ", end="", flush=True)
    result = run(case, plan)
    print(f"{result.rate:,.0f}/s", flush=True)
    return result


def run(case: Case, plan: Plan) -> Result:
    """Start a server with a new inbox, load it, wait for its handlers, end it, count what it stored."""
    with plan.bench.room() as folder:
        return run_in(folder, case, plan)


def run_in(folder: Path, case: Case, plan: Plan, there: int = 0) -> Result:
    """The same in a folder with an inbox, in which `there` callbacks are."""
    server, result = SERVERS[case.server], _load(case, plan, folder)
    kept = None if server.kept is None else server.kept(folder) - there
    handled = Ends.in_folder(folder).distinct() if server.handles else None
    result = replace(result, stored=kept, handled=handled)
    _verify(result, plan)
    return result


def _load(case: Case, plan: Plan, folder: Path) -> Result:
    body, ends = SERVERS[case.server].wrapped(body_of(case.size)), Ends.in_folder(folder)
    lifetime = WARM + plan.seconds + COUNTED + 3 * (plan.patience + load.GRACE)
    with serving(case.server, plan.bench, folder, seconds=lifetime, delay=case.delay) as running:

        def loaded(seconds: float, *, run: int) -> load.Measured:
            return load.run(Load(running.port, body, case.connections, seconds, run=run), plan.client)

        try:
            warm = loaded(WARM, run=1)
            _await_handlers(case, ends, warm.acknowledged, plan.patience)
            before, began = running.cpu_seconds(), time.monotonic()
            measured = loaded(plan.seconds, run=2)
            used, wall = running.cpu_seconds() - before, measured.ended - began
            finished = _await_handlers(case, ends, warm.acknowledged + measured.acknowledged, plan.patience)
            memory = running.peak_memory()
            with running.counted() as instructions:
                counted = loaded(COUNTED, run=3)
                acknowledged = warm.acknowledged + measured.acknowledged + counted.acknowledged
                _await_handlers(case, ends, acknowledged, plan.patience)
        except LoadError as error:
            raise Failed(f"{_named(case)}: {error}\n{running.last_words()}") from error
        executed = instructions()
    return Result(
        **asdict(case),
        rate=measured.rate,
        p50=measured.p50,
        p99=measured.p99,
        least=measured.least,
        cost=used / measured.acknowledged,
        instructions=None if executed is None else executed / counted.acknowledged,
        server_busy=used / wall,
        client_busy=measured.busy,
        memory=memory,
        acknowledged=acknowledged,
        handled_rate=None if finished is None else measured.acknowledged / (finished - began),
        lag=None if finished is None else max(0.0, finished - measured.ended),
    )


def _await_handlers(case: Case, ends: Ends, acknowledged: int, seconds: float) -> float | None:
    """Wait until all was handled and nothing more is; when that was, or None if nothing handles."""
    if not SERVERS[case.server].handles:
        return None
    if not wait_until(lambda: ends.count() >= acknowledged, seconds):
        raise Failed(
            f"{_named(case)}: {ends.count():,} of {acknowledged:,} were handled {seconds:g} s after the load; "
            "use a shorter --seconds or a longer --patience"
        )
    wait_until(lambda: ends.last() < time.monotonic() - QUIET, seconds)
    return ends.last()


def _verify(result: Result, plan: Plan) -> None:
    """What was acknowledged is stored, what is stored was handled once, and nothing was answered before an fsync.

    wrk cuts its last requests off, in all loads: up to three for a connection may be stored without being counted.
    """
    spare = 3 * result.connections if plan.client == "wrk" else 0
    stored = result.stored
    if stored is not None and not result.acknowledged <= stored <= result.acknowledged + spare:
        raise Failed(f"{_named(result)}: {result.acknowledged:,} were acknowledged, but {stored:,} are stored")
    if result.handled is not None and result.handled != stored:
        raise Failed(f"{_named(result)}: {stored} are stored, but {result.handled} were handled")
    if result.least < result.delay / 1000:
        raise Failed(f"{_named(result)}: acknowledged after {result.least * 1000:.1f} ms, before any fsync")


def _named(case: Case | Result) -> str:
    slower = f", fsync +{case.delay:g} ms" if case.delay else ""
    return f"{case.server}, {_size(case.size)}, {case.connections} connections{slower}"


def _size(size: int) -> str:
    return f"{size / 1e6:g} MB" if size >= 1_000_000 else f"{size / 1e3:g} KB"


def _report(results: list[Result]) -> None:
    groups: dict[tuple[float, int, int], dict[str, list[Result]]] = {}
    for result in results:
        group = groups.setdefault((result.delay, result.connections, result.size), {})
        group.setdefault(result.server, []).append(result)
    for (delay, connections, size), servers in groups.items():
        slower = f"fsync {delay:g} ms slower" if delay else "fsync as it is"
        print(f"\n{_size(size)}, {connections} connections, {slower}")
        print(
            f"{'':13} {'requests/s':>10} {'(least–most)':>17} {'÷ bare':>7} {'÷ hand':>7} {'p50 ms':>8} {'p99 ms':>8} "
            f"{'µs each':>8} {'kinstr':>7} {'server':>7} {'load':>5} {'MiB':>5} {'handled/s':>10} {'lag s':>7}"
        )
        for name, runs in servers.items():
            print(_row(name, runs, servers))


def _row(name: str, runs: list[Result], servers: Mapping[str, list[Result]]) -> str:
    rates = [run.rate for run in runs]
    rate = median(rates)
    spread = f"({min(rates):,.0f}–{max(rates):,.0f})"
    by_bare, by_hand = (
        f"{ratio(rates, [run.rate for run in servers[other]]):.2f}" if other in servers else ""
        for other in ("bare", "fastapi")
    )
    p50, p99, cost, server, client, memory = (
        _median(runs, column) or 0.0 for column in ("p50", "p99", "cost", "server_busy", "client_busy", "memory")
    )
    handled, lag, instructions = (_median(runs, column) for column in ("handled_rate", "lag", "instructions"))
    executed = "" if instructions is None else f"{instructions / 1e3:,.0f}"
    return (
        f"{name:13} {rate:10,.0f} {spread:>17} {by_bare:>7} {by_hand:>7} {p50 * 1e3:8.2f} {p99 * 1e3:8.2f} "
        f"{cost * 1e6:8,.0f} {executed:>7} {server:7.0%} {client:5.0%} {memory / 2**20:5.0f} "
        f"{'' if handled is None else f'{handled:,.0f}':>10} {'' if lag is None else f'{lag:.2f}':>7}"
    )


def _median(runs: list[Result], column: str) -> float | None:
    values = [value for run in runs if (value := getattr(run, column)) is not None]
    return median(values) if values else None


if __name__ == "__main__":
    sys.exit(main())
