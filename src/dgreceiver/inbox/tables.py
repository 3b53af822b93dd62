"""The tables of the SQL inbox, as the newest migration leaves them.

Times in `due`, `stored`, `changed`, `ends` and `told` are the store's steady clock; `received_at` is the wall's.
Partial indexes hold what is still to be done, so that they stay small however much is kept.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    text,
)

VERSION_TABLE = "dgreceiver_version"
REVISIONS = ("0001",)  # oldest first; the last is the one that this release writes

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's own row id

callbacks = Table(
    "dgreceiver_callback",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("receiver", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("weak", Text),  # the key by equal bytes alone, good for ten minutes
    Column("kind", Text, nullable=False),
    Column("request_id", Text),
    Column("job", Text),
    Column("lane", Text),
    Column("n", BigInteger),  # the place in the lane
    Column("stream", Text),  # the request_id of the stream that it belongs to; empty while the lane knows none
    Column("state", Text, nullable=False),
    Column("due", Float),  # of a waiting row; empty while another of its lane comes first
    Column("lease", Text),  # the incarnation of the owner that runs it
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("marks", Text, nullable=False, server_default="{}"),  # JSON: handler -> [attempts, done, buried]
    Column("error", Text),
    Column("replayed", Boolean, nullable=False, server_default=false()),
    Column("received_at", Float, nullable=False),
    Column("stored", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("path", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("headers", Text, nullable=False),  # JSON
    Column("context", Text, nullable=False),  # JSON
    Column("size", BigInteger, nullable=False),
    Column("upload", Text),  # where the body is, if it is in parts
)

bodies = Table(
    "dgreceiver_body",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("coding", Text),  # "zstd"; empty if it lies as it came
    Column("data", LargeBinary, nullable=False),
)

parts = Table(
    "dgreceiver_part",
    metadata,
    Column("upload", Text, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("stored", Float, nullable=False),
    Column("coding", Text),
    Column("data", LargeBinary, nullable=False),
)

lanes = Table(
    "dgreceiver_lane",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),  # the last place given out
    Column("changed", Float, nullable=False),
)

streams = Table(
    "dgreceiver_stream",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("receiver", Text, nullable=False),
    Column("begun", BigInteger, nullable=False),  # the place of its first message
    Column("changed", Float, nullable=False),
    Column("ends", Float),  # when it has ended, unless more comes; empty when its LiveTranscript was made
    Column("closed", Boolean, nullable=False),  # its own end was seen
    Column("holder", Text),  # the incarnation that holds the socket by which it comes
    Column("revision", Integer, nullable=False),  # of the next LiveTranscript
    Column("told", Float),  # when the last was made
)
_ending = text("ends IS NOT NULL")
Index("dgreceiver_ends", streams.c.receiver, streams.c.ends, sqlite_where=_ending, postgresql_where=_ending)


def _partial(name: str, *columns: Column[Any], where: str) -> None:
    Index(f"dgreceiver_{name}", *columns, sqlite_where=text(where), postgresql_where=text(where))


_c = callbacks.c
WAITING = "state = 'waiting'"
OPEN = "state IN ('waiting', 'leased')"
EXPIRING = "state IN ('done', 'unhandled', 'erased')"
ATTENTION = "state IN ('dead', 'conflict', 'unhandled')"
_partial("due", _c.receiver, _c.due, _c.id, where=WAITING)
_partial("leased", _c.receiver, where="state = 'leased'")
_partial("lane_order", _c.lane, _c.n, where=f"lane IS NOT NULL AND {OPEN}")
_partial("expiring", _c.changed, where=EXPIRING)
_partial("attention", _c.receiver, _c.state, _c.id, where=ATTENTION)
_partial("weak", _c.weak, where="weak IS NOT NULL")
_partial("request", _c.request_id, where="request_id IS NOT NULL")
_partial("job", _c.job, where="job IS NOT NULL")
_partial("upload", _c.upload, where="upload IS NOT NULL")
_partial("lane_rows", _c.lane, _c.stream, _c.n, where="lane IS NOT NULL")
