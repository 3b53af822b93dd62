"""Whether it becomes slower the more is stored: ingest and dispatch beside so many callbacks that wait."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import backlog
import ingest
from ingest import Case, Plan
from running import serving

SIZE = 5_000


@dataclass(frozen=True, slots=True)
class Grown:
    """One size of the backlog. Units: bytes, a second; processor seconds for each callback."""

    rows: int
    file: int
    ingest_rate: float
    ingest_cost: float
    dispatch_rate: float | None  # None without a backlog
    dispatch_cost: float | None


def measure(plan: Plan, rows: int) -> Grown:
    with plan.bench.room() as folder:
        inbox = folder / "full.db"
        backlog.fill(inbox, backlog.recorded(SIZE), min(rows, 1))
        if rows > 1:
            backlog.multiply(inbox, rows)
        file = inbox.stat().st_size
        stored = ingest.run(Case("storing", SIZE, 64, 0.0), plan, inbox, rows)
        rate, cost = _work_off(plan, inbox, rows) if rows else (None, None)
    return Grown(rows, file, stored.rate, stored.cost, rate, cost)


def _work_off(plan: Plan, inbox: Path, rows: int) -> tuple[float, float]:
    with plan.bench.room() as folder:
        shutil.move(inbox, folder / "inbox.db")
        with serving("handling", plan.bench, folder, seconds=plan.seconds) as running:
            return backlog.work_off(running, folder, rows, plan.seconds)
