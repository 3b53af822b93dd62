"""A payload handed to a receiver's handlers once, in memory, as its dispatcher would hand it to them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine, Generator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from ..core.auth import SignedAuth
from ..core.callbacks import Callback, Label, identify
from ..core.events import Event, parse
from ..handlers import Handler
from ..inbox.contract import Delivery
from ..receiver import Receiver
from ..streams import WHOLE
from ..threads import Threads
from ..web.intake import read_head
from .payloads import Payload

RECEIVED_AT = datetime(2026, 1, 1, tzinfo=UTC)
JOB = "job"
SIGNS = SignedAuth("any key will do: nobody checks what it signs")


class Delivered(Awaitable["Delivered"]):
    """What was handed over, and the names of the handlers that wanted it, in order; none if nobody did.

    Awaiting it gives itself. In an async test the handlers run when it is awaited, elsewhere they have run.
    """

    def __init__(
        self, event: Event, delivery: Delivery, handlers: Sequence[str], runs: Coroutine[Any, Any, None] | None
    ) -> None:
        self.event = event
        self.delivery = delivery
        self.handlers = handlers
        self._runs = runs

    def __await__(self) -> Generator[Any, Any, Delivered]:
        if self._runs is not None:
            yield from self._runs.__await__()
        return self

    def __repr__(self) -> str:
        return f"Delivered({self.event!r}, handlers={self.handlers!r})"


def deliver(
    receiver: Receiver,
    payload: Payload,
    *,
    context: Mapping[str, Any] | None = None,
    job: str | None = None,
    attempt: int = 1,
    path: str = "/",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    received_at: datetime = RECEIVED_AT,
    replayed: bool = False,
) -> Delivered:
    """Run the handlers for a payload once, in the order of their registration; without a server, an inbox or a clock.

    In a synchronous test they have run when this returns, a `def` in the test's own thread. In an async test
    `await` it: an `async def` runs on the test's loop, a `def` in a thread, as in production.

    `context` and `job` are those of a signed URL, and a context alone is that of a job; messages of one job are one
    stream. `headers` adds to those of the payload.

    Raises: what a handler raises; an ExceptionGroup if several raise; SetupError for a context that no URL can carry.
    """
    if context is not None:
        job = job or JOB
        SIGNS.sign(job=job, context=context, expires=1.0, now=0.0)  # says what could not be signed
    callback = Callback(
        body=receiver.redact(payload.body),
        headers=_kept({**payload.headers, **(headers or {})}),
        path=path,
        query=query,
        received_at=received_at.timestamp(),
        job=job,
        context=dict(context or {}),
    )
    label = identify(callback, receiver=receiver.name)
    kind = WHOLE if payload.kind == WHOLE else label.kind  # it is no callback, so nobody identifies it
    event = parse(kind, callback.body, callback.headers)
    delivery = _delivery(callback, label, attempt, replayed=replayed)
    wanting = receiver.wanting(event)
    runs = _run(wanting, event, delivery) if _in_loop() else None
    if runs is None:
        _run_here(wanting, event, delivery)
    return Delivered(event, delivery, tuple(handler.name for handler in wanting), runs)


def _kept(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers that intake would store."""
    named = {name.lower(): value for name, value in headers.items()}  # so that one replaces another
    return read_head([(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]).kept


def _delivery(callback: Callback, label: Label, attempt: int, *, replayed: bool) -> Delivery:
    return Delivery(
        key=label.key,
        attempt=attempt,
        received_at=datetime.fromtimestamp(callback.received_at, UTC),
        stream=label.lane,
        context=callback.context or {},
        path=callback.path,
        query=callback.query,
        headers=callback.headers,
        replayed=replayed,
    )


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_here(handlers: Sequence[Handler], event: Event, delivery: Delivery) -> None:
    _raise(handlers, [_call_here(handler, event, delivery) for handler in handlers])


def _call_here(handler: Handler, event: Event, delivery: Delivery) -> Exception | None:
    """What a handler raises. A plain one has no loop about it: it may start one, and use what belongs to the thread."""
    try:
        answer = handler.call(*handler.arguments(event, delivery))
        if inspect.isawaitable(answer):
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # the thread's own loop is let be
                runner.run(_awaited(answer))
    except Exception as error:  # a handler may raise anything; the others are to run
        return error
    return None


async def _awaited(answer: Awaitable[Any]) -> None:
    await answer


async def _run(handlers: Sequence[Handler], event: Event, delivery: Delivery) -> None:
    with closing(Threads()) as threads:
        _raise(handlers, [await _call(handler, event, delivery, threads) for handler in handlers])


async def _call(handler: Handler, event: Event, delivery: Delivery, threads: Threads) -> Exception | None:
    """What a handler raises that runs as in production."""
    arguments = handler.arguments(event, delivery)
    try:
        answer = handler.call(*arguments) if handler.is_async else await threads.run(handler.call, *arguments)
        if inspect.isawaitable(answer):
            await answer
    except Exception as error:  # likewise
        return error
    return None


def _raise(handlers: Sequence[Handler], raised: Sequence[Exception | None]) -> None:
    """Raise what they have raised, if any has."""
    failed = {handler.name: error for handler, error in zip(handlers, raised, strict=True) if error is not None}
    if len(failed) > 1:
        raise ExceptionGroup(f"{len(failed)} handlers failed: {', '.join(failed)}", [*failed.values()])
    for error in failed.values():
        raise error
