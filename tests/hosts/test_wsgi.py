"""A receiver inside a WSGI app: whose path, how a body is read, how it starts and ends, and everything else as it was."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from starlette.types import Message

from dgreceiver import Event, Limits, Receiver, SetupError, WSGICallbackMiddleware
from dgreceiver.facts import CallbackRefused, StartedLate
from dgreceiver.hosts.loop import Loop
from dgreceiver.hosts.wsgi import PIECE, _Body, _Exchange

from ..support import (
    BASIC,
    LOOK,
    PASSWORD,
    USER,
    Call,
    Facts,
    a_scope,
    bodies_of,
    entries_of,
    in_file,
    new_receiver,
    piece,
)

MIB = 1024 * 1024


class Stream:
    """A `wsgi.input` of so many bytes, of which less may come; what was read of it at a time."""

    def __init__(self, body: bytes = b"", *, fails: BaseException | None = None) -> None:
        self._body = io.BytesIO(body)
        self._fails = fails
        self.reads: list[int] = []

    def read(self, size: int) -> bytes:
        self.reads.append(size)
        found = self._body.read(size)
        if not found and self._fails:
            raise self._fails
        return found


class Answer:
    """One call of a WSGI app, to its end."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        parts = app(environ, self._start)
        self.body = b"".join(parts)

    def _start(
        self, status: str, headers: Iterable[tuple[str, str]], error: object = None
    ) -> Callable[[bytes], object]:
        self.status, self.headers = int(status[:3]), dict(headers)
        return lambda _: None


def an_environ(method: str = "POST", path: str = "/deepgram", body: bytes = b"{}", **more: Any) -> dict[str, Any]:
    """What a server gives an app; a None takes away."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": BASIC,
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": Stream(body),
        **more,
    }
    environ = {name: value for name, value in environ.items() if value is not None}
    setup_testing_defaults(environ)
    return environ


def the_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the app"]


def inside(receiver: Receiver, app: Any = the_app) -> WSGICallbackMiddleware:
    return WSGICallbackMiddleware(app, receiver=receiver, path="/deepgram")


def here(work: Any) -> Any:
    """What becomes of something asynchronous, on another loop than the receiver's."""
    return asyncio.run(work)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(LOOK)


@pytest.fixture
def facts():
    return Facts()


@pytest.fixture
def receiver(facts):
    made = new_receiver(hooks=[facts], limits=Limits(body=4 * MIB))
    yield made
    inside(made).stop()


def kept_by(receiver: Receiver) -> list[bytes]:
    return list(asyncio.run_coroutine_threadsafe(bodies_of(receiver), receiver._running.loop).result(10))


# --- the path


@pytest.mark.parametrize("given", ["/deepgram", "/deepgram/"])
@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        pytest.param("", "/deepgram", "", id="the path"),
        pytest.param("", "/deepgram/", "/", id="with a slash"),
        pytest.param("", "/deepgram/calls/7", "/calls/7", id="below it"),
        pytest.param("", "/deepgram/d\xc3\xa9j\xc3\xa0", "/déjà", id="beyond ASCII"),
        pytest.param("", "/deepgram/\xff", "/\N{REPLACEMENT CHARACTER}", id="beyond UTF-8"),
        pytest.param("/api", "/deepgram/x", "/x", id="in an app that is mounted"),
        pytest.param("/deepgram", "/deepgram", "", id="in an app of the same name"),
        pytest.param("", "/deepgram2", None, id="what begins like it"),
        pytest.param("/deepgram", "/", None, id="what is mounted there"),
        pytest.param("", "/api/deepgram", None, id="elsewhere"),
        pytest.param("", "", None, id="nowhere"),
    ],
)
def test_the_receiver_takes_its_path_and_all_below_it(receiver, given, root, path, below):
    heard = list[tuple[str, str]]()
    receiver.on(Event)(lambda event, delivery: heard.append((delivery.path, delivery.query)))
    app = WSGICallbackMiddleware(the_app, receiver=receiver, path=given)
    answer = Answer(app, an_environ(path=path, SCRIPT_NAME=root, QUERY_STRING="a=%20&b"))
    here(receiver.idle())
    assert heard == ([] if below is None else [(below, "a=%20&b")])
    assert (answer.body == b"the app") == (below is None)


@pytest.mark.parametrize("path", ["", "/", "//", "deepgram"])
def test_a_path_that_cannot_be_given_away_is_refused(path):
    with pytest.raises(SetupError, match="is no path to give away; write one such as"):
        WSGICallbackMiddleware(the_app, receiver=new_receiver(), path=path)


# --- what is answered


@pytest.mark.parametrize(
    ("method", "body", "headers"),
    [
        pytest.param("POST", b'{"request_id":"r"}', {}, id="a callback"),
        pytest.param("PUT", b"not JSON", {}, id="one by PUT"),
        pytest.param("POST", b"{}", {"authorization": "Basic eA=="}, id="wrong credentials"),
        pytest.param("POST", b"{}", {"content-encoding": "gzip"}, id="packed"),
        pytest.param("POST", b"x" * (4 * MIB + 1), {}, id="too large"),
        pytest.param("POST", b"", {}, id="empty"),
        pytest.param("POST", b"", {"dg-request-id": "r", "content-type": "audio/wav"}, id="empty, of Deepgram"),
        pytest.param("GET", b"", {}, id="GET"),
        pytest.param("OPTIONS", b"", {}, id="OPTIONS"),
        pytest.param("GET", b"", {"upgrade": "WebSocket", "connection": "Upgrade"}, id="a WebSocket"),
    ],
)
def test_it_is_answered_as_over_asgi(receiver, facts, method, body, headers):
    names = {name: name.upper().replace("-", "_") for name in headers}
    environ = {(name if name == "CONTENT_TYPE" else f"HTTP_{name}"): headers[key] for key, name in names.items()}
    answer = Answer(inside(receiver), an_environ(method, body=body, **environ))
    over_asgi = new_receiver(limits=Limits(body=4 * MIB))
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    scope = a_scope(method, headers={b"content-length": str(len(body)).encode(), **raw})
    call = here(call_asgi(over_asgi, scope, body))
    assert (answer.status, answer.body) == (call.status, call.sent[1]["body"])
    assert {name.encode(): value.encode() for name, value in answer.headers.items()} == call.headers
    assert [fact.peer for fact in facts.of(CallbackRefused)] == ["192.0.2.1"] * (answer.status != 200)


async def call_asgi(receiver: Receiver, scope: Any, body: bytes) -> Call:
    async with receiver.running():
        return await Call(piece(body))(receiver, scope)


def test_head_is_answered_without_a_body(receiver):
    answer = Answer(inside(receiver), an_environ("HEAD", body=b""))
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "POST, PUT", b"")


def test_a_websocket_is_refused_with_the_way(receiver, caplog):
    answer = Answer(inside(receiver), an_environ("GET", body=b"", HTTP_UPGRADE="websocket"))
    assert answer.status == 501
    assert "refused 501: a WebSocket, which this server cannot take; serve the receiver over ASGI" in caplog.text


def test_it_keeps_to_the_specification(receiver):
    app = validator(inside(receiver))
    statuses = list[str]()

    def start_response(status: str, headers: object, error: object = None) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda _: None

    for environ in (an_environ(), an_environ("GET", "/own", b""), an_environ("HEAD", body=b"")):
        environ["wsgi.input"] = io.BytesIO(b"{}")
        parts = app(environ, start_response)
        list(parts)
        parts.close()  # type: ignore[attr-defined]
    assert statuses == ["200 OK", "200 OK", "405 Method Not Allowed"]


# --- the body


@pytest.mark.parametrize("size", [1, PIECE, PIECE + 1, MIB, 3 * MIB + 1])
@pytest.mark.parametrize("by_length", [pytest.param(True, id="by its length"), pytest.param(False, id="to its end")])
def test_a_body_is_read_in_pieces(receiver, size, by_length):
    body = b"x" * size
    environ = an_environ(body=body, CONTENT_LENGTH=str(size) if by_length else None)
    environ["wsgi.input_terminated"] = not by_length
    assert Answer(inside(receiver), environ).status == 200
    assert kept_by(receiver) == [body]
    assert max(environ["wsgi.input"].reads) <= PIECE
    assert not by_length or sum(environ["wsgi.input"].reads) == size


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"HTTP_AUTHORIZATION": None}, 401, id="a stranger's"),
        pytest.param({"CONTENT_LENGTH": str(64 * MIB)}, 413, id="one that is too long"),
        pytest.param({"CONTENT_LENGTH": "9" * 5000}, 413, id="one without end"),
        pytest.param({"REQUEST_METHOD": "GET"}, 405, id="that of a GET"),
        pytest.param({"CONTENT_LENGTH": ""}, 400, id="one of unknown length"),
        pytest.param({"CONTENT_LENGTH": "two"}, 400, id="one of no length"),
    ],
)
def test_a_body_is_left_unread(receiver, headers, status):
    environ = an_environ(**headers)
    assert (Answer(inside(receiver), environ).status, environ["wsgi.input"].reads) == (status, [])


@pytest.mark.parametrize(
    ("stream", "headers", "reason"),
    [
        pytest.param(Stream(b"{}"), {}, "the connection ended before the body was whole", id="it ends early"),
        pytest.param(Stream(b"{}", fails=OSError()), {}, "the connection ", id="the server says so"),
        pytest.param(
            Stream(b"{}", fails=ValueError()), {"CONTENT_LENGTH": None}, "the connection ", id="in words of its own"
        ),
        pytest.param(Stream(), {}, "empty body where 9 bytes were declared; something before us read", id="read"),
        pytest.param(
            Stream(),
            {"HTTP_DG_REQUEST_ID": "r", "CONTENT_TYPE": "audio/wav"},
            "empty body where 9 bytes were declared; something before us read",
            id="audio that was read",
        ),
        pytest.param(
            Stream(b"{}"),
            {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": None},
            "the body is chunked and this server does not say where it ends",
            id="chunked, without an end",
        ),
    ],
)
def test_what_is_not_whole_is_never_stored(receiver, facts, stream, headers, reason):
    told: dict[str, Any] = {"CONTENT_LENGTH": "9", "wsgi.input": stream, "wsgi.input_terminated": True, **headers}
    assert Answer(inside(receiver), an_environ(**told)).status == 400
    assert kept_by(receiver) == []
    [refused] = facts.of(CallbackRefused)
    assert (refused.status, refused.reason[: len(reason)]) == (400, reason)


def test_a_body_that_stalls_is_refused_when_the_server_lets_go_of_it():
    refused = threading.Event()
    receiver = new_receiver(limits=Limits(stall_seconds=0.05), hooks=[lambda _: refused.set()])

    class Stalling(Stream):
        def read(self, size: int) -> bytes:
            assert not self.reads or refused.wait(10)
            return super().read(1)

    answer = Answer(inside(receiver), an_environ(body=b"x" * 9) | {"wsgi.input": Stalling(b"x" * 9)})
    inside(receiver).stop()
    assert answer.status == 408


def test_a_server_may_end_the_thread_that_reads(receiver):
    with pytest.raises(SystemExit):
        Answer(inside(receiver), an_environ() | {"wsgi.input": Stream(fails=SystemExit())})
    until(lambda: not receiver._running.requests)
    assert kept_by(receiver) == []


def test_what_took_too_long_already_is_not_read_for():
    environ, asked = an_environ(), Future[Message]()
    asked.cancel()
    _Exchange(_Body(environ))._hand(asked)
    assert environ["wsgi.input"].reads == []


# --- everything else


def test_what_is_not_the_receivers_passes_untouched(receiver, caplog):
    passed = list[Any]()

    def app(*args: Any) -> object:
        passed.extend(args)
        return iterable

    iterable, environ, start_response = object(), an_environ("GET", "/own"), object()
    assert inside(receiver, app)(environ, start_response) is iterable  # type: ignore[arg-type]
    assert passed[0] is environ
    assert passed[1] is start_response
    assert caplog.records == []


def test_what_the_app_raises_passes_untouched(receiver):
    def app(environ: object, start_response: object) -> list[bytes]:
        raise ZeroDivisionError("the app's own fault")

    with pytest.raises(ZeroDivisionError, match="the app's own fault"):
        inside(receiver, app)(an_environ("GET", "/own"), lambda *_: lambda _: None)


# --- starting and stopping


def test_nothing_starts_before_the_first_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(threading.enumerate())
    inside(new_receiver(inbox="sqlite:///inbox.db")).stop()
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/deepgram", "/own"])
def test_the_first_request_starts_it_whatever_it_asks_for(receiver, facts, path):
    Answer(inside(receiver), an_environ(path=path))
    until(lambda: receiver._running is not None)
    assert facts.of(StartedLate) == []


def test_many_first_requests_start_it_once(receiver):
    app, answers = inside(receiver), list[Answer]()
    threads = [threading.Thread(target=lambda: answers.append(Answer(app, an_environ()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 8
    assert receiver._users == 1


def test_a_receiver_that_is_begun_twice_at_once_is_begun_once(tmp_path):
    receiver, loop = new_receiver(inbox=in_file(tmp_path)), Loop()
    loop.stop(receiver)  # before there is anything to stop
    for begun in [loop.run(loop.begin(receiver)) for _ in range(2)]:
        begun.result(10)
    assert receiver._users == 1
    loop.stop(receiver)
    assert receiver.is_over


def test_two_places_of_one_receiver_are_one(receiver):
    one, two = inside(receiver), WSGICallbackMiddleware(the_app, receiver=receiver, path="/two")
    answers = [Answer(one, an_environ()), Answer(two, an_environ(path="/two"))]
    assert [answer.status for answer in answers] == [200, 200]


def test_after_its_stop_it_tells_the_sender_to_come_again(receiver):
    app = inside(receiver)
    first = Answer(app, an_environ())
    app.stop()
    second = Answer(app, an_environ())
    app.stop()
    assert (first.status, second.status, second.headers["retry-after"]) == (200, 503, "30")
    assert receiver.is_over


def test_a_receiver_that_cannot_start_is_told_of_and_tried_again(tmp_path, caplog):
    app = inside(new_receiver(inbox=in_file(tmp_path / "missing")))
    assert [Answer(app, an_environ("GET", "/own")).body for _ in range(2)] == [b"the app"] * 2
    until(lambda: "the folder of the inbox" in caplog.text)
    with pytest.raises(SetupError, match="the folder of the inbox does not exist: "):
        Answer(app, an_environ())
    (tmp_path / "missing").mkdir()
    assert Answer(app, an_environ()).status == 200
    app.stop()
    errors = [record.message.partition(":")[0] for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["the folder of the inbox does not exist"]


def test_a_stop_reaches_a_receiver_that_is_about_to_start():
    receiver = new_receiver()
    inside(receiver).start()
    inside(receiver).stop()
    assert receiver.is_over


def test_a_stop_that_takes_too_long_is_told_of_and_left(caplog):
    receiver, go = new_receiver(), threading.Event()
    receiver.on(Event)(lambda event: go.wait(10) and None)
    loop = Loop(patience=0.05)
    loop.run(loop.begin(receiver)).result(10)
    asyncio.run_coroutine_threadsafe(Call(piece(b"{}"))(receiver, a_scope()), receiver._running.loop).result(10)
    until(lambda: receiver._running.dispatcher._running)
    loop.stop(receiver)
    go.set()
    assert "did not stop within 0.05 s; what was being handled runs again elsewhere" in caplog.text


def test_what_is_asked_of_it_from_another_loop_is_done_where_it_runs(receiver):
    heard = list[str | None]()
    receiver.on(Event)(lambda event: heard.append(event.request_id))
    Answer(inside(receiver), an_environ(body=b'{"request_id":"r"}'))
    here(receiver.idle())
    [entry] = asyncio.run_coroutine_threadsafe(entries_of(receiver), receiver._running.loop).result(10)
    assert here(receiver.replay(key=entry.key)) == 1
    here(receiver.idle())
    assert here(receiver.erase(request_id="r")).rows == 1
    assert heard == ["r", "r"]


def test_another_loop_is_told_that_it_cannot_serve_it_too(receiver):
    Answer(inside(receiver), an_environ())
    with pytest.raises(SetupError, match="'default' runs in another event loop of this process; serve it from one"):
        here(call_asgi(receiver, a_scope(), b"{}"))


# --- processes

ROOT = Path(__file__).parents[2]
BEGIN = f"""
import asyncio, io, os, threading, time
from wsgiref.util import setup_testing_defaults
from dgreceiver import BasicAuth, Event, Receiver, WSGICallbackMiddleware

receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"), inbox="sqlite:///inbox.db")
app = WSGICallbackMiddleware(lambda environ, start: start("200 OK", []) or [], receiver=receiver, path="/deepgram")
begun = set()

def save(event: Event) -> None:
    begun.add(event.raw)
    time.sleep(0.2)
    os.write(1, event.raw)

def post(body: bytes, path: str = "/deepgram") -> None:
    environ = {{"REQUEST_METHOD": "POST", "PATH_INFO": path, "CONTENT_LENGTH": str(len(body))}}
    environ |= {{"HTTP_AUTHORIZATION": "{BASIC}", "wsgi.input": io.BytesIO(body)}}
    setup_testing_defaults(environ)
    statuses = []
    list(app(environ, lambda status, headers: statuses.append(status)))
    assert statuses == ["200 OK"]
"""


def run(folder: Path, script: str) -> tuple[str, str, int]:
    """What a process writes in that folder, what it complains of, and how it ends."""
    command = [sys.executable, "-W", "default", "-c", BEGIN + textwrap.dedent(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    return ended.stdout, ended.stderr, ended.returncode


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("", id="it was never used"),
        pytest.param("post(b'', '/own')", id="it has just started"),
        pytest.param("post(b'1'); app.stop()", id="it was stopped"),
    ],
)
def test_a_process_ends_without_complaint(tmp_path, script):
    assert run(tmp_path, script) == ("", "", 0)


def test_a_process_that_ends_lets_its_handlers_end(tmp_path):
    script = """
    receiver.on(Event)(save)
    post(b"1")
    while not begun:
        time.sleep(0.01)
    """
    assert run(tmp_path, script) == ("1", "", 0)


def test_a_fork_has_a_loop_of_its_own_and_leaves_its_parents_alone(tmp_path):
    script = """
    import gc, weakref
    post(b"1")
    asyncio.run(receiver.replay(state="dead"))  # its thread has nothing to do now
    inherited = weakref.ref(receiver._running)
    receiver.on(Event)(save)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.write(1, b" then ")
        post(b"2")
        asyncio.run(receiver.idle())
    else:
        post(b"3")
        while begun < {b"1", b"3"}:
            time.sleep(0.01)
        gc.collect()
        assert inherited()
    """
    told, complaints, code = run(tmp_path, script)
    assert (told.replace("31", "13"), complaints, code) == ("13 then 2", "", 0)
