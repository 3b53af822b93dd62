"""What is killed: a receiver behind a server of its own, and one process for each thing that is done to a file."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import uvicorn
from msgspec.structs import replace
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgreceiver import (
    Analysis,
    Audio,
    Bury,
    Delivery,
    Event,
    LiveResult,
    LiveTranscript,
    Receiver,
    Retry,
    RetryPolicy,
    WSGICallbackMiddleware,
)
from dgreceiver.inbox.contract import Inbox

from ..support import FORKED, Ledger, in_file, new_receiver, until
from .points import Point, Points

BEGIN = "/begin"  # where the sender says that the points count from now on
SOON = 0.01  # seconds


class Life(NamedTuple):
    """Where a process is to kill itself, and from when on the points count: its start, or when it is told so."""

    ends_at: Point | None = None
    counts_at_once: bool = False


class Process:
    """A process that may kill itself."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        self._process = FORKED.Process(target=target, args=args, daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0

    async def ended(self) -> None:
        """Wait until it has."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


# --- a receiver behind a server


def serve(folder: Path, life: Life, listening: socket.socket, options: dict[str, Any]) -> None:
    points = watched(folder, life)
    app = passing(noting(folder, points, **options), points)
    uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on")).run([listening])


def serve_wsgi(folder: Path, life: Life, listening: socket.socket, options: dict[str, Any]) -> None:
    points = watched(folder, life)
    app = WSGICallbackMiddleware(nothing, receiver=noting(folder, points, **options), path="/deepgram")
    server = _ThreadingServer(("127.0.0.1", 0), _Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.server_name, server.server_port = "127.0.0.1", listening.getsockname()[1]
    server.setup_environ()
    server.set_app(passing_wsgi(app, points))
    app.start()
    server.serve_forever()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nobody reads it."""


def watched(folder: Path, life: Life) -> Points:
    logging.basicConfig(filename=folder / "log.txt", level=logging.WARNING)
    ledger = Ledger(folder)
    points = Points(ledger, life.ends_at)
    points.watch(ledger)
    if life.counts_at_once:
        points.begin()
    return points


def noting(folder: Path, points: Points, **options: Any) -> Receiver:
    """A receiver whose handlers note what they came to, which is what may not be lost, doubled or out of order."""
    ledger = Ledger(folder)
    receiver = new_receiver(
        inbox=in_file(folder),
        hooks=[points.hear],
        concurrency=1,  # so that what ended last is what may be handled again
        retry=RetryPolicy(first_wait=SOON),
        **options,
    )
    receiver._endings = replace(receiver._endings, settling=0.1, look=0.1)  # of streams; seconds, not minutes

    def note(handler: str, event: Event, delivery: Delivery) -> None:
        ledger.note("ended", f"{named(event)} {handler} {delivery.attempt}")
        points("handler: ended")

    @receiver.on(Event)
    async def save(event: Event, delivery: Delivery) -> None:
        if isinstance(event, LiveResult):
            await until(lambda: ledger.about("all sent"))  # so that there are some behind the first in the lane
        if not isinstance(event, Audio):
            points("handler: begins")
            note("save", event, delivery)

    @receiver.on(Audio)
    def play(event: Audio, delivery: Delivery) -> None:
        points("handler in a thread: begins")
        note("play", event, delivery)

    @receiver.on(Analysis)
    async def look_twice(event: Analysis, delivery: Delivery) -> None:
        """It fails, asks for another attempt, and gives up."""
        note("look_twice", event, delivery)
        raise {1: ValueError("not yet"), 2: Retry(after=SOON), 3: Bury("never")}[delivery.attempt]

    return receiver


def named(event: Event) -> str:
    if isinstance(event, LiveTranscript):
        return f"{event.request_id} whole {event.text!r}"
    return f"{event.request_id} {event.text!r}" if isinstance(event, LiveResult) else str(event.request_id)


def passing(app: ASGIApp, points: Points) -> ASGIApp:
    """Pass a point with each message between the server and the app."""

    async def passed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        if scope["path"] == BEGIN:
            points.begin()
            return await Response()(scope, receive, send)

        async def reading() -> Message:
            message = await receive()
            points(message["type"] + (" (more to come)" if message.get("more_body") else ""))
            return message

        async def sending(message: Message) -> None:
            points(f"before {message['type']}")
            await send(message)
            points(f"after {message['type']}")

        points(f"{scope['type']}: a head has come")
        return await app(scope, reading, sending)

    return passed


def passing_wsgi(app: WSGIApplication, points: Points) -> WSGIApplication:
    """Pass a point before the app is called, before it begins to answer, and before its answer goes out."""

    def passed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == BEGIN:
            points.begin()
            return nothing(environ, start_response)

        def starting(*args: Any) -> Any:
            points("wsgi: before the answer")
            return start_response(*args)

        points("wsgi: a head has come")
        answer = app(environ, starting)
        points("wsgi: answered, and nothing sent")
        return answer

    return passed


def nothing(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


# --- what is done to a file


def work(folder: Path, life: Life, what: Callable[[Inbox], Awaitable[object]]) -> None:
    """Open the inbox and do something to it."""
    points = watched(folder, life)
    receiver = new_receiver(inbox=in_file(folder))

    async def run() -> None:
        async with receiver.opened() as inbox:
            if not life.counts_at_once:
                points.begin()
            await what(inbox)

    asyncio.run(run())


async def make(inbox: Inbox) -> None:
    """It has been made when it is open."""


async def erase(inbox: Inbox) -> None:
    await inbox.erase(request_id="secret-1")


async def purge(inbox: Inbox) -> None:
    await inbox.purge(keep=timedelta(0), dedupe_for=timedelta(0))


async def replay(inbox: Inbox) -> None:
    await inbox.replay(state="dead")
