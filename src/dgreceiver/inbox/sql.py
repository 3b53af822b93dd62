"""The inbox in a SQL database: SQLite in a file, or in memory for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import ColumnElement, delete

from ..core.callbacks import Callback, identify
from ..errors import InboxError, SetupError
from ..facts import DispatchTaken, Fact, Hook, InboxFailed
from ..streams import Endings
from . import lanes, upkeep
from .contract import Entry, Erased, Mark, Purged, State, Stored, Upload
from .store import Call, Claim, End, Part, Place, Put, PutAll, StepAside, Store, Upkeep, Withdraw, explain
from .tables import callbacks, parts
from .upkeep import is_used
from .writer import PATIENCE, Job, Writer

IN_THREAD = 256 * 1024  # bytes from which a body is identified by the writer's thread
SHORTEST_LOOK, LONGEST_LOOK = 0.01, 0.2  # seconds between looks whether a callback has been handled
LONGEST_PAUSE = 5.0  # seconds between tries to end a lease while the disk is full

_c = callbacks.c


class SqlInbox:
    """An inbox in the tables of a `Place`; the contract says what each method promises.

    `patience` is how long the writer may be held up before those who can come again are told to. Units: seconds.
    """

    def __init__(
        self,
        place: Callable[[], Place],
        *,
        receiver: str,
        emit: Hook,
        endings: Endings = Endings(),
        clock: Callable[[], float] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._place = place
        self._receiver = receiver
        self._emit = emit
        self._endings = endings
        self._own_clock = clock
        self._patience = patience
        self._writer: Writer | None = None

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        place = await asyncio.to_thread(self._place)
        self._clock = self._own_clock or place.clock
        store = Store(
            place,
            receiver=self._receiver,
            clock=self._clock,
            endings=self._endings,
            took_over=lambda recovered: self._tell(DispatchTaken(self._receiver, recovered)),
            failed=lambda error, waiting: self._tell(InboxFailed(explain(error), waiting)),
        )
        self._writer = Writer(
            store,
            name=f"dgreceiver inbox {self._receiver}",
            stuck=lambda error, waiting: self._emit(InboxFailed(str(error), waiting)),
            patience=self._patience,
        )
        self._writer.start()

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()

    def upload(self, *, audio: bool) -> Upload:
        return SqlUpload(self._do, audio=audio)

    async def put(
        self,
        callback: Callback,
        *,
        upload: Upload | None = None,
        buried: str | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> Stored:
        later = upload is not None or len(callback.body) >= IN_THREAD
        label = None if later else identify(callback, receiver=self._receiver)
        stored: Stored = await self._do(Put(callback, label, upload.name if upload else None, buried), release)
        return stored

    async def put_frames(self, frames: Sequence[Callback], *, buried: str | None = None) -> Sequence[Stored]:
        later = sum(len(frame.body) for frame in frames) >= IN_THREAD
        labels = (None if later else identify(frame, receiver=self._receiver) for frame in frames)
        puts = [Put(frame, label, None, buried) for frame, label in zip(frames, labels, strict=True)]
        await self._do(PutAll(puts))
        return [put.result for put in puts]

    async def hang_up(self, lane: str) -> None:
        await self._insist(
            Call(lambda connection: lanes.hang_up(connection, self._receiver, lane, self._endings, self._clock()))
        )

    async def messages(self, entry: Entry) -> Sequence[bytes]:
        found, after = list[bytes](), 0
        while after is not None:
            page, after = await self._insist(Call(partial(lanes.messages, id_=entry.id, after=after)))
            found += page
        return found

    async def claim(self, limit: int, *, room: int, skip: Collection[str] = ()) -> Sequence[tuple[Entry, bytes]]:
        claim = Claim(limit, room, skip)
        try:
            claimed: Sequence[tuple[Entry, bytes]] = await self._do(claim)
        except asyncio.CancelledError:
            if self._writer is not None:
                self._writer.tell(Withdraw(claim))
            raise
        return claimed

    async def step_aside(self) -> None:
        await self._do(StepAside())

    async def settle(self, entry: Entry, state: Literal["done", "unhandled"], marks: Mapping[str, Mark]) -> None:
        await self._insist(End(entry, state, marks))

    async def postpone(self, entry: Entry, marks: Mapping[str, Mark], *, wait: float, error: str | None) -> None:
        await self._insist(End(entry, "waiting", marks, error, wait))

    async def bury(self, entry: Entry, marks: Mapping[str, Mark], *, error: str) -> None:
        await self._insist(End(entry, "dead", marks, error))

    async def bury_waiting(self, key: str, *, error: str) -> bool:
        return bool(await self._call(upkeep.bury_waiting, key, error, self._clock()))

    async def outcome(self, key: str, *, again: bool, within: float) -> State:
        state: State = "waiting"
        before = 0
        if again:
            state, before = await self._call(upkeep.hasten, key, self._clock())
        attempts, pause, clock = before, SHORTEST_LOOK, asyncio.get_running_loop().time
        until = clock() + within
        while state in ("waiting", "leased") and attempts == before and clock() < until:
            await asyncio.sleep(min(pause, until - clock()))
            pause = min(2 * pause, LONGEST_LOOK)
            state, attempts = await self._call(upkeep.progress, key)
        return state

    async def get(self, key: str) -> tuple[Entry, bytes] | None:
        found: tuple[Entry, bytes] | None = await self._call(upkeep.get, key)
        return found

    async def page(self, *, state: State | None = None, before: int | None = None, limit: int = 50) -> Sequence[Entry]:
        entries: Sequence[Entry] = await self._call(upkeep.page, state, before, limit)
        return entries

    async def counts(self) -> Mapping[State, int]:
        counts: Mapping[State, int] = await self._call(upkeep.counts)
        return counts

    async def oldest(self) -> datetime | None:
        oldest: datetime | None = await self._call(upkeep.oldest)
        return oldest

    async def busy(self) -> bool:
        return bool(await self._call(upkeep.busy, self._clock()))

    async def replay(self, *, key: str | None = None, state: State | None = None) -> int:
        replayed: int = await self._call(upkeep.replay, _which(key=key, state=state), self._clock())
        return replayed

    async def erase(self, *, request_id: str | None = None, job: str | None = None) -> Erased:
        which = _which(request_id=request_id, job=job)
        rows, unreached = await self._call(upkeep.erase, which, self._clock())
        left = await self._do(Upkeep(lambda place, connection: place.scrub(connection)))
        return Erased(rows, [*unreached, *left])

    async def purge(self, *, keep: timedelta, dedupe_for: timedelta) -> Purged:
        now = self._clock()
        bodies_before = now - keep.total_seconds()
        rows_before = min(bodies_before, now - dedupe_for.total_seconds())
        await self._call(upkeep.forget_streams, bodies_before)
        dropped_bodies, dropped_rows, since = 0, 0, 0.0
        while ended := await self._call(upkeep.purge_bodies, since, bodies_before):
            dropped_bodies, since = dropped_bodies + len(ended), ended[-1]
        while dropped := await self._call(upkeep.purge_rows, rows_before):
            dropped_rows += dropped
        await self._do(Call(lambda connection: upkeep.sweep(connection, now, rows_before)))
        await self._do(Upkeep(lambda place, connection: place.shrink(connection)))
        return Purged(dropped_bodies, dropped_rows)

    def _call(self, work: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return self._do(Call(lambda connection: work(connection, self._receiver, *args)))

    def _do(self, job: Job, release: Callable[[], None] | None = None) -> Awaitable[Any]:
        if self._writer is None:
            if release is not None:
                release()
            raise InboxError("the inbox is not open")
        return self._writer.do(job, release)

    async def _insist(self, job: Job) -> Any:
        """Have something done, however often it takes: what has been handled must not be handled again."""
        pause = 0.05
        while True:
            try:
                return await self._do(job)
            except InboxError:
                if self._writer is None:
                    raise
            await asyncio.sleep(pause)
            job, pause = job.again(), min(2 * pause, LONGEST_PAUSE)

    def _tell(self, fact: Fact) -> None:
        """Emit a fact of the writer's thread where all facts are emitted: on the loop."""
        with suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._emit, fact)


class SqlUpload:
    """A body on its way into the inbox, part by part."""

    def __init__(self, do: Callable[[Job], Awaitable[Any]], *, audio: bool) -> None:
        self.name = uuid4().hex
        self._do = do
        self._audio = audio
        self._n = 0

    async def write(self, data: bytes) -> None:
        await self._do(Part(self.name, self._n, data, self._audio))
        self._n += 1

    async def discard(self) -> None:
        with suppress(InboxError):  # it is swept later
            await self._do(
                Call(lambda connection: connection.execute(delete(parts).where(parts.c.upload == self.name, ~is_used)))
            )


def _which(**wanted: str | None) -> ColumnElement[bool]:
    """The one condition that is given.

    Raises: SetupError if it is none, or more than one.
    """
    given = {name: value for name, value in wanted.items() if value is not None}
    if len(given) != 1:
        raise SetupError(f"say which by exactly one of {', '.join(f'{name}=' for name in wanted)}")
    [(name, value)] = given.items()
    return upkeep.in_state(value) if name == "state" else callbacks.c[name] == value
