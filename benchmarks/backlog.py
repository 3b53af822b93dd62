"""An inbox that is full before a server opens it, and how fast its handlers work that off.

`fill` puts callbacks by the package's own inbox; `multiply` copies one of them, for numbers that take too long to put.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bodies import PLACEHOLDER, body_of, request_id
from ends import Ends
from running import Bench, Failed, Running, serving, wait_until

from dgreceiver.core.callbacks import Callback
from dgreceiver.inbox.sqlite import SqliteInbox
from dgreceiver.testing.payloads import audio, live_result

JSON = {"content-type": "application/json"}
AT_ONCE = 256  # puts that wait together, so that they are one transaction
LANES = 64


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How fast a backlog was worked off. Units: bytes, seconds, a second."""

    kind: str
    size: int
    server: str
    callbacks: int
    rate: float  # claimed, parsed, handled and settled, from the first handler's end to the last
    cost: float  # processor time for each
    memory: int  # at its highest


def recorded(size: int) -> Callable[[int], Callback]:
    body = body_of(size)
    return lambda n: _callback(body.replace(PLACEHOLDER.encode(), request_id(3, n).encode(), 1))


def spoken(size: int) -> Callable[[int], Callback]:
    """Audio of so many bytes."""
    made = audio(size / 48_000)
    return lambda n: _callback(made.body, {**made.headers, "dg-request-id": request_id(3, n)})


def live(size: int) -> Callable[[int], Callback]:
    """Results of about so many bytes, of LANES streams in turns."""
    text = "seven words that are in each message " * max(1, size // 900)
    bodies = [live_result(text, request_id=request_id(3, lane)).body for lane in range(LANES)]
    return lambda n: _callback(bodies[n % LANES][:-1] + b', "n": %d}' % n)


MADE = {"Transcript": recorded, "Audio": spoken, "LiveResult": live}


def _callback(body: bytes, headers: dict[str, str] = JSON) -> Callback:
    return Callback(body, headers, "/", "", time.time())


def fill(path: Path, made: Callable[[int], Callback], count: int) -> None:
    asyncio.run(_fill(path, (made(n) for n in range(count))))


async def _fill(path: Path, callbacks: Iterator[Callback]) -> None:
    inbox = SqliteInbox(path, receiver="default", emit=lambda fact: None)
    await inbox.open()
    try:
        while some := list(islice(callbacks, AT_ONCE)):
            await asyncio.gather(*map(inbox.put, some))
    finally:
        await inbox.close()


def multiply(path: Path, count: int) -> None:
    """Copy the one callback of an inbox until there are `count`, with ids and keys of their own."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000")
        columns = [row[1] for row in database.execute("PRAGMA table_info(dgreceiver_callback)")]
        own = {"id": "id + copy", "key": "lower(hex(randomblob(16)))", "request_id": "lower(hex(randomblob(16)))"}
        values = ", ".join(own.get(column, column) for column in columns)
        numbers = (
            f"WITH RECURSIVE number(copy) AS (SELECT 1 UNION ALL SELECT copy + 1 FROM number WHERE copy < {count - 1})"
        )
        many = f"FROM {{}}, number WHERE id = {_first(database)}"
        for table, columns_of in (("dgreceiver_callback", values), ("dgreceiver_body", "id + copy, coding, data")):
            database.execute(f"INSERT INTO {table} {numbers} SELECT {columns_of} {many.format(table)}")
        database.commit()


def _first(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT min(id) FROM dgreceiver_callback").fetchone()[0])


def measure(bench: Bench, kind: str, size: int, server: str, count: int, *, patience: float) -> Dispatched:
    """Fill an inbox, let a server work it off, and watch."""
    with bench.room() as folder:
        fill(folder / "inbox.db", MADE[kind](size), count)
        with serving(server, bench, folder, seconds=patience) as running:
            rate, cost = work_off(running, folder, count, patience)
            memory = running.peak_memory()
        return Dispatched(kind, size, server, count, rate, cost, memory)


def work_off(running: Running, folder: Path, count: int, seconds: float) -> tuple[float, float]:
    """Wait until so many are handled, or `seconds` are over; how many a second, and the processor time of each."""
    ends = Ends.in_folder(folder)
    if not wait_until(lambda: ends.count() > 0, seconds):
        raise Failed(f"nothing was handled in {seconds:g} s\n{running.last_words()}")
    first, used, begun = ends.count(), running.cpu_seconds(), time.monotonic()
    wait_until(lambda: ends.count() >= count, seconds)
    last, used = ends.count(), running.cpu_seconds() - used
    if last == first:
        raise Failed(f"{first} of {count} were handled, then none in {seconds:g} s\n{running.last_words()}")
    done = last - first
    return done / (min(ends.last(), time.monotonic()) - begun), used / done
