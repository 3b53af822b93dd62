"""Lanes and the live streams in them: places, what belongs together, what has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, bindparam, case, func, select, text, update

from ..streams import WHOLE, Endings, Stream
from .rows import body_of, read_packed
from .tables import callbacks, streams

AT_ONCE = 64  # streams that end in one transaction at most
PAGE = 200  # messages read at a time

_c, _s = callbacks.c, streams.c
_ends = (_s.receiver == bindparam("me"), _s.ends.is_not(None))

_TAKE_PLACES = text(
    "INSERT INTO dgreceiver_lane (lane, n, changed) VALUES (:lane, :count, :now) "
    "ON CONFLICT (lane) DO UPDATE SET n = dgreceiver_lane.n + excluded.n, changed = excluded.changed RETURNING n"
)
_FIELDS = tuple(Stream.__struct_fields__)
_STREAM = [_s[name] for name in _FIELDS]
_IN_LANES = select(*_STREAM).where(_s.lane.in_(bindparam("lanes", expanding=True)))
_SAVE = text(
    f"INSERT INTO dgreceiver_stream (receiver, {', '.join(_FIELDS)}) "  # noqa: S608 - our own names
    f"VALUES (:receiver, {', '.join(f':{name}' for name in _FIELDS)}) ON CONFLICT (lane, request_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _FIELDS[2:])
)
_ADOPT = update(callbacks).where(_c.lane == bindparam("its"), _c.stream.is_(None)).values(stream=bindparam("name"))
_ENDED = select(*_STREAM).where(*_ends, _s.ends <= bindparam("now")).order_by(_s.ends, _s.begun).limit(AT_ONCE)
NEXT_END = select(func.min(_s.ends)).where(*_ends)
# What was to end when the clock was another: in no longer than it was to be then.
_CLIP_ENDS = (
    update(streams)
    .where(_s.receiver == bindparam("me"), _s.changed > bindparam("now"))
    .values(
        ends=bindparam("now") + (_s.ends - _s.changed),
        told=case((_s.told > bindparam("now"), bindparam("now")), else_=_s.told),
        changed=bindparam("now"),
    )
)
_LAST_OF = (
    select(_c.job, _c.received_at, _c.path, _c.query, _c.headers, _c.context)
    .where(_c.lane == bindparam("lane"), _c.stream == bindparam("request_id"), _c.kind != WHOLE)
    .order_by(_c.n.desc())
    .limit(1)
)
_whole = callbacks.alias()
_MESSAGES = (
    select(_c.id, _c.n)
    .join(_whole, (_whole.c.lane == _c.lane) & (_whole.c.stream == _c.stream) & (_whole.c.n > _c.n))
    .where(_whole.c.id == bindparam("id"), _c.n > bindparam("after"), _c.kind != WHOLE)
    .order_by(_c.n)
    .limit(PAGE)
)


def take_places(connection: Connection, lane: str, count: int, now: float) -> int:
    """Take the next places of a lane; the last of them."""
    last: int = connection.execute(_TAKE_PLACES, {"lane": lane, "count": count, "now": now}).scalar_one()
    return last


def read_streams(connection: Connection, names: Collection[str]) -> dict[str, dict[str, Stream]]:
    """The streams of each of these lanes, by their `request_id`."""
    found: dict[str, dict[str, Stream]] = {name: {} for name in names}
    for row in connection.execute(_IN_LANES, {"lanes": list(names)}):
        found[row.lane][row.request_id] = Stream(*row)
    return found


def save_streams(connection: Connection, receiver: str, changed: Iterable[Stream]) -> None:
    rows = [{"receiver": receiver, **asdict(stream)} for stream in changed]
    if rows:
        connection.execute(_SAVE, rows)


def adopt(connection: Connection, lane: str, request_id: str) -> None:
    """Give what came into a lane before its first stream had a name to that stream."""
    connection.execute(_ADOPT, {"its": lane, "name": request_id})


def hang_up(connection: Connection, receiver: str, lane: str, endings: Endings, now: float) -> None:
    """End the streams of a lane whose socket has closed."""
    held = [stream for stream in read_streams(connection, [lane])[lane].values() if stream.ends is not None]
    save_streams(connection, receiver, [endings.hung_up(stream, now) for stream in held])


def read_ended(connection: Connection, receiver: str, now: float) -> list[Stream]:
    """Some streams whose end is due, the oldest first."""
    return [Stream(*row) for row in connection.execute(_ENDED, {"me": receiver, "now": now})]


def clip_ends(connection: Connection, receiver: str, now: float) -> None:
    connection.execute(_CLIP_ENDS, {"me": receiver, "now": now})


def last_message(connection: Connection, stream: Stream) -> Mapping[str, Any] | None:
    """How a stream's last message came, by column; None if none is left."""
    found = connection.execute(_LAST_OF, {"lane": stream.lane, "request_id": stream.request_id})
    row = found.one_or_none()
    return None if row is None else row._asdict()


def messages(connection: Connection, id_: int, after: int) -> tuple[Sequence[bytes], int | None]:
    """Some bodies of the stream that a LiveTranscript closes, from a place on, and where the next ones begin."""
    rows = connection.execute(_MESSAGES, {"id": id_, "after": after}).all()
    packed = read_packed(connection, [row.id for row in rows])
    bodies = list[bytes]()
    for row in rows:
        with suppress(ValueError):  # a damaged message is dead, and missing in the whole
            bodies.append(body_of(connection, row.id, packed) or b"")
    return bodies, rows[-1].n if len(rows) == PAGE else None
