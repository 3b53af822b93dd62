"""The inbox in SQL, as the writer's thread sees it: statements and transactions, no waiting, no events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol
from uuid import uuid4

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Select, Text, Update, bindparam, delete, func, select, text, update

from ..core.callbacks import Callback, Label, digest, fingerprint, identify
from ..errors import InboxError
from ..streams import LAST, WHOLE, Endings, Stream, key_of, seed, streams_of
from . import lanes
from .contract import Entry, Mark, State, Stored
from .packing import Packed, pack, unpack_all
from .rows import (
    BODY,
    ENTRY,
    NEW,
    PART,
    advance,
    among,
    as_json,
    ask,
    body_of,
    entry_of,
    insert,
    marks_as_json,
    read_body,
    read_packed,
    read_upload,
    run,
)
from .tables import WAITING, bodies, callbacks, parts
from .writer import POLL, Job, begin

WEAK_FOR = 600.0  # seconds in which equal bytes are a retry

# One job's own fault; the rest of its batch may go on. Of anything else, SQLITE_FULL among it,
# nobody knows what the transaction still holds. Names, for the driver's own errors and for SQLAlchemy's.
# Source: PEP 249
ITS_OWN_FAULT = {"IntegrityError", "DataError", "InterfaceError", "ProgrammingError"}

_c = callbacks.c
_Work = Callable[[Connection, Sequence[Job]], None]
_Known = dict[str, dict[str, Stream]]  # lane -> request_id -> stream
_LEASED = "state = 'leased'"  # written out: a partial index is used for the very words it was made with

_KNOWN = select(_c.key, _c.id, _c.state).where(_c.key.in_(bindparam("keys", expanding=True)))
_LATEST_WEAK = select(_c.id, _c.key, _c.stored).where(_c.weak == bindparam("base")).order_by(_c.id.desc()).limit(1)
_MINE = _c.receiver == bindparam("me")


@cache
def _due(skipped: int) -> Select[*tuple[Any, ...]]:
    due = select(*ENTRY).where(_MINE, text(WAITING), _c.due <= bindparam("now"), ~among(_c.kind, skipped))
    return due.order_by(_c.due, _c.id).limit(bindparam("limit"))


@cache
def _next(skipped: int) -> Select[*tuple[Any, ...]]:
    """When the next is due, and the next stream ends: each from the end of its index."""
    due = select(func.min(_c.due)).where(_MINE, text(WAITING), ~among(_c.kind, skipped))
    return select(due.scalar_subquery(), lanes.NEXT_END.scalar_subquery())


@cache
def _lease(count: int) -> Update:
    return (
        update(callbacks)
        .where(among(_c.id, count))
        .values(state="leased", due=None, lease=bindparam("incarnation", type_=Text))
    )


@cache
def _end(count: int) -> Update:
    return (
        update(callbacks)
        .where(among(_c.id, count), text(_LEASED), _c.lease == bindparam("incarnation"))
        .values(
            state=bindparam("to"),
            due=bindparam("at"),
            marks=bindparam("with"),
            error=bindparam("why"),
            changed=bindparam("now"),
            lease=None,
            crashes=0,
        )
    )


_TAKE_LEASES = (
    update(callbacks)
    .where(_MINE, text(_LEASED), _c.lease != bindparam("incarnation"))
    .values(state="waiting", due=bindparam("now"), lease=None, crashes=_c.crashes + 1)
)
# What was to wait when the clock was another: no longer than it was to wait then.
_CLIP_WAITS = (
    update(callbacks)
    .where(_MINE, text(WAITING), _c.due > bindparam("now"), _c.changed > bindparam("now"))
    .values(due=bindparam("now") + (_c.due - _c.changed))
)
_LEASED_BY = select(_c.id).where(text(_LEASED), _c.lease == bindparam("incarnation"))
_GIVE_BACK = (
    update(callbacks)
    .where(_c.id.in_(bindparam("ids", expanding=True)), text(_LEASED))
    .values(state="waiting", due=bindparam("now"), lease=None)
)


class Put(Job, eq=False):
    """Store a callback; its label is made here if its body was uploaded."""

    callback: Callback
    label: Label | None
    upload: str | None
    buried: str | None

    def let_go(self) -> None:
        self.callback = replace(self.callback, body=b"")

    @property
    def weight(self) -> int:
        return len(self.callback.body)


class PutAll(Job, eq=False):
    """Store callbacks in order, all of them or none; each put has its own result."""

    puts: Sequence[Put]

    def let_go(self) -> None:
        self.puts = ()

    @property
    def weight(self) -> int:
        return sum(put.weight for put in self.puts)


class Part(Job, eq=False):
    """Store the next part of an upload."""

    upload: str
    n: int
    data: bytes
    audio: bool

    def let_go(self) -> None:
        self.data = b""

    @property
    def weight(self) -> int:
        return len(self.data)


class End(Job, eq=False):
    """End the lease of an entry: settle, postpone or bury it."""

    patient = True

    entry: Entry
    state: State
    marks: Mapping[str, Mark]
    why: str | None = None  # it goes on waiting, or is dead
    wait: float | None = None  # seconds, if it is to wait again


class Claim(Job, eq=False):
    """Lease what is due, or stay until something is."""

    patient = True

    limit: int
    room: int
    skip: Collection[str]


class Withdraw(Job, eq=False):
    """Let a claim go whose caller was cancelled."""

    patient = True

    claim: Claim


class StepAside(Job, eq=False):
    """Let another process be the owner."""

    patient = True


class Call(Job, eq=False):
    """Something rarer, in a transaction of its own."""

    work: Callable[[Connection], Any]

    def run(self, connection: Connection) -> None:
        self.result = self.work(connection)


class Upkeep(Job, eq=False):
    """Something that the place does by itself, outside of a transaction."""

    work: Callable[[Place, Connection], Any]


# Asked of each job by its very class: isinstance takes twenty times as long for a struct.
BATCHED = {Put, PutAll, Part, End}
RARER = {Call, Upkeep, StepAside}


class Place(Protocol):
    """Where the tables are: what is shared with other processes there, and how it is opened."""

    begin: str  # the statement that begins a transaction

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since 1970 that never jump, the same for all who share the tables."""

    @property
    def write(self) -> AbstractContextManager[None]:
        """Held around every transaction."""

    def connect(self) -> Connection:
        """Open a connection in autocommit mode."""

    def own(self) -> bool:
        """Whether this process dispatches; it becomes so if no other does."""

    def stand_for(self, incarnation: str) -> None:
        """Let others see that this incarnation lives, for as long as it does."""

    def is_gone(self, incarnation: str) -> bool:
        """Whether an incarnation that was stood for has ended."""

    def disown(self) -> None:
        """Let another process dispatch."""

    def check_room(self) -> None:
        """Raises: InboxError if there is too little room for anything new."""

    def scrub(self, connection: Connection) -> Sequence[str]:
        """Take the last traces of what was erased out of the files; what could not be reached."""

    def shrink(self, connection: Connection) -> None:
        """Give back to the file system what was purged."""

    def close(self) -> None:
        """Let go of all locks."""


class _Grant(msgspec.Struct, eq=False):
    """What a claim is given in the transaction that runs, and how much more it takes."""

    claim: Claim
    slots: int
    room: int  # bytes of bodies; the first is taken whatever its size
    entries: list[Entry] = []
    fresh: Mapping[int, bytes] = {}  # bodies put in the same transaction

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.slots -= 1
        self.room -= entry.size


class _New(msgspec.Struct, eq=False):
    """A callback on its way into the tables."""

    put: Put
    label: Label
    base: str | None  # the key by equal bytes alone, if there is no better
    id: int
    size: int
    state: State
    n: int | None = None
    stream: str | None = None


class Store:
    """The statements of the SQL inbox. `clock` gives seconds since 1970 and never jumps while the process lives."""

    def __init__(
        self,
        place: Place,
        *,
        receiver: str,
        clock: Callable[[], float],
        endings: Endings,
        took_over: Callable[[int], None],
        failed: Callable[[Exception, int], None],
    ) -> None:
        self._place = place
        self._receiver = receiver
        self._clock = clock
        self._endings = endings
        self._took_over = took_over
        self._failed = failed
        self._incarnation = uuid4().hex
        self._ids = _Ids()
        self._connection: Connection | None = None
        self._claim: Claim | None = None
        self._grant: _Grant | None = None  # to the claim, in the transaction that runs
        self._granted: _Grant | None = None  # durably; its bodies are to be read yet
        self._out: set[int] = set()  # leased and not ended
        self._astray = False  # a transaction failed: leases may stand in the file that nobody was given
        self._owns = False
        self._stands = False  # others can see whether this process lives
        self._next_due: float | None = None
        self._next_end = 0.0  # until then no stream need be looked at

    # --- what the writer calls ---

    def transact(self, jobs: Sequence[Job]) -> Sequence[Job]:
        finished = self._take_up(jobs)
        batch = [job for job in jobs if type(job) in BATCHED]
        rarer = [job for job in jobs if type(job) in RARER]
        if self._claim and not self._owns:  # also while there is no pause in what comes in
            self._take_over()
        writable = self._admit(batch)
        if writable or self._astray or self._is_due():
            self._attempt(writable, self._write)
        if rarer:
            self._hand_over()  # they might change it
        for job in rarer:  # they see what was put before them
            self._do_alone(job)
        return [*finished, *batch, *rarer]

    def follow_up(self) -> Sequence[Job]:
        self._hand_over()
        return self._await(None) if self._claim and self._claim.result else []

    def pause(self) -> float | None:
        if self._claim is None:
            return None
        if self._next_due is None:
            return POLL
        return min(POLL, max(0.0, self._next_due - self._clock()))

    def shut(self) -> Sequence[Job]:
        if self._owns:
            self._attempt([], self._give_back)
        self._close()
        self._place.close()
        return self._await(None)

    def _take_up(self, jobs: Sequence[Job]) -> list[Job]:
        """Claims, and claims that are withdrawn; those that are thereby finished."""
        finished: list[Job] = []
        for job in jobs:
            if type(job) is Claim:
                finished += self._await(job)
            elif type(job) is Withdraw:
                self._withdraw(job.claim)
        return finished

    def _await(self, claim: Claim | None) -> Sequence[Job]:
        """Take up a claim in place of the one before, which is thereby finished."""
        before, self._claim = self._claim, claim
        if before is None:
            return []
        before.result = before.result or []
        return [before]

    def _withdraw(self, claim: Claim) -> None:
        """End a claim that nobody waits for any more; what it was given all the same waits again."""
        if self._claim is claim:
            self._claim = None
        elif claim.result:
            self._out.difference_update(entry.id for entry, _ in claim.result)
            self._attempt([], lambda connection, _: self._recover(connection))

    # --- transactions ---

    def _attempt(self, jobs: Sequence[Job], work: _Work) -> None:
        """Do the jobs in one transaction; one by one if one of them is such that it cannot be written."""
        try:
            self._run(jobs, work)
        except Exception as error:  # of whatever the driver raises, all in the batch must hear
            if len(jobs) > 1 and _is_its_own_fault(error):
                for job in jobs:
                    self._attempt([job], work)
            else:
                self._fail(jobs, error)

    def _run(self, jobs: Sequence[Job], work: _Work) -> None:
        try:
            with self._place.write:
                self._transact(begin(jobs), work)
            self._astray = False
            self._out.difference_update(job.entry.id for job in jobs if type(job) is End)
            if self._grant and self._grant.entries:
                self._granted = self._grant
                self._out.update(entry.id for entry in self._grant.entries)
        except Exception:
            self._astray, self._next_due = True, None
            self._close()
            raise
        finally:
            self._grant = None

    def _transact(self, jobs: Sequence[Job], work: _Work) -> None:
        connection = self._connect()
        run(connection, self._place.begin)
        try:
            if self._astray:
                self._recover(connection)
            work(connection, jobs)
            run(connection, "COMMIT")
        except Exception:
            with suppress(Exception):  # the database may have rolled back by itself
                run(connection, "ROLLBACK")
            raise

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._place.connect()
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception), self._place.write:  # it is given up in any case
                connection.close()

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        for job in jobs:
            job.error = InboxError(explain(error))
            job.error.__cause__ = error
        self._failed(error, len(jobs))

    def _write(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """What comes in, what ends, what is claimed: the transaction of every day."""
        now = self._clock()
        puts = _puts(jobs)
        uploaded = [job for job in jobs if type(job) is Part]
        ends = [job for job in jobs if type(job) is End]
        if self._claim and self._owns and not (self._granted or self._claim.result):
            self._grant = _Grant(self._claim, self._claim.limit, self._claim.room)
        self._lease_due(connection, now)  # what has waited goes before what comes
        if uploaded:
            self._keep_parts(connection, uploaded, now)
        if puts:
            self._put(connection, puts, now)
        if ends:
            self._end(connection, ends, now)
        if self._owns and now >= self._next_end:
            self._end_streams(connection, now)
        self._lease_due(connection, now)

    def _admit(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """The jobs, less those that bring something new if there is no room for it."""
        new = [job for job in jobs if type(job) is not End]
        try:
            if new:
                self._place.check_room()
        except Exception as error:  # who brought something hears of whatever it was; what ends goes on
            self._fail(new, error)
            return [job for job in jobs if type(job) is End]
        return jobs

    def _do_alone(self, job: Job) -> None:
        if isinstance(job, Upkeep):
            self._maintain(job)
        elif isinstance(job, Call):
            self._attempt([job], lambda connection, left: job.run(connection) if left else None)
        else:
            self._step_aside()

    def _maintain(self, job: Upkeep) -> None:
        try:
            with self._place.write:
                for upkeep in begin([job]):
                    upkeep.result = job.work(self._place, self._connect())
        except Exception as error:  # the driver's own errors too
            self._close()
            self._fail([job], error)

    # --- putting ---

    def _put(self, connection: Connection, puts: Sequence[Put], now: float) -> None:
        first = self._ids.take(len(puts), now)
        news = [self._new(connection, put, id_, now) for id_, put in enumerate(puts, first)]
        known = self._place_in_lanes(connection, news, now)
        self._lease_at_once(news)
        rows = [self._row(new, now) for new in news]
        if insert(connection, callbacks, NEW, rows, unless_known="key") < len(news):
            self._resolve(connection, news, now)
        stored = [new for new in news if new.put.result.outcome != "duplicate"]
        self._keep_bodies(connection, stored)
        for new in stored:
            if new.state == "leased" and self._grant:
                self._grant.add(_entry(new))
        if known:
            self._hear(connection, stored, known, now)
            advance(connection, {new.label.lane for new in stored if new.label.lane})

    def _new(self, connection: Connection, put: Put, id_: int, now: float) -> _New:
        label, size = put.label, len(put.callback.body)
        if label is None:
            callback = _whole(connection, put)
            label, size = identify(callback, receiver=self._receiver), len(callback.body)
        base, late = None, False
        if label.weak:
            base = label.key
            label, late = _tell_weak(connection, label, now)
        put.result = Stored("stored", label.key, label.kind, label.request_id, size, late)
        return _New(put, label, base, id_, size, "dead" if put.buried else "waiting")

    def _place_in_lanes(self, connection: Connection, news: Sequence[_New], now: float) -> _Known:
        """Give each its place and its stream; the streams that the lanes had before."""
        counts = Counter(new.label.lane for new in news if new.label.lane)
        known = lanes.read_streams(connection, counts) if counts else {}
        for lane, count in counts.items():
            first = lanes.take_places(connection, lane, count, now) - count + 1
            mine = [new for new in news if new.label.lane == lane]
            for n, new in enumerate(mine, start=first):
                new.n = n
            self._assign(connection, lane, [new for new in mine if new.state == "waiting"], known[lane])
        return known

    def _assign(self, connection: Connection, lane: str, news: Sequence[_New], known: Mapping[str, Stream]) -> None:
        """Give each its stream; what was buried as it came belongs to none."""
        latest = max(known.values(), key=lambda stream: stream.begun).request_id if known else None
        for new, stream in zip(
            news, streams_of([new.label.request_id for new in news], latest=latest, known=known), strict=True
        ):
            new.stream = stream
        if news and news[0].stream and not known:
            lanes.adopt(connection, lane, news[0].stream)

    def _hear(self, connection: Connection, news: Sequence[_New], known: _Known, now: float) -> None:
        """Note that something came, and that a stream goes on, or that it closes."""
        heard: dict[tuple[str, str], list[_New]] = {}
        for new in news:
            if new.label.lane and new.stream:
                heard.setdefault((new.label.lane, new.stream), []).append(new)
        changed = []
        for (lane, name), its in heard.items():
            stream = known[lane].get(name) or Stream(lane, name, begun=its[0].n or 0, changed=now)
            closes = any(new.label.kind == LAST for new in its)
            holder = self._stand() if its[-1].put.callback.connection else None
            changed.append(self._endings.heard(stream, now, closes=closes, holder=holder))
        lanes.save_streams(connection, self._receiver, changed)

    def _stand(self) -> str:
        """The name under which others can see whether this process lives."""
        if not self._stands:
            self._place.stand_for(self._incarnation)
            self._stands = True
        return self._incarnation

    def _resolve(self, connection: Connection, news: Sequence[_New], now: float) -> None:
        """Tell the duplicates and conflicts among callbacks of which not all were new."""
        known = {row.key: row for row in connection.execute(_KNOWN, {"keys": [new.label.key for new in news]})}
        mine = {new.id: new for new in news}
        for new in news:
            row = known[new.label.key]
            if row.id == new.id:
                continue
            body, first = _whole(connection, new.put).body, mine.get(row.id)
            kept = _whole(connection, first.put).body if first else _kept(connection, row.id)
            if kept in (None, body) or row.state == "erased" or not self._conflicts(connection, new, body, now):
                new.put.result = replace(new.put.result, outcome="duplicate", late=False)
                connection.execute(delete(parts).where(parts.c.upload == new.put.upload))

    def _conflicts(self, connection: Connection, new: _New, body: bytes, now: float) -> bool:
        """Keep a differing body under a known key; whether it had not been kept before."""
        key = _derived(new.label.key, digest(body))
        new.label, new.state, new.n = replace(new.label, key=key, lane=None), "conflict", None
        new.stream = None
        new.put.result = replace(new.put.result, outcome="conflict", key=key)
        return insert(connection, callbacks, NEW, [self._row(new, now)], unless_known="key") == 1

    def _lease_at_once(self, news: Iterable[_New]) -> None:
        """Let what comes be written as leased, as far as the claim goes, and not as waiting first."""
        if self._grant is None:
            return
        slots, room, skip = self._grant.slots, self._grant.room, self._grant.claim.skip
        for new in news:
            waits_for_none = new.state == "waiting" and not new.label.lane and not new.put.upload
            if waits_for_none and slots > 0 and new.size <= room and new.label.kind not in skip:
                new.state = "leased"
                slots, room = slots - 1, room - new.size

    def _row(self, new: _New, now: float) -> tuple[Any, ...]:
        """The values of the columns `NEW`."""
        callback, label = new.put.callback, new.label
        return (
            new.id,
            self._receiver,
            label.key,
            new.base,
            label.kind,
            label.request_id,
            callback.job,
            label.lane,
            new.n,
            new.stream,
            new.state,
            now if new.state == "waiting" and label.lane is None else None,
            self._incarnation if new.state == "leased" else None,
            new.put.buried,
            callback.received_at,
            now,
            now,
            callback.path,
            callback.query,
            as_json(callback.headers),
            as_json(callback.context),
            new.size,
            new.put.upload,
        )

    def _keep_bodies(self, connection: Connection, news: Iterable[_New]) -> None:
        here = [new for new in news if new.put.upload is None]
        packed = pack([(new.put.callback.body, new.label.kind == "Audio") for new in here])
        insert(connection, bodies, BODY, [(new.id, *its) for new, its in zip(here, packed, strict=True)])
        if self._grant:
            self._grant.fresh = {new.id: new.put.callback.body for new in here}

    def _keep_parts(self, connection: Connection, news: Sequence[Part], now: float) -> None:
        packed = pack([(part.data, part.audio) for part in news])
        rows = [(part.upload, part.n, now, *its) for part, its in zip(news, packed, strict=True)]
        insert(connection, parts, PART, rows)

    # --- streams ---

    def _end_streams(self, connection: Connection, now: float) -> None:
        """Put a LiveTranscript behind the messages of each stream that has ended."""
        self._next_end = now + POLL
        changed = []
        for stream in lanes.read_ended(connection, self._receiver, now):
            if stream.holder and self._lives(stream.holder):
                changed.append(self._endings.held(stream, now))
            else:
                self._tell_whole(connection, stream, now)
                changed.append(self._endings.ended(stream, now))
        lanes.save_streams(connection, self._receiver, changed)
        advance(connection, {stream.lane for stream in changed})

    def _lives(self, holder: str) -> bool:
        return holder == self._incarnation or not self._place.is_gone(holder)

    def _tell_whole(self, connection: Connection, stream: Stream, now: float) -> None:
        """Store a stream's LiveTranscript, unless it was erased, or there is nothing left to make it of."""
        last = lanes.last_message(connection, stream)
        if last is None:
            return
        id_, body = self._ids.take(1, now), seed(stream)
        n = lanes.take_places(connection, stream.lane, 1, now)
        row = {
            **dict.fromkeys(NEW),
            **last,
            "id": id_,
            "receiver": self._receiver,
            "key": key_of(stream),
            "kind": WHOLE,
            "request_id": stream.request_id,
            "lane": stream.lane,
            "n": n,
            "stream": stream.request_id,
            "state": "waiting",
            "stored": now,
            "changed": now,
            "size": len(body),
        }
        if insert(connection, callbacks, NEW, [tuple(row.values())], unless_known="key"):
            insert(connection, bodies, BODY, [(id_, None, body)])

    # --- leasing ---

    def _is_due(self) -> bool:
        """Whether the claim that waits, if one does, would get something."""
        if self._claim is None or not self._owns:
            return False
        try:
            with self._place.write:
                [(due, end)] = ask(self._connect(), _next, _skipped(self._claim), me=self._receiver)
        except Exception as error:  # whatever it was, the claim goes on waiting
            self._next_due = None
            self._close()
            self._fail([], error)
            return False
        if end is not None:
            self._next_end = min(self._next_end, end)
        self._next_due = min((at for at in (due, end) if at is not None), default=None)
        return self._next_due is not None and self._next_due <= self._clock()

    def _take_over(self) -> None:
        """Become the owner, if nobody is: what another left leased waits again, and counts as a crash."""
        recovered = 0

        def take(connection: Connection, jobs: Sequence[Job]) -> None:
            nonlocal recovered
            now = self._clock()
            values = {"me": self._receiver, "now": now}
            recovered = connection.execute(_TAKE_LEASES, {**values, "incarnation": self._incarnation}).rowcount
            connection.execute(_CLIP_WAITS, values)
            lanes.clip_ends(connection, self._receiver, now)

        try:
            if not self._place.own():
                return
            self._run([], take)
        except Exception as error:  # whatever it was, the claim goes on waiting
            self._fail([], error)
            return
        self._owns = True
        self._took_over(recovered)

    def _step_aside(self) -> None:
        if self._owns:
            self._attempt([], self._give_back)
            self._place.disown()
            self._owns = False

    def _lease_due(self, connection: Connection, now: float) -> None:
        """Lease what is due, as far as the claim goes."""
        grant = self._grant
        if grant is None or grant.slots <= 0:
            return
        values = {"me": self._receiver, "now": now, "limit": grant.slots}
        leased = []
        for entry in map(entry_of, ask(connection, _due, _skipped(grant.claim), **values)):
            if grant.entries and entry.size > grant.room:
                break
            grant.add(entry)
            leased.append(entry.id)
        if leased:
            ask(connection, _lease, leased, incarnation=self._incarnation)

    def _hand_over(self) -> None:
        """Give the claim what was leased for it; those whose callbacks came meanwhile need not wait for that."""
        while self._granted:
            granted, self._granted = self._granted, None
            try:
                given, damaged = self._read(granted)
            except Exception as error:  # whatever it was, the claim goes on waiting
                self._out.difference_update(entry.id for entry in granted.entries)
                self._astray, self._next_due = True, None
                self._close()
                self._fail([], error)
                return
            granted.claim.result = given
            self._out.difference_update(end.entry.id for end in damaged)
            if damaged:  # what can never be handed over must not stand in the way of the rest
                self._attempt(damaged, self._write)

    def _read(self, granted: _Grant) -> tuple[Sequence[tuple[Entry, bytes]], Sequence[End]]:
        """What was leased, with its bodies; and the end of what has none that can be read."""
        packed = read_packed(self._connect(), [entry.id for entry in granted.entries if entry.id not in granted.fresh])
        whole = {**granted.fresh, **_unpacked(packed)}
        given, damaged = list[tuple[Entry, bytes]](), list[End]()
        for entry in granted.entries:
            try:
                body = whole[entry.id] if entry.id in whole else body_of(self._connect(), entry.id, packed)
                given.append((entry, body or b""))
            except ValueError as error:
                damaged.append(End(entry, "dead", entry.marks, f"its body cannot be read: {error}"))
        return given, damaged

    def _end(self, connection: Connection, ends: Sequence[End], now: float) -> None:
        alike: dict[tuple[object, ...], list[int]] = {}
        for end in ends:
            key = (end.state, None if end.wait is None else now + end.wait, marks_as_json(end.marks), end.why)
            alike.setdefault(key, []).append(end.entry.id)
        for (state, due, marks, error), ids in alike.items():
            values = {"to": state, "at": due, "with": marks, "why": error, "now": now}
            ask(connection, _end, ids, incarnation=self._incarnation, **values)
        advance(connection, {end.entry.lane for end in ends if end.entry.lane})

    def _give_back(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """What was leased and has not ended waits again, as if it had not been begun."""
        self._out.clear()
        self._recover(connection)

    def _recover(self, connection: Connection) -> None:
        """Give back what was leased in a transaction that failed, if it was written all the same."""
        mine = connection.execute(_LEASED_BY, {"incarnation": self._incarnation}).scalars()
        astray = [id_ for id_ in mine if id_ not in self._out]
        connection.execute(_GIVE_BACK, {"ids": astray, "now": self._clock()})


def _skipped(claim: Claim) -> Sequence[str]:
    """The kinds that a claim does not want; a kind that is none, if it wants all."""
    return [*claim.skip] or [""]


def _entry(new: _New) -> Entry:
    """The entry of what was leased as it came."""
    callback, label = new.put.callback, new.label
    return Entry(
        new.id,
        label.key,
        label.kind,
        label.request_id,
        callback.job,
        label.lane,
        new.state,
        datetime.fromtimestamp(callback.received_at, UTC),
        new.size,
        callback.path,
        callback.query,
        callback.headers,
        callback.context or {},
    )


def _puts(jobs: Sequence[Job]) -> Sequence[Put]:
    puts = list[Put]()
    for job in jobs:
        if type(job) is Put:
            puts.append(job)
        elif type(job) is PutAll:
            puts += job.puts
    return puts


def _is_its_own_fault(error: Exception) -> bool:
    return isinstance(error, UnicodeError | OverflowError) or type(error).__name__ in ITS_OWN_FAULT


def _unpacked(packed: Mapping[int, Packed]) -> Mapping[int, bytes]:
    """The bodies, all at once; none if one of them is damaged, which is then to be found."""
    try:
        return unpack_all(packed)
    except ValueError:
        return {}


def _kept(connection: Connection, id_: int) -> bytes | None:
    """The body of a callback, as far as it is kept and can be read."""
    with suppress(ValueError):
        return read_body(connection, id_)
    return None


def _whole(connection: Connection, put: Put) -> Callback:
    """The callback with its body; what was uploaded is read back."""
    if put.upload is None:
        return put.callback
    return replace(put.callback, body=read_upload(connection, put.upload) or b"")


def _tell_weak(connection: Connection, label: Label, now: float) -> tuple[Label, bool]:
    """The key under which equal bytes are kept now, and whether they are news because they came too late."""
    latest = connection.execute(_LATEST_WEAK, {"base": label.key}).one_or_none()
    if latest is None:
        return label, False
    if now - latest.stored <= WEAK_FOR:
        return replace(label, key=latest.key), False
    return replace(label, key=_derived(label.key, str(latest.id))), True


def _derived(key: str, part: str) -> str:
    return fingerprint(f"{key}:{part}")


class _Ids:
    """Ids that grow with time and are new in every process: 42 bits of milliseconds, 21 of chance, then counting."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int, now: float) -> int:
        """The first of so many in a row."""
        since = int(now * 1000) << 21
        first = self._next if since < self._next else since | uuid4().int & 0xFFFFF
        self._next = first + count
        return first


def time_of(id_: int) -> float:
    """When the callback of an id was stored, to the millisecond."""
    return (id_ >> 21) / 1000


def explain(error: Exception) -> str:
    """An error in one line, without the values that its statement held."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, InboxError):
        return str(cause)
    if isinstance(cause, UnicodeError):
        return "a text that is no Unicode"
    return f"{type(cause).__name__}: {cause}"
