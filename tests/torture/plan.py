"""What is to become of each callback and handler, and which fault strikes when: decided by the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dgreceiver import BasicAuth, SignedAuth

from ..support import PASSWORD, USER

KEY = "fake-signing-key-of-thirty-two-characters"
AUTH = SignedAuth(KEY) | BasicAuth(USER, PASSWORD)
ATTEMPTS = 5  # runs of a handler before its delivery is dead
TIMEOUT = 2.0  # seconds, of the handlers that may hang
STUBBORN = "stubborn"  # the scope of a stream whose handlers end neither soon nor when they are cancelled
FIRST = b'"torture":"first"'  # in the message of it that is handled for long

How = Literal["succeed", "raise", "retry", "bury", "die", "hang"]
HOWS: dict[How, int] = {"succeed": 80, "raise": 8, "retry": 4, "bury": 3, "die": 2, "hang": 3}


@dataclass(frozen=True, slots=True)
class Plan:
    """What one handler does with one callback."""

    how: How
    times: int = 1  # that it goes wrong
    seconds: float = 0.0  # that it takes

    def goes_wrong(self, attempt: int) -> bool:
        return self.how == "die" or (self.how in ("raise", "retry", "hang") and attempt <= self.times)


def plan_of(seed: int, about: str, handler: str) -> Plan:
    """Most handlers are quick; some take a while, so that something is always in the middle of it."""
    if about.startswith(STUBBORN):
        return Plan("succeed", seconds=0.05)
    dice = random.Random(f"{seed}:{about}:{handler}")
    how = dice.choices(list(HOWS), list(HOWS.values()))[0]
    if how == "hang" and handler == "save":  # it has no time-out of its own
        how = "succeed"
    seconds = dice.uniform(0.0, 0.4) if dice.random() < 0.1 else dice.choice((0.0, 0.002))
    return Plan(how, times=dice.choice((1, 1, 2)), seconds=seconds)


Kind = Literal[
    "kill",
    "kill all",
    "freeze",
    "stop",
    "hand over",
    "clock",
    "disk full",
    "disk failing",
    "syncs failing",
    "disk slow",
    "power cut",
    "power cut while writing",
]


@dataclass(frozen=True, slots=True)
class Act:
    """One fault, and the pause after it."""

    kind: Kind
    roll: float  # from 0 to 1: which process, how far, how long
    pause: float  # seconds


BEGINNING: tuple[Kind, ...] = ("hand over", "clock", "disk slow")  # nobody dies until the hand-over is over
LEAST: tuple[Kind, ...] = (*BEGINNING, "power cut", "disk failing", "kill")  # of every run
REST: tuple[Kind, ...] = (
    "stop",
    "freeze",
    "disk full",
    "kill all",
    "syncs failing",
    "power cut while writing",
)
EVERY: tuple[Kind, ...] = (*LEAST, *REST)


def schedule(seed: int) -> Iterator[Act]:
    """The faults, without end: first each of them once, then as the dice fall."""
    dice = random.Random(f"{seed}:schedule")
    for kind in (*LEAST, *dice.sample(REST, len(REST))):
        yield _act(kind, dice)
    again = (*EVERY[1:], "clock", "kill")  # a process hands over once
    while True:
        for kind in dice.sample(again, len(again)):
            yield _act(kind, dice)


def _act(kind: Kind, dice: random.Random) -> Act:
    return Act(kind, dice.random(), dice.uniform(0.1, 0.8))
