"""The inbox does, whatever the order of the calls, what a dictionary would do."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace as changed

from dgreceiver.core.callbacks import Callback, identify
from dgreceiver.inbox.contract import Entry, Mark
from dgreceiver.streams import Endings, Stream, key_of, seed, streams_of

from .stores import Shelf, claimed, ending, in_states, look, message, result, transcript

KEEP, DEDUPE_FOR = 1_000.0, 2_000.0  # seconds
ENDINGS = Endings()
STREAMS = st.sampled_from(["s-1", "s-2"])
NAMES = st.sampled_from(["r-1", "r-2", "r-3"])
JOBS = st.sampled_from(["j-1", "j-2"])
WAITS = st.sampled_from([0.0, 10.0, 500.0])
OVER = ("done", "unhandled", "dead", "conflict")


@dataclass(frozen=True)
class Row:
    """What the model knows of a callback; `place` orders it within its lane."""

    state: str
    body: bytes  # that its key stands for, kept or not
    changed: float
    name: str  # of the request, or of the job
    place: int
    lane: str | None = None
    due: float = 0.0  # for as long as it is waiting
    stored: float = 0.0
    stream: str | None = None  # the request that it belongs to, in its lane
    marks: tuple[tuple[str, Mark], ...] = ()
    has_body: bool = True


class InboxMachine(RuleBasedStateMachine):
    """Calls the inbox and a dictionary alike, and compares them."""

    kind = "memory"
    template: Path
    leased = Bundle("leased")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.shelf = Shelf(self.kind, self.folder, self.template)
        self.runner = asyncio.Runner()
        self.inbox = self.shelf.inbox()
        self.run(self.inbox.open())
        self.rows: dict[str, Row] = {}
        self.first: dict[str, str] = {}  # the key that belongs to a request
        self.puts = 0
        self.streams: dict[tuple[str, str], Stream] = {}  # by job and request

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.get_loop().run_until_complete(call)  # its run() puts a signal handler around each call

    @property
    def now(self) -> float:
        return self.shelf.clock.now

    def due(self) -> set[str]:
        """The keys that a claim would be given."""
        due = {key for key, row in self.rows.items() if row.state == "waiting" and row.due <= self.now}
        return {key for key in due if not self.before(self.rows[key])}

    def before(self, row: Row) -> list[Row]:
        """What is unfinished before it in its lane."""
        others = (other for other in self.rows.values() if row.lane and other.lane == row.lane)
        return [other for other in others if other.place < row.place and other.state in ("waiting", "leased")]

    def change(self, key: str, **values: Any) -> None:
        self.rows[key] = replace(self.rows[key], changed=self.now, **values)

    @rule(name=NAMES, text=st.sampled_from("ab"))
    def put_a_transcript(self, name: str, text: str) -> None:
        came = transcript(name, text)
        put = self.run(self.inbox.put(came))
        key = self.first.setdefault(name, put.key)
        known = [row for row in self.rows.values() if row.name == name]
        if key not in self.rows:
            wanted, state = "stored", "waiting"
        elif not self.rows[key].has_body or any(row.body == came.body for row in known):
            wanted, state = "duplicate", None
        else:
            wanted, state = "conflict", "conflict"
        assert put.outcome == wanted or self.is_an_erased_conflict(put.key)
        if state and put.outcome == wanted:
            self.add(put.key, state, came.body, name)

    def is_an_erased_conflict(self, key: str) -> bool:
        return key in self.rows and self.rows[key].state == "erased"

    @rule(job=JOBS)
    def put_a_message(self, job: str) -> None:
        self.put_into(job, message(job))

    @rule(job=JOBS, name=STREAMS, last=st.sampled_from([False, False, True]))
    def put_a_result(self, job: str, name: str, last: bool) -> None:
        self.put_into(job, (ending if last else result)(name, str(self.puts), job=job), name, last=last)

    def put_into(self, job: str, came: Callback, name: str | None = None, *, last: bool = False) -> None:
        put = self.run(self.inbox.put(came))
        assert put.outcome == "stored"
        known = self.streams_in(job)
        [request] = streams_of([name], latest=known[-1] if known else None, known=known)
        self.add(put.key, "waiting", came.body, job, lane=job, stream=request)
        if request is not None:
            if not known:
                self.adopt(job, request)
            lane = identify(came, receiver="default").lane or ""
            stream = self.streams.get((job, request)) or Stream(lane, request, self.puts, self.now)
            self.streams[job, request] = ENDINGS.heard(stream, self.now, closes=last, holder=None)

    def streams_in(self, job: str) -> list[str]:
        """The streams of a lane, in the order in which they began."""
        return [name for lane, name in self.streams if lane == job]

    def adopt(self, job: str, request: str) -> None:
        for key, row in self.rows.items():
            if row.lane == job and row.stream is None:
                self.rows[key] = replace(row, stream=request)

    def add(
        self, key: str, state: str, body: bytes, name: str, *, lane: str | None = None, stream: str | None = None
    ) -> None:
        self.puts += 1
        self.rows[key] = Row(state, body, self.now, name, self.puts, lane, self.now, stored=self.now, stream=stream)

    @rule(job=JOBS)
    def hang_up(self, job: str) -> None:
        self.run(self.inbox.hang_up(identify(message(job), receiver="default").lane or ""))
        for (lane, name), stream in self.streams.items():
            if lane == job and stream.ends is not None:
                self.streams[lane, name] = ENDINGS.hung_up(stream, self.now)
        self.look()

    def look(self) -> None:
        """Have the inbox put a LiveTranscript behind each stream that has ended."""
        self.run(look(self.inbox))
        due = [(name, stream) for name, stream in self.streams.items() if (stream.ends or self.now + 1) <= self.now]
        for (job, request), stream in sorted(due, key=lambda each: (each[1].ends, each[1].begun)):
            self.streams[job, request] = ENDINGS.ended(stream, self.now)
            if key_of(stream) not in self.rows:  # nor was it erased, nor forgotten
                self.add(key_of(stream), "waiting", seed(stream), job, lane=job, stream=request)

    @precondition(lambda self: self.due())
    @rule(target=leased, limit=st.integers(1, 3))
    def claim(self, limit: int) -> Any:
        due = self.due()
        given = self.run(claimed(self.inbox, limit))
        assert len(given) == min(limit, len(due))
        oldest = sorted(self.rows[key].due for key in due)[: len(given)]
        assert sorted(self.rows[entry.key].due for entry, _ in given) == oldest
        for entry, body in given:
            assert entry.key in due
            assert (body, dict(entry.marks)) == (self.rows[entry.key].body, dict(self.rows[entry.key].marks))
            self.rows[entry.key] = replace(self.rows[entry.key], state="leased")
        return multiple(*(entry for entry, _ in given))

    def end(self, entry: Entry, state: str, marks: dict[str, Mark], due: float = 0.0) -> None:
        if self.rows[entry.key].state == "leased":  # not erased meanwhile
            self.change(entry.key, state=state, marks=tuple(marks.items()), due=due)

    @rule(entry=consumes(leased), state=st.sampled_from(["done", "unhandled"]))
    def settle(self, entry: Entry, state: Any) -> None:
        marks = {"save": Mark(1, done=True)}
        self.run(self.inbox.settle(entry, state, marks))
        self.end(entry, state, marks)

    @rule(entry=consumes(leased), wait=WAITS)
    def postpone(self, entry: Entry, wait: float) -> None:
        marks = {"save": Mark(1), "log": Mark(1, done=True)}
        self.run(self.inbox.postpone(entry, marks, wait=wait, error="not yet"))
        self.end(entry, "waiting", marks, self.now + wait)

    @rule(entry=consumes(leased))
    def bury(self, entry: Entry) -> None:
        marks = {"save": Mark(1, buried="no"), "log": Mark(1, done=True)}
        self.run(self.inbox.bury(entry, marks, error="no"))
        self.end(entry, "dead", marks)

    @rule(state=st.sampled_from(OVER))
    def replay(self, state: Any) -> None:
        wanted = [key for key, row in self.rows.items() if row.state == state and row.has_body]
        assert self.run(self.inbox.replay(state=state)) == len(wanted)
        for key in wanted:
            done = {name: Mark(done=True) for name, mark in self.rows[key].marks if mark.done}
            marks = tuple(done.items()) if state == "dead" else ()
            due = self.rows[key].stored if self.rows[key].lane else self.now
            self.change(key, state="waiting", due=due, marks=marks)
        lanes = {self.rows[key].lane for key in wanted}
        for key, row in self.rows.items():
            if row.state == "waiting" and row.lane in lanes and self.before(row):  # its own time is forgotten
                self.rows[key] = replace(row, due=row.stored)

    @rule(name=NAMES)
    def erase_a_request(self, name: str) -> None:
        self.erased(self.run(self.inbox.erase(request_id=name)).rows, name)

    @rule(job=JOBS)
    def erase_a_job(self, job: str) -> None:
        self.erased(self.run(self.inbox.erase(job=job)).rows, job)

    def erased(self, rows: int, name: str) -> None:
        wanted = [key for key, row in self.rows.items() if row.name == name and row.state != "erased"]
        assert rows == len(wanted)
        lanes = {self.rows[key].lane for key in wanted}
        self.streams = {place: stream for place, stream in self.streams.items() if place[0] not in lanes}
        for key in wanted:
            self.change(key, state="erased", body=b"", lane=None, stream=None, marks=(), has_body=False)

    @rule()
    def purge(self) -> None:
        keep, dedupe_for = timedelta(seconds=KEEP), timedelta(seconds=DEDUPE_FOR)
        purged = self.run(self.inbox.purge(keep=keep, dedupe_for=dedupe_for))
        before = len(self.rows)
        self.forget_streams()
        for key, row in list(self.rows.items()):
            if self.is_old(row) and (row.lane, row.stream) not in self.streams:
                self.rows[key] = replace(row, has_body=False)
            expires = row.state in ("done", "unhandled", "erased") and row.changed <= self.now - DEDUPE_FOR
            if expires and not self.rows[key].has_body:
                del self.rows[key]
        assert purged.rows == before - len(self.rows)

    def is_old(self, row: Row) -> bool:
        return row.state in ("done", "unhandled") and row.changed <= self.now - KEEP

    def forget_streams(self) -> None:
        """Let go of the streams of which everything is old, but for dead messages."""
        wholes = {key_of(changed(stream, revision=n)) for stream in self.streams.values() for n in range(99)}
        for (job, request), stream in list(self.streams.items()):
            rows = [(key, row) for key, row in self.rows.items() if (row.lane, row.stream) == (job, request)]
            over = all(self.is_old(row) or (row.state == "dead" and key not in wholes) for key, row in rows)
            if over and stream.ends is None and stream.changed <= self.now - KEEP:
                del self.streams[job, request]

    @rule(by=st.sampled_from([1.0, 10.0, 500.0, 1_500.0, 2_500.0]))
    def let_time_pass(self, by: float) -> None:
        self.shelf.clock.now += by
        self.look()

    @precondition(lambda self: self.kind != "memory")
    @rule()
    def reopen(self) -> None:
        self.run(self.inbox.close())
        self.inbox = self.shelf.inbox()
        self.run(self.inbox.open())
        for key, row in self.rows.items():
            if row.state == "leased":
                self.rows[key] = replace(row, state="waiting", due=self.now)
        self.look()

    @invariant()
    def every_callback_is_where_it_should_be(self) -> None:
        entries = {entry.key: entry for entry in self.run(self.inbox.page(limit=200))}
        assert {key: entry.state for key, entry in entries.items()} == {k: row.state for k, row in self.rows.items()}
        assert {key: dict(entry.marks) for key, entry in entries.items()} == {
            key: dict(row.marks) for key, row in self.rows.items()
        }
        assert sum(self.run(in_states(self.inbox)).values()) == len(self.rows)

    @invariant()
    def it_is_busy_while_something_is_due_or_leased(self) -> None:
        leased = any(row.state == "leased" for row in self.rows.values())
        assert self.run(self.inbox.busy()) == (leased or bool(self.due()))

    def teardown(self) -> None:
        for key, row in self.rows.items():
            found = self.run(self.inbox.get(key))
            assert found is not None
            assert found[1] == (row.body if row.has_body else b"")
        self.run(self.inbox.close())
        self.runner.close()
        shutil.rmtree(self.folder)


@pytest.mark.parametrize(("store", "examples"), [("memory", 20), ("sqlite", 10)], ids=["memory", "sqlite"])
def test_the_inbox_behaves_as_its_model(store, examples, template):
    machine = type("Machine", (InboxMachine,), {"kind": store, "template": template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
