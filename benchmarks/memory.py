"""What a receiver with a handler has in memory: at rest, and while large bodies come, all of them at once."""

from __future__ import annotations

from dataclasses import dataclass

import load
from bodies import body_of
from load import Load
from running import Bench, serving

PATIENCE = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class Held:
    """Units: bytes, seconds."""

    bodies: int
    size: int
    acknowledged: int
    refused: int  # told to come again
    seconds: float  # until the last answer
    idle_memory: int
    peak_memory: int


def measure(bench: Bench, bodies: int, size: int) -> Held:
    """Send so many bodies, each on a connection of its own; who is refused does not come again."""
    body = body_of(size)
    with bench.room() as folder, serving("handling", bench, folder, seconds=PATIENCE) as running:
        idle = running.memory()
        sent = Load(running.port, body, bodies, 0.0, run=1, refusable=True)
        measured = load.run(sent, "own")
        held = Held(
            bodies=bodies,
            size=len(body),
            acknowledged=measured.acknowledged,
            refused=measured.refused,
            seconds=measured.acknowledged / measured.rate,
            idle_memory=idle,
            peak_memory=running.peak_memory(),
        )
        running.kill()  # what its handlers have still to do is not waited for
    return held
