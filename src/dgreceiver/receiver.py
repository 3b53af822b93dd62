"""The receiver: an ASGI app, and the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args
from uuid import uuid4
from weakref import WeakSet

from starlette.types import Receive, Scope, Send

from .core.auth import Auth
from .core.events import Event
from .core.retry import RetryPolicy, seconds
from .core.urls import callback_url
from .dispatch import PATIENCE, Dispatcher
from .errors import Busy, DgreceiverError, InboxError, SetupError
from .facts import Fact, Hook, SetupDoubtful, StartedLate
from .handlers import Handler, TakesHandlers
from .inbox.contract import Erased, Inbox, State
from .streams import Endings
from .telemetry import log, logger
from .web.http import HttpDoor, answer
from .web.intake import Ack, Intake, Limits
from .web.refusals import Refusals
from .web.websocket import WebSocketDoor, deny

SHORTEST_DEDUPE = timedelta(minutes=30)  # Deepgram's retries go on for about five; proxies add to that
PURGE_EVERY = 3600.0  # seconds
HANDOVER = 0.5  # seconds in which another process, which looks every 0.1 s, becomes the owner
IDLE_LOOK = 0.01  # seconds between looks whether there is anything left to do

T = TypeVar("T")


class Receiver(TakesHandlers):
    """Receives Deepgram's callbacks: stores, acknowledges, hands each to its handlers once.

    An ASGI app to run by itself, to mount, or to put around another with `CallbackMiddleware`.

    - `auth` decides who is let in; `BasicAuth(...) | SignedAuth(...)` takes either.
    - `inbox` is where callbacks are kept: `sqlite:///` and a path (relative to the folder in which the
      receiver starts), or `memory://` for tests.
    - `name` tells receivers apart that share an inbox; it is part of every key.
    - `public_url` is the whole URL that Deepgram calls; `callback_url()` needs it.
    - `dedupe_for` is how long a retry is recognised, `keep` how long the bodies of what is done are kept.
    - `stream_idle` is how long a live stream may be silent, over HTTP, before it is taken to have ended.
    - `ack="handled"` answers when the handlers are through, for hosts that freeze a process between requests.
    - `concurrency` is how many deliveries are handled at a time.
    - `hooks` take each fact as it happens, besides the log.

    Units: a float is seconds.

    Raises: SetupError for what cannot work; the message says what to write.
    """

    def __init__(
        self,
        *,
        auth: Auth,
        inbox: str = "sqlite:///dgreceiver.db",
        name: str = "default",
        public_url: str | None = None,
        retry: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        dedupe_for: timedelta | float = timedelta(days=3),
        keep: timedelta | float = timedelta(days=7),
        stream_idle: timedelta | float = timedelta(minutes=10),
        concurrency: int = 16,
        ack: Ack = "stored",
        hooks: Iterable[Hook] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.public_url = public_url
        self.inbox_url = inbox
        self.refusals = Refusals()
        self._auth = _checked_auth(auth)
        self._open_inbox = _opener(inbox)
        self._retry = retry
        self.limits = limits
        self.dedupe_for = timedelta(seconds=seconds(dedupe_for, "dedupe_for"))
        self.keep = timedelta(seconds=seconds(keep, "keep"))
        self._endings = Endings(idle=seconds(stream_idle, "stream_idle"))
        self._concurrency = concurrency
        self._ack = ack
        self._hooks = (log, *hooks)
        self._running: _Running | None = None
        self._users = 0  # of `running`
        self._start = asyncio.Lock()
        self._stopped = False
        self.made_at = _caller()
        _check(self, ack, dedupe_for=self.dedupe_for, concurrency=concurrency)
        _register(self)

    # --- starting and stopping ---

    @asynccontextmanager
    async def running(self, app: object = None) -> AsyncIterator[None]:
        """Start, and stop at the end; also a lifespan: `FastAPI(lifespan=receiver.running)`.

        Raises: SetupError if the inbox cannot be opened.
        """
        self._forget_orphan()
        self._users += 1
        try:
            await self._ensure_started()
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                await self._stop()

    async def _ensure_started(self) -> _Running:
        self._forget_orphan()
        async with self._start:
            if self._running is None:
                self._running = await self._begin()
                self._stopped = False
            return self._running

    def _forget_orphan(self) -> None:
        """Let go of what has lost its loop. Raises: SetupError if that loop lives and is not this one."""
        running = self._running
        if running is None or running.loop is asyncio.get_running_loop():
            return
        if not self._is_orphaned:
            raise SetupError(
                f"the receiver {self.name!r} runs in another event loop of this process; serve it from one of them, "
                'or make another for this one: Receiver(name="…")'
            )
        if running.pid != os.getpid():
            _inherited.append(running)
        self._running, self._users, self._start = None, 0, asyncio.Lock()

    async def _begin(self) -> _Running:
        for advice in self._advice():
            self._emit(SetupDoubtful(advice))
        inbox = self._open_inbox(self.name, self._emit, self._endings)
        await inbox.open()
        intake = Intake(inbox, self._auth, self.limits, ack=self._ack, emit=self._emit, now=time.time)
        door = HttpDoor(intake, self.refusals, emit=self._emit, now=_now)
        sockets = WebSocketDoor(intake, self.refusals, receiver=self.name, emit=self._emit, now=_now)
        running = _Running(inbox, door, sockets, asyncio.get_running_loop())
        if self._handlers:
            self._begin_work(running)
        return running

    def _advice(self) -> Iterator[str]:
        """What works, but not as well as it looks."""
        yield from self._auth.warnings()
        if all(auth.reads_body for auth in self._auth.candidates):
            yield (
                "ExtraAuth alone refuses what carries no extra (WebSockets, read, speech, failures, SpeechStarted, "
                "UtteranceEnd), and Deepgram gives that up after ten tries; "
                "write BasicAuth(user, password) | ExtraAuth(secret)"
            )
        if self._ack == "handled" and not self._handlers:
            yield (
                'ack="handled" waits for handlers, and this receiver has none: unless another process has, every '
                'callback is answered 503; write ack="stored"'
            )

    def _begin_work(self, running: _Running) -> None:
        self._begin_dispatch(running)
        running.spawn(self._purge(running.inbox))

    def _begin_dispatch(self, running: _Running) -> None:
        dispatcher = running.dispatcher = Dispatcher(
            running.inbox,
            self._handlers,
            self._retry,
            concurrency=self._concurrency,
            emit=self._emit,
            roll=random.random,
        )
        running.dispatching = running.spawn(dispatcher.run())

    async def _purge(self, inbox: Inbox) -> None:
        while True:
            with suppress(InboxError):  # reported by the inbox; the next time comes
                await inbox.purge(keep=self.keep, dedupe_for=self.dedupe_for)
            await asyncio.sleep(PURGE_EVERY)

    async def _stop(self) -> None:
        """Door, bodies, claims, handlers, settling, inbox: in this order nothing is begun that cannot end."""
        running, self._running, self._stopped = self._running, None, True
        if running is not None:
            await running.stop()

    def _emit(self, fact: Fact) -> None:
        for hook in self._hooks:
            try:
                hook(fact)
            except Exception:  # a hook is the user's own; what it hears of goes on without it
                logger.exception("the hook %r failed on a %s", hook, type(fact).__name__)

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or its loop has ended without stopping it."""
        return self._stopped or self._is_orphaned

    @property
    def _is_orphaned(self) -> bool:
        """Whether it lost its loop without being stopped: in tests that each have their own, or in a fork."""
        return self._running is not None and (self._running.loop.is_closed() or self._running.pid != os.getpid())

    # --- the ASGI app ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(self.running, receive, send)
        if scope["type"] not in ("http", "websocket"):
            return None
        running = self._running
        if running is None or running.loop is not asyncio.get_running_loop():
            running = await self._start_late()
        if running is None:
            return await _say_stopped(scope, receive, send)
        if running.dispatcher is None and self._handlers:  # registered after the start
            self._begin_work(running)
        running.requests += 1
        try:
            await (running.door if scope["type"] == "http" else running.sockets)(scope, receive, send)
        finally:
            running.requests -= 1

    async def _start_late(self) -> _Running | None:
        """Start on a request, since nobody ran the lifespan; a receiver that was stopped stays so."""
        if self._stopped:
            return None
        first = not self._start.locked()
        running = await self._ensure_started()
        if first:
            self._emit(StartedLate())
        return running

    # --- ending while others go on ---

    @property
    def live_streams(self) -> int:
        """How many WebSockets are open, or not wholly stored."""
        return self._running.sockets.live if self._running else 0

    def drain(self) -> None:
        """Take no new live stream (503) from now on; those that live go on, and so do POSTs."""
        if self._running:
            self._running.sockets.draining = True

    async def step_aside(self) -> None:
        """Let another process run the handlers, if one waits to; go on storing, and handling if there is none.

        The running handlers have the time to end that they have at a stop.
        """
        running = self._running
        if running is not None and running.dispatcher is not None:
            await running.stop_dispatch()
            await running.inbox.step_aside()
            await asyncio.sleep(HANDOVER)
            self._begin_dispatch(running)

    # --- what the test kit asks of it ---

    def redact(self, body: bytes) -> bytes:
        """The body as it would be stored: without the secrets that it carries for `auth`."""
        return self._auth.redact(body)

    def wanting(self, event: Event) -> Sequence[Handler]:
        """The handlers that would run for an event."""
        return self._handlers.wanting(event)

    # --- what the user asks of it ---

    def callback_url(
        self,
        context: Mapping[str, Any] | None = None,
        expires: timedelta | float = timedelta(days=7),
        websocket: bool = False,
        local: bool = False,
    ) -> str:
        """The URL to submit as `callback=`, with credentials that this receiver admits.

        With SignedAuth it is good for one job: it carries a job id and `context`, a flat JSON object that comes
        back as `delivery.context`; signed, but readable by whoever sees the URL. With BasicAuth it is good for all.

        Units: `expires` is how long it is good for; a float is seconds.

        Raises: SetupError if Deepgram would not call it, or if no `auth` of this receiver fits into a URL.
        """
        return callback_url(
            self._auth,
            self.public_url,
            context=context,
            expires=expires,
            websocket=websocket,
            local=local,
            now=time.time(),
            job=uuid4().hex,
        )

    async def idle(self) -> None:
        """Wait until nothing is due: no callback on its way in, none waiting for its time now, none being handled."""
        await self._where_it_runs(self._idle())

    async def _idle(self) -> None:
        while self._running and self._running.dispatcher and await self._running.inbox.busy():  # noqa: ASYNC110 - for tests
            await asyncio.sleep(IDLE_LOOK)

    async def replay(self, *, key: str | None = None, state: State | None = None) -> int:
        """Have callbacks handled again: one by its key, or all in a state ("dead", "unhandled", "conflict"); how many.

        Of a dead one only the handlers run that have not succeeded, with their attempts counted anew.

        Raises: SetupError unless exactly one of both is given.
        """
        return await self._where_it_runs(self._ask(lambda inbox: inbox.replay(key=key, state=state)))

    async def erase(self, *, request_id: str | None = None, job: str | None = None) -> Erased:
        """Remove all that is kept of a request or a job; what was reached, and what could not be.

        Its key stays, so that a retry is recognised and stores nothing.

        Raises: SetupError unless exactly one of both is given.
        """
        return await self._where_it_runs(self._ask(lambda inbox: inbox.erase(request_id=request_id, job=job)))

    async def _ask(self, question: Callable[[Inbox], Awaitable[T]]) -> T:
        async with self.opened() as inbox:
            return await question(inbox)

    async def _where_it_runs(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the loop on which it runs, which is not the caller's in a WSGI app."""
        if self._running is None or self._is_orphaned or self._running.loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running.loop))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Inbox]:
        """The inbox of the running receiver, or one opened for the occasion."""
        if self._running is not None and not self._is_orphaned:
            yield self._running.inbox
            return
        inbox = self._open_inbox(self.name, self._emit, self._endings)
        await inbox.open()
        try:
            yield inbox
        finally:
            await inbox.close()


class _Running:
    """What exists between start and stop."""

    def __init__(self, inbox: Inbox, door: HttpDoor, sockets: WebSocketDoor, loop: asyncio.AbstractEventLoop) -> None:
        self.inbox = inbox
        self.door = door
        self.sockets = sockets
        self.loop = loop
        self.pid = os.getpid()
        self.dispatcher: Dispatcher | None = None
        self.dispatching: asyncio.Task[None] | None = None
        self.requests = 0
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something until the stop, in a context of its own: not that of the request that started it."""
        self._tasks.append(self.loop.create_task(work, context=Context()))
        return self._tasks[-1]

    async def stop(self) -> None:
        await self._finish_requests()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.stop_dispatch()
        await self.sockets.stop()
        await self.inbox.close()

    async def stop_dispatch(self) -> None:
        """Claim nothing more, and let the running handlers end."""
        if self.dispatcher is not None and self.dispatching is not None:
            self.dispatching.cancel()
            await asyncio.wait([self.dispatching])
            await self.dispatcher.stop()

    async def _finish_requests(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.requests:  # noqa: ASYNC110 - once, at the end; an event would cost each request
                    await asyncio.sleep(IDLE_LOOK)


_inherited: list[_Running] = []  # from the parent of a fork: held, so that nothing is closed that is still in use there


async def _say_stopped(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer(send, 503, {"error": "stopped"})
    else:
        await receive()
        await deny(scope, send, Busy("the receiver has stopped"))


async def lifespan(running: Callable[[], AbstractAsyncContextManager[None]], receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol with a start and a stop.

    Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    await receive()
    doing = "startup"
    try:
        async with running():
            await send({"type": "lifespan.startup.complete"})
            doing = "shutdown"
            await receive()
    except Exception as error:  # a server takes an exception for an app that knows no lifespan
        logger.error("%s", error, exc_info=not isinstance(error, DgreceiverError))
        await send({"type": f"lifespan.{doing}.failed", "message": str(error)})
    else:
        await send({"type": "lifespan.shutdown.complete"})


def _now() -> datetime:
    return datetime.now(UTC)


def _checked_auth(auth: object) -> Auth:
    if auth is None:
        raise SetupError(
            "auth=None lets anyone who finds the URL send you transcripts; write "
            'auth=BasicAuth("deepgram", os.environ["CALLBACK_PASSWORD"]), or auth=NoAuth() to mean it'
        )
    if not isinstance(auth, Auth):
        raise SetupError(f"auth is a {type(auth).__name__}; write auth=BasicAuth(user, password), or SignedAuth(key)")
    return auth


def _check(receiver: Receiver, ack: object, *, dedupe_for: timedelta, concurrency: object) -> None:
    if not isinstance(receiver.name, str) or not receiver.name:
        raise SetupError('name is empty; leave it out, or write one such as name="calls"')
    if ack not in get_args(Ack):
        raise SetupError(f'ack={ack!r} is no way to acknowledge; leave it out, or write ack="stored" or ack="handled"')
    if dedupe_for < SHORTEST_DEDUPE:
        raise SetupError(f"dedupe_for={dedupe_for} is shorter than retries go on; write at least {SHORTEST_DEDUPE}")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise SetupError(f"concurrency={concurrency!r} handles nothing; write a whole number from 1")


def _opener(url: str) -> Callable[[str, Hook, Endings], Inbox]:
    """What opens the inbox of that URL; the stores are imported when they are needed.

    Raises: SetupError if there is no such inbox.
    """
    if url == "memory://":
        return _open_memory
    path = url.removeprefix("sqlite:///") if isinstance(url, str) else ""
    if path in ("", url, ":memory:"):
        raise SetupError(
            f'inbox={url!r} is none that this release opens; write "sqlite:///dgreceiver.db", with four slashes '
            'for an absolute path, or "memory://" for tests'
        )
    return partial(_open_sqlite, Path(path))


def _open_memory(name: str, emit: Hook, endings: Endings) -> Inbox:
    from .inbox.memory import MemoryInbox

    return MemoryInbox(receiver=name, emit=emit, endings=endings)


def _open_sqlite(path: Path, name: str, emit: Hook, endings: Endings) -> Inbox:
    from .inbox.sqlite import SqliteInbox

    return SqliteInbox(path, receiver=name, emit=emit, endings=endings)


# --- two of one name ---

_receivers: WeakSet[Receiver] = WeakSet()


def _caller() -> str:
    """Where the receiver is being made, for people."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _register(new: Receiver) -> None:
    """Refuse a second definition of a name.

    The same line may run again (a module that is imported twice, a factory in tests), and what was stopped or
    forgotten counts no more.

    Raises: SetupError naming both.
    """
    if _twins(new):
        gc.collect()  # a receiver and its parts hold each other; what nobody else holds is gone after this
    for twin in _twins(new):
        raise SetupError(
            f"two receivers are named {new.name!r}: the one made at {twin.made_at} and the one made at {new.made_at}; "
            'give one of them another name, such as name="calls"'
        )
    _receivers.add(new)


def _twins(new: Receiver) -> list[Receiver]:
    return [one for one in _receivers if one.name == new.name and one.made_at != new.made_at and not one.is_over]
