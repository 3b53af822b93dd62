"""Live streams over WebSocket, with a real client as Deepgram's side: who gets in, what is kept, what ends a stream."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dgreceiver import (
    Delivery,
    DgTokenAuth,
    Event,
    ExtraAuth,
    Limits,
    LiveResult,
    LiveTranscript,
    NoAuth,
    Receiver,
    SignedAuth,
)
from dgreceiver.facts import (
    CallbackRefused,
    CallbackStored,
    InboxFailed,
    LiveStreamBegun,
    LiveStreamCut,
    LiveStreamEnded,
    LiveStreamSpooling,
    StartedLate,
)
from dgreceiver.inbox.locks import FileLock
from dgreceiver.testing.payloads import transcript
from dgreceiver.web.intake import Intake
from dgreceiver.web.refusals import Refusals
from dgreceiver.web.websocket import WebSocketDoor

from ..inbox.process import Process, stop
from ..support import (
    AUTH,
    BASIC,
    PASSWORD,
    USER,
    Call,
    Facts,
    Ledger,
    a_scope,
    address,
    bodies_of,
    entries_of,
    in_file,
    listen,
    new_receiver,
    post,
    served,
    serving,
    states_of,
    until,
    until_state,
)

KEY = "k" * 32
SECRET = "fake-callback-secret"


def results(n: int, *, request_id: str = "r-1", size: int = 0, **metadata: Any) -> str:
    """The n-th result of a stream, with so many bytes of text."""
    return json.dumps(
        {
            "type": "Results",
            "channel_index": [0, 1],
            "start": float(n),
            "duration": 1.0,
            "is_final": True,
            "channel": {"alternatives": [{"transcript": "x" * size, "confidence": 1.0, "words": []}]},
            "metadata": {"request_id": request_id, **metadata},
        }
    )


def socket_url(url: str, user: str = USER, password: str = PASSWORD) -> str:
    return url.replace("http://", f"ws://{user}:{password}@")


def streaming(url: str, **options: Any) -> connect:
    """A client that calls back as Deepgram does; it sends no pings unless told to."""
    return connect(socket_url(url), **{"ping_interval": None, "compression": None, "max_queue": None, **options})


async def send(socket: ClientConnection, *messages: str | bytes) -> None:
    for message in messages:
        await socket.send(message)


def numbers(events: list[Event]) -> list[float]:
    return [event.start for event in events if isinstance(event, LiveResult)]


class Heard:
    """A receiver whose handlers note what they get, and its facts."""

    def __init__(self, **options: Any) -> None:
        self.facts = Facts()
        self.receiver = new_receiver(hooks=[self.facts], **options)
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.wholes: list[LiveTranscript] = []  # of the streams that ended

        @self.receiver.on(Event)
        async def note(event: Event, delivery: Delivery) -> None:
            if isinstance(event, LiveTranscript):
                self.wholes.append(event)
            else:
                self.events.append(event)
                self.deliveries.append(delivery)

    async def until(self, count: int) -> None:
        await until(lambda: len(self.events) >= count)

    async def ended(self, count: int = 1) -> LiveStreamEnded:
        await until(lambda: len(self.facts.of(LiveStreamEnded)) >= count)
        return self.facts.of(LiveStreamEnded)[-1]


@asynccontextmanager
async def hypercorn(receiver: Receiver) -> AsyncIterator[str]:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listening, over = listen(), asyncio.Event()
    url, config = address(listening), Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.graceful_timeout = 0.1
    life = asyncio.create_task(serve(receiver, config, shutdown_trigger=over.wait))  # type: ignore[arg-type]  # its types are its own
    try:
        yield url
    finally:
        over.set()
        await asyncio.wait([life])
        life.result()


SERVERS = {
    "uvicorn, websockets-sansio": served,
    "uvicorn, wsproto": lambda receiver: served(receiver, ws="wsproto"),
    "hypercorn": hypercorn,
}


@pytest.fixture(params=SERVERS)
def serve(request):
    """Every server that a receiver is held to work under."""
    for name in ("wsproto", "hypercorn"):
        if name in request.param and not find_spec(name):
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is not installed")
    return SERVERS[request.param]


# --- what comes is kept, in order, and nothing is said


async def test_every_frame_is_handled_in_order_and_the_sender_hears_nothing(serve):
    heard = Heard()
    async with serve(heard.receiver) as url, streaming(url, subprotocols=["token"]) as socket:
        await send(socket, *map(results, range(200)))
        await heard.until(200)
        assert socket.subprotocol is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.05)
        await socket.close(1000)
        ended = await heard.ended()
    assert numbers(heard.events) == list(range(200))
    assert (ended.frames, ended.stored) == (200, 200)
    assert ended.code in (1000, 1006)  # hypercorn says 1006 whatever the peer said
    assert {delivery.stream for delivery in heard.deliveries} == {ended.stream}
    assert [fact.stream for fact in heard.facts.of(LiveStreamBegun)] == [ended.stream]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        pytest.param(results(1), "LiveResult", id="a result"),
        pytest.param(results(1).encode(), "LiveResult", id="a result in a binary frame"),
        pytest.param('{"type":"UtteranceEnd","channel":[0,1],"last_word_end":-1}', "UtteranceEnd", id="an array"),
        pytest.param('{"type":"Results","channel":[0,1]}', "Unknown", id="a channel of the wrong shape"),
        pytest.param('{"type":"Metadata","request_id":"r-1"}', "StreamMetadata", id="metadata"),
        pytest.param('{"type":"New"}', "Unknown", id="a type that is new"),
        pytest.param('{"channel":{}}', "Unknown", id="no type"),
        pytest.param('{"type":', "Unknown", id="broken JSON"),
        pytest.param("[]", "Unknown", id="a list"),
        pytest.param("[" * 20_000, "Unknown", id="deep nesting"),
        pytest.param("", "Unknown", id="an empty frame"),
        pytest.param(b"", "Unknown", id="an empty binary frame"),
        pytest.param(b"\xff\xfe\x00", "Unknown", id="no UTF-8"),
        pytest.param('"\\ud800"', "Unknown", id="half a surrogate"),
        pytest.param("x" * 3_000_000, "Unknown", id="3 MB"),
    ],
)
async def test_whatever_a_frame_holds_is_kept_and_the_stream_goes_on(frame, kind):
    heard = Heard()
    async with served(heard.receiver) as url, streaming(url) as socket:
        await send(socket, frame, results(2))
        await heard.until(2)
        assert type(heard.events[0]).__name__ == kind
        assert [event.raw for event in heard.events] == [
            frame.encode() if isinstance(frame, str) else frame,
            results(2).encode(),
        ]


@pytest.mark.parametrize("complete", [True, False])
async def test_a_stream_is_told_of_as_a_whole_when_its_socket_closes(complete):
    heard = Heard()
    last = [json.dumps({"type": "Metadata", "request_id": "r-1"})] * complete
    async with served(heard.receiver) as url:
        async with streaming(url) as socket:
            await send(socket, results(2, size=2), results(1, size=1), *last)
            await heard.until(2 + complete)
            assert heard.wholes == []
        await until(lambda: heard.wholes)
    assert [(whole.text, whole.complete) for whole in heard.wholes] == [("x xx", complete)]


async def test_equal_frames_are_two_messages_and_two_sockets_two_streams():
    heard = Heard()
    async with served(heard.receiver) as url:
        for _ in range(2):
            async with streaming(url) as socket:
                await send(socket, results(1), results(1))
        await heard.until(4)
    assert len({delivery.key for delivery in heard.deliveries}) == 4
    assert len({delivery.stream for delivery in heard.deliveries}) == 2


async def test_a_frame_in_pieces_is_one_message():
    heard = Heard()
    async with served(heard.receiver) as url, streaming(url) as socket:
        await socket.send([results(1)[:9], results(1)[9:]])
        await heard.until(1)
    assert heard.events[0].raw == results(1).encode()


async def test_a_frame_knows_the_path_query_and_headers_of_its_handshake():
    heard = Heard()
    headers = {"dg-project-id": "p-1", "dg-token": "hush", "content-type": "audio/wav", "x-other": "no"}
    async with served(heard.receiver) as url:
        async with connect(socket_url(url) + "/calls/7?a=b", additional_headers=headers) as socket:
            await send(socket, results(1))
        await heard.until(1)
    delivery = heard.deliveries[0]
    assert (delivery.path, delivery.query, delivery.headers) == ("/calls/7", "a=b", {"dg-project-id": "p-1"})


# --- who gets in


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        pytest.param(AUTH, {}, id="no credentials"),
        pytest.param(AUTH, {"authorization": "Basic eDp5"}, id="others"),
        pytest.param(SignedAuth(KEY), {"authorization": BASIC}, id="no signature"),
        pytest.param(DgTokenAuth("key-id"), {"dg-token": "another"}, id="another key"),
        pytest.param(ExtraAuth(SECRET), {}, id="what only a body could show"),
        pytest.param(ExtraAuth(SECRET) | AUTH, {}, id="neither of both"),
    ],
)
async def test_a_stranger_is_answered_401_before_a_socket_is_accepted(serve, auth, headers):
    heard = Heard(auth=auth)
    async with serve(heard.receiver) as url:
        with pytest.raises(InvalidStatus) as denied:
            await connect(url.replace("http", "ws"), additional_headers=headers)
    answer = denied.value.response
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="dgreceiver"')
    assert [refusal.status for refusal in heard.receiver.refusals] == [401]
    assert heard.facts.of(CallbackRefused)[0].peer == "127.0.0.1"
    assert heard.facts.of(LiveStreamBegun) == []


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        pytest.param(NoAuth(), {}, id="anybody"),
        pytest.param(AUTH, {"authorization": BASIC}, id="basic"),
        pytest.param(DgTokenAuth("key-id"), {"dg-token": "key-id"}, id="dg-token"),
        pytest.param(ExtraAuth(SECRET) | AUTH, {"authorization": BASIC}, id="by the one of two that a head can carry"),
    ],
)
async def test_who_shows_enough_in_the_handshake_gets_in(auth, headers):
    heard = Heard(auth=auth)
    async with served(heard.receiver) as url:
        async with connect(url.replace("http", "ws"), additional_headers=headers) as socket:
            await send(socket, results(1))
        await heard.until(1)


async def test_where_the_server_can_send_no_status_a_stranger_is_closed_before_accept():
    receiver = new_receiver()
    scope = a_scope(type="websocket", headers=[])
    async with receiver.running():
        call = await Call({"type": "websocket.connect"})(receiver, scope)
    assert call.sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_receiver_that_has_stopped_or_drains_takes_no_new_stream(caplog):
    heard = Heard()
    async with served(heard.receiver, lifespan="off") as url:
        async with heard.receiver.running():
            async with streaming(url) as socket:
                heard.receiver.drain()
                await _denied(url, 503)
                await send(socket, results(1))
                await heard.until(1)
                assert heard.receiver.live_streams == 1
            await until(lambda: heard.receiver.live_streams == 0)
        await _denied(url, 503)
        assert heard.receiver.live_streams == 0
        heard.receiver.drain()  # of what does not run, there is nothing to drain
    assert "refused 503: this process is about to end" in caplog.text


async def _denied(url: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as denied:
        await streaming(url)
    assert denied.value.response.status_code == status


async def test_what_was_signed_into_the_url_is_with_every_frame():
    heard = Heard(auth=SignedAuth(KEY), public_url="http://127.0.0.1:8080/")
    user, password = SignedAuth(KEY).sign(job="job-1", context={"call": 7}, expires=60, now=time.time())
    async with served(heard.receiver) as url:
        async with connect(socket_url(url, user, password)) as socket:
            await send(socket, results(1), '{"type":"SpeechStarted"}')
        await heard.until(2)
        assert {entry.job for entry in await entries_of(heard.receiver)} == {"job-1"}
    assert [delivery.context for delivery in heard.deliveries] == [{"call": 7}] * 2


async def test_what_comes_by_a_url_past_its_time_is_kept_as_dead():
    heard = Heard(auth=SignedAuth(KEY))
    user, password = SignedAuth(KEY).sign(job="job-1", expires=1, now=time.time() - 60)
    async with served(heard.receiver) as url:
        async with connect(socket_url(url, user, password)) as socket:
            await send(socket, results(1))
        await heard.ended()
        [entry] = await entries_of(heard.receiver)
    assert (entry.state, entry.error) == ("dead", "URL expired")


async def test_a_callback_secret_is_taken_out_of_every_frame():
    heard = Heard(auth=AUTH | ExtraAuth(SECRET))
    told = [
        results(1, extra={"callback_secret": SECRET}),
        json.dumps({"type": "Metadata", "request_id": "r-1", "extra": {"callback_secret": SECRET}}),
        f"no JSON, {SECRET}",
    ]
    async with served(heard.receiver) as url:
        async with streaming(url) as socket:
            await send(socket, *told)
        await heard.until(3)
        assert (await bodies_of(heard.receiver))[:3] == [text.replace(SECRET, "***").encode() for text in told]


# --- the receiver starts by itself


async def test_a_receiver_whose_lifespan_nobody_ran_starts_with_the_first_socket():
    heard = Heard()
    async with served(heard.receiver, lifespan="off") as url:
        async with streaming(url) as socket:
            await send(socket, results(1))
            await heard.until(1)
        await heard.ended()
        async with heard.receiver.running():
            pass
    assert len(heard.facts.of(StartedLate)) == 1


# --- what does not end a stream


async def test_a_slow_handler_holds_up_neither_its_socket_nor_other_streams():
    heard, go = Heard(), asyncio.Event()

    @heard.receiver.on(LiveResult)
    async def wait(result: LiveResult) -> None:
        if result.request_id == "slow":
            await go.wait()

    slow = [results(n, request_id="slow") for n in range(10)]
    pinging = {"ping_interval": 0.1, "ping_timeout": 0.5}
    async with served(heard.receiver) as url, streaming(url, **pinging) as first, streaming(url) as second:
        for n, message in enumerate(slow):
            await send(first, message)
            await send(second, results(n))
            await asyncio.sleep(0.1)  # as they come
        await until(lambda: sum(event.request_id == "r-1" for event in heard.events) == 10)
        assert sum(event.request_id == "slow" for event in heard.events) <= 1
        assert len(heard.facts.of(CallbackStored)) == 20
        assert await asyncio.wait_for(await first.ping(), 1) < 1
        go.set()
        await heard.until(20)
    assert [event.raw.decode() for event in heard.events if event.request_id == "slow"] == slow


async def test_a_flood_on_one_socket_does_not_delay_another(tmp_path):
    facts = Facts()
    receiver = new_receiver(inbox=in_file(tmp_path), hooks=[facts])
    async with served(receiver) as url, streaming(url) as flood, streaming(url) as other:
        flooding = asyncio.create_task(_flood(flood))
        for n in range(5):
            await send(other, results(n, request_id="other"))
            await until(lambda: _stored(facts, "other") > n, within=5)  # noqa: B023 - it ends within
        assert _stored(facts, "r-1") > 50
        assert not flooding.done()
        flooding.cancel()
        await asyncio.wait([flooding])


async def _flood(socket: ClientConnection) -> None:
    while True:
        await send(socket, *(results(n, size=2000) for n in range(100)))


def _stored(facts: Facts, request_id: str) -> int:
    return sum(fact.request_id == request_id for fact in facts.of(CallbackStored))


async def test_a_socket_that_says_nothing_is_a_stream_of_nothing():
    heard = Heard()
    async with served(heard.receiver) as url:
        async with streaming(url):
            pass
        ended = await heard.ended()
    assert (ended.frames, ended.stored, await states_of(heard.receiver)) == (0, 0, set())


async def test_while_the_inbox_stands_still_a_stream_is_read_on_and_nothing_is_lost(tmp_path, caplog):
    heard = Heard(inbox=in_file(tmp_path))
    frames = [results(n, size=50_000) for n in range(60)]  # three times what is held in memory
    async with served(heard.receiver) as url, streaming(url, ping_interval=0.2, ping_timeout=2) as socket:
        await send(socket, results(-1))
        await heard.until(1)
        with closing(FileLock(tmp_path / "inbox.db.write")) as lock:
            lock.acquire()
            await asyncio.wait_for(send(socket, *frames), 10)
            await until(lambda: heard.facts.of(LiveStreamSpooling))
            assert await asyncio.wait_for(await socket.ping(), 5) < 5
        await send(socket, results(60))
        await heard.until(62)
        await socket.close()
        ended = await heard.ended()
    assert numbers(heard.events) == list(range(-1, 61))
    assert (ended.frames, ended.stored) == (62, 62)
    assert caplog.text.count("put aside on disk") == 1


async def test_a_stopped_process_that_holds_the_lock_holds_up_no_sender_and_costs_nothing(tmp_path):
    heard = Heard(inbox=in_file(tmp_path))
    payload, auth = transcript(request_id="r-2"), (USER, PASSWORD)
    async with (
        served(heard.receiver) as url,
        streaming(url) as socket,
        httpx.AsyncClient(base_url=url, auth=auth, timeout=20) as client,
    ):
        await send(socket, results(0))
        await heard.until(1)
        with closing(Process(stop, tmp_path / "inbox.db")) as stopped:
            assert await asyncio.to_thread(stopped.said.readline) == "ready\n"
            await asyncio.wait_for(send(socket, *(results(n, size=200_000) for n in range(1, 20))), 10)
            refused = await post(client, payload)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            assert await asyncio.wait_for(await socket.ping(), 5) < 5
            stopped.kill()
        await until(lambda: len(heard.events) == 20)
        assert (await post(client, payload)).status_code == 200
        await heard.until(21)
    assert numbers(heard.events) == list(range(20))
    assert len(heard.facts.of(InboxFailed)) == len(heard.facts.of(LiveStreamSpooling)) == 1


async def test_while_the_disk_is_full_a_stream_lives_and_nothing_is_lost(small_disk):
    heard = Heard(inbox=in_file(small_disk))
    filler = small_disk / "filler"
    async with served(heard.receiver) as url, streaming(url) as socket:
        await send(socket, *map(results, range(10)))
        await until(lambda: len(heard.facts.of(CallbackStored)) == 10)
        room = os.statvfs(small_disk)
        with suppress(OSError):
            filler.write_bytes(bytes(room.f_bavail * room.f_frsize + 4096))
        await send(socket, *map(results, range(10, 100)))
        await until(lambda: heard.facts.of(InboxFailed))
        await asyncio.wait_for(await socket.ping(), 5)
        filler.unlink()
        await send(socket, *map(results, range(100, 110)))
        await heard.until(110)
    assert numbers(heard.events) == list(range(110))


# --- what ends a stream


async def vanish(socket: ClientConnection) -> None:
    socket.transport.abort()


@pytest.mark.parametrize(
    ("leave", "codes"),
    [
        pytest.param(lambda socket: socket.close(1000), {1000}, id="in order"),
        pytest.param(lambda socket: socket.close(1011, "no audio"), {1011}, id="with another code"),
        pytest.param(vanish, {1005, 1006}, id="without a word"),
    ],
)
async def test_what_came_is_kept_however_a_peer_leaves(leave, codes):
    heard = Heard()
    async with served(heard.receiver) as url, streaming(url) as socket:
        await send(socket, *map(results, range(20)))
        await heard.until(1)
        await leave(socket)
        ended = await heard.ended()
        await heard.until(20)
    assert (ended.frames, ended.stored) == (20, 20)
    assert ended.code in codes


async def test_a_frame_over_the_servers_limit_is_closed_by_the_server_and_what_came_is_kept():
    heard = Heard()
    async with served(heard.receiver, ws_max_size=1000) as url, streaming(url) as socket:
        await send(socket, results(1))
        await heard.until(1)
        await send(socket, "x" * 1001)
        await socket.wait_closed()
        ended = await heard.ended()
    assert (socket.close_code, ended.code, ended.stored) == (1009, 1009, 1)


async def test_a_socket_that_is_open_when_the_server_stops_is_closed_with_1012_and_what_came_is_kept():
    heard = Heard()
    async with served(heard.receiver) as url:
        socket = await streaming(url)
        await send(socket, results(1))
        await heard.until(1)
    ended = await heard.ended()
    await socket.wait_closed()
    assert (socket.close_code, ended.code, ended.stored) == (1012, 1012, 1)


@asynccontextmanager
async def broken(path: Path) -> AsyncIterator[None]:
    """Within, the inbox there can store nothing."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE dgreceiver_callback RENAME TO elsewhere")
        yield
        connection.execute("ALTER TABLE elsewhere RENAME TO dgreceiver_callback")


async def test_only_what_can_be_put_nowhere_any_more_ends_a_stream_and_what_came_is_kept(tmp_path, caplog):
    heard = Heard(inbox=in_file(tmp_path))
    async with small_spool(heard) as door, served(door) as url, streaming(url) as socket:
        async with broken(tmp_path / "inbox.db"):
            with pytest.raises(ConnectionClosed):
                await send(socket, *(results(n, size=50_000) for n in range(1000)))
            assert socket.close_code == 1011
            await until(lambda: heard.facts.of(LiveStreamCut))
        ended = await heard.ended()
        await heard.until(ended.stored)
    assert numbers(heard.events) == list(range(ended.stored))
    assert ended.stored == ended.frames - 1 > 30  # one could be put nowhere
    assert "cut live stream" in caplog.text
    assert "1 LOST" in caplog.text


@asynccontextmanager
async def small_spool(heard: Heard) -> AsyncIterator[WebSocketDoor]:
    """The door of a receiver that runs, with a spool of 1 MiB."""
    async with heard.receiver.running(), heard.receiver.opened() as inbox:
        intake = Intake(inbox, AUTH, Limits(), emit=heard.receiver._emit, now=time.time)
        yield WebSocketDoor(
            intake, Refusals(), receiver="default", emit=heard.receiver._emit, now=now, spool=1024 * 1024
        )


def now() -> datetime:
    return datetime.now(UTC)


async def test_what_cannot_be_stored_before_the_process_ends_is_told(tmp_path, caplog):
    heard = Heard(inbox=in_file(tmp_path))
    async with heard.receiver.running(), served(heard.receiver, lifespan="off") as url, streaming(url) as socket:
        await send(socket, results(1))
        await heard.until(1)
        async with broken(tmp_path / "inbox.db"):
            await send(socket, results(2), results(3))
            await until(lambda: heard.facts.of(InboxFailed))
            await heard.receiver._running.sockets.stop(leaving=0.1)
            await send(socket, results(4))
            await socket.wait_closed()
            ended = await heard.ended()
    assert (socket.close_code, ended.stored) == (1011, 1)
    assert f"{ended.frames - 1} LOST" in caplog.text


# --- kill -9


def slow_app(folder: Path) -> Receiver:
    ledger = Ledger(folder)
    receiver = new_receiver(inbox=in_file(folder), hooks=[_Noting(ledger)], concurrency=4)

    @receiver.on(LiveResult)
    async def note(result: LiveResult, delivery: Delivery) -> None:
        ledger.note("begun", f"{delivery.stream} {result.start:g}")
        await asyncio.sleep(0.005)
        ledger.note("ended", f"{delivery.stream} {result.start:g}")

    return receiver


class _Noting:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, fact: object) -> None:
        if isinstance(fact, CallbackStored):
            self._ledger.note("stored", fact.key)


async def test_after_a_kill_in_mid_stream_every_stored_frame_is_handled_in_order(tmp_path):
    with serving(slow_app, tmp_path) as (listening, servers):
        ledger, url = Ledger(tmp_path), address(listening)
        sockets = [await streaming(url) for _ in range(3)]
        sending = [asyncio.create_task(_until_closed(socket)) for socket in sockets]
        await until(lambda: len(ledger.about("ended")) > 20)
        servers[0].kill()
        await asyncio.wait(sending)
        servers.append(type(servers[0])(slow_app, tmp_path, listening))
        receiver = new_receiver(inbox=in_file(tmp_path))
        await until_state(receiver, "done", within=30)
        entries = await entries_of(receiver)
    ended = [line.split() for line in ledger.about("ended")]
    assert {entry.key for entry in entries} >= set(ledger.about("stored"))
    assert len(ended) >= len(entries) > 20
    for stream in {stream for stream, _ in ended}:
        starts = [float(start) for name, start in ended if name == stream]
        assert starts == sorted(starts)
        assert set(starts) == set(range(len(set(starts))))


async def _until_closed(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        for n in range(100_000):
            await send(socket, results(n))
            await asyncio.sleep(0.002)
