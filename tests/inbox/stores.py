"""What the tests of the inbox share: stores to run against, callbacks to put into them, a clock to turn."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select

from dgreceiver.core.callbacks import Callback
from dgreceiver.facts import Fact
from dgreceiver.inbox.contract import Entry, Mark
from dgreceiver.inbox.sql import SqlInbox
from dgreceiver.inbox.sqlite import SqliteFile, SqliteMemory
from dgreceiver.inbox.store import Call
from dgreceiver.streams import whole

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
ROOM = 1024 * 1024 * 1024
PATIENCE = 10.0  # seconds after which a test gives up waiting
SAVED = {"save": Mark(1, done=True)}
FAILED = {"save": Mark(1)}
SAID = ("one", "two", "three", "four", "more", "late")  # in this order


class Clock:
    """Seconds since 1970, until somebody turns it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Shelf:
    """A place for an inbox; what is opened there again finds what was there."""

    def __init__(self, kind: str, folder: Path, template: Path | None = None) -> None:
        self.clock = Clock()
        self.facts: list[Fact] = []
        self.path = folder / "inbox.db"
        self._kind = kind
        if template is not None:
            shutil.copy(template, self.path)

    def inbox(self, receiver: str = "default", **options: Any) -> SqlInbox:
        """An inbox here that is yet to be opened."""
        place: Callable[[], Any] = SqliteMemory
        if self._kind == "sqlite":
            place = partial(SqliteFile, self.path, receiver=receiver, emit=self.facts.append)
        return SqlInbox(place, receiver=receiver, emit=self.facts.append, clock=self.clock, **options)

    @asynccontextmanager
    async def opened(self, receiver: str = "default", **options: Any) -> AsyncIterator[SqlInbox]:
        inbox = self.inbox(receiver, **options)
        await inbox.open()
        try:
            yield inbox
        finally:
            await inbox.close()


def callback(body: bytes = b"hello", **fields: Any) -> Callback:
    made = {"body": body, "headers": {}, "path": "/", "query": "", "received_at": NOON.timestamp(), **fields}
    return Callback(**made)


def transcript(request_id: str, text: str = "hello", **fields: Any) -> Callback:
    document = {"metadata": {"request_id": request_id}, "results": {"channels": [], "text": text}}
    return callback(json.dumps(document).encode(), **fields)


def message(job: str, text: str = "", **fields: Any) -> Callback:
    """One of a live stream, new each time."""
    return callback(json.dumps({"type": "SpeechStarted", "text": text}).encode(), job=job, **fields)


async def claimed(
    inbox: SqlInbox, limit: int = 10, *, room: int = ROOM, skip: Collection[str] = ()
) -> Sequence[tuple[Entry, bytes]]:
    """What a claim is given; there has to be something."""
    async with asyncio.timeout(PATIENCE):
        return await inbox.claim(limit, room=room, skip=skip)


async def entry_of(inbox: SqlInbox) -> Entry:
    """The one callback that is due."""
    [(entry, _)] = await claimed(inbox, 1)
    return entry


async def nothing_is_due(inbox: SqlInbox, *, skip: Collection[str] = ()) -> bool:
    """Whether a claim goes on waiting after everything asked before it was done."""
    claim = asyncio.ensure_future(inbox.claim(10, room=ROOM, skip=skip))
    await inbox.counts()
    await inbox.counts()
    waits = not claim.done()
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)
    return waits


async def until(condition: Callable[[], Awaitable[object] | object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if await holds if isinstance(holds, Awaitable) else holds:
                return
            await asyncio.sleep(0.005)


async def end_as(inbox: SqlInbox, state: str) -> Entry:
    """Bring the one callback that is due into this state."""
    entry = await entry_of(inbox)
    if state == "dead":
        await inbox.bury(entry, FAILED, error="given up")
    elif state in ("done", "unhandled"):
        await inbox.settle(entry, "done" if state == "done" else "unhandled", SAVED)
    elif state == "waiting":
        await inbox.postpone(entry, FAILED, wait=60, error="not yet")
    return entry


async def stored(inbox: SqlInbox, came: Callback) -> Entry:
    """A callback just put."""
    put = await inbox.put(came)
    return await known(inbox, put.key)


async def known(inbox: SqlInbox, key: str) -> Entry:
    found = await inbox.get(key)
    assert found is not None
    return found[0]


async def in_states(inbox: SqlInbox) -> Mapping[str, int]:
    counts: Mapping[Any, int] = await inbox.counts()
    return dict(counts)


async def ask(inbox: Any, question: Callable[[Connection], Any]) -> Any:
    """Look into the tables, past the contract."""
    return await inbox._do(Call(question))


async def rows_in(inbox: SqlInbox, table: Table) -> int:
    rows: int = await ask(
        inbox, lambda connection: connection.execute(select(func.count()).select_from(table)).scalar()
    )
    return rows


# --- live streams ---


def result(request_id: str, text: str = "", **fields: Any) -> Callback:
    """A final of a live stream, in its place among what may be `SAID`."""
    document = {
        "type": "Results",
        "channel_index": [0, 1],
        "start": SAID.index(text) if text in SAID else 0,
        "duration": 1.0,
        "metadata": {"request_id": request_id},
        "is_final": True,
        "channel": {"alternatives": [{"transcript": text}]},
    }
    return callback(json.dumps(document).encode(), **fields)


def ending(request_id: str, created: str = "", **fields: Any) -> Callback:
    """The terminal Metadata of a live stream."""
    return callback(json.dumps({"type": "Metadata", "request_id": request_id, "created": created}).encode(), **fields)


async def worked_off(inbox: SqlInbox) -> list[tuple[Entry, bytes]]:
    """All that is due, one after the other, each settled as done."""
    done: list[tuple[Entry, bytes]] = []
    await look(inbox)
    while await inbox.busy():
        for entry, body in await claimed(inbox, 1):
            await inbox.settle(entry, "done", SAVED)
            done.append((entry, body))
    return done


async def look(inbox: SqlInbox) -> None:
    """Have the inbox look for what has ended, as an owner that waits for something to do."""
    claim = asyncio.ensure_future(inbox.claim(0, room=ROOM))
    await inbox.counts()
    await inbox.counts()
    claim.cancel()
    await asyncio.gather(claim, return_exceptions=True)


async def wholes(inbox: SqlInbox) -> list[Entry]:
    """The LiveTranscripts that there are, oldest first."""
    return [entry for entry in reversed(await inbox.page(limit=200)) if entry.kind == "LiveTranscript"]


async def told(inbox: SqlInbox, entry: Entry) -> tuple[str, bool, int]:
    """What a LiveTranscript says: its text, whether it is complete, and its revision."""
    found = await inbox.get(entry.key)
    assert found is not None
    document = json.loads(await whole(inbox, *found) or b"{}")
    return document.get("text"), document.get("complete"), document.get("revision")
