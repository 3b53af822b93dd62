"""What can go wrong between Deepgram and a receiver, on demand.

A callback that is sent in a broken way is broken at the first attempt only, so that the retry gets through. In a live
stream a fault strikes one message: the first final result, unless it says otherwise.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat

from ..errors import SetupError
from . import wire
from .ids import new_request_id
from .payloads import Payload, failure, live_error
from .wire import Way

COPIES = 3  # that are sent at once
LATE = 60.0  # seconds of Deepgram's time
SILENCE = 300.0  # likewise
NOISE = b'{"\xff\xfe'  # neither JSON nor text

Chains = Sequence[Sequence[Payload]]


def _once(payload: Payload, request_id: str) -> Chains:
    return [[payload]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which a callback goes wrong."""

    means: str
    # What is sent in place of a payload: chains side by side, of each chain one callback after the other.
    chains: Callable[[Payload, str], Chains] = _once
    way: Way = wire.whole  # of each callback's first attempt
    delay: float = 0.0  # seconds of Deepgram's time before anything is sent
    # Of live streams alone:
    strikes: str = "LiveResult"  # the kind of the message
    overtaken: bool = False  # by the next message
    blocks: bool = False  # what comes behind it waits too

    def hits(self, payload: Payload) -> bool:
        """Whether it strikes this message of a live stream, if none before."""
        return payload.kind == self.strikes and b'"is_final":false' not in payload.body


def _instead(make: Callable[[Payload, str], Payload]) -> Callable[[Payload, str], Chains]:
    return lambda payload, request_id: [[make(payload, request_id)]]


def _cut(payload: Payload, _: str) -> Payload:
    return Payload(payload.body[: len(payload.body) // 2], payload.headers, "Unknown")


def _nothing(_: Payload, __: str) -> Chains:
    return []


def _behind_noise(payload: Payload, _: str) -> Chains:
    return [[Payload(NOISE, {"content-type": "application/json"}, "Unknown"), payload]]


def _not_at_the_end(payload: Payload, _: str) -> Chains:
    return [] if payload.kind == "StreamMetadata" else [[payload]]


def _renamed(payload: Payload, request_id: str) -> Payload:
    """The payload under an id that nobody was told."""
    other = new_request_id(datetime.now(UTC))
    headers = {name: value.replace(request_id, other) for name, value in payload.headers.items()}
    return Payload(payload.body.replace(request_id.encode(), other.encode()), headers, payload.kind)


def _changed(payload: Payload) -> Payload:
    """Another body under the same id."""
    if payload.kind == "Audio":
        return Payload(payload.body + bytes(2), payload.headers, payload.kind)
    changed = json.dumps({**json.loads(payload.body), "changed": True})
    return Payload(changed.encode(), payload.headers, payload.kind)


def _as_error(payload: Payload, request_id: str) -> Payload:
    return live_error() if payload.kind == "LiveResult" else failure(request_id=request_id)


def _as_error_code(_: Payload, request_id: str) -> Payload:
    return _json(error_code="Service Unavailable", err_msg="Please try again later", request_id=request_id)


def _as_category(_: Payload, request_id: str) -> Payload:
    return _json(
        category="INTERNAL_SERVER_ERROR",
        message="The request could not be served.",
        details="none",
        request_id=request_id,
    )


def _as_text(_: Payload, __: str) -> Payload:
    return Payload(b"Internal Server Error", {"content-type": "text/plain"}, "Unknown")


def _json(**fields: str) -> Payload:
    return Payload(json.dumps(fields).encode(), {"content-type": "application/json"}, "Failure")


SOUND = Fault("nothing goes wrong")

FAULTS: Mapping[str, Fault] = {
    "lost-answer": Fault("the receiver answers, and the answer is lost", way=wire.unheard),
    "duplicate": Fault("sent again after it was acknowledged", chains=lambda payload, _: [[payload, payload]]),
    "concurrent": Fault(f"sent {COPIES} times at once", chains=lambda payload, _: [[payload]] * COPIES),
    "late": Fault(f"comes {LATE:.0f} s late", delay=LATE),
    "slow": Fault("the body comes in pieces, over five seconds", way=wire.slowly),
    "chunked": Fault("the body comes in chunks, of no declared length", way=wire.chunked),
    "reset": Fault("the connection is reset in the middle of the body", way=wire.reset),
    "empty": Fault("the body is missing", way=wire.empty),
    "broken-json": Fault("the second half of the body is missing, and no retry brings it", chains=_instead(_cut)),
    "error": Fault("a failure instead: err_code, err_msg", chains=_instead(_as_error)),
    "error-code": Fault("a failure instead: error_code, err_msg", chains=_instead(_as_error_code)),
    "error-category": Fault("a failure instead: category, message, details", chains=_instead(_as_category)),
    "error-text": Fault("a failure instead: plain text", chains=_instead(_as_text)),
    "unknown-id": Fault("the result has an id that nobody was told", chains=_instead(_renamed)),
    "conflict": Fault(
        "another body follows under the same id", chains=lambda payload, _: [[payload, _changed(payload)]]
    ),
    "drop": Fault("it never comes", chains=_nothing),
    "bad-frame": Fault("something unreadable comes before it", chains=_behind_noise),
    "silence": Fault(f"nothing comes for {SILENCE:.0f} s", delay=SILENCE, blocks=True),
    "reorder": Fault("live: it comes after the message that follows it", overtaken=True),
    "no-metadata": Fault(
        "live: the stream ends without its Metadata", chains=_not_at_the_end, strikes="StreamMetadata"
    ),
}

# One for all; or one after the other, None for nothing; or a function of the path that was called.
Plan = str | Iterable[str | None] | Callable[[str], str | None] | None
Chooser = Callable[[str], str | None]


def fault_named(name: str | None) -> Fault:
    """The fault of this name; None is that nothing goes wrong.

    Raises: SetupError if there is none.
    """
    if name is None:
        return SOUND
    if name not in FAULTS:
        raise SetupError(f"{name!r} is no fault; write one of {', '.join(FAULTS)}")
    return FAULTS[name]


def chooser(plan: Plan) -> Chooser:
    """The function that names the fault of each submission; when an iterable is at its end, nothing goes wrong."""
    if callable(plan):
        return plan
    names = iter(repeat(plan) if plan is None or isinstance(plan, str) else plan)
    return lambda _: next(names, None)


def mix(seed: int, share: float = 0.5) -> Iterator[str | None]:
    """Faults of all kinds in such a share of the submissions, for ever; the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - it is to be repeatable
    while True:
        yield dice.choice(list(FAULTS)) if dice.random() < share else None
