"""The server: what it answers by itself, what it writes down, whom it sends away, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dgreceiver import Limits, SetupError
from dgreceiver.server import Server, listen
from dgreceiver.testing.payloads import transcript

from .serving import Process, a_process, running
from .support import (
    BASIC,
    PASSWORD,
    USER,
    Ledger,
    bodies_of,
    calling,
    entries_of,
    in_file,
    new_receiver,
    post,
    until,
)

ROOT = Path(__file__).parents[1]
SHORT = 0.15  # seconds for a head
HEAD = f"POST / HTTP/1.1\r\nhost: localhost\r\nauthorization: {BASIC}\r\n".encode()
UPGRADE = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

FIVE_LINES = f"""
from dgreceiver import BasicAuth, Receiver, Transcript
receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"))
@receiver.on(Transcript)
async def save(transcript: Transcript) -> None:
    print(transcript.request_id, transcript.text, flush=True)
"""
STREAMS = f"""
import os
from pathlib import Path
from dgreceiver import BasicAuth, Delivery, Event, Receiver
from tests.support import Ledger
ledger = Ledger(Path("."))
receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"), inbox="sqlite:///inbox.db", hooks=[])
@receiver.on(Event)
async def note(event: Event, delivery: Delivery) -> None:
    ledger.note(str(delivery.stream), event.raw.decode() if delivery.stream else "a transcript")
"""
HANGING = f"""
import threading
from dgreceiver import BasicAuth, Receiver, Transcript
receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"))
@receiver.on(Transcript)
def hang(transcript: Transcript) -> None:
    print("hanging", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def pythonpath(monkeypatch):
    """Processes find the tests' own modules."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


# --- probes


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_is_answered_without_credentials(method, path):
    async with running() as served, served.client() as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.content) == (200, b'{"status":"ok"}' if method == "GET" else b"")


async def test_a_post_to_the_path_of_a_probe_is_a_callback():
    async with running() as served, served.client() as client:
        answers = [await post(client, transcript(), "/livez", auth=auth) for auth in (None, (USER, PASSWORD))]
        assert [answer.status_code for answer in answers] == [401, 200]


async def test_a_server_is_alive_but_not_ready_before_it_has_started_and_when_it_stops():
    async def probe(server: Server) -> list[int]:
        app: Any = server.config.app
        async with calling(app, auth=None) as client:
            return [(await client.get(path)).status_code for path in ("/livez", "/readyz")]

    assert await probe(Server(new_receiver(name="not started"))) == [200, 503]
    async with running() as served:
        assert await probe(served.server) == [200, 200]
        served.server.should_exit = True
        assert await probe(served.server) == [200, 503]


# --- how it is said


class Wire(asyncio.Transport):
    """A transport that notes what it is given to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def joined(self, server: Server) -> asyncio.Protocol:
        """The server's end of a connection over this."""
        server.config.load()
        made: Callable[..., asyncio.Protocol] = server.config.http_protocol_class
        self.protocol = made(config=server.config, server_state=server.server_state, app_state={})
        self.protocol.connection_made(self)
        return self.protocol


async def test_an_answer_is_sent_in_one_piece():
    wire = Wire()
    wire.joined(Server(new_receiver())).data_received(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await until(lambda: wire.sent)
    assert [(piece.startswith(b"HTTP/1.1 200 "), piece.endswith(b'{"status":"ok"}')) for piece in wire.sent] == [
        (True, True)
    ]


async def test_what_was_said_is_sent_before_the_connection_is_closed_and_nothing_after(caplog):
    wire = Wire()
    protocol: Any = wire.joined(Server(new_receiver()))
    protocol.data_received(b"no request at all\r\n\r\n")
    assert wire.closed
    assert [piece[:13] for piece in wire.sent] == [b"HTTP/1.1 400 "]
    protocol.transport.write(b"too late")
    await asyncio.sleep(0.01)
    assert len(wire.sent) == 1


# --- the access log


async def test_the_access_log_has_a_line_for_each_request_without_query_or_credentials(caplog):
    caplog.set_level(logging.DEBUG, "dgreceiver")
    caplog.set_level(logging.DEBUG, "uvicorn")
    async with running() as served, served.client() as client:
        await post(client, transcript(), "/calls/%1B%5B31m?token=hush", auth=(USER, PASSWORD))
        await client.get("/?token=hush", headers={"authorization": "Basic aHVzaA=="})
        await served.say(b"GET /ws?token=hush HTTP/1.1\r\nhost: localhost\r\n" + UPGRADE)
    lines = [record.getMessage().split() for record in caplog.records if record.name == "dgreceiver.access"]
    assert [(line[:3], line[-1]) for line in lines] == [
        (["POST", "/calls/%1B%5B31m", "200"], "127.0.0.1"),
        (["GET", "/", "405"], "127.0.0.1"),
        (["WEBSOCKET", "/ws", "401"], "127.0.0.1"),
    ]
    written = [record.getMessage() for record in caplog.records if record.name.startswith(("dgreceiver", "uvicorn"))]
    assert not [line for line in written for secret in ("hush", "aHVzaA", PASSWORD, BASIC) if secret in line]


@pytest.mark.parametrize(("told", "peer"), [(b"192.0.2.7", "192.0.2.7"), (b"\x9b2J", "-")])
async def test_the_access_log_names_the_peer_that_a_proxy_tells_if_it_is_one(caplog, told, peer):
    caplog.set_level(logging.INFO, "dgreceiver.access")
    async with running() as served:
        await served.say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: " + told + b"\r\n\r\n")
    assert [message.split()[-1] for message in caplog.messages if message.startswith("GET")] == [peer]


async def test_who_leaves_before_the_body_is_whole_has_a_line_without_a_status(caplog):
    caplog.set_level(logging.INFO, "dgreceiver.access")
    async with running() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(HEAD + b"content-length: 100\r\n\r\n{")
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await until(lambda: any(line.startswith("POST / - ") for line in caplog.messages))


# --- who is sent away


@pytest.mark.parametrize("told", [b"", b"x-forwarded-for: 127.0.0.1\r\n", b"x-real-ip: 127.0.0.1\r\n"])
async def test_a_peer_that_calls_from_this_host_needs_credentials(told):
    async with running() as served:
        said = await served.say(b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + told + b"\r\n")
    assert said.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="who says nothing"),
        pytest.param([b"POST / HTTP/1.1\r\nx: "], id="who stops within a header"),
        pytest.param([b"POST / HTTP/1.1\r\nx: ", *[b"a"] * 40], id="who sends a header by the letter"),
        pytest.param([b"\r\n"] * 40, id="who sends empty lines"),
    ],
)
async def test_a_connection_that_brings_no_request_in_time_is_closed(pieces):
    async with running(head_seconds=SHORT) as served:
        begun = time.monotonic()
        said = await served.say(*pieces, every=0.02)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun < 2


async def test_the_body_of_a_request_that_was_refused_is_not_awaited_for_ever():
    async with running(head_seconds=SHORT) as served:
        head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n"
        said = await served.say(head, *[b"a"] * 40, every=0.02)
        assert said.startswith(b"HTTP/1.1 401 ")


async def test_a_slow_body_that_is_wanted_has_the_time_that_the_limits_give_it():
    async with running(head_seconds=SHORT) as served:
        body = transcript().body
        head = HEAD + f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        said = await served.say(head, body[:9], body[9:], every=2 * SHORT)
        assert said.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_is_kept_for_the_next_request():
    async with running(head_seconds=SHORT) as served, served.client() as client:
        await post(client, transcript(), auth=(USER, PASSWORD))
        await asyncio.sleep(2 * SHORT)
        assert (await post(client, transcript(), auth=(USER, PASSWORD))).status_code == 200
        assert len(served.server.server_state.connections) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([HEAD, b"x: " + b"a" * 70_000, b"\r\n\r\n"], id="one that ends"),
        pytest.param([HEAD, b"x: ", *[b"a" * 100_000] * 200], id="20 MB in one header"),
        pytest.param([HEAD, *[b"x: " + b"a" * 1000 + b"\r\n"] * 20_000], id="20 MB in many"),
        pytest.param([b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"], id="a long path"),
        pytest.param(
            [HEAD, b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", *[b"x: " + b"a" * 1000 + b"\r\n"] * 20_000],
            id="trailers",
        ),
    ],
)
async def test_a_head_that_is_too_large_is_refused(pieces, caplog):
    caplog.set_level(logging.INFO, "dgreceiver.access")
    receiver = new_receiver()
    async with running(receiver) as served:
        said = await served.say(*pieces)
        assert said.startswith(b"HTTP/1.1 431 ") or not said  # a reset may overtake it
        await until(lambda: "- - 431 127.0.0.1" in caplog.messages)
        assert await entries_of(receiver) == []


async def test_a_head_that_is_too_large_is_refused_behind_another_in_one_piece():
    wire, head = Wire(), b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
    wire.joined(Server(new_receiver())).data_received(head + b"\r\n" + head + b"x: " + b"a" * 70_000 + b"\r\n\r\n")
    assert wire.closed
    assert b"".join(wire.sent).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("length", [10, 70_000])
async def test_what_is_no_http_is_answered_with_400(length):
    async with running() as served:
        assert (await served.say(b"\x16\x03\x01" * length)).startswith(b"HTTP/1.1 400 ")


async def test_a_websocket_that_is_denied_is_one_warning(caplog):
    async with running() as served:
        said = await served.say(b"GET / HTTP/1.1\r\nhost: localhost\r\n" + UPGRADE)
        assert said.startswith(b"HTTP/1.1 401 ")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition(";")[0] for line in warnings] == ["refused 401: no credentials"]


async def test_a_frame_that_is_too_large_takes_none_with_it_that_came_before():
    receiver = new_receiver(limits=Limits(message=100))
    async with running(receiver) as served, served.socket() as socket:
        socket.transport.set_write_buffer_limits(1)
        await asyncio.gather(socket.send("1"), socket.send("2"), socket.send("x" * 101))
        await socket.wait_closed()
        assert socket.close_code == 1009
        await until(lambda: receiver.live_streams == 0)
        assert await bodies_of(receiver) == [b"1", b"2"]


async def test_a_socket_whose_pong_is_late_lives():
    """The receiver pings, so that proxies see life, and draws no conclusion from what comes back."""
    config = Server(new_receiver(name="pings")).config
    assert (config.ws_ping_interval, config.ws_ping_timeout) == (20.0, None)
    assert not config.ws_per_message_deflate
    assert config.timeout_keep_alive == 75


async def test_a_response_does_not_name_the_server():
    async with running() as served, served.client() as client:
        assert "server" not in (await client.get("/livez")).headers


# --- starting


def test_an_answer_is_not_held_back_until_the_one_before_is_acknowledged():
    with listen("127.0.0.1", 0) as door, socket.create_connection(door.getsockname()), door.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("reuse_port", [False, True])
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_a_setup_error(host, reuse_port):
    with pytest.raises(SetupError, match=r"cannot listen on .*:8080: .*; end what listens there, or choose another"):
        listen(host, 8080, reuse_port=reuse_port)


def test_a_successor_is_given_nobody_before_it_has_started():
    with (
        listen("127.0.0.1", 0, reuse_port=True) as old,
        listen(*old.getsockname(), reuse_port=True),
        ExitStack() as stack,
    ):
        old.listen()
        for _ in range(20):
            stack.enter_context(socket.create_connection(old.getsockname()))
            stack.enter_context(old.accept()[0])


def test_a_port_that_is_not_shared_cannot_be_had():
    with listen("127.0.0.1", 0) as door, pytest.raises(SetupError, match="Address already in use"):
        listen(*door.getsockname(), reuse_port=True)


@pytest.mark.parametrize(
    ("limits", "granted", "is_warned"),
    [
        pytest.param("ulimit -Sn 256; ulimit -Hn 5000", 5000, False, id="as many as there may be"),
        pytest.param("ulimit -n 600", 600, True, id="few"),
    ],
)
def test_a_process_may_have_as_many_files_open_as_the_system_grants(tmp_path, limits, granted, is_warned):
    with a_process(tmp_path, FIVE_LINES, before=["sh", "-c", f'{limits}; exec "$@"', "sh"]) as process:
        soft, _ = resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE)
        assert soft == granted
        assert ("this process may have 600 files open" in process.log) == is_warned
        process.child.terminate()
        assert process.child.wait(20) == 0


async def test_a_receiver_that_cannot_start_ends_the_server(tmp_path):
    server = Server(new_receiver(inbox=f"sqlite:///{tmp_path}/none/inbox.db"))
    with pytest.raises(SetupError, match="the folder of the inbox does not exist"):
        await server.serve([])


# --- processes


def test_five_lines_in_an_empty_folder_are_served_until_sigterm(tmp_path):
    with a_process(tmp_path, FIVE_LINES) as process:
        assert process.post().json()["status"] == "stored"
        process.wait_for("hello world")
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(15) == 0
        assert (tmp_path / "dgreceiver.db").exists()
        assert " INFO    POST / 200 " in process.log
        assert not [secret for secret in ("hush", PASSWORD, BASIC) if secret in process.log]


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    with a_process(tmp_path, HANGING) as process:
        process.post()
        process.wait_for("hanging")
        process.child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 15
        while process.child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            process.child.send_signal(signal.SIGTERM)
        assert process.child.wait() == -signal.SIGTERM
        assert time.monotonic() < deadline - 10


# --- live streams at the end


async def say(sockets: list[ClientConnection], n: int) -> None:
    await asyncio.gather(*(socket.send(str(n)) for socket in sockets))


async def is_denied(process: Process) -> bool:
    try:
        async with process.socket():
            return False
    except InvalidStatus as denied:
        return denied.response.status_code == 503


async def test_a_process_that_is_to_end_keeps_its_live_streams_until_they_end(tmp_path, pythonpath):
    with a_process(tmp_path, STREAMS) as process:
        sockets = [await process.socket() for _ in range(50)]
        await say(sockets, 1)
        process.child.send_signal(signal.SIGTERM)
        await until_async(lambda: is_denied(process))
        assert (process.probe("/readyz"), process.probe("/livez")) == (503, 200)
        await say(sockets, 2)
        assert process.post().status_code == 200
        await say(sockets, 3)
        await asyncio.gather(*(socket.close() for socket in sockets))
        assert await process.ended() == 0
        said = r"ending when 5\d live streams have, or in 120 s; a second signal ends it now"  # one may be a probe's
        assert re.search(said, process.log)
    async with new_receiver(inbox=in_file(tmp_path)).opened() as inbox:
        assert sum((await inbox.counts()).values()) == 151
    heard: dict[str, list[str]] = {}
    for line in Ledger(tmp_path).read():
        heard.setdefault(line["what"], []).append(line["about"])
    assert all(frames == ["1", "2", "3"][: len(frames)] for stream, frames in heard.items() if stream != "None")


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0.02)


async def test_streams_that_outlast_the_drain_are_closed_with_1012_and_what_came_is_stored(tmp_path, pythonpath):
    with a_process(tmp_path, STREAMS, "--drain", "0.3") as process:
        async with process.socket() as socket:
            process.child.send_signal(signal.SIGTERM)
            n = 0
            with suppress(ConnectionClosed):
                while True:
                    await socket.send(str(n))
                    n += 1
                    await asyncio.sleep(0.01)
        assert await process.ended() == 0
        assert socket.close_code == 1012
        assert "cut 1 live streams: the 0.3 s of --drain are over" in process.log
    stored = [body.decode() for body in await bodies_of(new_receiver(inbox=in_file(tmp_path)))]
    assert stored == [str(number) for number in range(len(stored))]
    assert len(stored) >= 10


async def test_a_second_signal_does_not_wait_for_live_streams(tmp_path, pythonpath):
    with a_process(tmp_path, STREAMS) as process:
        async with process.socket():
            process.child.send_signal(signal.SIGTERM)
            await until(lambda: "ending when 1 live streams have" in process.log)
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == -signal.SIGTERM


async def test_a_successor_on_the_same_port_takes_over_while_the_streams_go_on(tmp_path, pythonpath):
    ledger = Ledger(tmp_path)
    with a_process(tmp_path, STREAMS, "--reuse-port") as old:
        async with old.socket() as stream:
            await stream.send("1")
            await until(lambda: len(ledger.read()) == 1)
            with a_process(tmp_path, STREAMS, "--reuse-port", port=old.port) as new:
                old.child.send_signal(signal.SIGTERM)
                await until(lambda: "this process runs the handlers" in new.log)
                await stream.send("2")
                await until(lambda: len(ledger.read()) == 2)
                async with new.socket() as another:
                    await another.send("3")
                    assert new.probe("/readyz") == 200
                    await stream.send("4")
                    await until(lambda: len(ledger.read()) == 4)
                    await stream.close()
                    assert await old.ended() == 0
                    await another.send("5")
                    await until(lambda: len(ledger.read()) == 5)
    by = {line["about"]: line["by"] for line in ledger.read()}
    assert by == {"1": old.child.pid, **dict.fromkeys("2345", new.child.pid)}


async def test_without_a_successor_the_one_who_stepped_aside_goes_on_handling(tmp_path, pythonpath):
    ledger = Ledger(tmp_path)
    with a_process(tmp_path, STREAMS, "--reuse-port") as process:
        async with process.socket() as stream:
            await stream.send("1")
            await until(lambda: len(ledger.read()) == 1)
            process.child.send_signal(signal.SIGTERM)
            await until(lambda: process.log.count("this process runs the handlers") == 2)
            with pytest.raises(httpx.ConnectError):
                process.post()
            await stream.send("2")
            await until(lambda: len(ledger.read()) == 2)
        assert await process.ended() == 0
