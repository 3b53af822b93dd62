"""Whether it becomes slower the more is stored: ingest and dispatch beside so many callbacks that wait."""

from __future__ import annotations

from dataclasses import dataclass

import backlog
import ingest
from ingest import Case, Plan
from running import serving

SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Grown:
    """One size of the backlog. Units: bytes, a second; processor seconds for each callback."""

    rows: int
    file: int
    ingest_rate: float
    ingest_cost: float
    dispatch_rate: float  # of those and what came beside them
    dispatch_cost: float


def measure(plan: Plan, rows: int) -> Grown:
    with plan.bench.room() as folder:
        inbox = folder / "inbox.db"
        backlog.fill(inbox, backlog.recorded(SIZE), min(rows, 1))
        if rows > 1:
            backlog.multiply(inbox, rows)
        file = inbox.stat().st_size
        stored = ingest.run_in(folder, Case("storing", SIZE, 64, 0.0), plan, rows)
        with serving("handling", plan.bench, folder, seconds=plan.seconds) as running:
            rate, cost = backlog.work_off(running, folder, rows + stored.acknowledged, plan.seconds)
    return Grown(rows, file, stored.rate, stored.cost, rate, cost)
