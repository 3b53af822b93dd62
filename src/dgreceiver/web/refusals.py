"""What was refused of late: time, status, reason and peer; no body and no header."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

KEPT = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not taken."""

    at: datetime  # aware, UTC
    status: int
    reason: str
    peer: str | None


class Refusals:
    """The last refusals of this process, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Refusal] = deque(maxlen=KEPT)

    def add(self, refusal: Refusal) -> None:
        self._kept.append(refusal)

    def __iter__(self) -> Iterator[Refusal]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)
