"""`dgreceiver send`: Deepgram's side of the wire, its retries, and what it keeps to itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner, Result

from dgreceiver import Event
from dgreceiver.cli.main import app
from dgreceiver.server import Server, listen
from dgreceiver.testing.payloads import BUILDERS, transcript

from ..support import BASIC, PASSWORD, USER, new_receiver

QUICK = ("--retry-wait", "0")


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Door:
    """A server that answers with one status after the other, and then with 200."""

    port: int
    statuses: list[int]
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}/calls?token=hush"


@contextmanager
def a_door(*statuses: int) -> Iterator[Door]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            door.requests.append(Request(self.command, self.path, headers, body))
            self.send_response(door.statuses.pop(0) if door.statuses else 200)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        door = Door(server.server_port, list(statuses))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield door
        finally:
            server.shutdown()
            thread.join()


def send(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["send", *arguments])


# --- what is sent


def test_every_kind_is_taken_by_a_receiver_and_becomes_its_event():
    receiver, became = new_receiver(), list[str]()
    receiver.on(Event)(lambda event: became.append(type(event).__name__))
    with listen("127.0.0.1", 0) as door:
        server = Server(receiver)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            url = f"http://{USER}:{PASSWORD}@127.0.0.1:{door.getsockname()[1]}/"
            assert [send(kind, "--to", url, "--retries", "1", *QUICK).exit_code for kind in BUILDERS] == [0] * 10
        finally:
            server.should_exit = True
            thread.join()
    assert sorted(became) == sorted(BUILDERS)


@pytest.mark.parametrize("kind", ["LiveResult", "liveresult", "live-result", "LIVE_RESULT"])
def test_a_kind_may_be_written_as_one_likes(kind):
    with a_door() as door:
        assert send(kind, "--to", door.url).exit_code == 0
        assert b'"type":"Results"' in door.requests[0].body


def test_a_callback_is_sent_as_it_is_asked_for():
    with a_door() as door:
        send("transcript", "--to", door.url, "--request-id", "an-id", "--put", "--dg-token", "fake-key-id")
        [request] = door.requests
        assert (request.method, request.path) == ("PUT", "/calls?token=hush")
        assert request.body == transcript(request_id="an-id").body
        assert request.headers["authorization"] == BASIC
        assert request.headers["dg-token"] == "fake-key-id"
        assert request.headers["content-type"] == "application/json"


def test_without_credentials_in_the_url_none_are_sent():
    with a_door() as door:
        send("transcript", "--to", f"http://127.0.0.1:{door.port}/")
        assert "authorization" not in door.requests[0].headers


def test_a_file_is_sent_byte_for_byte(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF\x00\xff")
    with a_door() as door:
        send("--to", door.url, "--file", str(tmp_path / "a.wav"), "--content-type", "audio/wav")
        assert (door.requests[0].body, door.requests[0].headers["content-type"]) == (b"RIFF\x00\xff", "audio/wav")


def test_the_same_is_sent_as_often_as_is_asked_for():
    with a_door() as door:
        send("transcript", "--to", door.url, "--times", "3")
        assert [request.body for request in door.requests] == [door.requests[0].body] * 3


# --- until it is acknowledged


@pytest.mark.parametrize(
    ("statuses", "options", "attempts", "code"),
    [
        pytest.param([], (), 1, 0, id="acknowledged at once"),
        pytest.param([204], (), 1, 0, id="any 2xx will do"),
        pytest.param([503, 401, 404, 302], (), 5, 0, id="in the end"),
        pytest.param([503] * 99, (), 11, 1, id="never"),
        pytest.param([503] * 99, ("--retries", "2"), 3, 1, id="as often as is said"),
        pytest.param([503] * 99, ("--retries", "0", "--times", "2"), 2, 1, id="each for itself"),
    ],
)
def test_it_is_tried_again_on_anything_but_2xx(statuses, options, attempts, code):
    with a_door(*statuses) as door:
        assert send("transcript", "--to", door.url, *QUICK, *options).exit_code == code
        assert len(door.requests) == attempts


def test_a_redirect_is_not_followed_but_explained():
    with a_door(307) as door:
        ended = send("transcript", "--to", door.url, "--retries", "0")
        assert "attempt 1: 307 (a redirect, which is not followed: add a slash to the path" in ended.stdout
        assert [request.path for request in door.requests] == ["/calls?token=hush"]


def test_it_waits_between_tries():
    with a_door(503) as door:
        begun = time.monotonic()
        send("transcript", "--to", door.url, "--retry-wait", "0.2")
        assert time.monotonic() - begun >= 0.2


def test_nobody_there_is_a_try_like_any_other():
    with listen("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
    ended = send("transcript", "--to", f"http://127.0.0.1:{port}/", "--retries", "1", *QUICK)
    assert ended.exit_code == 1
    assert [line.split(":")[:2] for line in ended.stdout.splitlines()[1:]] == [
        ["  attempt 1", " ConnectError"],
        ["  attempt 2", " ConnectError"],
    ]


# --- what it keeps to itself


def test_no_credential_is_in_any_output(caplog):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpx")
    caplog.set_level(logging.DEBUG, "httpcore")
    with a_door(503) as door:
        ended = send("transcript", "--to", door.url, "--dg-token", "fake-key-id", *QUICK)
        assert f"POST http://127.0.0.1:{door.port}/calls: Transcript, " in ended.output
        written = ended.output + caplog.text
        assert not [secret for secret in (PASSWORD, BASIC, "hush", "fake-key-id") if secret in written]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--to", "http://localhost/"), "say what to send", id="nothing"),
        pytest.param(("audio", "--to", "http://localhost/", "--file", "x"), "say what to send", id="two things"),
        pytest.param(
            ("video", "--to", "http://localhost/"), "'video' is no kind of callback; write one of", id="no kind"
        ),
        pytest.param(("--file", "/none", "--to", "http://localhost/"), "cannot read /none: No such file", id="no file"),
        pytest.param(
            ("live-error", "--request-id", "x", "--to", "http://localhost/"), "names no request", id="no request_id"
        ),
        pytest.param(("audio", "--to", "ws://u:hush@localhost/"), "--to is no http or https URL", id="a socket"),
        pytest.param(("audio", "--to", "http://u:hush@[::1/"), "--to is no http or https URL", id="broken"),
        pytest.param(("audio", "--to", "http://u:hush@localhost:x/"), "--to is no http or https URL", id="no port"),
        pytest.param(("audio", "--to", "localhost"), "--to is no http or https URL", id="no scheme"),
    ],
)
def test_what_cannot_be_sent_is_told(arguments, said):
    ended = send(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "hush" not in ended.stderr
