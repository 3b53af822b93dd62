"""What of a request is kept, from whom, and as what: the path that every callback takes into the inbox."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from base64 import b64encode
from contextlib import closing
from typing import Any

import pytest

from dgreceiver import Delivery, DgTokenAuth, Event, ExtraAuth, Limits, Receiver, SignedAuth
from dgreceiver.facts import CallbackStored, DeliveryBuried, URLReused, WeakIdentity
from dgreceiver.testing.payloads import Payload, audio, live_result, stream_metadata, transcript, utterance_end
from dgreceiver.web.intake import REMEMBERED_JOBS

from ..support import (
    AUTH,
    BASIC,
    Call,
    Facts,
    a_scope,
    bodies_of,
    calling,
    deliver,
    entries_of,
    in_file,
    new_receiver,
    piece,
    post,
    until_state,
)

SECRET = "fake-callback-secret"
KEY = "fake-signing-key-" * 3
URL = "https://hooks.example.com/deepgram"


def heard_by(receiver: Receiver) -> list[tuple[Event, Delivery]]:
    """What the receiver's only handler hears."""
    heard = list[tuple[Event, Delivery]]()

    @receiver.on(Event)
    async def hear(event: Event, delivery: Delivery) -> None:
        heard.append((event, delivery))

    return heard


# --- bodies that nobody asked for

BRACKETS = b"[" * 100_000
HOSTILE = {
    "broken JSON": (b'{"metadata": {"request_id": "r"}', "Unknown"),
    "brackets without end": (BRACKETS, "Unknown"),
    "objects without end": (b'{"a":' * 50_000, "Unknown"),
    "deep, and a transcript": (
        b'{"metadata": {"request_id": "r"}, "results": {"channels": []}, "more": %s}' % (BRACKETS[:500] + b"]" * 500),
        "Transcript",
    ),
    "NaN": (b'{"metadata": {"request_id": "r"}, "results": {"channels": []}, "x": NaN}', "Transcript"),
    "1e999": (b'{"metadata": {"request_id": "r"}, "results": {"channels": []}, "x": 1e999}', "Transcript"),
    "half a surrogate": (
        b'{"metadata": {"request_id": "r"}, "results": {"channels": [{"alternatives": [{"transcript": "\\ud800"}]}]}}',
        "Transcript",
    ),
    "likewise as an id": (b'{"metadata": {"request_id": "\\ud800"}, "results": {"channels": []}}', "Unknown"),
    "keys twice": (
        b'{"metadata": {"request_id": "a", "request_id": "r"}, "results": 1, "results": {"channels": []}}',
        "Transcript",
    ),
    "not UTF-8": (b'{"metadata": {"request_id": "\xff"}, "results": {"channels": []}}', "Unknown"),
    "a list as an id": (b'{"metadata": {"request_id": ["r"]}, "results": {"channels": []}}', "Unknown"),
    "a number as an id": (b'{"metadata": {"request_id": 7}, "results": {"channels": []}}', "Unknown"),
    "an id without end": (
        b'{"metadata": {"request_id": "%s"}, "results": {"channels": []}}' % (b"r" * 3000),
        "Unknown",
    ),
    "a list as metadata": (b'{"metadata": ["r"], "results": {"channels": []}, "request_id": "r"}', "Unknown"),
    "a list as a channel": (b'{"type": "Results", "metadata": {"request_id": "r"}, "channel": [0, 1]}', "Unknown"),
    "an object as a channel": (b'{"type": "UtteranceEnd", "channel": {"a": 1}}', "Unknown"),
    "a list as a type": (b'{"type": ["Results"]}', "Unknown"),
    "null": (b"null", "Unknown"),
    "a list": (b"[1, 2]", "Unknown"),
    "a number without end": (b"7" * 5000, "Unknown"),
    "a byte of nothing": (b"\0", "Unknown"),
    "plain text": (b"Internal Server Error", "Unknown"),
}


@pytest.mark.parametrize(("body", "kind"), HOSTILE.values(), ids=HOSTILE)
async def test_whatever_an_admitted_sender_sends_is_kept_and_handled_as_what_it_is(body, kind):
    receiver = new_receiver()
    heard = heard_by(receiver)
    async with receiver.running():
        call = await Call(piece(body))(receiver, a_scope(headers={b"content-type": b"application/json"}))
        await receiver.idle()
        assert await bodies_of(receiver) == [body]
    assert call.status == 200
    assert [(type(event).__name__, event.raw) for event, _ in heard] == [(kind, body)]


async def test_a_hostile_body_leaves_the_next_one_alone():
    receiver = new_receiver()
    heard = heard_by(receiver)
    async with receiver.running():
        for body, _ in HOSTILE.values():
            await Call(piece(body))(receiver, a_scope())
        await deliver(receiver, transcript(request_id="after all of them"))
        await until_state(receiver, "done", "conflict")
    assert "after all of them" in [event.request_id for event, _ in heard]


# --- what is kept beside the body


async def test_deepgrams_headers_and_the_content_type_are_kept_and_nothing_else():
    receiver = new_receiver()
    heard = heard_by(receiver)
    headers = {
        b"content-type": b"application/json; charset=utf-8",
        b"dg-request-id": b"r",
        b"dg-project-id": b"p\xe9",
        b"dg-token": b"fake-key-id",
        b"cookie": b"fake",
        b"x-dg-model": b"no",
    }
    async with receiver.running():
        await Call(piece(b"{}"))(receiver, a_scope(headers=headers))
        await receiver.idle()
    [(_, delivery)] = heard
    assert delivery.headers == {
        "content-type": "application/json; charset=utf-8",
        "dg-request-id": "r",
        "dg-project-id": "pé",
    }


async def test_headers_are_kept_up_to_16_kib_in_all():
    receiver = new_receiver()
    heard = heard_by(receiver)
    headers = {b"dg-one": b"1" * 10_000, b"dg-two": b"2" * 10_000, b"content-type": b"audio/wav"}
    async with receiver.running():
        call = await Call(piece(b"{}"))(receiver, a_scope(headers=headers))
        await receiver.idle()
    assert call.status == 200
    assert set(heard[0][1].headers) == {"dg-one"}


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        pytest.param("", "/", "/", id="at the root"),
        pytest.param("", "/a/b", "/a/b", id="below the root"),
        pytest.param("/deepgram", "/deepgram", "", id="on the spot"),
        pytest.param("/deepgram", "/deepgram/", "/", id="with a slash"),
        pytest.param("/deepgram/", "/deepgram/calls/7", "/calls/7", id="below it"),
        pytest.param("/deepgram", "/deepgram2/x", "/deepgram2/x", id="beside it"),
        pytest.param("/proxy", "/x", "/x", id="where a proxy took it off"),
    ],
)
async def test_a_handler_is_told_the_path_below_where_the_receiver_stands(root, path, below):
    receiver = new_receiver()
    heard = heard_by(receiver)
    async with receiver.running():
        await Call(piece(b"{}"))(receiver, a_scope(path=path, root_path=root, query_string=b"a=1&b=%20\xe9"))
        await receiver.idle()
    [(_, delivery)] = heard
    assert (delivery.path, delivery.query) == (below, "a=1&b=%20é")


# --- who is let in by what


def said_by(fact: Facts) -> list[int]:
    return [each.admitted_by for each in fact.of(CallbackStored)]


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        pytest.param(transcript(extra={"callback_secret": SECRET}), 200, id="a transcript that carries it"),
        pytest.param(live_result(extra={"callback_secret": SECRET}), 200, id="a live result that does"),
        pytest.param(stream_metadata(extra={"callback_secret": SECRET}), 200, id="the end of a stream that does"),
        pytest.param(transcript(extra={"callback_secret": "another-fake"}), 401, id="another secret"),
        pytest.param(transcript(extra={"other": SECRET}), 401, id="under another name"),
        pytest.param(transcript(), 401, id="none"),
        pytest.param(utterance_end(), 401, id="what cannot carry it"),
        pytest.param(audio(), 401, id="audio"),
        pytest.param(Payload(BRACKETS, {}, "Unknown"), 401, id="brackets without end"),
        pytest.param(Payload(SECRET.encode(), {}, "Unknown"), 401, id="the secret alone"),
    ],
)
async def test_a_secret_in_the_body_admits_what_carries_it(payload, status):
    facts = Facts()
    receiver = new_receiver(auth=ExtraAuth(SECRET), hooks=[facts])
    async with receiver.running(), calling(receiver, auth=None) as client:
        answer = await post(client, payload)
        assert len(await entries_of(receiver)) == (status == 200)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_stranger_with_the_right_credentials_needs_no_secret():
    facts = Facts()
    receiver = new_receiver(auth=ExtraAuth(SECRET) | AUTH, hooks=[facts])
    async with receiver.running(), calling(receiver, auth=None) as client:
        with_secret = await post(client, transcript(extra={"callback_secret": SECRET}))
        with_basic = await post(client, utterance_end(), auth=("deepgram", "fake-password"))
        with_neither = await post(client, utterance_end())
    assert [answer.status_code for answer in (with_secret, with_basic, with_neither)] == [200, 200, 401]
    assert said_by(facts) == [1, 2]


@pytest.mark.parametrize("basic", [False, True])
async def test_the_secret_is_taken_out_of_what_is_stored_whoever_let_it_in(basic):
    receiver = new_receiver(auth=AUTH | ExtraAuth(SECRET))
    heard = heard_by(receiver)
    payload = transcript(f"they said {SECRET}", extra={"callback_secret": SECRET, "call": "7"})
    async with receiver.running(), calling(receiver, auth=("deepgram", "fake-password") if basic else None) as client:
        await post(client, payload)
        await receiver.idle()
        [body] = await bodies_of(receiver)
    assert body == payload.body.replace(b'"callback_secret":"' + SECRET.encode(), b'"callback_secret":"***')
    assert [event.raw for event, _ in heard] == [body]


async def test_a_retry_under_another_secret_is_a_retry():
    receiver = new_receiver(auth=ExtraAuth(SECRET) | ExtraAuth("an-older-fake-secret"))
    async with receiver.running(), calling(receiver, auth=None) as client:
        answers = [
            await post(client, transcript(request_id="r", extra={"callback_secret": secret}))
            for secret in (SECRET, "an-older-fake-secret")
        ]
    assert [answer.json()["status"] for answer in answers] == ["stored", "duplicate"]


async def test_the_key_identifier_admits_and_is_not_kept(caplog):
    receiver = new_receiver(auth=DgTokenAuth("fake-key-id"))
    heard = heard_by(receiver)
    async with receiver.running(), calling(receiver, auth=None) as client:
        answers = [
            await post(client, transcript(), "/"),
            await client.post("/", content=b"{}", headers={"dg-token": "fake-key-id"}),
        ]
        await receiver.idle()
    assert [answer.status_code for answer in answers] == [401, 200]
    assert heard[0][1].headers == {}
    assert "DgTokenAuth may admit nothing" in caplog.text


async def test_strangers_share_an_eighth_of_the_room_and_wait_there_among_themselves():
    receiver = new_receiver(auth=AUTH | ExtraAuth(SECRET), limits=Limits(in_flight=8000))
    length = {b"content-length": b"1000"}
    stranger = a_scope(headers=list(length.items()))
    async with receiver.running():
        first = asyncio.create_task(Call()(receiver, stranger))
        await asyncio.sleep(0)
        second = Call(piece(transcript(extra={"callback_secret": SECRET}).body))
        waiting = asyncio.create_task(second(receiver, stranger))
        [answer] = await deliver(receiver, transcript())
        assert (answer["status"], second.reads) == ("stored", 0)
        first.cancel()
        assert (await waiting).status == 200


# --- URLs that were signed


def signed(receiver: Any, **options: Any) -> dict[bytes, bytes]:
    userinfo = receiver.callback_url(**options).removeprefix("https://").partition("@")[0]
    return {b"authorization": b"Basic " + b64encode(userinfo.encode())}


def new_signed(**options: Any) -> Any:
    return new_receiver(auth=SignedAuth(KEY), public_url=URL, **options)


async def test_what_was_signed_into_the_url_comes_back_with_the_delivery():
    receiver = new_signed()
    heard = heard_by(receiver)
    async with receiver.running():
        headers = signed(receiver, context={"call": 7, "who": "Zoë", "none": None})
        call = await Call(piece(transcript().body))(receiver, a_scope(headers=headers))
        await receiver.idle()
    assert call.status == 200
    assert heard[0][1].context == {"call": 7, "who": "Zoë", "none": None}


async def test_what_comes_too_late_for_its_url_is_kept_as_dead_and_may_be_replayed():
    facts = Facts()
    receiver = new_signed(hooks=[facts])
    heard = heard_by(receiver)
    async with receiver.running():
        headers = signed(receiver, context={"call": 7}, expires=1e-6)
        call = await Call(piece(transcript(request_id="r").body))(receiver, a_scope(headers=headers))
        await receiver.idle()
        [entry] = await entries_of(receiver)
        assert (call.status, call.json) == (200, {"status": "stored", "request_id": "r"})
        assert (entry.state, entry.error, heard) == ("dead", "URL expired", [])
        assert await receiver.replay(state="dead") == 1
        await receiver.idle()
    assert [delivery.context for _, delivery in heard] == [{"call": 7}]


async def test_a_url_that_serves_a_second_request_is_told_of_once_and_loses_nothing(caplog):
    facts = Facts()
    receiver = new_signed(hooks=[facts])
    heard = heard_by(receiver)
    async with receiver.running():
        headers = signed(receiver)
        for request_id in ("a", "a", "b", "b", "c", "a"):
            await Call(piece(transcript(request_id=request_id).body))(receiver, a_scope(headers=headers))
        await Call(piece(utterance_end().body))(receiver, a_scope(headers=headers))
        await receiver.idle()
    assert len(facts.of(URLReused)) == 1
    assert caplog.text.count("serves a second request; call callback_url() for each submission") == 1
    assert [event.request_id for event, _ in heard] == ["a", "b", "c", None]


async def test_the_memory_of_jobs_is_bounded():
    facts = Facts()
    receiver = new_signed(hooks=[facts])
    async with receiver.running():
        intake = receiver._running.door._intake
        for job in range(REMEMBERED_JOBS + 5):
            intake._watch_job(f"{job}", "a")
        assert len(intake._jobs) == REMEMBERED_JOBS
        intake._watch_job("0", "b")  # forgotten
        intake._watch_job(f"{REMEMBERED_JOBS}", "b")
    assert [fact.job for fact in facts.of(URLReused)] == [f"{REMEMBERED_JOBS}"]


# --- what has nothing to be known by


async def test_equal_bytes_without_an_id_are_a_retry_for_ten_minutes_and_news_after(tmp_path, caplog):
    facts = Facts()
    receiver = new_receiver(inbox=in_file(tmp_path), hooks=[facts])
    heard = heard_by(receiver)
    payload = Payload(b"Internal Server Error", {"content-type": "text/plain"}, "Unknown")
    async with receiver.running():
        answers = await deliver(receiver, payload, payload)
        await receiver.idle()
        with closing(sqlite3.connect(tmp_path / "inbox.db")) as connection, connection:
            connection.execute("UPDATE dgreceiver_callback SET stored = stored - 601")
        answers += await deliver(receiver, payload, payload)
        await receiver.idle()
    assert [answer["status"] for answer in answers] == ["stored", "duplicate", "stored", "duplicate"]
    assert len(heard) == 2
    assert len({delivery.key for _, delivery in heard}) == 2
    assert [fact.kind for fact in facts.of(WeakIdentity)] == ["Unknown"]
    assert "came over ten minutes after the same bytes, without an id: taken as new" in caplog.text


async def test_a_stored_callback_is_told_of_by_what_may_be_known():
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    payload = transcript(request_id="r")
    async with receiver.running():
        await deliver(receiver, payload)
        [entry] = await entries_of(receiver)
    [fact] = facts.of(CallbackStored)
    assert fact == CallbackStored("stored", "Transcript", "r", entry.key, len(payload.body), 1)
    assert facts.of(DeliveryBuried) == []
    assert json.loads(payload.body)["metadata"]["request_id"] == "r"
    assert BASIC not in repr(facts)
