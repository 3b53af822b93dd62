"""What the inbox does when the disk, the file, the machine or a row fails it: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from dgreceiver.errors import InboxError
from dgreceiver.facts import InboxFailed
from dgreceiver.inbox import store
from dgreceiver.inbox.contract import Stored
from dgreceiver.inbox.locks import FileLock
from dgreceiver.inbox.rows import read_packed
from dgreceiver.inbox.sqlite import SqliteFile
from dgreceiver.inbox.store import Upkeep

from .process import Process, overflow, work
from .stores import (
    SAVED,
    Shelf,
    callback,
    claimed,
    entry_of,
    in_states,
    nothing_is_due,
    transcript,
    until,
)

MB = 1024 * 1024


@pytest.fixture
def small(small_disk, template):
    """A place for an inbox on a disk that is soon full."""
    return Shelf("sqlite", small_disk, template)


def noise(n: int, size: int = 20_000):
    """A callback that cannot be compressed."""
    return callback(os.urandom(size), job=f"j-{n}")


def fill(shelf: Shelf, *, left: int) -> None:
    """Take the disk's room, but for so many bytes."""
    disk = os.statvfs(shelf.path.parent)
    with shelf.path.with_name("filler").open("ab") as filler:
        filler.write(bytes(max(0, disk.f_bavail * disk.f_frsize - left)))


def empty(shelf: Shelf) -> None:
    shelf.path.with_name("filler").unlink()


@asynccontextmanager
async def one_batch(shelf: Shelf, inbox) -> AsyncIterator[None]:
    """What is asked for within is asked for while the writer is still busy, and so done together."""
    lock = FileLock(shelf.path.with_name(f"{shelf.path.name}.write"))
    lock.acquire()
    try:
        busy = asyncio.ensure_future(inbox.counts())
        await asyncio.sleep(0)  # it is asked
        await until(lambda: not inbox._writer._gathered and inbox._writer._queue.empty())  # and taken up
        yield
        await asyncio.sleep(0)
    finally:
        lock.close()
    await busy


def altered(shelf: Shelf, statement: str) -> None:
    """Change the file behind the inbox's back."""
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute(statement)
        connection.commit()


def failures(shelf: Shelf) -> list[str]:
    return [fact.error for fact in shelf.facts if isinstance(fact, InboxFailed)]


# --- the disk is full ---


async def test_while_the_disk_fills_every_put_ends_and_what_was_acknowledged_is_there(small):
    async with small.opened() as inbox:
        early = [await inbox.put(noise(n)) for n in range(100, 103)]
        fill(small, left=900_000)
        async with one_batch(small, inbox):  # of more than there is room for
            puts = [asyncio.ensure_future(inbox.put(noise(n))) for n in range(100)]
        said = await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 10)
        refused = [each for each in said if isinstance(each, InboxError)]
        kept = [each.key for each in said if isinstance(each, Stored)]
        assert len(refused) + len(kept) == 100
        assert "database or disk is full" in str(refused[0])
        empty(small)
        later = await inbox.put(noise(100, 30_000))
    async with small.opened() as again:
        for key in (*kept, *(put.key for put in early)):
            assert len((await again.get(key))[1]) == 20_000
        assert len((await again.get(later.key))[1]) == 30_000


async def test_below_the_least_room_nothing_new_is_taken_and_what_ends_goes_on(small):
    async with small.opened() as inbox:
        await inbox.put(transcript("r-1"))
        entry = await entry_of(inbox)
        fill(small, left=300_000)
        async with one_batch(small, inbox):
            put = asyncio.ensure_future(inbox.put(transcript("r-2")))
            part = asyncio.ensure_future(inbox.upload(audio=False).write(b"x"))
            settled = asyncio.ensure_future(inbox.settle(entry, "done", SAVED))
        await settled
        assert "is full: " in str(await asyncio.gather(put, part, return_exceptions=True))
        assert [type(each.exception()) for each in (put, part)] == [InboxError, InboxError]
        assert len(failures(small)) == 1
        assert await in_states(inbox) == {"done": 1}


async def test_an_ending_is_tried_until_it_is_durable_and_its_callback_not_given_out_again(small):
    async with small.opened() as inbox:
        await inbox.put(transcript("r-1"))
        entry = await entry_of(inbox)
        fill(small, left=0)
        settled = asyncio.ensure_future(inbox.settle(entry, "done", SAVED))
        claim = asyncio.ensure_future(claimed(inbox))
        await until(lambda: failures(small))  # reopening the file may make a little room, so it may not take long
        empty(small)
        await settled
        assert not claim.done()
        assert await nothing_is_due(inbox)
    async with small.opened() as again:
        assert await in_states(again) == {"done": 1}


async def test_what_could_not_be_leased_is_given_out_once_when_there_is_room(small):
    async with small.opened() as inbox:
        puts = [await inbox.put(transcript(f"r-{n}")) for n in range(3)]
        fill(small, left=0)
        claim = asyncio.ensure_future(claimed(inbox))
        await until(lambda: failures(small))
        empty(small)
        assert [(entry.key, entry.crashes) for entry, _ in await claim] == [(put.key, 0) for put in puts]
        assert await nothing_is_due(inbox)


async def test_a_disk_that_is_full_when_the_inbox_closes_costs_a_crash_and_no_callback(small):
    async with small.opened() as inbox:
        await inbox.put(transcript("r-1"))
        await entry_of(inbox)
        fill(small, left=0)
    empty(small)
    async with small.opened() as again:
        assert (await entry_of(again)).crashes == 1


async def test_a_file_that_may_not_grow_refuses_what_is_new_and_recovers(durable):
    """The kernel's limit on a file's size makes real I/O errors, without a disk to fill."""
    async with durable.opened():
        pass
    said: dict[str, set[str]] = {}
    with closing(Process(overflow, durable.path)) as running:
        for line in await asyncio.to_thread(running.said.readlines):
            word, name, *_ = line.split()
            said.setdefault(word, set()).add(name)
        assert await asyncio.to_thread(running.wait) == 0
    assert {name.split("-")[0] for name in said["refused"]} == {"full"}
    async with durable.opened() as again:
        there = {entry.request_id: entry.state for entry in await again.page(limit=200)}
        assert said["stored"] <= set(there)
        assert len([name for name in said["stored"] if name.startswith("free")]) == 50
        assert there["early"] == "done"


# --- a row, a body, a file that is not as it should be ---


async def test_a_row_that_cannot_be_written_fails_alone(durable):
    async with durable.opened() as inbox:
        claim = asyncio.ensure_future(claimed(inbox, 2))
        await asyncio.sleep(0)  # the claim is made
        await inbox.counts()  # and taken up: the writer owns the inbox
        async with one_batch(durable, inbox):
            puts = [
                asyncio.ensure_future(inbox.put(transcript(f"r-{n}", path="/\ud800" if n == 3 else "/")))
                for n in range(7)
            ]
        said = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(each) for each in said] == [Stored] * 3 + [InboxError] + [Stored] * 3
        assert str(said[3]) == "a text that is no Unicode"
        given = [*await claim]
        while len(given) < 6:
            given += await claimed(inbox, 2)
        assert {entry.key for entry, _ in given} == {each.key for each in said if isinstance(each, Stored)}
        assert await nothing_is_due(inbox)


async def test_a_row_that_cannot_be_written_leaves_the_endings_of_its_batch(durable):
    async with durable.opened() as inbox:
        await inbox.put(transcript("r-1"))
        entry = await entry_of(inbox)
        async with one_batch(durable, inbox):
            put = asyncio.ensure_future(inbox.put(transcript("r-2", headers={"dg-x": "\udfff"})))
            settled = asyncio.ensure_future(inbox.settle(entry, "done", SAVED))
        await settled
        assert "no Unicode" in str((await asyncio.gather(put, return_exceptions=True))[0])
        assert await in_states(inbox) == {"done": 1}


async def test_a_transaction_that_fails_leaves_no_file_open(durable):
    """Else SQLite closes it when that is collected, wherever that is, and outside of the lock."""
    async with durable.opened() as inbox:
        refuse = "BEFORE INSERT ON dgreceiver_callback BEGIN SELECT RAISE(ABORT, 'no'); END"
        altered(durable, f"CREATE TRIGGER refuse {refuse}")
        with pytest.raises(InboxError):
            await inbox.put(transcript("r-1"))
        assert durable.path.resolve() not in open_files()


def open_files() -> list[Path]:
    return [file.resolve() for file in Path("/proc/self/fd").iterdir()]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("00", id="of no format"),
        pytest.param("28b52ffde00000000000000040010000", id="said to be endless"),
    ],
)
async def test_a_body_that_cannot_be_read_any_more_is_dead_and_stops_nothing(durable, data):
    async with durable.opened() as inbox:
        broken = await inbox.put(transcript("r-1"))
        altered(durable, f"UPDATE dgreceiver_body SET coding = 'zstd', data = x'{data}'")
        sound = await inbox.put(transcript("r-2"))
        assert [entry.key for entry, _ in await claimed(inbox)] == [sound.key]
        claim = asyncio.ensure_future(claimed(inbox))
        await until(lambda: in_dead(inbox))
        put = await inbox.put(transcript("r-3"))
        assert [entry.key for entry, _ in await claim] == [put.key]
        entry = (await inbox.page(state="dead"))[0]
        assert (entry.key, str(entry.error)[:23]) == (broken.key, "its body cannot be read")


async def test_a_retry_of_a_body_that_cannot_be_read_any_more_is_a_duplicate(durable):
    async with durable.opened() as inbox:
        await inbox.put(transcript("r-1"))
        altered(durable, "UPDATE dgreceiver_body SET coding = 'zstd', data = x'00'")
        puts = await asyncio.gather(inbox.put(transcript("r-1")), inbox.put(transcript("r-2")))
        assert [put.outcome for put in puts] == ["duplicate", "stored"]


async def in_dead(inbox) -> bool:
    return "dead" in await in_states(inbox)


async def test_what_another_process_has_leased_since_is_not_ended(durable):
    async with durable.opened() as inbox:
        await inbox.put(transcript("r-1"))
        entry = await entry_of(inbox)
        altered(durable, "UPDATE dgreceiver_callback SET lease = 'of another'")
        await inbox.settle(entry, "done", SAVED)
        assert await in_states(inbox) == {"leased": 1}


async def test_a_table_that_is_gone_is_an_error_until_it_is_back(durable):
    async with durable.opened() as inbox:
        altered(durable, "ALTER TABLE dgreceiver_callback RENAME TO elsewhere")
        claim = asyncio.ensure_future(claimed(inbox))
        with pytest.raises(InboxError, match="no such table"):
            await inbox.put(transcript("r-1"))
        await until(lambda: len(failures(durable)) > 2)
        altered(durable, "ALTER TABLE elsewhere RENAME TO dgreceiver_callback")
        put = await inbox.put(transcript("r-1"))
        assert [entry.key for entry, _ in await claim] == [put.key]
        altered(durable, "ALTER TABLE dgreceiver_callback RENAME TO elsewhere")
        next_claim = asyncio.ensure_future(claimed(inbox))
        before = len(failures(durable))
        await until(lambda: len(failures(durable)) > before)
        altered(durable, "ALTER TABLE elsewhere RENAME TO dgreceiver_callback")
        put = await inbox.put(transcript("r-2"))
        assert [entry.key for entry, _ in await next_claim] == [put.key]


async def test_what_was_leased_when_its_bodies_could_not_be_read_is_given_out_when_they_can(durable):
    async with durable.opened() as inbox:
        put = await inbox.put(transcript("r-1"))
        altered(durable, "ALTER TABLE dgreceiver_body RENAME TO elsewhere")
        claim = asyncio.ensure_future(claimed(inbox))
        await until(lambda: failures(durable))
        altered(durable, "ALTER TABLE elsewhere RENAME TO dgreceiver_body")
        assert [entry.key for entry, _ in await claim] == [put.key]


async def test_who_stores_is_told_so_though_what_was_leased_in_the_same_batch_cannot_be_read(durable, monkeypatch):
    errors = [OSError("a fault of the disk")]

    def read(*args):
        if errors:
            raise errors.pop()
        return read_packed(*args)

    async with durable.opened() as inbox:
        first = await inbox.put(transcript("r-1"))
        monkeypatch.setattr(store, "read_packed", read)
        async with one_batch(durable, inbox):
            claim = asyncio.ensure_future(claimed(inbox))
            put = asyncio.ensure_future(inbox.put(transcript("r-2")))
        second = await put
        assert [entry.key for entry, _ in await claim] == [first.key, second.key]
        assert failures(durable) == ["OSError: a fault of the disk"]


async def test_a_lock_that_cannot_be_had_leaves_the_inbox_storing(durable):
    place = SqliteFile(durable.path, receiver="default", emit=durable.facts.append)
    owner = place._owner._path
    place.close()
    owner.mkdir()
    async with durable.opened() as inbox:
        claim = asyncio.ensure_future(claimed(inbox))
        put = await inbox.put(transcript("r-1"))
        await until(lambda: failures(durable))
        assert not claim.done()
        owner.rmdir()
        assert [entry.key for entry, _ in await claim] == [put.key]


async def test_upkeep_that_fails_is_an_error_of_its_caller_alone(durable):
    async with durable.opened() as inbox:
        with pytest.raises(InboxError, match="ZeroDivisionError"):
            await inbox._do(Upkeep(lambda place, connection: 1 / 0))
        assert (await inbox.put(transcript("r-1"))).outcome == "stored"


def test_a_loop_that_has_closed_is_told_nothing(durable):
    """Whoever forgot to close the inbox must not be punished by a traceback of its thread."""

    async def forget():
        inbox = durable.inbox()
        await inbox.open()
        putting = asyncio.ensure_future(inbox.put(transcript("r-1")))
        await asyncio.sleep(0)
        putting.cancel()
        return inbox

    inbox = asyncio.run(forget())
    inbox._writer._queue.put(None)
    asyncio.run(until(lambda: durable.path.with_name("inbox.db-wal").exists() is False))


# --- kill -9 ---


async def test_whenever_it_is_killed_what_was_acknowledged_is_there_and_what_was_settled_stays_so(durable, tmp_path):
    """Ten processes store, one of them handles, and all are killed one after another."""
    chance = random.Random(1)
    ledger = tmp_path / "ledger"
    ledger.touch()
    with ExitStack() as stack:
        lives = [Process(work, durable.path, n * 10_000_000, said=ledger) for n in range(10)]
        for life in lives:
            stack.enter_context(closing(life))
        for life in lives:
            enough = ledger.stat().st_size + chance.randrange(1, 8_000)
            await until(partial(_has_grown, ledger, enough))
            life.kill()
            life.wait()
    said = [line.split() for line in ledger.read_text().splitlines()]
    acknowledged, settled = ({name for word, name in said if word == wanted} for wanted in ("stored", "settled"))
    durable.clock.now = time.time()  # by which the processes went
    async with durable.opened() as inbox:
        given: list[str] = []
        while await inbox.busy():
            batch = await claimed(inbox, 200)
            assert all(f'"{entry.request_id}"'.encode() in body for entry, body in batch)
            given += [str(entry.request_id) for entry, _ in batch]
            await asyncio.gather(*(inbox.settle(entry, "done", SAVED) for entry, _ in batch))
        assert len(acknowledged) > 100
        assert settled
        assert settled.isdisjoint(given)
        assert len(given) == len(set(given))
        assert acknowledged | settled <= await all_done(inbox)


def _has_grown(file: Path, size: int) -> bool:
    return file.stat().st_size > size


async def all_done(inbox) -> set[str]:
    names: set[str] = set()
    before = None
    while page := await inbox.page(state="done", before=before, limit=200):
        names |= {str(entry.request_id) for entry in page}
        before = page[-1].id
    return names
