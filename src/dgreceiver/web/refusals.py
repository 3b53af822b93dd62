"""What was refused of late: time, status, reason and peer; no body and no header."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from starlette.types import Scope

from ..errors import DgreceiverError
from ..facts import CallbackRefused, Hook

KEPT = 200
ADDRESS = re.compile(r"[\w.:%\[\]-]{1,64}", re.ASCII)


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


def refuse(refusals: Refusals, scope: Scope, error: DgreceiverError, *, emit: Hook, at: datetime) -> None:
    """Note that a request is not taken, where people look for the reason."""
    peer = peer_of(scope)
    refusals.add(Refusal(at, error.status, str(error), peer))
    emit(CallbackRefused(error.status, str(error), peer))


def peer_of(scope: Scope) -> str | None:
    """The address that called, if the server knows it: behind a proxy, what a header says, so it may be anything."""
    client = scope.get("client")
    return client[0] if client and ADDRESS.fullmatch(client[0]) else None
