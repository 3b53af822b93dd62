"""What happened, as frozen records. Nothing secret is in any of them: no transcript, audio, credential or token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class InboxOpened(Fact):
    """The inbox is ready; `location` is where, in full, and `caveat` what is doubtful about the place."""

    location: str
    caveat: str | None = None


@dataclass(frozen=True, slots=True)
class InboxFailed(Fact):
    """A batch could not be stored; its senders were told to come again."""

    error: str
    waiting: int  # how many callers heard of it


@dataclass(frozen=True, slots=True)
class DispatchTaken(Fact):
    """This process dispatches now; `recovered` deliveries were lost with the one before."""

    receiver: str
    recovered: int


@dataclass(frozen=True, slots=True)
class StartedLate(Fact):
    """The receiver started on its first request, because nobody ran its lifespan."""


@dataclass(frozen=True, slots=True)
class SetupDoubtful(Fact):
    """A setting works, but not as well as it looks."""

    advice: str


@dataclass(frozen=True, slots=True)
class CallbackStored(Fact):
    """A callback was stored, or recognised, and acknowledged."""

    outcome: Literal["stored", "duplicate", "conflict"]
    kind: str
    request_id: str | None
    key: str
    size: int  # bytes
    admitted_by: int  # the number of the credential, from the left, from 1


@dataclass(frozen=True, slots=True)
class CallbackRefused(Fact):
    """A request was answered with something other than 200."""

    status: int
    reason: str
    peer: str | None


@dataclass(frozen=True, slots=True)
class WeakIdentity(Fact):
    """The same bytes came again over ten minutes later, with nothing to tell a retry: taken as new."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class URLReused(Fact):
    """A signed URL carries a second request; each job is better off with its own."""

    job: str


@dataclass(frozen=True, slots=True)
class HandlerSucceeded(Fact):
    handler: str
    kind: str
    request_id: str | None
    key: str
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerFailed(Fact):
    """A handler ended badly; `wait` seconds until it is tried again, None if never."""

    handler: str
    kind: str
    request_id: str | None
    key: str
    attempt: int
    error: str
    wait: float | None
    exception: BaseException | None = None  # the user's own; for its traceback


@dataclass(frozen=True, slots=True)
class HandlerAbandoned(Fact):
    """A handler in a thread outlived its timeout; the thread is left to itself and replaced."""

    handler: str
    key: str
    timeout: float  # seconds


@dataclass(frozen=True, slots=True)
class DeliveryBuried(Fact):
    """A delivery was given up; it is kept as dead."""

    kind: str
    request_id: str | None
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryUnhandled(Fact):
    """Nobody wants this event; it is kept. `paste` is a handler for it; `first` of its kind in this process."""

    kind: str
    request_id: str | None
    key: str
    paste: str
    first: bool


@dataclass(frozen=True, slots=True)
class WebSocketDenied(Fact):
    """A WebSocket was refused before it was accepted."""

    peer: str | None


Hook = Callable[[Fact], None]
