"""What the emulator was asked for, what it sent, and what it was answered. No credential and no content is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256

from .payloads import Payload
from .target import REDIRECTED


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to the receiver; `status` is None if there was no answer, and then `note` says why."""

    at: datetime  # by the emulator's clock
    status: int | None
    note: str = ""

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A callback, attempted until it was acknowledged or given up."""

    kind: str
    digest: str  # SHA-256 of the body, in hex
    size: int  # bytes
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def acknowledged(self) -> bool:
        return any(attempt.acknowledged for attempt in self.attempts)

    def note(self, at: datetime, status: int | None, note: str = "") -> Attempt:
        """Note an attempt; a redirect is explained."""
        said = REDIRECTED if status is not None and 300 <= status < 400 else note
        self.attempts.append(Attempt(at, status, said))
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that was taken; without `callback` it was answered with the result itself."""

    request_id: str
    path: str
    created: datetime  # by the emulator's clock
    kind: str
    method: str  # of the callback
    callback: str | None  # without credentials and query
    fault: str | None
    callbacks: list[Outgoing] = field(default_factory=list)

    @property
    def acknowledged(self) -> bool:
        """Whether all that was called back was acknowledged."""
        return bool(self.callbacks) and all(outgoing.acknowledged for outgoing in self.callbacks)

    def outcome(self) -> dict[str, int | str]:
        """How calling back went, as Deepgram tells it: `{attempts, code?, completed?}`."""
        attempts = [attempt for outgoing in self.callbacks for attempt in outgoing.attempts]
        codes = [attempt.status for attempt in attempts if attempt.status is not None]
        good = [attempt.at.isoformat() for attempt in attempts if attempt.acknowledged]
        told: dict[str, int | str] = {"attempts": len(attempts)}
        return told | ({"code": codes[-1]} if codes else {}) | ({"completed": good[0]} if good else {})

    def send(self, payload: Payload) -> Outgoing:
        """Note that a callback begins."""
        self.callbacks.append(Outgoing(payload.kind, sha256(payload.body).hexdigest(), len(payload.body)))
        return self.callbacks[-1]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused; `reason` is more than the submitter was told."""

    at: datetime
    path: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """All of it, in order; what is in it grows with what happens."""

    submissions: list[Submission] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def of(self, request_id: str) -> Submission | None:
        """The submission of this id."""
        return next((each for each in self.submissions if each.request_id == request_id), None)

    @property
    def callbacks(self) -> Sequence[Outgoing]:
        """All that was called back."""
        return [outgoing for submission in self.submissions for outgoing in submission.callbacks]

    @property
    def acknowledged(self) -> Sequence[Outgoing]:
        """All that was answered with 2xx, and the answer heard."""
        return [outgoing for outgoing in self.callbacks if outgoing.acknowledged]

    def json(self) -> str:
        """The record as a JSON object; times are ISO 8601."""
        return json.dumps(asdict(self), default=datetime.isoformat)
