"""Live streams: the rules by themselves, and from the POST of a message to the handler of the whole."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver import Event, LiveResult, LiveTranscript, Receiver, RetryPolicy, SignedAuth, StreamMetadata
from dgreceiver.facts import DeliveryUnhandled
from dgreceiver.streams import Endings, Stream, key_of, streams_of
from dgreceiver.testing.payloads import live_result, speech_started, stream_metadata, utterance_end

from .inbox.stores import ask
from .support import (
    PASSWORD,
    USER,
    Facts,
    Ledger,
    Server,
    address,
    entries_of,
    in_file,
    new_receiver,
    post,
    served,
    serving,
    until,
    until_state,
)

SHORT = Endings(idle=0.4, settling=0.1, apart=0.5, look=0.2)
ENDINGS = Endings()
STREAM = Stream("lane", "r", begun=1, changed=0.0)


# --- the rules


@pytest.mark.parametrize(
    ("names", "latest", "known", "streams"),
    [
        pytest.param([None, None], None, [], [None, None], id="nothing is named"),
        pytest.param([None, "a", None], None, [], ["a", "a", "a"], id="before the first name and behind it"),
        pytest.param([None, "a"], "a", ["a"], ["a", "a"], id="a stream that goes on"),
        pytest.param(["a", "b", None, "a", None], None, [], ["a", "b", "b", "a", "b"], id="two streams at once"),
        pytest.param([None, "c", None], "b", ["a", "b"], ["b", "c", "c"], id="the next stream begins"),
        pytest.param(["a", None], "b", ["a", "b"], ["a", "b"], id="a straggler begins nothing"),
    ],
)
def test_what_names_no_stream_belongs_to_the_one_that_began_last(names, latest, known, streams):
    assert streams_of(names, latest=latest, known=known) == streams


@given(st.lists(st.sampled_from(["a", "b", None])), st.integers(0, 20))
def test_it_is_all_the_same_in_how_many_batches_messages_come(names, cut):
    whole = streams_of(names, latest=None, known=[])
    first = streams_of(names[:cut], latest=None, known=[])
    known = list(dict.fromkeys(filter(None, names[:cut])))
    rest = streams_of(names[cut:], latest=known[-1] if known else None, known=known)
    adopted = [stream or next(filter(None, rest), None) for stream in first]
    assert adopted + rest == whole


@pytest.mark.parametrize(
    ("stream", "closes", "holder", "ends"),
    [
        pytest.param(STREAM, False, None, 1600.0, id="it goes on"),
        pytest.param(STREAM, True, None, 1005.0, id="its own end"),
        pytest.param(STREAM, True, "me", 1005.0, id="its own end, by a socket: looked at later"),
        pytest.param(Stream("lane", "r", 1, 0.0, ends=1001.0, closed=True), False, None, 1001.0, id="behind its end"),
        pytest.param(Stream("lane", "r", 1, 0.0, ends=1599.0), True, None, 1005.0, id="its end, before the silence"),
        pytest.param(Stream("lane", "r", 1, 0.0, closed=True, told=999.0), False, None, 1029.0, id="a straggler"),
        pytest.param(Stream("lane", "r", 1, 0.0, closed=True, told=9.0), False, None, 1005.0, id="a late straggler"),
        pytest.param(Stream("lane", "r", 1, 0.0, told=999.0), False, None, 1600.0, id="it goes on after a silence"),
    ],
)
def test_when_a_stream_ends_follows_from_what_came(stream, closes, holder, ends):
    assert ENDINGS.heard(stream, 1000.0, closes=closes, holder=holder).ends == ends


@pytest.mark.parametrize(("told", "ends"), [(None, 1000.0), (999.0, 1029.0)], ids=["for the first time", "again"])
def test_a_stream_ends_as_its_socket_closes(told, ends):
    assert ENDINGS.hung_up(Stream("lane", "r", 1, 0.0, ends=1.0, holder="me", told=told), 1000.0).ends == ends


def test_each_revision_of_each_stream_has_a_key_of_its_own():
    streams = [STREAM, Stream("other", "r", 1, 0.0), Stream("lane", "s", 1, 0.0), ENDINGS.ended(STREAM, 9.0)]
    assert len({key_of(stream) for stream in streams}) == 4
    assert key_of(ENDINGS.hung_up(STREAM, 9.0)) == key_of(STREAM)


# --- from the POST to the handler


def live_receiver(**options: object) -> Receiver:
    """A receiver whose streams end soon."""
    receiver = new_receiver(**options)
    receiver._endings = SHORT
    return receiver


@asynccontextmanager
async def client_of(receiver: Receiver, auth=(USER, PASSWORD)):
    async with served(receiver) as url, httpx.AsyncClient(base_url=url, auth=auth, timeout=20.0) as client:
        yield client


async def post_all(client, *payloads):
    for payload in payloads:
        assert (await post(client, payload)).json()["status"] == "stored"


_seconds = count(0.0)


def said(whole: LiveTranscript) -> tuple[str, bool, int]:
    return whole.text, whole.complete, whole.revision


def final(text: str, request_id: str = "r"):
    """A final, each behind those that were made before."""
    return live_result(text, request_id=request_id, start=next(_seconds), is_final=True)


def last(request_id: str = "r"):
    return stream_metadata(request_id=request_id)


@pytest.mark.parametrize(
    ("closing", "complete"),
    [pytest.param([last()], True, id="its own end"), pytest.param([], False, id="silence")],
)
async def test_a_stream_that_ended_is_handled_as_a_whole_behind_its_messages(closing, complete):
    receiver, events = live_receiver(), list[Event]()
    receiver.on(Event)(events.append)
    async with client_of(receiver) as client:
        await post_all(client, speech_started(), final("one"), utterance_end(), final("two"), *closing)
        await until(lambda: isinstance(events[-1:] and events[-1], LiveTranscript))
    [whole] = [event for event in events if isinstance(event, LiveTranscript)]
    assert (whole.request_id, said(whole)) == ("r", ("one two", complete, 0))


async def test_stragglers_make_the_next_revision():
    receiver, wholes = live_receiver(), list[LiveTranscript]()
    receiver.on(LiveTranscript)(wholes.append)
    async with client_of(receiver) as client:
        await post_all(client, final("one"), last())
        await until(lambda: wholes)
        await post_all(client, final("two"), final("three"))
        await until(lambda: len(wholes) > 1)
    assert [said(whole) for whole in wholes] == [("one", True, 0), ("one two three", True, 1)]


async def test_two_submissions_by_one_signed_url_are_two_wholes():
    receiver, wholes = live_receiver(auth=SignedAuth("k" * 32), public_url="https://hooks.example.com"), []
    receiver.on(LiveTranscript)(lambda event, delivery: wholes.append((event.text, delivery.context, delivery.stream)))
    url = httpx.URL(receiver.callback_url({"order": 17}))
    async with client_of(receiver, auth=(url.username, url.password)) as client:
        await post_all(client, speech_started(), final("one", "r-1"), final("two", "r-2"), utterance_end())
        await post_all(client, last("r-1"), last("r-2"))
        await until(lambda: len(wholes) == 2)
    assert [(text, context) for text, context, _ in wholes] == [("one", {"order": 17}), ("two", {"order": 17})]
    assert len({stream for *_, stream in wholes}) == 1


async def test_a_handler_of_the_whole_that_fails_is_tried_again_alone_and_for_as_long_as_any_other():
    receiver, runs = live_receiver(retry=RetryPolicy(first_wait=0.05, longest_wait=0.05)), Counter[str]()

    @receiver.on(LiveResult, StreamMetadata)
    async def message(event: LiveResult | StreamMetadata) -> None:
        runs["message"] += 1

    @receiver.on(LiveTranscript)
    async def fail(event: LiveTranscript) -> None:
        runs["whole"] += 1
        if runs["whole"] < 7:
            raise ValueError("not yet")

    @receiver.on(LiveTranscript)
    async def save(event: LiveTranscript) -> None:
        runs["saved"] += 1

    async with client_of(receiver) as client:
        await post_all(client, final("one"), last())
        await until_state(receiver, "done")
        await until(lambda: runs["whole"] == 7)
        await until_state(receiver, "done")
    assert runs == {"message": 2, "whole": 7, "saved": 1}


async def test_a_message_that_is_given_up_is_in_the_whole_all_the_same():
    receiver, wholes = live_receiver(retry=RetryPolicy(attempts=1)), list[LiveTranscript]()
    receiver.on(LiveTranscript)(wholes.append)

    @receiver.on(LiveResult)
    async def fail(event: LiveResult) -> None:
        raise ValueError("no")

    async with client_of(receiver) as client:
        await post_all(client, final("one"), last())
        await until(lambda: wholes)
    assert said(wholes[0]) == ("one", True, 0)


async def test_a_whole_that_nobody_wants_is_kept_and_told_of_once():
    facts = Facts()
    receiver, wholes = live_receiver(hooks=[facts]), list[LiveTranscript]()
    receiver.on(LiveResult, StreamMetadata)(lambda event: None)
    async with client_of(receiver) as client:
        await post_all(client, final("one", "r-1"), final("two", "r-2"), last("r-1"), last("r-2"))
        await until(lambda: len(facts.of(DeliveryUnhandled)) == 2)
        assert [fact.hint for fact in facts.of(DeliveryUnhandled)] == [True, False]
        receiver.on(LiveTranscript)(wholes.append)
        await until_state(receiver, "done", "unhandled")
        assert await receiver.replay(state="unhandled") == 2
        await until(lambda: len(wholes) == 2)
    assert [said(whole) for whole in wholes] == [("one", True, 0), ("two", True, 0)]


async def test_a_whole_whose_messages_are_gone_is_dead():
    receiver, wholes = live_receiver(), list[LiveTranscript]()
    receiver.on(LiveTranscript)(wholes.append)
    async with client_of(receiver) as client:
        await post_all(client, final("one"), last())
        await until(lambda: wholes)
        await until_state(receiver, "done", "unhandled")
        async with receiver.opened() as inbox:
            [whole] = [entry for entry in await entries_of(receiver) if entry.kind == "LiveTranscript"]
            await ask(inbox, forget_messages)
        await receiver.replay(key=whole.key)
        await until_state(receiver, "dead", "unhandled", "done")
        await until(lambda: len(wholes) == 1)
        [whole] = [entry for entry in await entries_of(receiver) if entry.kind == "LiveTranscript"]
    assert (whole.state, whole.error) == ("dead", "its messages are no longer kept")


def forget_messages(connection):
    connection.exec_driver_sql("DELETE FROM dgreceiver_callback WHERE kind != 'LiveTranscript'")


async def test_a_lane_is_handled_as_fast_as_its_handler_is_beside_another_handler():
    receiver, texts = live_receiver(concurrency=2), list[str]()
    receiver.on(LiveTranscript)(lambda event: None)

    @receiver.on(LiveResult)
    async def note(event: LiveResult) -> None:
        texts.append(event.text)

    async with client_of(receiver) as client:
        await asyncio.gather(*(post(client, final(str(n), f"r-{n % 9}")) for n in range(200)))
        await until(lambda: len(texts) == 200, within=5.0)


# --- kill -9


def stream_app(folder: Path) -> Receiver:
    """Notes what it handles, in the order in which it does."""
    ledger, receiver = Ledger(folder), live_receiver(inbox=in_file(folder))

    @receiver.on(LiveResult)
    async def note(event: LiveResult) -> None:
        ledger.note("message", event.text)
        await asyncio.sleep(0.01)

    @receiver.on(LiveTranscript)
    async def note_whole(event: LiveTranscript) -> None:
        ledger.note("complete" if event.complete else "incomplete", event.text)

    return receiver


async def test_a_stream_that_a_kill_cut_off_is_handled_in_order_and_told_of_once(tmp_path):
    ledger, texts = Ledger(tmp_path), [f"text-{n}" for n in range(30)]
    with serving(stream_app, tmp_path) as (listening, servers):
        async with httpx.AsyncClient(base_url=address(listening), auth=(USER, PASSWORD), timeout=20.0) as client:
            await post_all(client, *map(final, texts))
            await until(lambda: ledger.about("message"))
            await asyncio.to_thread(servers[-1].kill)
            servers.append(Server(stream_app, tmp_path, listening))
            await client.get("/")  # it starts
            await until(lambda: ledger.about("incomplete"))
            await asyncio.to_thread(servers[-1].stop)
    assert list(dict.fromkeys(ledger.about("message"))) == texts
    assert (ledger.about("incomplete"), ledger.about("complete")) == ([" ".join(texts)], [])
