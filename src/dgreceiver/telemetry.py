"""Facts as log lines. The level says who should look: a warning asks for something to be done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from . import facts
from .facts import Fact

logger = logging.getLogger("dgreceiver")

Level = int | Callable[[Any], int]
Say = Callable[[Any], str]


def log(fact: Fact) -> None:
    """Write a fact to the logger `dgreceiver`; a hook."""
    level, say = LINES[type(fact)]
    at = level if isinstance(level, int) else level(fact)
    if logger.isEnabledFor(at):
        logger.log(at, "%s", say(fact), exc_info=getattr(fact, "exception", None))


def shown(text: object) -> str:
    """A text in which nothing begins a line, moves a cursor, paints, or turns the direction of reading."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _opened(fact: facts.InboxOpened) -> str:
    return f"inbox: {fact.location}" + (f"; {fact.caveat}" if fact.caveat else "")


def _stored(fact: facts.CallbackStored) -> str:
    told = f"{fact.outcome} {_what(fact)} ({fact.size} bytes, admitted by credential {fact.admitted_by})"
    if fact.outcome != "conflict":
        return told
    return f"{told}; its key has another body already; see: dgreceiver inbox list --conflict"


def _failed(fact: facts.HandlerFailed) -> str:
    then = "given up" if fact.wait is None else f"again in {fact.wait:.1f} s"
    return f"{fact.handler} failed on {_what(fact)}, attempt {fact.attempt}; {then}: {shown(fact.error)}{_hint(fact)}"


def _hint(fact: facts.HandlerFailed) -> str:
    if type(fact.exception).__name__ != "SynchronousOnlyOperation":  # Django's
        return ""
    return " (write the handler with def instead of async def: it then runs in a thread, where Django's ORM works)"


def _ended(fact: facts.LiveStreamEnded) -> str:
    told = f"live stream {fact.stream} ended after {fact.seconds:.1f} s, code {fact.code}: {fact.stored} frames stored"
    lost = fact.frames - fact.stored
    return f"{told}, {lost} LOST: the inbox could not store them before this process ended" if lost else told


def _what(fact: Any) -> str:
    return f"{fact.kind} {fact.request_id or fact.key}"


LINES: dict[type[Fact], tuple[Level, Say]] = {
    facts.InboxOpened: (lambda f: logging.WARNING if f.caveat else logging.INFO, _opened),
    facts.InboxFailed: (
        logging.ERROR,
        lambda f: f"the inbox could not store: {f.error}; {f.waiting} waited and were told to come again",
    ),
    facts.DispatchTaken: (
        logging.INFO,
        lambda f: (
            f"this process runs the handlers of receiver {f.receiver}"
            + (f"; {f.recovered} came back from a process that ended" if f.recovered else "")
        ),
    ),
    facts.StartedLate: (
        logging.WARNING,
        lambda f: (
            "started on the first request: this app never ran our lifespan; write FastAPI(lifespan=receiver.running), "
            "or put CallbackMiddleware around the app"
        ),
    ),
    facts.SetupDoubtful: (logging.WARNING, lambda f: f.advice),
    facts.CallbackStored: (lambda f: logging.WARNING if f.outcome == "conflict" else logging.INFO, _stored),
    facts.CallbackRefused: (logging.WARNING, lambda f: f"refused {f.status}: {shown(f.reason)}"),
    facts.WeakIdentity: (
        logging.WARNING,
        lambda f: (
            f"{f.kind} {f.key} came over ten minutes after the same bytes, without an id: taken as new; "
            "with SignedAuth every job has an id"
        ),
    ),
    facts.URLReused: (
        logging.WARNING,
        lambda f: f"the URL signed for job {f.job} serves a second request; call callback_url() for each submission",
    ),
    facts.HandlerSucceeded: (
        logging.INFO,
        lambda f: f"{f.handler} handled {_what(f)}, attempt {f.attempt}, in {f.seconds:.3f} s",
    ),
    facts.HandlerFailed: (logging.ERROR, _failed),
    facts.HandlerAbandoned: (
        logging.WARNING,
        lambda f: f"{f.handler} still runs in its thread after {f.timeout:g} s; the thread is left to itself",
    ),
    facts.DeliveryBuried: (
        logging.ERROR,
        lambda f: f"gave up {_what(f)}: {shown(f.reason)}; it is kept; replay with: dgreceiver inbox replay {f.key}",
    ),
    facts.DeliveryUnhandled: (
        lambda f: logging.WARNING if f.hint else logging.DEBUG,
        lambda f: (
            f"nothing handles {f.kind} (kept; replay with: dgreceiver inbox replay --unhandled); "
            f"to handle it:\n{f.paste}"
        ),
    ),
    facts.LiveStreamBegun: (
        logging.INFO,
        lambda f: f"live stream {f.stream} began, from {f.peer} (admitted by credential {f.admitted_by})",
    ),
    facts.LiveStreamSpooling: (
        logging.WARNING,
        lambda f: (
            f"the inbox cannot keep up with live stream {f.stream}: what comes is put aside on disk and stored later; "
            "nothing is lost while this process lives"
        ),
    ),
    facts.LiveStreamCut: (logging.ERROR, lambda f: f"cut live stream {f.stream}: {f.reason}"),
    facts.LiveStreamEnded: (lambda f: logging.INFO if f.stored == f.frames else logging.ERROR, _ended),
}
