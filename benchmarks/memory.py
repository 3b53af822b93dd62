"""What a receiver with a handler has in memory: at rest, and while large bodies come."""

from __future__ import annotations

import time
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
    at_once: int
    size: int
    acknowledged: int
    refused: int  # told to come again
    seconds: float  # until the last answer
    idle_memory: int
    peak_memory: int


def measure(bench: Bench, bodies: int, at_once: int, size: int) -> Held:
    """Send so many bodies, so many at once, each on a connection of its own; who is refused does not come again."""
    body = body_of(size)
    with bench.room() as folder, serving("handling", bench, folder, seconds=PATIENCE) as running:
        idle, began = running.memory(), time.monotonic()
        loads = [Load(running.port, body, at_once, 0.0, run, refusable=True) for run in range(bodies // at_once)]
        measured = [load.run(each, "own") for each in loads]
        held = Held(
            bodies=bodies,
            at_once=at_once,
            size=len(body),
            acknowledged=sum(each.acknowledged for each in measured),
            refused=sum(each.refused for each in measured),
            seconds=measured[-1].ended - began,
            idle_memory=idle,
            peak_memory=running.peak_memory(),
        )
        running.kill()  # what its handlers have still to do is not waited for
    return held
