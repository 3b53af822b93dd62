"""What happened, as frozen records. Nothing secret is in any of them: no transcript, audio, credential or token.

Structs rather than dataclasses: there are many of them, and several are made for each callback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class Fact(msgspec.Struct, frozen=True):
    """Something that happened."""


class InboxOpened(Fact, frozen=True):
    """The inbox is ready; `location` is where, in full, and `caveat` what is doubtful about the place."""

    location: str
    caveat: str | None = None


class InboxFailed(Fact, frozen=True):
    """A batch could not be stored; its senders were told to come again."""

    error: str
    waiting: int  # how many callers heard of it


class DispatchTaken(Fact, frozen=True):
    """This process dispatches now; `recovered` deliveries were lost with the one before."""

    receiver: str
    recovered: int


class StartedLate(Fact, frozen=True):
    """The receiver started on its first request, because nobody ran its lifespan."""


class SetupDoubtful(Fact, frozen=True):
    """A setting works, but not as well as it looks."""

    advice: str


class CallbackStored(Fact, frozen=True, gc=False):
    """A callback was stored, or recognised, and acknowledged."""

    outcome: Literal["stored", "duplicate", "conflict"]
    kind: str
    request_id: str | None
    key: str
    size: int  # bytes
    admitted_by: int  # the number of the credential, from the left, from 1


class CallbackRefused(Fact, frozen=True):
    """A request was answered with something other than 200."""

    status: int
    reason: str
    peer: str | None


class WeakIdentity(Fact, frozen=True):
    """The same bytes came again over ten minutes later, with nothing to tell a retry: taken as new."""

    kind: str
    key: str


class URLReused(Fact, frozen=True):
    """A signed URL carries a second request; each job is better off with its own."""

    job: str


class HandlerSucceeded(Fact, frozen=True, gc=False):
    handler: str
    kind: str
    request_id: str | None
    key: str
    attempt: int
    seconds: float


class HandlerFailed(Fact, frozen=True):
    """A handler ended badly; `wait` seconds until it is tried again, None if never."""

    handler: str
    kind: str
    request_id: str | None
    key: str
    attempt: int
    error: str
    wait: float | None
    exception: BaseException | None = None  # the user's own, for its traceback; none for a Retry or a Bury


class HandlerAbandoned(Fact, frozen=True):
    """A handler in a thread outlived its timeout; the thread is left to itself and replaced."""

    handler: str
    key: str
    timeout: float  # seconds


class DeliveryBuried(Fact, frozen=True):
    """A delivery was given up; it is kept as dead."""

    kind: str
    request_id: str | None
    key: str
    reason: str


class DeliveryUnhandled(Fact, frozen=True):
    """Nobody wants this event; it is kept. `paste` is a handler for it.

    `hint` if somebody should be told: it is the first of its kind in this process, and no message of a live stream
    whose LiveTranscript is handled.
    """

    kind: str
    request_id: str | None
    key: str
    paste: str
    hint: bool


class LiveStreamBegun(Fact, frozen=True):
    """A WebSocket was accepted; `stream` is the lane of all that comes over it."""

    stream: str
    peer: str | None
    admitted_by: int  # the number of the credential, from the left, from 1


class LiveStreamSpooling(Fact, frozen=True):
    """The inbox cannot keep up with a live stream, so what comes is put aside on disk until it can."""

    stream: str


class LiveStreamCut(Fact, frozen=True):
    """A live stream was closed by us, because nothing more of it could be kept anywhere."""

    stream: str
    reason: str


class LiveStreamEnded(Fact, frozen=True):
    """A WebSocket has closed, and all that came over it is stored, but for what is missing from `stored`."""

    stream: str
    frames: int  # that came
    stored: int
    seconds: float
    code: int  # with which it was closed: 1000 is in order, 1005 or 1006 if the peer said nothing


Hook = Callable[[Fact], None]
