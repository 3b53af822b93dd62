"""A burst by the clock: so many callbacks a second, whatever becomes of those before, while a handler runs."""

from __future__ import annotations

from dataclasses import dataclass

import load
from bodies import body_of
from ends import Ends
from load import Load
from running import Bench, Failed, serving, wait_until
from servers import kept_by_us

PATIENCE = 180.0  # seconds until all must be handled
AHEAD = 16  # connections at the beginning


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of it. Units: bytes, seconds. A callback is timed from the instant at which it was due."""

    rate: float
    seconds: float
    size: int
    sent: int
    refused: int
    p50: float
    p99: float
    most: float
    idle_memory: int
    peak_memory: int
    backlog: int  # acknowledged and not yet handled when the last answer came
    lag: float  # from the last answer until all was handled
    handled: int


def measure(bench: Bench, rate: float, seconds: float, size: int) -> Burst:
    body = body_of(size)
    with bench.room() as folder:
        ends = Ends.in_folder(folder)
        with serving("handling", bench, folder, seconds=seconds + load.GRACE + PATIENCE) as running:
            idle = running.memory()
            measured = load.run(Load(running.port, body, AHEAD, seconds, run=1, rate=rate, refusable=True), "own")
            behind = measured.acknowledged - ends.count()
            if not wait_until(lambda: ends.count() >= measured.acknowledged, PATIENCE):
                raise Failed(f"{ends.count()} of {measured.acknowledged} were handled {PATIENCE:g} s after the burst")
            peak = running.peak_memory()
        kept = kept_by_us(folder)
        if not measured.acknowledged == kept == ends.distinct():
            raise Failed(f"{measured.acknowledged} acknowledged, {kept} stored, {ends.distinct()} handled")
        return Burst(
            rate=rate,
            seconds=seconds,
            size=len(body),
            sent=measured.acknowledged + measured.refused,
            refused=measured.refused,
            p50=measured.p50,
            p99=measured.p99,
            most=measured.most,
            idle_memory=idle,
            peak_memory=peak,
            backlog=behind,
            lag=max(0.0, ends.last() - measured.ended),
            handled=ends.distinct(),
        )
