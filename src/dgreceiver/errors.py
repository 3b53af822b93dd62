"""Everything that can go wrong: who erred is the class, what to answer is an attribute.

DgreceiverError
├── SetupError            the developer: a setting, a handler or a call that cannot work
├── Refused               the sender: the request is not taken
│   ├── Unauthorized          401
│   ├── MethodNotAllowed      405
│   ├── TooSlow               408
│   ├── TooLarge              413
│   ├── Encoded               415
│   ├── Empty                 400
│   ├── Disconnected          400 (nobody is left to read it)
│   ├── Busy                  503
│   ├── Unfinished            503 (it is stored; the sender is to ask again)
│   └── NoWebSocket           501
├── InboxError            the store: it cannot keep a callback now
│   └── SpoolFull             nor can what came over a WebSocket be put aside any more
└── Verdict               a handler: what is to become of its delivery
    ├── Retry
    └── Bury
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar


class DgreceiverError(Exception):
    """The root of all errors of this package. `status` answers HTTP, `close_code` a WebSocket."""

    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011


class SetupError(DgreceiverError):
    """Something that the developer wrote cannot work; the message says what to write instead."""


class Refused(DgreceiverError):
    """The request is not taken; the reason is for the log, the sender gets the status alone."""

    status = 400
    close_code = 1008


class Unauthorized(Refused):
    """It is not Deepgram, or not for us."""

    status = 401


class MethodNotAllowed(Refused):
    """Deepgram calls with POST or PUT."""

    status = 405


class TooSlow(Refused):
    """The body stalled, or took too long as a whole."""

    status = 408


class TooLarge(Refused):
    """The body is over the limit, by what it declares or by what came."""

    status = 413
    close_code = 1009


class Encoded(Refused):
    """The body is compressed; Deepgram sends it plain."""

    status = 415


class Empty(Refused):
    """There is no body: something before us read or redirected it."""


class Disconnected(Refused):
    """The sender left before its body was whole."""


class Busy(Refused):
    """There is no room for the body now; a retry will find some."""

    status = 503
    close_code = 1013


class Unfinished(Refused):
    """The callback is stored, but has not been handled yet; a retry asks again."""

    status = 503
    close_code = 1013


class NoWebSocket(Refused):
    """The server passed a WebSocket's handshake on as a plain request."""

    status = 501


class InboxError(DgreceiverError):
    """The inbox could not store or change anything now; what was acknowledged before is safe."""

    status = 503


class SpoolFull(InboxError):
    """A live stream can be kept nowhere: the inbox does not store, and there is no more room beside it."""


class Verdict(DgreceiverError):
    """Raised by a handler to decide about its delivery; not a failure of ours."""


class Retry(Verdict):
    """Try this handler again, `after` a while or by the policy; counts as an attempt.

    Units: a float is seconds.
    """

    def __init__(self, after: timedelta | float | None = None) -> None:
        super().__init__("the handler asked for another try")
        self.after = after.total_seconds() if isinstance(after, timedelta) else after


class Bury(Verdict):
    """Give this delivery up now; it is kept as dead and can be replayed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
