"""From the inbox to the handlers and back: claim, run, settle, postpone, bury."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from .core.events import Event, parse
from .core.retry import LANE_WAIT, RetryPolicy, seconds
from .errors import Bury, InboxError, Retry, SetupError, Verdict
from .facts import DeliveryBuried, DeliveryUnhandled, HandlerAbandoned, HandlerFailed, HandlerSucceeded, Hook
from .handlers import Handler, Handlers, paste
from .inbox.contract import Delivery, Entry, Inbox, Mark
from .streams import MESSAGES, WHOLE, whole
from .threads import Threads

ALONE_FROM = 5  # crashes from which a delivery runs with no other beside it
MOST_CRASHES = 100
MOST_AHEAD = 192  # deliveries claimed beyond the free slots
AHEAD = 0.2  # seconds for which they are to last, at the pace of the last ones
LARGE = 64 * 1024  # bytes from which bodies take turns
IN_A_TURN = 1024 * 1024  # bytes of large bodies parsed in one turn of the loop: some milliseconds
ROOM = 64 * 1024 * 1024  # bytes of bodies in progress beyond which nothing more is claimed
AT_ONCE = 4 * 1024 * 1024  # bytes of bodies in one claim: while they are read, nothing is written
LONGEST_ERROR = 500  # characters of an error that are kept
PATIENCE = 10.0  # seconds that running handlers have to end when we stop
GRACE = 1.0  # seconds that they have when they are cancelled after that

Claimed = Sequence[tuple[Entry, bytes]]


class _Run(msgspec.Struct, frozen=True, gc=False):
    """How one handler fared: what the inbox is to remember, and the wait if it is to run again."""

    name: str
    mark: Mark
    error: str | None = None
    wait: float | None = None  # seconds


class Dispatcher:
    """Hands what is due to the handlers, so many at a time. `roll` gives chance from 0 to 1."""

    def __init__(
        self,
        inbox: Inbox,
        handlers: Handlers,
        retry: RetryPolicy,
        *,
        concurrency: int,
        emit: Hook,
        roll: Callable[[], float],
        patience: float = PATIENCE,
        room: int = ROOM,
    ) -> None:
        self._inbox = inbox
        self._handlers = handlers
        self._retry = retry
        self._concurrency = concurrency
        self._emit = emit
        self._roll = roll
        self._patience = patience
        self._room = room
        self._threads = Threads()
        self._ready: deque[tuple[Entry, bytes]] = deque()
        self._fragile: deque[tuple[Entry, bytes]] = deque()  # lost with their process too often: one at a time
        self._running: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()  # runs in progress, by handler
        self._alone = False  # a fragile one runs
        self._stopping = False
        self._one_at_a_time = asyncio.Lock()  # a whole stream in memory
        self._in_turn = 0  # bytes of large bodies, in this turn of the loop
        self._held = 0  # bytes of bodies that are ready or running
        self._ends: deque[float] = deque(maxlen=MOST_AHEAD)  # of the last deliveries, by the loop's clock
        self._unhandled: set[str] = set()  # kinds that somebody has been told of
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Claim and run until cancelled."""
        while True:
            await self._until(self._takes_more)
            await self._claim()

    async def stop(self) -> None:
        """Let the running handlers end, for a while; what did not is given back by the inbox."""
        self._stopping = True
        await _wait(self._running, self._patience)
        await _cancel(self._running)
        await _wait(self._endings, self._patience)
        await _cancel(self._endings)
        self._threads.close()

    # --- what to claim, what to start ---

    async def _claim(self) -> None:
        limit = self._concurrency - len(self._running) + max(0, self._ahead() - len(self._ready))
        room = min(self._room - self._held, AT_ONCE)
        skip = self._too_busy()
        claim = asyncio.ensure_future(self._inbox.claim(limit, room=room, skip=skip))
        claim.add_done_callback(self._take)
        try:
            await self._until(lambda: claim.done() or bool(skip and self._too_busy() != skip))
        except asyncio.CancelledError:
            claim.cancel()
            raise

    def _take(self, claim: asyncio.Future[Claimed]) -> None:
        self._changed.set()
        if claim.cancelled() or claim.exception() is not None:
            return
        for entry, body in claim.result():
            self._held += len(body)
            (self._fragile if entry.crashes >= ALONE_FROM else self._ready).append((entry, body))
        self._start_ready()

    def _takes_more(self) -> bool:
        """Whether there is a slot and room for another body, or soon will be, and nothing that is to run alone."""
        if self._fragile or self._alone or self._held >= self._room:
            return False
        return len(self._running) < self._concurrency or len(self._ready) < self._ahead() // 2

    def _ahead(self) -> int:
        """How many deliveries may be ready beyond the slots: as many as have ended of late."""
        since = asyncio.get_running_loop().time() - AHEAD
        return sum(end > since for end in self._ends)

    def _start_ready(self) -> None:
        """Start what there are slots for, in order, but for what its handlers are too busy for."""
        if self._stopping or self._alone:
            return
        if self._fragile:
            self._start_alone()
            return
        left: list[tuple[Entry, bytes]] = []
        while self._ready and len(self._running) < self._concurrency:
            entry, body = self._ready.popleft()
            if entry.kind in self._too_busy():
                left.append((entry, body))
            else:
                self._start(entry, body)
        self._ready.extendleft(reversed(left))

    def _start_alone(self) -> None:
        if not self._running:
            self._alone = True
            self._start(*self._fragile.popleft())

    def _start(self, entry: Entry, body: bytes) -> None:
        names = [handler.name for handler in self._handlers.of_kind(entry.kind)]
        self._busy.update(names)
        task = asyncio.get_running_loop().create_task(self._deliver(entry, body))
        self._running.add(task)

        def end(_: object) -> None:
            for name in names:
                self._busy[name] -= 1
            self._held -= len(body)
            self._ends.append(task.get_loop().time())
            self._running.discard(task)
            self._alone = False
            self._start_ready()
            self._changed.set()

        task.add_done_callback(end)

    def _too_busy(self) -> Collection[str]:
        """The kinds of which one handler, where there are several, has half of the slots."""
        if len(self._handlers) < 2:
            return ()
        most = max(1, self._concurrency // 2)
        names = {name for name, count in self._busy.items() if count >= most}
        return self._handlers.kinds_of(names) if names else ()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- one delivery ---

    async def _deliver(self, entry: Entry, body: bytes) -> None:
        if entry.crashes >= MOST_CRASHES:
            return self._bury(entry, entry.marks, "the process died while handling it")
        if not self._handlers.may_want(entry.kind):
            return self._leave_unhandled(entry)
        content = await self._whole(entry, body) if entry.kind == WHOLE else body
        if content is None:
            return self._bury(entry, entry.marks, "its messages are no longer kept")
        event = await self._parsed(entry, content)
        wanting = self._handlers.wanting(event)
        if not wanting:
            return self._leave_unhandled(entry)
        return await self._hand(event, entry, wanting)

    async def _parsed(self, entry: Entry, body: bytes) -> Event:
        """The event of a body; large ones take turns with what comes in."""
        if len(body) >= LARGE:
            while self._in_turn >= IN_A_TURN:  # noqa: ASYNC110 - a turn of the loop is what it waits for
                await asyncio.sleep(0)
            if not self._in_turn:
                asyncio.get_running_loop().call_soon(self._turn)
            self._in_turn += len(body)
        return parse(entry.kind, body, entry.headers)

    def _turn(self) -> None:
        """Begin a turn of the loop, if none is still owed for what was parsed in those before."""
        self._in_turn = max(0, self._in_turn - IN_A_TURN)
        if self._in_turn:
            asyncio.get_running_loop().call_soon(self._turn)

    async def _whole(self, entry: Entry, body: bytes) -> bytes | None:
        async with self._one_at_a_time:
            return await whole(self._inbox, entry, body)

    async def _hand(self, event: Event, entry: Entry, wanting: Sequence[Handler]) -> None:
        """Give an event to those that want it and have not come to an end with it."""
        left = [handler for handler in wanting if not _is_over(entry.marks.get(handler.name, Mark()))]
        runs: list[_Run] = []
        try:
            await self._run_all(left, event, entry, runs)
        except asyncio.CancelledError:  # we stop; a handler that has ended is not to run again
            if runs:
                self._conclude(entry, runs, cut_off=True)
            raise
        self._conclude(entry, runs)

    async def _run_all(self, handlers: Sequence[Handler], event: Event, entry: Entry, runs: list[_Run]) -> None:
        if len(handlers) == 1:
            await self._run(handlers[0], event, entry, runs)
        else:
            await asyncio.gather(*(self._run(handler, event, entry, runs) for handler in handlers))

    def _conclude(self, entry: Entry, runs: Sequence[_Run], *, cut_off: bool = False) -> None:
        """Settle, postpone or bury, by what the handlers came to; `cut_off` if there were more."""
        marks = {**entry.marks, **{run.name: run.mark for run in runs}}
        waits = [0.0] * cut_off + [run.wait for run in runs if run.wait is not None]
        given_up = [f"{name}: {mark.buried}" for name, mark in marks.items() if mark.buried is not None]
        if waits:  # the longest: nobody is to run before its time
            error = "; ".join(f"{run.name}: {run.error}" for run in runs if run.error)[:LONGEST_ERROR] or None
            self._end(partial(self._inbox.postpone, entry, marks, wait=max(waits), error=error))
        elif given_up:
            self._bury(entry, marks, "; ".join(given_up)[:LONGEST_ERROR])
        else:
            self._end(partial(self._inbox.settle, entry, "done", marks))

    def _bury(self, entry: Entry, marks: Mapping[str, Mark], reason: str) -> None:
        self._emit(DeliveryBuried(entry.kind, entry.request_id, entry.key, reason))
        self._end(partial(self._inbox.bury, entry, marks, error=reason))

    def _leave_unhandled(self, entry: Entry) -> None:
        hint = entry.kind not in self._unhandled and not self._handles_the_whole_of(entry.kind)
        self._unhandled.add(entry.kind)
        self._emit(DeliveryUnhandled(entry.kind, entry.request_id, entry.key, paste(entry.kind), hint))
        self._end(partial(self._inbox.settle, entry, "unhandled", entry.marks))

    def _handles_the_whole_of(self, kind: str) -> bool:
        return kind in MESSAGES and bool(self._handlers.of_kind(WHOLE))

    def _end(self, end: Callable[[], Awaitable[None]]) -> None:
        """Have a lease ended without keeping the slot for it."""
        task = asyncio.get_running_loop().create_task(_see_through(end))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # --- one run of one handler ---

    async def _run(self, handler: Handler, event: Event, entry: Entry, runs: list[_Run]) -> None:
        """Run a handler to its end, and add to `runs` what it came to."""
        attempt = entry.marks.get(handler.name, Mark()).attempts + 1
        begun = asyncio.get_running_loop().time()
        try:
            await self._call(handler, event, _delivery(entry, attempt))
        except BaseException as error:  # a handler may raise anything; the inbox must still hear of it
            if isinstance(error, asyncio.CancelledError) and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise  # it is we who stop
            runs.append(self._failed(handler, entry, attempt, error))
            return
        lasted = asyncio.get_running_loop().time() - begun
        self._emit(HandlerSucceeded(handler.name, entry.kind, entry.request_id, entry.key, attempt, lasted))
        runs.append(_Run(handler.name, Mark(attempt, done=True)))

    async def _call(self, handler: Handler, event: Event, delivery: Delivery) -> None:
        args = handler.arguments(event, delivery)
        in_thread = not handler.is_async
        expiry = asyncio.timeout(handler.timeout)
        try:
            async with expiry:
                if in_thread:
                    answer = await self._threads.run(handler.call, *args)
                    in_thread = False
                else:
                    answer = handler.call(*args)
                if inspect.isawaitable(answer):  # from a thread: a coroutine function in disguise
                    await answer
        except TimeoutError:
            if not expiry.expired():
                raise
            if in_thread:
                self._emit(HandlerAbandoned(handler.name, delivery.key, handler.timeout))
            raise TimeoutError(f"it ran longer than its timeout of {handler.timeout:g} s") from None

    def _failed(self, handler: Handler, entry: Entry, attempt: int, error: BaseException) -> _Run:
        """What is to become of a run that ended badly."""
        holds_up = entry.lane is not None and entry.kind != WHOLE  # others wait behind it
        policy = self._retry.in_lane() if holds_up else self._retry
        wait = policy.wait_after(attempt, roll=self._roll())
        if isinstance(error, Bury):
            wait = None
        elif isinstance(error, Retry) and wait is not None and error.after is not None:
            try:
                after = seconds(error.after, "Retry's after")
                wait = min(after, LANE_WAIT) if holds_up else after
            except SetupError as wrong:
                error = wrong  # it was meant, so it is tried again, but by the policy
        said, cause = describe(error), None if isinstance(error, Verdict) else error
        self._emit(HandlerFailed(handler.name, entry.kind, entry.request_id, entry.key, attempt, said, wait, cause))
        return _Run(handler.name, Mark(attempt, buried=said if wait is None else None), said, wait)


def _is_over(mark: Mark) -> bool:
    return mark.done or mark.buried is not None


async def _see_through(end: Callable[[], Awaitable[None]]) -> None:
    with suppress(InboxError):  # the inbox has closed, and has given back what had not ended
        await end()


async def _wait(tasks: set[asyncio.Task[None]], longest: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=longest)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what has not ended; what does not heed it is left to itself."""
    for task in tasks:
        task.cancel()
    await _wait(tasks, GRACE)


def _delivery(entry: Entry, attempt: int) -> Delivery:
    return Delivery(
        key=entry.key,
        attempt=attempt,
        received_at=entry.received_at,
        stream=entry.lane,
        context=entry.context,
        path=entry.path,
        query=entry.query,
        headers=entry.headers,
        replayed=entry.replayed,
    )


def describe(error: BaseException) -> str:
    """An error's type and the beginning of its message; the latter of a Bury or Retry alone."""
    try:
        message = str(error)
    except Exception:  # the user's own __str__
        message = "(its message cannot be shown)"
    message = message.encode(errors="backslashreplace").decode()  # half a surrogate is no text to a database
    if not message:
        return type(error).__name__
    return (message if isinstance(error, Verdict) else f"{type(error).__name__}: {message}")[:LONGEST_ERROR]
