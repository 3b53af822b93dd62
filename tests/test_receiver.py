"""The receiver itself: what cannot be set up, when it runs, and what it is asked to do."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from base64 import b64encode
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dgreceiver import (
    BasicAuth,
    Delivery,
    Erased,
    Event,
    ExtraAuth,
    Failure,
    NoAuth,
    Receiver,
    RetryPolicy,
    SetupError,
    SignedAuth,
    Transcript,
)
from dgreceiver.facts import CallbackStored, DispatchTaken, SetupDoubtful, StartedLate
from dgreceiver.testing.payloads import failure, live_result, transcript

from .support import (
    AUTH,
    PASSWORD,
    USER,
    Call,
    Facts,
    a_scope,
    deliver,
    entries_of,
    in_file,
    living,
    new_receiver,
    piece,
    post,
    served,
    until,
)

URL = "https://hooks.example.com/deepgram"


# --- what cannot be set up


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"auth": None},
            "auth=None lets anyone who finds the URL send you transcripts; write "
            'auth=BasicAuth("deepgram", os.environ["CALLBACK_PASSWORD"]), or auth=NoAuth() to mean it',
            id="nobody asked",
        ),
        pytest.param(
            {"auth": "fake-password"},
            "auth is a str; write auth=BasicAuth(user, password), or SignedAuth(key)",
            id="a password alone",
        ),
        pytest.param({"auth": BasicAuth}, "auth is a type; write auth=BasicAuth(user, password)", id="a class"),
        pytest.param({"name": ""}, 'name is empty; leave it out, or write one such as name="calls"', id="no name"),
        pytest.param({"name": None}, "name is empty", id="None as a name"),
        pytest.param(
            {"ack": "seen"},
            'ack=\'seen\' is no way to acknowledge; leave it out, or write ack="stored" or ack="handled"',
            id="another acknowledgement",
        ),
        pytest.param(
            {"dedupe_for": timedelta(minutes=29)},
            "dedupe_for=0:29:00 is shorter than retries go on; write at least 0:30:00",
            id="too short a memory",
        ),
        pytest.param({"dedupe_for": "3 days"}, "dedupe_for is of type str; write a timedelta", id="a memory in words"),
        pytest.param({"keep": -1}, "keep is -1; write a timedelta", id="kept for less than nothing"),
        pytest.param({"stream_idle": float("inf")}, "stream_idle is inf; write a timedelta", id="idle for ever"),
        pytest.param({"concurrency": 0}, "concurrency=0 handles nothing; write a whole number from 1", id="no slot"),
        pytest.param({"concurrency": True}, "concurrency=True handles nothing", id="a truth of slots"),
        pytest.param({"concurrency": 1.5}, "concurrency=1.5 handles nothing", id="a slot and a half"),
        pytest.param(
            {"inbox": "postgresql://db/calls"},
            "inbox='postgresql://db/calls' is none that this release opens; write "
            '"sqlite:///dgreceiver.db", with four slashes for an absolute path, or "memory://" for tests',
            id="another database",
        ),
        pytest.param({"inbox": "sqlite://"}, "inbox='sqlite://' is none that this release opens", id="no file"),
        pytest.param({"inbox": "sqlite:///"}, "inbox='sqlite:///' is none", id="no path"),
        pytest.param({"inbox": "sqlite:///:memory:"}, "inbox='sqlite:///:memory:' is none", id="SQLite's memory"),
        pytest.param({"inbox": Path("inbox.db")}, "is none that this release opens", id="a path"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_write(options, message):
    with pytest.raises(SetupError) as raised:
        new_receiver(**options)
    assert message in str(raised.value)


def test_making_a_receiver_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    receiver = new_receiver(inbox="sqlite:///inbox.db")
    receiver.on(Event)(lambda event: None)
    assert list(tmp_path.iterdir()) == []


def test_durations_may_be_seconds():
    assert new_receiver(dedupe_for=1800, keep=0.5, stream_idle=1).keep == timedelta(milliseconds=500)


# --- two of one name


def a_receiver_made_here(**options: Any) -> Receiver:
    return Receiver(auth=NoAuth(), inbox="memory://", **options)


def test_two_receivers_of_one_name_are_refused_with_both_places():
    first = a_receiver_made_here(name="calls")
    with pytest.raises(SetupError) as raised:
        new_receiver(name="calls")
    text = str(raised.value)
    assert text.startswith("two receivers are named 'calls': the one made at ")
    assert first.made_at in text
    assert text.count("test_receiver.py:") + text.count("support.py:") == 2
    assert 'give one of them another name, such as name="calls"' in text


def test_a_line_that_runs_twice_makes_the_same_receiver_twice():
    kept = [a_receiver_made_here(name="twice") for _ in range(2)]
    assert len({receiver.made_at for receiver in kept}) == 1


def test_a_receiver_that_nobody_holds_keeps_no_name():
    a_receiver_made_here(name="forgotten").on(Event)(lambda event: None)
    assert new_receiver(name="forgotten").name == "forgotten"


async def test_a_receiver_that_was_stopped_keeps_no_name():
    stopped = a_receiver_made_here(name="stopped")
    async with stopped.running():
        with pytest.raises(SetupError):
            new_receiver(name="stopped")
    assert new_receiver(name="stopped").name == stopped.name


def test_a_receiver_whose_loop_has_ended_keeps_no_name():
    left = a_receiver_made_here(name="left")
    asyncio.run(sent(left))
    assert new_receiver(name="left").name == left.name


async def sent(receiver: Receiver) -> int:
    call = await Call(piece(transcript().body))(receiver, a_scope())
    return call.status


# --- running


async def test_it_starts_and_stops_by_hand_and_may_do_so_again(tmp_path):
    receiver, seen = new_receiver(inbox=in_file(tmp_path)), list[str | None]()
    receiver.on(Event)(lambda event: seen.append(event.request_id))
    for request_id in ("a", "b"):
        async with receiver.running():
            await deliver(receiver, transcript(request_id=request_id))
            await receiver.idle()
    assert seen == ["a", "b"]


async def test_it_stops_when_the_last_of_its_users_does():
    receiver = new_receiver()
    async with receiver.running():
        async with receiver.running():
            assert not receiver.is_over
        assert not receiver.is_over
        await deliver(receiver, transcript())
    assert receiver.is_over


async def test_it_is_a_lifespan():
    receiver, seen = new_receiver(), list[Event]()
    receiver.on(Event)(seen.append)
    app = FastAPI(lifespan=receiver.running)
    app.mount("/deepgram", receiver)
    async with served(app) as url, httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD)) as client:
        answer = await post(client, transcript(), "/deepgram/")
        await receiver.idle()
    assert answer.status_code == 200
    assert len(seen) == 1
    assert receiver.is_over


async def test_it_speaks_the_lifespan_protocol_itself():
    receiver = new_receiver()
    async with living(receiver) as said:
        assert said == [{"type": "lifespan.startup.complete"}]
        await deliver(receiver, transcript())
    assert said[1:] == [{"type": "lifespan.shutdown.complete"}]


async def test_a_stop_that_fails_is_told_of_as_one():
    class Sticky(Receiver):
        async def _stop(self) -> None:
            await super()._stop()
            raise OSError("it sticks")

    async with living(Sticky(auth=AUTH, inbox="memory://", name="sticky")) as said:
        pass
    assert said[1:] == [{"type": "lifespan.shutdown.failed", "message": "it sticks"}]


async def test_other_kinds_of_scope_are_passed_over():
    assert (await Call()(new_receiver(), {"type": "pubsub"})).sent == []


async def test_it_starts_on_the_first_request_and_says_so_once(caplog):
    facts = Facts()
    receiver, seen = new_receiver(hooks=[facts]), list[Event]()
    receiver.on(Event)(seen.append)
    statuses = await asyncio.gather(*(sent(receiver) for _ in range(5)))
    await receiver.idle()
    assert statuses == [200] * 5
    assert len(seen) == 5
    assert len(facts.of(StartedLate)) == 1
    assert caplog.text.count("started on the first request: this app never ran our lifespan") == 1
    await receiver._stop()


async def test_a_request_after_the_stop_is_told_to_come_again():
    receiver = new_receiver()
    async with receiver.running():
        pass
    call = await Call(piece(b"{}"))(receiver, a_scope())
    assert (call.status, call.headers[b"retry-after"], call.json) == (503, b"30", {"error": "stopped"})


@pytest.mark.parametrize("inbox", [pytest.param(False, id="memory"), pytest.param(True, id="file")])
def test_it_starts_anew_in_another_loop(tmp_path, inbox):
    receiver, seen = new_receiver(**({"inbox": in_file(tmp_path)} if inbox else {})), list[Event]()
    receiver.on(Event)(seen.append)

    async def handled(wanted: int) -> int:
        [first, second] = await asyncio.gather(sent(receiver), sent(receiver))
        await until(lambda: len(seen) == wanted)  # in a file, not before the writer of the other loop has let go
        return first + second

    assert [asyncio.run(handled(wanted)) for wanted in (2, 4)] == [400, 400]
    gc.collect()


@pytest.mark.parametrize("later", range(6))
def test_a_loop_may_end_in_whatever_moment_of_a_delivery(later):
    receiver = new_receiver()

    async def leave_before_it_is_settled() -> None:
        handled = asyncio.Event()

        @receiver.on(Event)
        async def save(event: Event) -> None:
            handled.set()
            for _ in range(later):
                await asyncio.sleep(0)

        await sent(receiver)
        await handled.wait()

    asyncio.run(leave_before_it_is_settled())
    gc.collect()  # here Python would tell of a coroutine that nobody awaited


async def test_a_handler_that_is_registered_after_the_start_gets_what_came_before_it_too():
    receiver, seen = new_receiver(), list[str | None]()
    async with receiver.running():
        await deliver(receiver, transcript(request_id="a"))
        receiver.on(Event)(lambda event: seen.append(event.request_id))
        await deliver(receiver, transcript(request_id="b"))
        await receiver.idle()
    assert set(seen) == {"a", "b"}


async def test_a_start_that_fails_may_be_tried_again(tmp_path):
    receiver = new_receiver(inbox=f"sqlite:///{tmp_path}/later/inbox.db")
    with pytest.raises(SetupError, match="the folder of the inbox does not exist"):
        async with receiver.running():
            pass
    (tmp_path / "later").mkdir()
    async with receiver.running():
        await deliver(receiver, transcript())


async def test_a_relative_path_is_relative_to_the_folder_at_the_start(tmp_path, monkeypatch):
    receiver = new_receiver(inbox="sqlite:///inbox.db")
    monkeypatch.chdir(tmp_path)
    async with receiver.running():
        await deliver(receiver, transcript())
    assert (tmp_path / "inbox.db").exists()


async def test_a_stop_waits_for_the_requests_that_are_on_their_way():
    receiver = new_receiver()
    slow = Call(piece(b'{"a"', more=True))
    async with receiver.running():
        request = asyncio.create_task(slow(receiver, a_scope()))
        await until(lambda: slow.reads == 2)
        asyncio.get_running_loop().call_later(0.05, request.cancel)
    assert request.cancelled()


async def test_without_handlers_it_stores_and_leaves_the_rest_to_another(tmp_path):
    facts = Facts()
    storing, handling = new_receiver(inbox=in_file(tmp_path), hooks=[facts]), new_receiver(inbox=in_file(tmp_path))
    seen = list[Event]()
    handling.on(Event)(seen.append)
    async with storing.running():
        await deliver(storing, transcript())
        await storing.idle()
        assert [entry.state for entry in await entries_of(storing)] == ["waiting"]
        assert facts.of(DispatchTaken) == []
        async with handling.running():
            await handling.idle()
    assert len(seen) == 1


async def test_what_is_old_is_purged(tmp_path):
    receiver = new_receiver(inbox=in_file(tmp_path), keep=3600, dedupe_for=7200)
    receiver.on(Event)(lambda event: None)
    async with receiver.running():
        await deliver(receiver, transcript(), failure())
        await receiver.idle()
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as connection, connection:
        connection.execute("UPDATE dgreceiver_callback SET changed = changed - 8000 WHERE kind = 'Failure'")
    async with receiver.running():
        await until(lambda: kinds_in(tmp_path) == ["Transcript"])


def kinds_in(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "inbox.db")) as connection:
        return [kind for (kind,) in connection.execute("SELECT kind FROM dgreceiver_callback")]


@pytest.mark.parametrize(
    ("auth", "event", "advice"),
    [
        pytest.param(AUTH, Event, [], id="nothing to say"),
        pytest.param(
            SignedAuth("fake-short-key"),
            Transcript,
            ["SignedAuth's key is under 32 characters; make one with secrets.token_urlsafe(32)"],
            id="a short key",
        ),
        pytest.param(
            ExtraAuth("fake"), Transcript, ["ExtraAuth alone refuses what carries no extra"], id="a secret alone"
        ),
        pytest.param(AUTH | ExtraAuth("fake"), Transcript, [], id="a secret beside a password"),
    ],
)
async def test_what_works_less_well_than_it_looks_is_told_of_at_the_start(auth, event, advice):
    facts = Facts()
    receiver = new_receiver(auth=auth, hooks=[facts])
    receiver.on(event)(lambda event: None)
    async with receiver.running():
        pass
    said = [fact.advice for fact in facts.of(SetupDoubtful)]
    assert [line.startswith(expected) for line, expected in zip(said, advice, strict=True)] == [True] * len(advice)


# --- hooks


async def test_a_hook_that_fails_hurts_nobody(caplog):
    facts = Facts()

    def broken(fact: Any) -> None:
        raise ValueError("this hook is broken")

    receiver, seen = new_receiver(hooks=[broken, facts]), list[Event]()
    receiver.on(Event)(seen.append)
    async with receiver.running():
        await deliver(receiver, transcript())
        await receiver.idle()
    assert len(seen) == 1
    assert facts.of(CallbackStored)
    assert "failed on a CallbackStored" in caplog.text


async def test_facts_of_the_inbox_are_heard_on_the_loop(tmp_path):
    heard = dict[str, asyncio.AbstractEventLoop]()

    def hook(fact: Any) -> None:
        heard[type(fact).__name__] = asyncio.get_running_loop()  # raises in another thread

    receiver = new_receiver(inbox=in_file(tmp_path), hooks=[hook])
    receiver.on(Event)(lambda event: None)
    async with receiver.running():
        await until(lambda: DispatchTaken.__name__ in heard)
    assert set(heard.values()) == {asyncio.get_running_loop()}


# --- what handlers are given


async def test_a_delivery_tells_what_there_is_to_know():
    receiver, heard = new_receiver(), list[tuple[Event, Delivery]]()

    @receiver.on(Event)
    async def hear(event: Event, delivery: Delivery) -> None:
        heard.append((event, delivery))

    async with receiver.running():
        await deliver(receiver, transcript(request_id="t"), *(live_result(request_id="s", start=n) for n in (0.0, 1.0)))
        await receiver.idle()
        keys = [entry.key for entry in await entries_of(receiver)]
    deliveries = [delivery for _, delivery in heard]
    assert sorted(delivery.key for delivery in deliveries) == sorted(keys)
    assert {event.request_id: delivery.stream is None for event, delivery in heard} == {"t": True, "s": False}
    assert len({delivery.stream for delivery in deliveries}) == 2
    assert {(d.attempt, d.path, d.query, d.replayed) for d in deliveries} == {(1, "/", "", False)}
    assert {type(d.context) for d in deliveries} == {dict}
    assert all(d.received_at.utcoffset() == timedelta(0) for d in deliveries)


# --- what it is asked to do


async def test_idle_waits_for_what_is_due_and_for_nothing_else():
    receiver, seen = new_receiver(retry=RetryPolicy(first_wait=3600.0, longest_wait=3600.0)), list[str]()

    @receiver.on(Transcript)
    async def slow(event: Transcript) -> None:
        await asyncio.sleep(0.05)
        seen.append(event.text)

    @receiver.on(Failure)
    async def fails(event: Failure) -> None:
        raise ValueError("again in an hour")

    await receiver.idle()
    async with receiver.running():
        await deliver(receiver, transcript(), failure())
        await receiver.idle()
        assert seen == ["hello world"]
        assert [entry.state for entry in await entries_of(receiver)] == ["done", "waiting"]
    await receiver.idle()


async def test_replay_and_erase_work_whether_it_runs_or_not(tmp_path):
    receiver, seen = new_receiver(inbox=in_file(tmp_path)), list[str | None]()
    receiver.on(Event)(lambda event: seen.append(event.request_id))
    async with receiver.running():
        await deliver(receiver, transcript(request_id="a"), transcript(request_id="b"))
        await receiver.idle()
        [a, _] = await entries_of(receiver)
        assert await receiver.replay(key=a.key) == 1
        await receiver.idle()
        assert (await receiver.erase(request_id="a")).rows == 1
    assert await receiver.replay(key=a.key) == 0
    assert await receiver.erase(request_id="b") == Erased(1, [])
    assert await receiver.erase(job="none") == Erased(0, [])
    assert sorted(map(str, seen)) == ["a", "a", "b"]
    assert {entry.state for entry in await entries_of(receiver)} == {"erased"}


async def test_a_retry_of_what_was_erased_is_recognised_and_stores_nothing(tmp_path):
    receiver, seen = new_receiver(inbox=in_file(tmp_path)), list[Event]()
    receiver.on(Event)(seen.append)
    payload = transcript(request_id="a")
    async with receiver.running():
        await deliver(receiver, payload)
        await receiver.idle()
        await receiver.erase(request_id="a")
        [answer] = await deliver(receiver, payload)
        await receiver.idle()
    assert answer["status"] == "duplicate"
    assert len(seen) == 1


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(
    ("verb", "which"),
    [
        pytest.param("replay", {}, id="replay what"),
        pytest.param("replay", {"key": "k", "state": "dead"}, id="replay both"),
        pytest.param("erase", {}, id="erase what"),
        pytest.param("erase", {"request_id": "r", "job": "j"}, id="erase both"),
    ],
)
async def test_what_is_to_be_replayed_or_erased_is_said_by_exactly_one(verb, which, running):
    receiver = new_receiver()

    async def ask() -> None:
        with pytest.raises(SetupError, match="say which by exactly one of "):
            await getattr(receiver, verb)(**which)

    if running:
        async with receiver.running():
            await ask()
    else:
        await ask()


# --- callback URLs


@pytest.mark.parametrize(
    ("auth", "context"),
    [
        pytest.param(BasicAuth("deepgram", "fake/päss:wörd@%"), None, id="a password with everything in it"),
        pytest.param(SignedAuth("fake-key-" * 4), {"call": 7, "who": "Zoë"}, id="signed"),
        pytest.param(NoAuth() | SignedAuth("fake-key-" * 4), {"call": 8}, id="signed, beside another"),
        pytest.param(NoAuth(), None, id="nothing"),
    ],
)
async def test_a_callback_url_is_admitted_by_the_receiver_that_made_it(auth, context):
    receiver, heard = new_receiver(auth=auth, public_url="http://127.0.0.1/deepgram?a=%20"), list[Delivery]()

    @receiver.on(Event)
    async def hear(event: Event, delivery: Delivery) -> None:
        heard.append(delivery)

    async with served(receiver) as url:
        callback = httpx.URL(receiver.callback_url(context=context, local=True)).copy_with(port=httpx.URL(url).port)
        async with httpx.AsyncClient() as client:
            answer = await client.post(callback, content=transcript().body)
        await receiver.idle()
    assert answer.status_code == 200
    assert [(delivery.context, delivery.path, delivery.query) for delivery in heard] == [
        (context or {}, "/deepgram", "a=%20")
    ]


def test_each_signed_url_is_for_a_job_of_its_own():
    receiver = new_receiver(auth=SignedAuth("fake-key-" * 4), public_url=URL)
    assert receiver.callback_url() != receiver.callback_url()
    assert receiver.callback_url(websocket=True).startswith("wss://")


@pytest.mark.parametrize(
    ("options", "asked", "message"),
    [
        pytest.param({}, {}, "callback_url() needs public_url: the address Deepgram will call", id="no address"),
        pytest.param({"public_url": URL}, {"context": {"a": 1}}, "context= has to be signed", id="nothing signs"),
        pytest.param(
            {"public_url": URL, "auth": ExtraAuth("fake")}, {}, "nothing of ExtraAuth(…", id="nothing fits in a URL"
        ),
        pytest.param({"public_url": "http://127.0.0.1"}, {}, "is not one Deepgram can reach", id="a local one"),
    ],
)
def test_a_callback_url_that_would_not_work_is_refused(options, asked, message):
    with pytest.raises(SetupError) as raised:
        new_receiver(**options).callback_url(**asked)
    assert message in str(raised.value)


async def test_another_receivers_url_is_not_admitted():
    ours, theirs = (new_receiver(auth=SignedAuth(key * 4), public_url=URL) for key in ("fake-key-1", "fake-key-2"))
    userinfo = theirs.callback_url().removeprefix("https://").partition("@")[0]
    headers = {b"authorization": b"Basic " + b64encode(userinfo.encode())}
    async with ours.running():
        assert (await Call()(ours, a_scope(headers=headers))).status == 401


# --- stepping aside


@pytest.mark.parametrize(
    "runs", [pytest.param(False, id="that does not run"), pytest.param(True, id="without handlers")]
)
async def test_a_receiver_that_handles_nothing_has_nothing_to_step_aside_from(runs):
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    async with AsyncExitStack() as stack:
        if runs:
            await stack.enter_async_context(receiver.running())
        await receiver.step_aside()
    assert facts.of(DispatchTaken) == []


async def test_who_steps_aside_lets_its_handlers_end_and_then_lets_another_handle(tmp_path):
    begun, go, heard = asyncio.Event(), asyncio.Event(), list[str]()
    one, other = (new_receiver(inbox=in_file(tmp_path), name="calls") for _ in range(2))

    @one.on(Transcript)
    async def first(transcript: Transcript) -> None:
        begun.set()
        await go.wait()
        heard.append("one")

    @other.on(Transcript)
    async def second(transcript: Transcript) -> None:
        heard.append("other")

    async with one.running():
        await deliver(one, transcript())
        await begun.wait()
        async with other.running():
            aside = asyncio.create_task(one.step_aside())
            await deliver(one, transcript())
            go.set()
            await aside
            await deliver(one, transcript())
            await until(lambda: len(heard) == 3)
    assert heard == ["one", "other", "other"]
