"""What the statements of the SQL inbox share: rows in, rows out, bodies, the order in lanes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import chain
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Dialect, Select, Table, Update, bindparam, select, text, update

from .contract import Entry, Mark
from .packing import Packed, unpack
from .tables import OPEN, WAITING, bodies, callbacks, lanes, parts

ONCE = 64  # rows in one INSERT at most

_c = callbacks.c
_Statement = Select[*tuple[Any, ...]] | Update
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_marks = msgspec.json.Decoder(dict[str, tuple[int, bool, str | None]]).decode

# The columns of a new callback, in the order of its values.
NEW = (
    "id",
    "receiver",
    "key",
    "weak",
    "kind",
    "request_id",
    "job",
    "lane",
    "n",
    "stream",
    "state",
    "due",
    "lease",
    "error",
    "received_at",
    "stored",
    "changed",
    "path",
    "query",
    "headers",
    "context",
    "size",
    "upload",
)
BODY = ("id", "coding", "data")
PART = ("upload", "n", "stored", "coding", "data")

ENTRY = (
    _c.id,
    _c.key,
    _c.kind,
    _c.request_id,
    _c.job,
    _c.lane,
    _c.state,
    _c.received_at,
    _c.size,
    _c.path,
    _c.query,
    _c.headers,
    _c.context,
    _c.marks,
    _c.crashes,
    _c.error,
    _c.replayed,
)


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry from a row of the columns `ENTRY`."""
    id_, key, kind, request_id, job, lane, state, received, size, path, query, *rest = row
    headers, context, marks, crashes, error, replayed = rest
    return Entry(
        id_,
        key,
        kind,
        request_id,
        job,
        lane,
        state,
        datetime.fromtimestamp(received, UTC),
        size,
        path,
        query,
        _decode(headers),
        _decode(context),
        marks_of(marks),
        crashes,
        error,
        bool(replayed),
    )


def as_json(value: Mapping[str, Any] | None) -> str:
    return _encode(value).decode() if value else "{}"


def marks_of(text_: str) -> dict[str, Mark]:
    return {name: Mark(*mark) for name, mark in _decode_marks(text_).items()}


def marks_as_json(marks: Mapping[str, Mark]) -> str:
    return as_json({name: (mark.attempts, mark.done, mark.buried) for name, mark in marks.items()})


def insert(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    *,
    unless_known: Literal["key"] | None = None,
) -> int:
    """Insert rows, whose values stand in the order of the columns; how many were new.

    Many rows are one statement: a row at a time would release the interpreter for each and wait to
    have it back (0.5 ms against 1.6 ms for 64 rows, and far worse beside a busy thread). A column
    that is empty in all of them is left out: sqlite3 binds a None dearly, by way of an exception.
    """
    inserted = 0
    for start in range(0, len(rows), ONCE):
        some = rows[start : start + ONCE]
        filled = {name: values for name, *values in zip(columns, *some, strict=True) if not _is_empty(values)}
        sql = _insert_sql(connection.dialect.name, table, tuple(filled), len(some), unless_known)
        inserted += run(connection, sql, [*chain.from_iterable(zip(*filled.values(), strict=True))])
    return inserted


def run(connection: Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """Run a statement of every batch on the driver itself, past SQLAlchemy's layers; how many rows it touched.

    Raises: what the driver raises, by the names of PEP 249.
    """
    with closing(connection.connection.cursor()) as cursor:  # also if it fails: its statement would keep the file open
        cursor.execute(sql, values)
        return int(cursor.rowcount)


def ask(connection: Connection, statement: Callable[[int], _Statement], several: Sequence[Any], **values: Any) -> Any:
    """Run a statement `among` several in the same way; the rows that it finds, in the types of the driver.

    There is one for each power of 2, which is compiled once.

    Raises: what the driver raises, by the names of PEP 249.
    """
    count = 1 << (len(several) - 1).bit_length()
    filled = [*several, *[several[-1]] * (count - len(several))]
    sql, names, own = _compiled(connection.dialect, statement(count))
    values = {**own, **values, **{f"among_{n}": value for n, value in enumerate(filled)}}
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(sql, values if names is None else [values[name] for name in names])
        return cursor.fetchall() if cursor.description else []


def among(column: ColumnElement[Any], count: int) -> ColumnElement[bool]:
    """Whether a column is one of so many. SQLAlchemy's own list would be written into the statement each time."""
    return column.in_([bindparam(f"among_{n}") for n in range(count)])


@lru_cache(maxsize=256)
def _compiled(dialect: Dialect, statement: _Statement) -> tuple[str, Sequence[str] | None, Mapping[str, Any]]:
    """A statement, the names of its values in order if the dialect counts them, and the values of its own."""
    compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    return str(compiled), compiled.positiontup, compiled.params


# How a statement begins, and what stands for a value. If it fails, all of its transaction is undone in any case; SQLite
# would else copy each page before it changes, so as to undo the statement alone.
_DIALECTS = {"sqlite": ("INSERT OR ROLLBACK", "?"), "postgresql": ("INSERT", "%s")}


def _is_empty(values: Sequence[Any]) -> bool:
    return values[0] is None and values.count(None) == len(values)


@lru_cache(maxsize=256)
def _insert_sql(dialect: str, table: Table, columns: tuple[str, ...], rows: int, unless_known: str | None) -> str:
    insert, placeholder = _DIALECTS[dialect]
    one = "(" + ", ".join([placeholder] * len(columns)) + ")"
    clause = f" ON CONFLICT ({unless_known}) DO NOTHING" if unless_known else ""
    return f"{insert} INTO {table.name} ({', '.join(columns)}) VALUES {', '.join([one] * rows)}{clause}"


_UPLOAD_OF = select(_c.upload).where(_c.id == bindparam("id"))
_PARTS = select(parts.c.coding, parts.c.data).where(parts.c.upload == bindparam("upload")).order_by(parts.c.n)


@cache
def _bodies(count: int) -> Select[*tuple[Any, ...]]:
    return select(bodies.c.id, bodies.c.coding, bodies.c.data).where(among(bodies.c.id, count))


def read_packed(connection: Connection, ids: Collection[int]) -> dict[int, Packed]:
    """The bodies of callbacks as they lie on the disk, but for what lies in parts."""
    if not ids:
        return {}
    return {id_: (coding, data) for id_, coding, data in ask(connection, _bodies, list(ids))}


def read_body(connection: Connection, id_: int) -> bytes | None:
    """The body of a callback; None if it is no longer kept.

    Raises: ValueError if it is damaged.
    """
    return body_of(connection, id_, read_packed(connection, [id_]))


def body_of(connection: Connection, id_: int, packed: Mapping[int, Packed]) -> bytes | None:
    """A body from those that were read, or put together from its parts."""
    if id_ in packed:
        return unpack(*packed[id_])
    upload = connection.execute(_UPLOAD_OF, {"id": id_}).scalar_one_or_none()
    return read_upload(connection, upload) if upload else None


def read_upload(connection: Connection, upload: str) -> bytes | None:
    """The body of an upload, put together; None if it is no longer kept."""
    pieces = [unpack(*row) for row in connection.execute(_PARTS, {"upload": upload})]
    return b"".join(pieces) if pieces else None


# Of each lane the first unfinished row, if it does not yet wait for its time.
_first_open = (
    select(_c.id).where(_c.lane == lanes.c.lane, text(OPEN)).order_by(_c.n).limit(1).correlate(lanes).scalar_subquery()
)
_ADVANCE = (
    update(callbacks)
    .where(_c.id.in_(select(_first_open).where(lanes.c.lane.in_(bindparam("lanes", expanding=True)))))
    .where(text(WAITING), _c.due.is_(None))
    .values(due=_c.stored)
)


def advance(connection: Connection, names: Collection[str]) -> None:
    """Make the first unfinished callback of each lane due; the others of a lane have no time until then.

    By its age, not by the moment: a long lane does not queue up anew behind all others with each callback.
    """
    if names:
        connection.execute(_ADVANCE, {"lanes": list(names)})
