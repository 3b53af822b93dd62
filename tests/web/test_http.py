"""The door for a POST or PUT: what is answered, and in which order it is looked at."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from base64 import b64encode
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dgreceiver import Limits, NoAuth, SetupError
from dgreceiver.facts import CallbackRefused, CallbackStored, InboxFailed
from dgreceiver.inbox.memory import MemoryInbox
from dgreceiver.testing.payloads import transcript
from dgreceiver.web.http import HttpDoor
from dgreceiver.web.intake import Intake
from dgreceiver.web.refusals import Refusals

from ..support import (
    AUTH,
    BASIC,
    GONE,
    Call,
    Facts,
    a_scope,
    bodies_of,
    calling,
    entries_of,
    in_file,
    new_receiver,
    piece,
    post,
    served,
    until,
)

MIB = 1024 * 1024
SMALL = Limits(body=1000, audio=2000, stall_seconds=0.1, body_seconds=timedelta(seconds=0.3))
STRANGER = {b"authorization": b"Basic " + b64encode(b"deepgram:another-fake")}
PACKED = {b"content-encoding": b"gzip"}
LARGE = {b"content-length": b"1001"}


# --- what is answered


async def test_a_callback_is_answered_with_what_became_of_it():
    receiver = new_receiver()
    async with receiver.running(), calling(receiver) as client:
        payload = transcript(request_id="r")
        answers = [
            await post(client, payload),
            await post(client, payload),
            await post(client, transcript(request_id="r", a=1)),
        ]
    assert [answer.json() for answer in answers] == [
        {"status": "stored", "request_id": "r"},
        {"status": "duplicate", "request_id": "r"},
        {"status": "conflict", "request_id": "r"},
    ]
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


async def test_what_has_no_id_is_answered_without_one():
    receiver = new_receiver()
    async with receiver.running():
        call = await Call(piece(b"not JSON"))(receiver, a_scope())
    assert call.json == {"status": "stored", "request_id": None}


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_deepgram_may_post_or_put(method):
    receiver = new_receiver()
    async with receiver.running():
        call = await Call(piece(b"{}"))(receiver, a_scope(method))
    assert (call.status, call.json["status"]) == (200, "stored")


# --- what is refused, in which order

REFUSALS = [
    pytest.param("GET", {**STRANGER, **PACKED, **LARGE}, 405, 0, {b"allow": b"POST, PUT"}, id="the method first"),
    pytest.param("HEAD", {}, 405, 0, {b"allow": b"POST, PUT"}, id="HEAD"),
    pytest.param("OPTIONS", {}, 405, 0, {b"allow": b"POST, PUT"}, id="OPTIONS"),
    pytest.param("DELETE", {}, 405, 0, {b"allow": b"POST, PUT"}, id="DELETE"),
    pytest.param("GET", {b"upgrade": b"h2c"}, 405, 0, {b"allow": b"POST, PUT"}, id="an upgrade to something else"),
    pytest.param("GET", {**STRANGER, b"upgrade": b"WebSocket"}, 501, 0, {}, id="a WebSocket as a plain request"),
    pytest.param(
        "POST",
        {**STRANGER, **PACKED, **LARGE},
        401,
        0,
        {b"www-authenticate": b'Basic realm="dgreceiver"'},
        id="then who it is",
    ),
    pytest.param("POST", {**PACKED, **LARGE}, 415, 0, {}, id="then whether it is packed"),
    pytest.param("PUT", {b"content-encoding": b"identity, BR"}, 415, 0, {}, id="packed among others"),
    pytest.param("POST", LARGE, 413, 0, {}, id="then how long it says it is"),
    pytest.param("POST", {**LARGE, b"content-type": b"application/json"}, 413, 0, {}, id="likewise JSON"),
    pytest.param("POST", {b"content-length": b"2001", b"content-type": b"audio/wav"}, 413, 0, {}, id="likewise audio"),
]


@pytest.mark.parametrize(("method", "headers", "status", "reads", "answered"), REFUSALS)
async def test_a_request_is_refused_for_its_first_fault_with_its_body_unread(method, headers, status, reads, answered):
    facts = Facts()
    receiver = new_receiver(limits=SMALL, hooks=[facts])
    async with receiver.running():
        call = await Call(piece(b"x" * 1001))(receiver, a_scope(method, headers=headers))
        assert await entries_of(receiver) == []
    assert (call.status, call.reads) == (status, reads)
    assert answered.items() <= call.headers.items()
    assert set(call.json) == {"error"}
    assert [(fact.status, fact.peer) for fact in facts.of(CallbackRefused)] == [(status, "192.0.2.1")]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([b""], id="empty"),
        pytest.param([b"Basic"], id="a scheme alone"),
        pytest.param([b"Basic !!!"], id="not base64"),
        pytest.param([b"Basic \xff\xfe"], id="not ASCII"),
        pytest.param([b"Basic " + b64encode("deepgram:pässword".encode("latin-1"))], id="not UTF-8 within"),
        pytest.param([b"Basic " + b64encode(b"deepgram")], id="no colon"),
        pytest.param([b"Basic " + b"A" * 100_000], id="without end"),
        pytest.param([BASIC.replace("Basic", "Bearer").encode()], id="another scheme"),
        pytest.param([BASIC.encode(), BASIC.encode()], id="twice"),
        pytest.param([BASIC.encode(), b"Basic eA=="], id="two of them"),
    ],
)
async def test_credentials_in_any_state_are_refused_and_break_nothing(values):
    receiver = new_receiver()
    scope = a_scope(headers=[(b"authorization", value) for value in values])
    async with receiver.running():
        call = await Call()(receiver, scope)
    assert (call.status, call.reads) == (401, 0)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param(
            [], "no credentials; put user:password@ into callback=, or your proxy drops Authorization", id="none"
        ),
        pytest.param([(b"authorization", b"Basic eA==")], "the credentials are not ours; put those", id="wrong"),
    ],
)
async def test_the_log_says_what_to_do_about_a_401_and_the_sender_hears_the_status(headers, reason, caplog):
    receiver = new_receiver()
    async with receiver.running():
        call = await Call()(receiver, a_scope(headers=headers))
    assert call.json == {"error": "unauthorized"}
    assert reason in caplog.text
    assert "refused 401: " in caplog.text


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        pytest.param(("192.0.2.1", 80), "192.0.2.1", id="an address"),
        pytest.param(("[2001:db8::1%eth-0]", 0), "[2001:db8::1%eth-0]", id="with a zone"),
        pytest.param(("testclient", 0), "testclient", id="a name"),
        pytest.param(None, None, id="none"),
        pytest.param(("\x9b2J", 0), None, id="a terminal escape"),
        pytest.param(("192.0.2.1 200", 0), None, id="more than an address"),
        pytest.param(("1" * 65, 0), None, id="a long text"),
    ],
)
async def test_a_peer_is_an_address_or_none(client, peer):
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    async with receiver.running():
        await Call()(receiver, a_scope("GET", client=client))
    assert [fact.peer for fact in facts.of(CallbackRefused)] == [peer]


# --- bodies


@pytest.mark.parametrize(
    ("headers", "size", "status"),
    [
        pytest.param({}, 1000, 200, id="at the limit"),
        pytest.param({}, 1001, 413, id="over it"),
        pytest.param({b"content-length": b"10"}, 1001, 413, id="over it, whatever it says"),
        pytest.param({b"content-length": b"twelve"}, 1001, 413, id="over it, without saying"),
        pytest.param({b"content-length": b"9" * 5000}, 10, 413, id="over it, as it says at length"),
        pytest.param({b"content-type": b"audio/wav"}, 2000, 200, id="audio has a limit of its own"),
        pytest.param({b"content-type": b"audio/wav"}, 2001, 413, id="over that"),
    ],
)
async def test_a_body_is_counted_as_it_comes(headers, size, status):
    receiver = new_receiver(limits=SMALL)
    pieces = [piece(b"x", more=True)] * size
    async with receiver.running():
        call = await Call(*pieces, piece(b""))(receiver, a_scope(headers=headers))
        assert len(await entries_of(receiver)) == (status == 200)
    assert call.status == status


async def test_a_body_that_stalls_is_given_up():
    receiver = new_receiver(limits=SMALL)
    async with receiver.running():
        call = await Call(piece(b"{", more=True))(receiver, a_scope())
        assert await entries_of(receiver) == []
    assert (call.status, call.json) == (408, {"error": "request timeout"})


@pytest.mark.parametrize(
    ("headers", "came", "is_told"),
    [
        pytest.param({b"content-length": b"9"}, [], True, id="declared"),
        pytest.param({}, [], False, id="not declared"),
        pytest.param({b"content-length": b"9"}, [piece(b"{", more=True)], False, id="of which some came"),
    ],
)
@pytest.mark.parametrize("last", [pytest.param([], id="it stalls"), pytest.param([GONE], id="the sender left")])
async def test_of_a_body_that_never_begins_the_log_names_the_usual_cause(headers, came, last, is_told, caplog):
    receiver = new_receiver(limits=SMALL)
    async with receiver.running():
        await Call(*came, *last)(receiver, a_scope(headers=headers))
    assert ("no byte of the body came: something before us may have read it" in caplog.text) == is_told


async def test_a_body_that_drips_is_given_up():
    async def drip() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    receiver = new_receiver(limits=SMALL)
    async with receiver.running(), calling(receiver) as client:
        answer = await client.post("/", content=drip())
        assert await entries_of(receiver) == []
    assert answer.status_code == 408


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 400, id="of nothing in particular"),
        pytest.param({b"content-type": b"application/json"}, 400, id="of JSON"),
        pytest.param({b"dg-token": b"fake-key-id"}, 400, id="with the key's identifier"),
        pytest.param({b"content-type": b"audio/wav"}, 200, id="of audio"),
        pytest.param({b"dg-error": b"no speech"}, 200, id="with Deepgram's headers"),
        pytest.param({b"content-type": b"audio/wav", b"content-length": b"0"}, 200, id="of audio, declared as empty"),
        pytest.param({b"content-type": b"audio/wav", b"content-length": b"9"}, 400, id="of audio that was read before"),
    ],
)
async def test_an_empty_body_is_refused_unless_it_may_be_meant(headers, status, caplog):
    receiver = new_receiver()
    async with receiver.running():
        call = await Call(piece(b""))(receiver, a_scope(headers=headers))
        assert len(await entries_of(receiver)) == (status == 200)
    assert call.status == status
    assert ("empty body; something before us read or redirected it" in caplog.text) == (status == 400)


@pytest.mark.parametrize("size", [pytest.param(10, id="held"), pytest.param(3 * MIB, id="stored in parts")])
@pytest.mark.parametrize(
    ("last", "status"),
    [
        pytest.param(GONE, None, id="the sender left"),
        pytest.param(piece(b"x" * 6 * MIB), 413, id="it is too long"),
        pytest.param(None, 408, id="it stalls"),
    ],
)
async def test_of_a_body_that_is_not_whole_nothing_stays(tmp_path, size, last, status):
    receiver = new_receiver(inbox=in_file(tmp_path), limits=Limits(body=5 * MIB, stall_seconds=0.2))
    messages = [piece(b"x" * (size // 2), more=True)] * 2 + ([last] if last else [])
    async with receiver.running():
        call = await Call(*messages)(receiver, a_scope())
        assert await entries_of(receiver) == []
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as connection:
        assert connection.execute("SELECT count(*) FROM dgreceiver_part").fetchone() == (0,)
    assert [message["status"] for message in call.sent[:1]] == [status] * bool(status)
    assert len(receiver.refusals) == 1


@pytest.mark.parametrize("size", [10, MIB, MIB + 1, 3 * MIB + 7])
@pytest.mark.parametrize("content_type", ["application/json", "audio/wav"])
async def test_a_body_of_any_size_is_kept_as_it_came(tmp_path, size, content_type):
    receiver = new_receiver(inbox=in_file(tmp_path))
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    pieces = [piece(body[at : at + 65_536], more=True) for at in range(0, size, 65_536)]
    async with receiver.running():
        call = await Call(*pieces, piece(b""))(receiver, a_scope(headers={b"content-type": content_type.encode()}))
        assert await bodies_of(receiver) == [body]
    assert call.status == 200


@pytest.mark.parametrize(
    ("options", "declared"),
    [
        pytest.param({}, True, id="declared"),
        pytest.param({}, False, id="chunked"),
        pytest.param({"auth": NoAuth()}, False, id="of anyone"),
    ],
)
async def test_a_body_over_all_the_room_there_is_gets_it_to_itself(options, declared):
    receiver = new_receiver(limits=Limits(body=4 * MIB, in_flight=3 * MIB // 2), **options)
    headers = {b"content-length": b"%d" % (3 * MIB)} if declared else {}
    pieces = [piece(b"x" * 65_536, more=True)] * 48
    async with receiver.running():
        call = await Call(*pieces, piece(b""))(receiver, a_scope(headers=headers))
    assert call.status == 200


async def test_who_finds_no_room_is_told_to_come_again_with_its_body_unread():
    refusals, inbox = Refusals(), MemoryInbox(receiver="default", emit=Facts())
    await inbox.open()
    intake = Intake(inbox, AUTH, Limits(in_flight=100), emit=Facts(), now=time.time, patience=0.02)
    door = HttpDoor(intake, refusals, emit=Facts(), now=noon)
    length = {b"content-length": b"100"}
    first = asyncio.create_task(Call()(door, a_scope(headers=length)))
    await asyncio.sleep(0)
    second = await Call(piece(b"x" * 100))(door, a_scope(headers=length))
    first.cancel()
    await asyncio.wait([first])
    third = await Call(piece(b"x" * 100))(door, a_scope(headers=length))
    await inbox.close()
    assert (second.status, second.headers[b"retry-after"], second.reads, third.status) == (503, b"30", 0, 200)
    assert [(refusal.at, refusal.reason) for refusal in refusals] == [
        (noon(), "no room for 100 bytes beside the bodies that are in flight")
    ]


@pytest.mark.parametrize(
    ("many", "brought"),
    [
        pytest.param(60, [], id="nothing"),
        pytest.param(60, [piece(b"x" * 65_536, more=True)], id="a piece"),
        pytest.param(15, [piece(b"x" * 300_000, more=True)], id="more than a piece at once"),
    ],
)
async def test_bodies_that_announce_much_and_stall_leave_room_for_others(many, brought):
    receiver = new_receiver(limits=Limits(in_flight=4 * MIB))
    much = {b"content-length": b"%d" % (64 * MIB)}
    async with receiver.running():
        slow = [asyncio.create_task(Call(*brought)(receiver, a_scope(headers=much))) for _ in range(many)]
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            call = await Call(piece(b"{}"))(receiver, a_scope())
        for each in slow:
            each.cancel()
        answers = [each for each in await asyncio.gather(*slow, return_exceptions=True) if isinstance(each, Call)]
    assert call.status == 200
    assert {answer.status for answer in answers} <= {408}


def noon() -> datetime:
    return datetime(2026, 1, 1, 12, tzinfo=UTC)


# --- an inbox that cannot store


@pytest.mark.parametrize(
    ("table", "size"), [pytest.param("callback", 10, id="a row"), pytest.param("part", 2 * MIB, id="a part")]
)
async def test_what_cannot_be_stored_is_not_acknowledged_and_the_process_goes_on(tmp_path, table, size):
    facts = Facts()
    receiver = new_receiver(inbox=in_file(tmp_path), hooks=[facts])

    def execute(sql: str) -> None:
        with closing(sqlite3.connect(tmp_path / "inbox.db")) as connection, connection:
            connection.execute(sql)

    async def send() -> Call:
        return await Call(piece(b"x" * size))(receiver, a_scope())

    async with receiver.running():
        fails = "BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END"
        execute(f"CREATE TRIGGER fails BEFORE INSERT ON dgreceiver_{table} {fails}")
        refused = await send()
        execute("DROP TRIGGER fails")
        taken = await send()
    assert (refused.status, refused.headers[b"retry-after"], taken.status) == (503, b"30", 200)
    assert refused.json == {"error": "service unavailable"}
    assert facts.of(InboxFailed)
    assert [fact.outcome for fact in facts.of(CallbackStored)] == ["stored"]


# --- what is kept of refusals


async def test_the_last_two_hundred_refusals_are_kept():
    receiver = new_receiver()
    async with receiver.running():
        for _ in range(5):
            await Call()(receiver, a_scope("GET"))
        for _ in range(200):
            await Call()(receiver, a_scope(headers=STRANGER))
    kept = list(receiver.refusals)
    assert [len(kept), len(receiver.refusals), {refusal.status for refusal in kept}] == [200, 200, {401}]
    assert kept[0].at <= kept[-1].at
    assert (kept[0].peer, kept[0].at.tzinfo is not None) == ("192.0.2.1", True)


# --- limits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"body": 0}, "Limits(body=0) is no number of bytes; write a whole number above 0", id="nothing"),
        pytest.param({"audio": -1}, "Limits(audio=-1) is no number", id="less"),
        pytest.param({"in_flight": 1.5}, "Limits(in_flight=1.5) is no number", id="a part of a byte"),
        pytest.param({"message": True}, "Limits(message=True) is no number", id="a truth"),
        pytest.param({"body_seconds": -1}, "body_seconds is -1; write a timedelta", id="time past"),
        pytest.param({"stall_seconds": "5"}, "stall_seconds is of type str; write a timedelta", id="text"),
    ],
)
def test_limits_that_limit_nothing_are_refused(options, message):
    with pytest.raises(SetupError) as raised:
        Limits(**options)
    assert message in str(raised.value)


# --- over real sockets


def host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


async def request(url: str, *lines: bytes, body: bytes = b"") -> bytes:
    """Send a request as it stands; the whole answer."""
    reader, writer = await asyncio.open_connection(*host_and_port(url))
    writer.write(b"\r\n".join([*lines, b"connection: close", b"host: x", b"", body]))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_server_hands_everything_over_as_it_came(http):
    receiver = new_receiver()
    basic = b"authorization: " + BASIC.encode()
    async with served(receiver, http=http) as url:
        odd = await request(url, b"POST / HTTP/1.1", b"authorization: Basic \xff\xfe", b"content-length: 2", body=b"{}")
        chunked = await request(
            url, b"POST /a%20b?c=%41 HTTP/1.1", basic, b"transfer-encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"
        )
        head = await request(url, b"HEAD / HTTP/1.1", basic)
        [entry] = await entries_of(receiver)
    assert odd.startswith(b"HTTP/1.1 401")
    assert chunked.startswith(b"HTTP/1.1 200")
    assert head.startswith(b"HTTP/1.1 405")
    assert (entry.path, entry.query) == ("/a b", "c=%41")


async def test_a_sender_that_hangs_up_in_the_middle_leaves_nothing():
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    async with served(receiver) as url:
        _, writer = await asyncio.open_connection(*host_and_port(url))
        writer.write(f"POST / HTTP/1.1\r\nhost: x\r\nauthorization: {BASIC}\r\ncontent-length: 100\r\n\r\n{{".encode())
        await until(lambda: receiver._running and receiver._running.requests)
        writer.close()
        await until(lambda: facts.of(CallbackRefused))
        assert await entries_of(receiver) == []
    assert [fact.status for fact in facts.of(CallbackRefused)] == [400]
