"""All that is measured, in one run: `python benchmarks`, or `scripts/bench`, which sees to what it needs.

scripts/bench                              # about ten minutes; writes results.json and docs/benchmarks.md
scripts/bench --quick --only burst,live    # short, and writes nothing but what it found to the terminal
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import backlog
import burst
import growth
import ingest
import live
import memory
import proof
import render
from ingest import Case, Plan
from load import LoadError
from running import Bench, Failed, bench_in
from servers import SERVERS

PACKAGES = (
    "uvicorn uvloop httptools starlette sqlalchemy pydantic msgspec fastapi aiosqlite flask django gunicorn celery"
)
OURS = ["bare", "storing", "handling"]
BESIDE = [
    *("bare", "storing", "plain", "handling"),
    *("fastapi", "flask", "flask-sync", "django", "celery", "celery-always", "bolt"),
]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured. Units: seconds, bytes."""

    seconds: float
    repeats: int
    connections: Sequence[int]
    sizes: Sequence[int]
    dispatch: float  # times the numbers of callbacks below
    sockets: Sequence[tuple[int, float | None]]
    rows: Sequence[int]
    bodies: Sequence[tuple[int, int, int]]  # of them all, at once, bytes
    burst: float


FULL = Extent(
    seconds=1.5,
    repeats=3,
    connections=(1, 16, 64, 256),
    sizes=(5_000, 150_000, 2_000_000),
    dispatch=1.0,
    sockets=((1, 10), (50, 10), (500, 2), (50, None)),
    rows=(0, 10_000, 100_000),
    bodies=((40, 20, 20_000_000), (200, 200, 20_000_000)),
    burst=30.0,
)
QUICK = Extent(
    seconds=0.5,
    repeats=1,
    connections=(1, 64),
    sizes=(5_000,),
    dispatch=0.1,
    sockets=((50, 10),),
    rows=(0, 10_000),
    bodies=((20, 20, 5_000_000),),
    burst=3.0,
)
USUAL = 64  # connections
DISPATCHED = (
    ("Transcript", 5_000, "handling", 10_000),
    ("Transcript", 5_000, "in-threads", 10_000),
    ("Transcript", 150_000, "handling", 1_000),
    ("Transcript", 150_000, "in-threads", 1_000),
    ("Transcript", 2_000_000, "handling", 80),
    ("Audio", 150_000, "handling", 2_000),
    ("LiveResult", 1_500, "handling", 10_000),
)

Runs = Iterator[Callable[[], Any]]


def measure_ingest(bench: Bench, extent: Extent) -> Runs:
    for connections in extent.connections:
        repeats = extent.repeats if connections == USUAL else 1
        groups = [[Case(name, size, connections, 0.0) for name in OURS] for size in extent.sizes]
        for case in ingest.in_turns(groups, repeats):
            yield partial(ingest.run, case, Plan(bench, extent.seconds))


def measure_beside(bench: Bench, extent: Extent) -> Runs:
    groups = [[Case(name, size, USUAL, 0.0) for name in _there()] for size in extent.sizes[:2]]
    for case in ingest.in_turns(groups, extent.repeats):
        yield partial(ingest.run, case, Plan(bench, extent.seconds, patience=120.0))


def measure_proof(bench: Bench, extent: Extent) -> Runs:
    yield from (partial(proof.prove, bench, name) for name in _there())


def measure_dispatch(bench: Bench, extent: Extent) -> Runs:
    for kind, size, server, count in DISPATCHED:
        callbacks = max(20, round(count * extent.dispatch))
        yield partial(backlog.measure, bench, kind, size, server, callbacks, patience=60.0)


def measure_live(bench: Bench, extent: Extent) -> Runs:
    for sockets, each in extent.sockets:
        seconds = 4 * extent.seconds if each else extent.seconds  # what the kernel took must still be stored
        yield partial(live.measure, bench, sockets, each, seconds)


def measure_memory(bench: Bench, extent: Extent) -> Runs:
    yield from (partial(memory.measure, bench, *bodies) for bodies in extent.bodies)


def measure_growth(bench: Bench, extent: Extent) -> Runs:
    yield from (partial(growth.measure, Plan(bench, 2 * extent.seconds), rows) for rows in extent.rows)


def measure_burst(bench: Bench, extent: Extent) -> Runs:
    yield partial(burst.measure, bench, 100.0, extent.burst, 1_000_000)


SECTIONS: dict[str, Callable[[Bench, Extent], Runs]] = {
    "ingest": measure_ingest,
    "beside": measure_beside,
    "proof": measure_proof,
    "burst": measure_burst,
    "dispatch": measure_dispatch,
    "live": measure_live,
    "memory": measure_memory,
    "growth": measure_growth,
}


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results: dict[str, Any]
    began, results = time.monotonic(), {"run": _circumstances(quick=options.quick)}
    with tempfile.TemporaryDirectory(prefix="dgreceiver-bench-", dir=ingest.on_disk()) as name:
        folder = Path(name)
        results["run"]["file_system"] = ingest.filesystem(folder)
        bench = bench_in(folder, slow=True)
        for section in options.only:
            print(f"{section} ...", file=sys.stderr, flush=True)
            runs = SECTIONS[section](bench, QUICK if options.quick else FULL)
            results[section], failed = _collect(runs)
            results["run"]["failed"] += [f"{section}: {reason}" for reason in failed]
    print(f"measured in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.quick or options.only != list(SECTIONS):
        print(render.page(results))
    else:
        render.RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        render.write(results)
    for reason in results["run"]["failed"]:
        print(f"failed: {reason}", file=sys.stderr)
    return bool(results["run"]["failed"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute or two; the figures are rough")
    parser.add_argument("--only", type=_names, default=list(SECTIONS), help=",".join(SECTIONS))
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"nothing is called {unknown[0]}; there are {', '.join(SECTIONS)}")
    return names


def _collect(runs: Runs) -> tuple[list[dict[str, Any]], list[str]]:
    """What was measured, and why it was not all."""
    found: list[dict[str, Any]] = []
    failed: list[str] = []
    for run in runs:
        try:
            record = run()
        except Exception as error:  # whatever it was, the others are measured all the same
            traceback.print_exc()
            ours = isinstance(error, Failed | LoadError)  # any other may name a path
            failed.append(str(error).partition("\n")[0] if ours else type(error).__name__)
        else:
            print(f"  {record}", file=sys.stderr, flush=True)
            found.append({name: _rounded(value) for name, value in asdict(record).items()})
    return found, failed


def _rounded(value: Any) -> Any:
    """Four digits tell as much as there is to tell."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _there() -> list[str]:
    return [name for name in BESIDE if not (needs := SERVERS[name].needs) or shutil.which(needs)]


def _circumstances(*, quick: bool) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "load": _rounded(os.getloadavg()[0]),
        "python": platform.python_version(),
        "versions": {"sqlite": sqlite3.sqlite_version} | {name: version(name) for name in PACKAGES.split()},
        "missing": {name: SERVERS[name].needs for name in BESIDE if name not in _there()},
        "failed": [],
    }


def _processor() -> str:
    """The processor's name. Source: proc(5), cpuinfo."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
