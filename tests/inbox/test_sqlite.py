"""What an SQLite file promises beyond the contract: durability, one owner among processes, schemas, erasure on disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect, select

from dgreceiver.errors import InboxError, SetupError
from dgreceiver.facts import DispatchTaken, Fact, InboxFailed, InboxOpened
from dgreceiver.inbox import locks, migrations, sqlite
from dgreceiver.inbox.locks import FileLock
from dgreceiver.inbox.memory import MemoryInbox
from dgreceiver.inbox.sql import SqlInbox
from dgreceiver.inbox.sqlite import BOOT, SqliteFile, SqliteInbox, SqliteMemory, caveat
from dgreceiver.inbox.store import Call, Upkeep
from dgreceiver.inbox.tables import REVISIONS, VERSION_TABLE, callbacks, metadata

from .process import Process, fork, hold, stop, stream, work
from .stores import (
    FAILED,
    SAVED,
    Shelf,
    ask,
    callback,
    claimed,
    end_as,
    ending,
    entry_of,
    in_states,
    message,
    nothing_is_due,
    result,
    transcript,
    until,
    wholes,
    worked_off,
)

DAY = timedelta(days=1)


@pytest.fixture
def shelf(tmp_path):
    """A place where no file is yet."""
    return Shelf("sqlite", tmp_path)


@pytest.fixture
def ready(durable):
    """A place with a file that has been migrated."""
    return durable


async def heard(running: Process, word: str) -> str:
    """The rest of the first line that begins with the word."""
    while line := await asyncio.to_thread(running.said.readline):
        said, _, rest = line.strip().partition(" ")
        if said == word:
            return rest
    raise AssertionError(f"it ended without saying {word!r}")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def version_in(path: Path, version: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", [version])
        connection.commit()


# --- the file ---


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("secure_delete", 1),
        ("auto_vacuum", 2),
        ("journal_size_limit", 64 << 20),
    ],
)
async def test_the_file_is_written_so_that_nothing_is_lost_and_erased_is_gone(shelf, pragma, value):
    async with shelf.opened() as inbox:
        assert await ask(inbox, lambda connection: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()) == value


async def test_nobody_else_may_read_the_files(shelf):
    async with shelf.opened() as inbox:
        await inbox.put(transcript("r-1"))
        await end_as(inbox, "done")
        modes = {file.name: stat.filemode(file.stat().st_mode) for file in shelf.path.parent.iterdir()}
    assert len(modes) == 5
    assert set(modes.values()) == {"-rw-------"}


async def test_a_file_that_was_there_keeps_its_mode(shelf):
    shelf.path.touch(mode=0o640)
    async with shelf.opened():
        assert stat.filemode(shelf.path.stat().st_mode) == "-rw-r-----"


async def test_closing_leaves_one_file_with_all_in_it_and_its_locks(shelf):
    async with shelf.opened() as inbox:
        await inbox.put(transcript("r-1"))
    assert sorted(file.suffix for file in shelf.path.parent.iterdir()) == [".db", ".write"]


# --- the clock


def opened_at(path: Path, wall: float) -> SqlInbox:
    """An inbox, to be opened while the wall's clock shows this."""
    place = partial(SqliteFile, path, receiver="default", emit=lambda fact: None, wall=lambda: wall)
    return SqlInbox(place, receiver="default", emit=lambda fact: None)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_what_one_process_stores_is_due_in_another_that_started_when_the_wall_clock_was_set_otherwise(
    tmp_path, hours
):
    here, there = (opened_at(tmp_path / "inbox.db", wall) for wall in (time.time(), time.time() + hours * 3600))
    await here.open()
    await there.open()
    for text in ("one", "two"):
        await there.put(message("j-1", text))
    for _ in range(2):  # the second is due when the first is done
        await here.settle(await entry_of(here), "done", SAVED)
    await here.close()
    await there.close()


@pytest.mark.parametrize("begun", ["", "torn", "another-boot 1.0", f"{BOOT.read_text().strip()} torn"])
async def test_time_goes_on_from_the_newest_callback_where_the_wall_clock_was_set_back_and_the_machine_restarted(
    tmp_path, begun
):
    before = opened_at(tmp_path / "inbox.db", time.time())
    await before.open()
    for text in ("one", "two"):
        await before.put(message("j-1", text))
    await before.close()
    (tmp_path / "inbox.db.write").write_text(begun)
    after = opened_at(tmp_path / "inbox.db", time.time() - 5 * 3600)
    await after.open()
    for _ in range(2):
        await after.settle(await entry_of(after), "done", SAVED)
    await after.close()


def test_without_a_name_for_the_start_of_the_machine_each_process_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BOOT", tmp_path / "missing")
    place = SqliteFile(tmp_path / "inbox.db", receiver="default", emit=lambda fact: None, wall=lambda: 1e9)
    assert round(place.clock() - 1e9) == 0


async def test_a_relative_path_is_relative_to_the_folder_at_the_time_of_opening(tmp_path, monkeypatch):
    facts: list[Fact] = []
    inbox = SqliteInbox(Path("inbox.db"), receiver="default", emit=facts.append)
    monkeypatch.chdir(tmp_path)
    await inbox.open()
    monkeypatch.chdir("/")
    await inbox.put(transcript("r-1"))
    await inbox.close()
    assert (tmp_path / "inbox.db").exists()
    assert [fact.location for fact in facts if isinstance(fact, InboxOpened)] == [str(tmp_path / "inbox.db")]


async def test_memory_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inbox = MemoryInbox(receiver="default", emit=lambda fact: None)
    await inbox.open()
    await inbox.put(transcript("r-1"))
    assert (await entry_of(inbox)).request_id == "r-1"
    await inbox.close()
    assert list(tmp_path.iterdir()) == []


@contextmanager
def plans() -> Iterator[list[str]]:
    """How SQLite finds the rows for what is run meanwhile."""
    found: list[str] = []

    def explain(connection, cursor, statement, parameters, *_):
        steps = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        found.extend(step for *_, step in steps)

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


@pytest.mark.parametrize(
    ("call", "by"),
    [
        pytest.param(claimed, "dgreceiver_due (receiver=? AND due>?)", id="take over"),
        pytest.param(SqlInbox.busy, "dgreceiver_due (receiver=? AND due<?)", id="busy"),
        pytest.param(partial(SqlInbox.page, state="dead"), "dgreceiver_attention (receiver=? AND state=?)", id="page"),
        pytest.param(partial(SqlInbox.replay, state="dead"), "dgreceiver_attention (receiver=?", id="replay"),
        pytest.param(
            partial(SqlInbox.purge, keep=DAY, dedupe_for=DAY),
            "dgreceiver_expiring (changed>? AND changed<?)",
            id="purge",
        ),
    ],
)
async def test_what_is_to_be_done_is_found_without_looking_at_all_that_is_kept(ready, call, by):
    async with ready.opened() as inbox:
        await inbox.put(transcript("r-1"))
        with plans() as found:
            await call(inbox)
    assert [step for step in found if step.startswith("SCAN dgreceiver_callback")] == []
    assert any(by in step for step in found)


async def test_purging_gives_the_space_back(ready):
    async with ready.opened() as inbox:
        await asyncio.gather(*(inbox.put(callback(os.urandom(50_000), job=f"j-{n}")) for n in range(40)))
        for n in range(40):
            await inbox.erase(job=f"j-{n}") if n < 2 else await end_as(inbox, "done")
        before = ready.path.stat().st_size
        ready.clock.now += 1_000_000
        await inbox.purge(keep=DAY, dedupe_for=DAY)
        await inbox.erase(request_id="nobody's")  # which empties the log into the file
        assert ready.path.stat().st_size < before / 4


async def test_what_is_erased_is_nowhere_in_the_files(ready):
    secrets = [
        f"{what}-{n}-to-be-forgotten"
        for n in range(60)
        for what in ("body", "id", "job", "path", "query", "context", "header", "error")
    ]

    def secret(n, text=""):
        fields = {
            "path": f"/path-{n}-to-be-forgotten",
            "query": f"query-{n}-to-be-forgotten",
            "job": f"job-{n}-to-be-forgotten",
        }
        context, headers = {"c": f"context-{n}-to-be-forgotten"}, {"dg-x": f"header-{n}-to-be-forgotten"}
        body = b"%d body-%d-to-be-forgotten %s" % (n, n, text.encode())
        return callback(body[:60], context=context, headers=headers, **fields)

    async with ready.opened() as inbox:
        await asyncio.gather(*(inbox.put(secret(n)) for n in range(60)))
        await asyncio.gather(
            *(inbox.put(transcript(f"id-{n}-to-be-forgotten", job=f"job-{n}-to-be-forgotten")) for n in range(60))
        )
        for n, (entry, _) in enumerate(await claimed(inbox, 40)):
            await inbox.bury(entry, {f"error-{n}-to-be-forgotten": FAILED["save"]}, error=f"error-{n}-to-be-forgotten")
        for n in range(60):
            assert (await inbox.erase(job=f"job-{n}-to-be-forgotten")).rows == 2
        found = b"".join(file.read_bytes() for file in ready.path.parent.iterdir())
        assert [secret for secret in secrets if secret.encode() in found] == []


async def test_a_stream_and_a_long_body_that_are_erased_are_nowhere_in_the_files(ready):
    spoken = b"a long recording, to-be-forgotten"
    async with ready.opened() as inbox:
        for came in (result("stream-to-be-forgotten", "one"), ending("stream-to-be-forgotten")):
            await inbox.put(came)
        ready.clock.now += 10
        assert len(await worked_off(inbox)) == 3  # the whole too
        upload = inbox.upload(audio=True)
        await upload.write(spoken + os.urandom(100_000))
        await inbox.put(callback(b"", job="job-to-be-forgotten", headers={"content-type": "audio/wav"}), upload=upload)
        assert (await inbox.erase(request_id="stream-to-be-forgotten")).rows == 3
        assert (await inbox.erase(job="job-to-be-forgotten")).rows == 1
        found = b"".join(file.read_bytes() for file in ready.path.parent.iterdir())
        assert b"to-be-forgotten" not in found


async def test_of_an_erased_callback_its_key_its_kind_and_its_times_are_left(ready):
    async with ready.opened() as inbox:
        came = result("r-1", "one", job="j-1", path="/p", query="q", context={"a": 1}, headers={"dg-x": "y"})
        await inbox.put(came)
        await end_as(inbox, "dead")
        await inbox.erase(request_id="r-1")
        [row] = await ask(inbox, lambda connection: connection.execute(select(callbacks)).all())
    kept = {name for name, value in row._asdict().items() if value not in (None, "", "{}", 0)}
    assert kept == {"id", "receiver", "key", "kind", "n", "state", "received_at", "stored", "changed"}


async def test_what_is_purged_is_overwritten_in_the_file(ready):
    spoken = os.urandom(50_000)
    async with ready.opened() as inbox:
        await inbox.put(callback(spoken, headers={"content-type": "audio/wav"}))
        await end_as(inbox, "done")
        ready.clock.now += 2 * DAY.total_seconds()
        assert (await inbox.purge(keep=DAY, dedupe_for=10 * DAY)).bodies == 1
    left = ready.path.read_bytes()
    assert [start for start in range(0, len(spoken), 1000) if spoken[start : start + 16] in left] == []


async def test_an_erasure_says_that_a_large_file_was_not_rewritten(ready):
    async with ready.opened() as inbox:
        await inbox.put(transcript("r-1"))
        os.truncate(ready.path, 257 << 20)  # a hole, which SQLite does not mind
        said = await inbox.erase(request_id="r-1")
    assert [words[:21] for words in said.unreached] == ["pieces of short texts"]


async def test_an_erasure_says_that_another_process_still_reads_the_log(ready):
    async with ready.opened() as inbox:
        await inbox.put(transcript("r-1"))
        with closing(sqlite3.connect(ready.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM dgreceiver_callback").fetchall()
            await ask(inbox, lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout = 50"))
            said = await inbox.erase(request_id="r-1")
    assert (said.rows, said.unreached) == (1, ["the write-ahead log, which another process is reading"])


# --- the schema ---


async def test_the_migrations_make_exactly_the_tables_that_the_statements_use(shelf):
    async with shelf.opened():
        pass
    migrated, wanted = create_engine(f"sqlite:///{shelf.path}"), create_engine("sqlite://")
    metadata.create_all(wanted)
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert schema_of(migrated) == schema_of(wanted)
    migrated.dispose()
    wanted.dispose()


def schema_of(engine):
    """What a database says of its columns and, in SQL, of its indexes."""
    columns = {name: list(map(repr, inspect(engine).get_columns(name))) for name in metadata.tables}
    keys = {name: inspect(engine).get_unique_constraints(name) for name in metadata.tables}
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index'").all()
    return columns, keys, {name: sql and " ".join(sql.split()) for name, sql in rows if VERSION_TABLE not in name}


def test_the_revisions_are_those_of_the_scripts():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == REVISIONS


async def test_an_empty_file_and_an_empty_database_become_an_inbox(shelf):
    shelf.path.touch()
    async with shelf.opened() as inbox:
        await inbox.put(transcript("r-1"))
    other = Shelf("sqlite", shelf.path.parent)
    other.path = shelf.path.with_name("other.db")
    with closing(sqlite3.connect(other.path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    async with other.opened() as inbox:
        assert await in_states(inbox) == {}


async def test_several_files_may_be_made_at_the_same_time(tmp_path):
    """alembic keeps what it works on in global variables."""
    inboxes = [SqliteInbox(tmp_path / f"{n}.db", receiver="default", emit=lambda fact: None) for n in range(4)]
    await asyncio.gather(*(inbox.open() for inbox in inboxes))
    assert [await inbox.counts() for inbox in inboxes] == [{}] * 4
    for inbox in inboxes:
        await inbox.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(
            lambda path: version_in(path, "9999"), "newer dgreceiver: its schema is 9999", id="a newer schema"
        ),
        pytest.param(foreign, "is an SQLite database but no inbox", id="another's database"),
        pytest.param(lambda path: path.write_bytes(b"no database" * 1_000), "file is not a database", id="no database"),
        pytest.param(lambda path: version_in(path, ""), "newer dgreceiver", id="a schema without a name"),
    ],
)
async def test_a_file_that_is_not_ours_to_change_is_refused_and_left_as_it_is(ready, make, said):
    make(ready.path)
    before = ready.path.read_bytes()
    with pytest.raises(SetupError, match=said):
        await ready.inbox().open()
    assert ready.path.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("missing/inbox.db", "the folder of the inbox does not exist", id="no folder"),
        pytest.param(".", "cannot open the inbox", id="a folder"),
        pytest.param("x" * 252, "cannot open the inbox", id="a name that leaves no room for its lock"),
    ],
)
async def test_a_path_where_no_file_can_be_is_a_setup_error(tmp_path, path, said):
    inbox = SqliteInbox(tmp_path / path, receiver="default", emit=lambda fact: None)
    with pytest.raises(SetupError, match=said):
        await inbox.open()


# --- where it is ---


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param("nfs4", "network file system (nfs4)", id="network"),
        pytest.param("tmpfs", "temporary file system (tmpfs)", id="memory"),
        pytest.param("ext4", None, id="a disk"),
    ],
)
def test_a_doubtful_file_system_is_told(tmp_path, kind, said):
    """The innermost mount counts, as the kernel lists it."""
    mounts = tmp_path / "mountinfo"
    inner = tmp_path / "in" / "ner"
    mounts.write_text(
        f"1 0 8:1 / / rw shared:1 - nfs /dev/root rw\n2 1 0:5 / {tmp_path}/in rw - {kind} none rw\n"
        f"3 1 0:6 / {tmp_path}/in/nerves rw - nfs none rw\n"
    )
    told = caveat(inner / "inbox.db", mounts=mounts)
    assert told is None if said is None else said in str(told)


def test_nothing_is_told_where_the_mounts_are_not_known(tmp_path):
    assert caveat(tmp_path / "inbox.db", mounts=tmp_path / "missing") is None


async def test_an_inbox_on_a_temporary_file_system_says_so(small_disk):
    shelf = Shelf("sqlite", small_disk)
    async with shelf.opened():
        pass
    assert "a restart of the machine loses it" in str(shelf.facts[0])


# --- processes ---


async def test_of_two_processes_both_store_and_one_owns(ready):
    async with ready.opened() as other:
        with closing(Process(hold, ready.path)) as owner:
            await heard(owner, "ready")
            first = await other.put(transcript("r-1"))
            assert await heard(owner, "leased") == first.key
            second = await other.put(transcript("r-2"))
            assert await nothing_is_due(other)
            assert {entry.key: entry.state for entry in await other.page()} == {
                first.key: "leased",
                second.key: "waiting",
            }


async def test_when_the_owner_is_killed_another_takes_over_at_once(ready):
    async with ready.opened() as other:
        put = await other.put(transcript("r-1"))
        with closing(Process(hold, ready.path)) as owner:
            await heard(owner, "leased")
            claim = asyncio.ensure_future(claimed(other))
            await other.counts()
            assert not claim.done()
            owner.kill()
            begun = asyncio.get_running_loop().time()
            [(entry, body)] = await claim
            took = asyncio.get_running_loop().time() - begun
    assert (entry.key, entry.crashes, body) == (put.key, 1, transcript("r-1").body)
    assert [fact.recovered for fact in ready.facts if isinstance(fact, DispatchTaken)] == [1]
    assert took < 1.0


async def test_a_stream_ends_when_the_process_that_holds_its_socket_is_killed(ready):
    async with ready.opened() as owner:
        with closing(Process(stream, ready.path)) as holder:
            await heard(holder, "ready")
            ready.clock.now = time.time() + 60
            await worked_off(owner)
            assert await wholes(owner) == []
            assert [each.name for each in ready.path.parent.iterdir() if ".alive-" in each.name] != []
            holder.kill()
            holder.wait()
        ready.clock.now += 60
        [(entry, _)] = await worked_off(owner)
    assert (entry.kind, entry.request_id) == ("LiveTranscript", "r-1")
    assert [each.name for each in ready.path.parent.iterdir() if ".alive-" in each.name] == []


async def test_in_memory_nobody_else_holds_a_socket():
    assert SqliteMemory().is_gone("another")


async def test_while_there_is_no_pause_in_what_comes_in_it_is_handled_all_the_same(ready):
    with closing(Process(work, ready.path, 0)) as busy:
        await asyncio.wait_for(heard(busy, "settled"), 5)
        busy.kill()


async def test_a_run_that_ended_forgets_the_crashes_before_it(ready):
    async with ready.opened() as other:
        await other.put(transcript("r-1"))
        with closing(Process(hold, ready.path)) as owner:
            await heard(owner, "leased")
        await other.postpone(await entry_of(other), FAILED, wait=0, error="not yet")
        assert (await entry_of(other)).crashes == 0


async def test_a_fork_that_lives_on_holds_no_lock(ready):
    async with ready.opened() as other:
        await other.put(transcript("r-1"))
        with closing(Process(fork, ready.path)) as owner:
            child, _ = (await heard(owner, "child")).split()
            owner.send_signal(signal.SIGKILL)
            owner.wait()
            assert (await entry_of(other)).crashes == 1
            os.kill(int(child), signal.SIGKILL)  # it was there all the time


# --- a process that was stopped while it holds the lock


@asynccontextmanager
async def held_up(ready: Shelf) -> AsyncIterator[tuple[SqlInbox, Process]]:
    """An inbox that is soon impatient, with a delivery leased, and the stopped process that holds it up."""
    async with ready.opened(patience=0.5) as inbox:
        await inbox.put(transcript("before"))
        with closing(Process(stop, ready.path)) as other:
            await stopped(other)
            yield inbox, other


async def stopped(running: Process) -> None:
    await heard(running, "ready")
    await until(lambda: Path(f"/proc/{running.pid}/stat").read_text().split()[2] == "T")


def failures(shelf: Shelf) -> list[InboxFailed]:
    return [fact for fact in shelf.facts if isinstance(fact, InboxFailed)]


async def test_who_stores_while_a_stopped_process_holds_the_lock_is_sent_away_and_told_of_once(ready):
    released = list[str]()
    async with held_up(ready) as (inbox, other):
        puts = [inbox.put(transcript(f"r-{n}"), release=lambda: released.append("it")) for n in range(3)]
        writing = inbox.upload(audio=False).write(b"part")
        frames = inbox.put_frames([callback(connection="c-1", frame=0)])
        shrinking = inbox._do(Upkeep(lambda place, connection: place.shrink(connection)))
        said = await asyncio.gather(*puts, writing, frames, shrinking, inbox.counts(), return_exceptions=True)
        assert {str(each)[:28] for each in said} == {"nothing could be written for"}
        begun = time.monotonic()
        for _ in range(3):
            with pytest.raises(InboxError, match="state T in ps"):
                await inbox.put(transcript("later"), release=lambda: released.append("it"))
        assert time.monotonic() - begun < 0.4
        assert [fact.waiting for fact in failures(ready)] == [7]
        assert len(released) == 6
        other.send_signal(signal.SIGCONT)
        await until(partial(stores, inbox, "again"))
        assert [entry.request_id for entry in await inbox.page()] == ["again", "before"]


async def stores(inbox: SqlInbox, request_id: str) -> bool:
    with suppress(InboxError):
        return (await inbox.put(transcript(request_id))).outcome in ("stored", "duplicate")
    return False


async def test_what_ends_or_waits_for_something_to_do_waits_for_a_stopped_process(ready):
    async with held_up(ready) as (inbox, other):
        other.send_signal(signal.SIGCONT)
        entry = await entry_of(inbox)
        with closing(Process(stop, ready.path)) as another:
            await stopped(another)
            ends = asyncio.ensure_future(inbox.settle(entry, "done", SAVED))
            claim = asyncio.ensure_future(claimed(inbox))
            with pytest.raises(InboxError):
                await inbox.put(transcript("r-1"))
            assert not ends.done()
            another.kill()
            await ends
            await until(partial(stores, inbox, "r-1"))
            assert [each.request_id for each, _ in await claim] == ["r-1"]
    assert len(failures(ready)) == 1


async def test_what_has_been_begun_is_seen_through(ready):
    there, go = threading.Event(), threading.Event()

    def hold(_: object) -> bool:
        there.set()
        return go.wait(10)

    async with ready.opened(patience=0.3) as inbox:
        begun = inbox._do(Call(hold))
        await asyncio.to_thread(there.wait, 10)
        with pytest.raises(InboxError):
            await inbox.put(transcript("r-1"))
        go.set()
        assert await begun


async def test_a_second_stop_is_told_of_again(ready):
    async with ready.opened(patience=0.3) as inbox:
        for n in range(2):
            with closing(Process(stop, ready.path)) as other:
                await stopped(other)
                with pytest.raises(InboxError):
                    await inbox.put(transcript("r-1"))
            await until(partial(stores, inbox, f"after {n}"))
    assert len(failures(ready)) == 2


def test_one_at_a_time_has_a_lock(tmp_path):
    mine, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert mine.try_acquire()
    assert not other.try_acquire()
    mine.release()
    other.acquire()
    assert not mine.try_acquire()
    other.close()
    assert mine.try_acquire()
    mine.close()
    mine.release()  # of nothing


def test_the_child_of_a_fork_lets_go_of_every_lock(tmp_path):
    mine, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert mine.try_acquire()
    locks._forget_after_fork()
    assert other.try_acquire()
    other.close()


async def test_what_was_to_wait_by_another_clock_waits_no_longer_than_it_was_to(ready):
    """The wall clock went back an hour between two runs."""
    async with ready.opened() as inbox:
        for n, wait in enumerate((30, 0)):
            await inbox.put(transcript(f"r-{n}"))
            await inbox.postpone(await entry_of(inbox), FAILED, wait=wait, error="not yet")
    ready.clock.now -= 3_600
    async with ready.opened() as inbox:
        assert (await entry_of(inbox)).request_id == "r-1"
        ready.clock.now += 29
        assert await nothing_is_due(inbox)
        ready.clock.now += 1
        assert (await entry_of(inbox)).request_id == "r-0"


async def test_a_lane_survives_its_process(ready):
    async with ready.opened() as other:
        puts = [await other.put(message("j-1", str(n))) for n in range(2)]
        with closing(Process(hold, ready.path)) as owner:
            assert await heard(owner, "leased") == puts[0].key
        assert (await end_as(other, "done")).key == puts[0].key
        assert (await end_as(other, "done")).key == puts[1].key
