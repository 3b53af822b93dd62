"""What the middleware costs the app's own routes.

    python benchmarks/overhead.py --apps starlette,fastapi --rounds 30

An app with CallbackMiddleware and the same without are up at once, on one core, and asked in turns; prints what an
answer costs in processor time, the median of each, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import load
from bodies import body_of
from ingest import Case, Plan, server_of
from load import Load

SIZE = 500  # bytes of a body, which nobody reads
WARM = 0.5  # seconds
CONNECTIONS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", default="starlette,fastapi")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.3, help="of load in a round, for each of the two")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    for app in options.apps.split(","):
        without, beside = compared(app, options.rounds, options.seconds, (cores[0], cores[-1]))
        print(f"{app}: {without:.1f} µs alone, {beside:.1f} µs with the middleware, ratio {beside / without:.3f}")


def compared(app: str, rounds: int, seconds: float, cores: tuple[int, int]) -> list[float]:
    """What an answer costs without the middleware and with it, as medians. Units: microseconds."""
    with tempfile.TemporaryDirectory(prefix="dgreceiver-bench-") as name, ExitStack() as stack:
        plan = Plan(seconds * rounds * 4, CONNECTIONS, "own", cores, Path(name), shim=None, patience=0.0)
        ups = [stack.enter_context(server_of(Case(each, SIZE, 0.0), plan, plan.folder)) for each in (app, f"{app}+")]
        for process, port in ups:
            cost(process.pid, port, WARM)
        turns = [[cost(process.pid, port, seconds) for process, port in ups] for _ in range(rounds)]
    return [median(costs) for costs in zip(*turns, strict=True)]


def cost(pid: int, port: int, seconds: float) -> float:
    """The processor time of the server's loop for one answer. Units: microseconds."""
    before = on_processor(pid)
    answers = load.run(Load(port, body_of(SIZE), CONNECTIONS, seconds, run=1), "own").acknowledged
    return (on_processor(pid) - before) / answers / 1000


def on_processor(pid: int) -> int:
    """How long a process's first thread has run. Units: nanoseconds. Source: Linux, proc(5), schedstat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


if __name__ == "__main__":
    main()
