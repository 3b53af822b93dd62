"""Reading, replaying, erasing and purging: the SQL of the inbox that is not in the way of a callback."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, func, or_, select, text, update

from ..streams import WHOLE
from .contract import Entry, Mark, State
from .rows import ENTRY, advance, entry_of, marks_as_json, marks_of, read_body
from .tables import ATTENTION, EXPIRING, OPEN, WAITING, bodies, callbacks, lanes, parts, streams

SWEEP_AFTER = 3600.0  # seconds after which parts without a row are an upload that was cut off
AT_ONCE = 200  # rows that one statement reads or drops

_c = callbacks.c
ENDED: tuple[State, ...] = ("done", "unhandled", "dead", "conflict")
NOTABLE: tuple[State, ...] = ("dead", "conflict", "unhandled")
_has_body = or_(
    exists().where(bodies.c.id == _c.id),
    exists().where(parts.c.upload == _c.upload),
)
is_used = exists().where(_c.upload == parts.c.upload)  # of a part: a callback has it
_s = streams.c
_of_a_stream = exists().where(_s.lane == _c.lane, _s.request_id == _c.stream)
_earlier = callbacks.alias()
_behind_another = exists().where(
    _earlier.c.lane == _c.lane, _earlier.c.n < _c.n, _earlier.c.state.in_(["waiting", "leased"])
)


def get(connection: Connection, receiver: str, key: str) -> tuple[Entry, bytes] | None:
    row = connection.execute(select(*ENTRY).where(_c.receiver == receiver, _c.key == key)).one_or_none()
    return None if row is None else (entry_of(row), read_body(connection, row.id) or b"")


def progress(connection: Connection, receiver: str, key: str) -> tuple[State, int]:
    """How far a callback has come: its state, and how many attempts have ended."""
    row = connection.execute(select(_c.state, _c.marks).where(_c.receiver == receiver, _c.key == key)).one()
    return row.state, sum(mark.attempts for mark in marks_of(row.marks).values())


def hasten(connection: Connection, receiver: str, key: str, now: float) -> tuple[State, int]:
    """Make a callback due that waits for its time; how far it has come. What is behind another in its lane waits on."""
    wanted = (_c.receiver == receiver, _c.key == key, text(WAITING), _c.due > now)
    connection.execute(update(callbacks).where(*wanted).values(due=now))
    return progress(connection, receiver, key)


def page(connection: Connection, receiver: str, state: State | None, before: int | None, limit: int) -> list[Entry]:
    wanted = select(*ENTRY).where(_c.receiver == receiver).order_by(_c.id.desc()).limit(min(limit, AT_ONCE))
    if state is not None:
        wanted = wanted.where(in_state(state))
    if before is not None:
        wanted = wanted.where(_c.id < before)
    return [entry_of(row) for row in connection.execute(wanted)]


def in_state(state: str) -> ColumnElement[bool]:
    """In this state; what is to be looked at is found without looking at all that is kept."""
    mine = _c.state == state
    return and_(text(ATTENTION), mine) if state in NOTABLE else mine


def counts(connection: Connection, receiver: str) -> dict[State, int]:
    rows = connection.execute(
        select(_c.state, func.count().label("n")).where(_c.receiver == receiver).group_by(_c.state)
    )
    return {row.state: row.n for row in rows}


def oldest(connection: Connection, receiver: str) -> datetime | None:
    """When the oldest callback came that has not ended."""
    wanted = select(func.min(_c.received_at)).where(_c.receiver == receiver, text(OPEN))
    came: float | None = connection.execute(wanted).scalar()
    return None if came is None else datetime.fromtimestamp(came, UTC)


def busy(connection: Connection, receiver: str, now: float) -> bool:
    mine = select(_c.id).where(_c.receiver == receiver)
    due = exists(mine.where(text(WAITING), _c.due <= now))
    leased = exists(mine.where(text("state = 'leased'")))
    ended = exists().where(_s.receiver == receiver, _s.holder.is_(None), _s.ends.is_not(None), _s.ends <= now)
    return bool(connection.execute(select(or_(due, leased, ended))).scalar())


def bury_waiting(connection: Connection, receiver: str, key: str, error: str, now: float) -> bool:
    """Give up a callback that waits; whether it did."""
    waits = (_c.receiver == receiver, _c.key == key, text(WAITING))
    dead = {"state": "dead", "due": None, "error": error, "changed": now}
    buried = connection.execute(update(callbacks).where(*waits).values(**dead).returning(_c.lane)).all()
    advance(connection, {row.lane for row in buried if row.lane})
    return bool(buried)


def replay(connection: Connection, receiver: str, which: ColumnElement[bool], now: float) -> int:
    """Make ended callbacks that still have their bodies wait again; how many."""
    wanted = (_c.receiver == receiver, _c.state.in_(ENDED), which, _has_body)
    entries = [entry_of(row) for row in connection.execute(select(*ENTRY).where(*wanted))]
    for start in range(0, len(entries), AT_ONCE):
        _begin_again(connection, entries[start : start + AT_ONCE], now)
    return len(entries)


def _begin_again(connection: Connection, entries: Sequence[Entry], now: float) -> None:
    alike: dict[str, list[int]] = {}
    for entry in entries:
        alike.setdefault(_what_is_left(entry), []).append(entry.id)
    for marks, ids in alike.items():
        due = case((_c.lane.is_(None), now))  # in a lane it has no time until it is the first there
        values = {"state": "waiting", "due": due, "changed": now, "crashes": 0, "error": None, "replayed": True}
        connection.execute(update(callbacks).where(_c.id.in_(ids)).values(**values, marks=marks))
    names = {entry.lane for entry in entries if entry.lane}
    if names:  # behind what is unfinished before it, before what is unfinished behind it
        connection.execute(update(callbacks).where(text(WAITING), _c.lane.in_(names), _behind_another).values(due=None))
        advance(connection, names)


def _what_is_left(entry: Entry) -> str:
    """Of a dead callback, the handlers that were done stay done; any other begins anew."""
    done = {name: mark for name, mark in entry.marks.items() if mark.done}
    return marks_as_json({name: Mark(done=True) for name in done} if entry.state == "dead" else {})


def erase(connection: Connection, receiver: str, which: ColumnElement[bool], now: float) -> tuple[int, list[str]]:
    """Empty the rows of a request or job and of its lanes; how many, and what was not reached."""
    mine = (_c.receiver == receiver, which, _c.state != "erased")
    in_lanes = select(_c.lane).where(*mine, _c.lane.is_not(None))
    rows = connection.execute(
        select(_c.id, _c.state, _c.upload, _c.lane).where(
            _c.receiver == receiver, _c.state != "erased", or_(which, _c.lane.in_(in_lanes))
        )
    ).all()
    for start in range(0, len(rows), AT_ONCE):
        _empty(connection, rows[start : start + AT_ONCE], now)
    names = {row.lane for row in rows if row.lane}
    for table in (streams, lanes):
        connection.execute(delete(table).where(table.c.lane.in_(names)))
    left = ["a handler that was running with it"] if any(row.state == "leased" for row in rows) else []
    if connection.execute(select(_nameless(receiver))).scalar():
        left.append(
            "what carries no id, such as an UtteranceEnd or audio by a URL without SignedAuth: whose it is, is unknown"
        )
    return len(rows), left


def _nameless(receiver: str) -> ColumnElement[bool]:
    kinds = ("Audio", "SpeechStarted", "UtteranceEnd", "LiveError", "LiveResult", "StreamMetadata")
    ids = (_c.request_id, _c.job, _c.lane)
    nameless = (column.is_(None) for column in ids)
    return exists().where(_c.receiver == receiver, _c.state != "erased", _c.kind.in_(kinds), *nameless)


def _empty(connection: Connection, rows: Sequence[Any], now: float) -> None:
    ids = [row.id for row in rows]
    connection.execute(delete(bodies).where(bodies.c.id.in_(ids)))
    connection.execute(delete(parts).where(parts.c.upload.in_([row.upload for row in rows if row.upload])))
    tombstone = {
        "state": "erased",
        "request_id": None,
        "job": None,
        "lane": None,
        "stream": None,
        "due": None,
        "lease": None,
        "marks": "{}",
        "error": None,
        "path": "",
        "query": "",
        "headers": "{}",
        "context": "{}",
        "upload": None,
        "size": 0,
        "changed": now,
    }
    connection.execute(update(callbacks).where(_c.id.in_(ids)).values(**tombstone))


def forget_streams(connection: Connection, receiver: str, before: float) -> None:
    """Let go of the streams that are over, with all their messages, since then: what stands in them may be purged."""
    unsettled = or_(
        text("state IN ('waiting', 'leased')"),
        and_(_c.kind == WHOLE, _c.state == "dead"),
        and_(text("state IN ('done', 'unhandled')"), _c.changed > before),
    )
    standing = exists().where(_c.lane == _s.lane, _c.stream == _s.request_id, unsettled)
    over = (_s.receiver == receiver, _s.ends.is_(None), _s.changed <= before, ~standing)
    connection.execute(delete(streams).where(*over))


def purge_bodies(connection: Connection, receiver: str, since: float, before: float) -> list[float]:
    """Drop some bodies of callbacks that ended between then and then, and have nothing more to do.

    When each had ended: whoever goes on from the last does not look anew at all that has been emptied.
    """
    old = (
        select(_c.id, _c.upload, _c.changed)
        .where(_c.receiver == receiver, text(EXPIRING), _c.changed.between(since, before), _has_body)
        .where(or_(_c.stream.is_(None), ~_of_a_stream))
        .order_by(_c.changed)
        .limit(AT_ONCE)
    )
    rows = connection.execute(old).all()
    connection.execute(delete(bodies).where(bodies.c.id.in_([row.id for row in rows])))
    connection.execute(delete(parts).where(parts.c.upload.in_([row.upload for row in rows if row.upload])))
    return [row.changed for row in rows]


def purge_rows(connection: Connection, receiver: str, before: float) -> int:
    """Drop some rows, with their keys, that ended before then and have no body left; how many."""
    old = select(_c.id).where(_c.receiver == receiver, text(EXPIRING), _c.changed <= before, ~_has_body).limit(AT_ONCE)
    return connection.execute(delete(callbacks).where(_c.id.in_(old))).rowcount


def sweep(connection: Connection, now: float, before: float) -> int:
    """Drop the parts of uploads that were cut off, and the lanes that nothing stands in any more."""
    swept = connection.execute(delete(parts).where(parts.c.stored <= now - SWEEP_AFTER, ~is_used)).rowcount
    standing = exists().where(_c.lane == lanes.c.lane)
    connection.execute(delete(lanes).where(lanes.c.changed <= before, ~standing))
    return swept
