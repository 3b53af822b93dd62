"""Tells a story over and over, each time to a process that kills itself at another point, and says what went wrong."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any

import httpx

from dgreceiver.inbox.tables import OPEN

from ..support import Ledger, address, entries_of, in_file, listen, new_receiver, until
from .apps import BEGIN, Life, Process
from .points import Point
from .stories import Sender, Story

TRIES = 3  # to have a process come by a point again: what a batch holds depends on time
WITHIN = 40.0  # seconds for one telling
LAST_BREATH = 0.2  # seconds that a process may still come by its point when all is told
READY = {"fact: DispatchTaken", "PRAGMA incremental_vacuum"}  # it has taken over, and has purged

# How often these are passed depends on time, and before most of them nothing has changed.
OFTEN = ("SELECT", "COMMIT of SELECT", "after COMMIT of SELECT", "http.request (more")

CHANGING = ("PRAGMA auto_vacuum", "PRAGMA journal_mode", "PRAGMA incremental_vacuum", "PRAGMA wal_checkpoint")

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Telling:
    """What came of a story when a process was killed at a point of it."""

    point: Point | None
    again: Sequence[str] = ()  # had ended, and was not noted in the inbox: may be done a second time
    wrong: Sequence[str] = ()
    missed: bool = False  # no process came by the point again: what a batch holds depends on time


def passages(names: Iterable[str]) -> list[Point]:
    """One passage of each point: the middle one, behind which and before which there is something to be done."""
    times = Counter(name for name in names if not name.startswith("PRAGMA") or name in CHANGING)
    return [Point(name, 1 if name.startswith(OFTEN) else (1 + times[name]) // 2) for name in times]


def unsettled(lines: Lines) -> tuple[Counter[str], Counter[str]]:
    """What ended in a process that died, and was not noted in the inbox; and what was just about to be."""
    ended, settling = Counter[str](), Counter[str]()
    for line in lines:
        match line["what"]:
            case "ended":
                ended[line["about"]] += 1
            case "settling":
                ended, settling = Counter(), ended
            case "settled":
                settling = Counter()
    return ended, settling


def by_stream(notes: Iterable[str]) -> Mapping[str, list[str]]:
    """What was done with each stream, by the id that a note begins with."""
    streams = defaultdict[str, list[str]](list)
    for note in notes:
        streams[note.split()[0]].append(note)
    return streams


class Book(Ledger):
    """A ledger that is looked into often: what was read is kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lines: list[Mapping[str, Any]] = []
        self._read = 0  # bytes

    def clear(self) -> None:
        os.ftruncate(self._file, 0)
        self._lines, self._read = [], 0

    def read(self) -> Lines:
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole + end)
        self._lines += map(json.loads, whole.splitlines())
        return self._lines


class Lives:
    """The processes that hear one story, one after the other, over one inbox file."""

    def __init__(self, story: Story, folder: Path, client: httpx.AsyncClient) -> None:
        self._story = story
        self._folder = folder
        self._ledger = Book(folder)
        self._sender = Sender(client, self._ledger)
        self._living: list[tuple[Process, socket.socket]] = []  # the first is spoken to
        self._ready = defaultdict[int, set[str]](set)  # of READY, by process
        self._coming: Iterator[Life] = iter(())
        self._told = 0

    async def points(self) -> list[Point]:
        """Those that a process comes by when the story is told to it."""
        first = [Life(self._story.after)] if self._story.after else []
        self._coming = iter([*first, Life(counts_at_once=bool(first))])
        with self._ending():
            self._start()
            await self._tell(deaths=len(first))
        lines = self._ledger.read()
        begun = max(n for n, line in enumerate(lines) if line["what"] == "begin")
        names = [line["about"] for line in lines[begun:] if line["what"] == "point"]
        if self._story.after:
            return passages(takewhile(lambda name: name != "parse: begins", names))
        return passages(names[names.index(self._story.since) if self._story.since else 0 :])

    async def end_at(self, points: Sequence[Point]) -> list[Telling]:
        """Tell the story once for each point, to a process that ends there."""
        self._coming = self._lives(points)
        with self._ending():
            self._start()
            await self._find_spare()
            tellings = [await self._tell_until(point) for point in points]
        return [*tellings, Telling(None, wrong=await self._wrong_rows())]

    def _lives(self, points: Sequence[Point]) -> Iterator[Life]:
        for point in points:
            if self._story.after:
                yield Life(self._story.after)
            yield Life(point, counts_at_once=self._story.after is not None)
        yield from repeat(Life(self._story.after))

    async def _tell_until(self, point: Point) -> Telling:
        for _ in range(TRIES):
            if await self._tell(deaths=2 if self._story.after else 1):
                return Telling(point, *self._judge())
        self._bury()
        await self._replace()
        return Telling(point, missed=True)

    # --- one telling

    async def _tell(self, *, deaths: int) -> bool:
        """Tell the story, and replace whoever dies of it; whether all did who were to."""
        self._ledger.clear()
        self._told += 1
        telling = asyncio.create_task(self._send(f"r-{self._told}"))
        try:
            async with asyncio.timeout(WITHIN):
                while deaths and await self._dies(telling):
                    deaths -= 1
                await telling
                await self._until_settled()
        finally:
            telling.cancel()
        self._look_for_ready()
        return deaths == 0

    async def _dies(self, telling: asyncio.Task[None]) -> bool:
        """Wait until the process that is spoken to has died, and let another take its place; else the end."""
        dying = asyncio.create_task(self._living[0][0].ended())
        await asyncio.wait([telling, dying], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([dying], timeout=0.0 if dying.done() else LAST_BREATH)
        if dead := dying.done():
            self._bury()
            await self._replace()
        dying.cancel()
        return dead

    async def _send(self, id_: str) -> None:
        await self._until_ready()
        if self._story.before:
            await self._sender.post(self._story.before(id_))
            await self._until_settled()
        await self._sender.client.get(f"{self._sender.url}{BEGIN}")
        await self._story.send(self._sender, id_)
        await until(lambda: set(self._expected(id_)) <= set(self._ledger.about("ended")), within=WITHIN)
        await self._until_settled()

    def _expected(self, id_: str) -> Sequence[str]:
        return self._story.handled(self._ledger, id_)

    async def _until_ready(self) -> None:
        """Wait until the process that is spoken to does nothing more by itself."""
        await until(lambda: self._look_for_ready() == READY, within=WITHIN)

    def _look_for_ready(self) -> set[str]:
        for line in self._ledger.read():
            if line["about"] in READY:
                self._ready[line["by"]].add(line["about"])
        return self._ready[self._living[0][0].pid]

    async def _until_settled(self) -> None:
        """Wait until nothing is to be done, by a process that has found what the one before had left."""
        await self._until_ready()
        await until(lambda: self._open_rows == 0, within=WITHIN)

    @property
    def _open_rows(self) -> int:
        with closing(sqlite3.connect(f"file:{self._folder / 'inbox.db'}?mode=ro", uri=True)) as connection:
            [(rows,)] = connection.execute(f"SELECT count(*) FROM dgreceiver_callback WHERE {OPEN}")
        return int(rows)

    # --- processes

    async def _replace(self) -> None:
        """Have another process, or one behind it that waits to take over."""
        if not self._living:
            self._start()
        await self._find_spare()

    async def _find_spare(self) -> None:
        if self._story.stands_by:
            await self._until_ready()  # else the spare one may be the owner before it
            self._start()

    def _start(self) -> None:
        listening = listen()
        process = Process(self._story.serve, self._folder, next(self._coming), listening, self._story.options)
        self._living.append((process, listening))
        self._sender.url = address(self._living[0][1])

    def _bury(self) -> None:
        process, listening = self._living.pop(0)
        process.kill()
        listening.close()
        if self._living:
            self._sender.url = address(self._living[0][1])

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        finally:
            while self._living:
                self._bury()

    # --- what went wrong

    def _judge(self) -> tuple[list[str], list[str]]:
        """What was done again, and what is wrong with what was done."""
        may, must = Counter[str](), Counter[str]()
        for pid in {line["by"] for line in self._ledger.read()}:
            ended, settling = unsettled([line for line in self._ledger.read() if line["by"] == pid])
            must += ended
            may += settling
        expected, done = self._expected(f"r-{self._told}"), self._ledger.about("ended")
        again = Counter(done) - Counter(expected)
        wrong = []
        if Counter(expected) - Counter(done) or not must <= again <= must + may:
            wrong.append(f"{done} is done, and not {expected} and {must} again, or {may}")
        if self._story.in_order and by_stream(dict.fromkeys(done)) != by_stream(expected):
            wrong.append(f"{done} is done, and that is not in order")
        return list(again), wrong

    async def _wrong_rows(self) -> list[str]:
        states = defaultdict[str | None, list[str]](list)
        for entry in await entries_of(new_receiver(inbox=in_file(self._folder))):
            states[entry.request_id].append(entry.state)
        right = sorted(self._story.states)
        return [
            f"{request_id}: {its}"
            for request_id, its in states.items()
            if sorted(its) != right and (right or set(its) != {"done"})
        ]
