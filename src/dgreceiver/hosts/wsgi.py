"""A receiver inside a WSGI app: Flask, Django, or any other.

Source: https://peps.python.org/pep-3333/
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from http import HTTPStatus
from queue import SimpleQueue
from threading import main_thread
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from starlette.types import Message, Scope

from ..errors import DgreceiverError, Disconnected, Empty
from ..receiver import Receiver
from ..telemetry import logger
from ..web.http import answer
from ..web.intake import declared_length
from .loop import loop_of_this_process
from .place import Place

PIECE = 64 * 1024  # bytes that are read at a time


class WSGICallbackMiddleware:
    """Gives one path, and all below it, to a receiver; everything else goes to the app as it came.

    The receiver runs on an event loop in a thread. Both start on the first request of each process, whatever that
    asks for: before, a server may fork. The receiver is stopped when the process ends.

    Raises: SetupError unless `path` begins with a slash and is more than that.
    """

    def __init__(self, app: WSGIApplication, *, receiver: Receiver, path: str) -> None:
        self._app = app
        self._receiver = receiver
        self._place = Place(path)
        self._started_in: int | None = None  # the process, by its id

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _decoded(environ.get("PATH_INFO", "")) in self._place:
            return self._receive(environ, start_response)
        if self._started_in != os.getpid():
            self.start()
        return self._app(environ, start_response)

    def start(self) -> None:
        """Have the receiver started in this process, without waiting for it: for a server's hook after the fork."""
        self._started_in = os.getpid()
        loop = loop_of_this_process()
        loop.run(loop.begin(self._receiver)).add_done_callback(_tell_of_failure)

    def stop(self) -> None:
        """Stop the receiver in this process, and wait until it has: for a server's hook at the end of a worker."""
        loop_of_this_process().stop(self._receiver)

    def _receive(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        exchange = _Exchange(_Body(environ))
        exchange.run(self._serve(self._place.below(_scope(environ)), exchange))
        start_response(exchange.status, exchange.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [exchange.body]

    async def _serve(self, scope: Scope, exchange: _Exchange) -> None:
        await loop_of_this_process().begin(self._receiver)
        await self._receiver(scope, exchange.receive, exchange.send)
        if not exchange.status:  # the sender has left, but a WSGI server wants to hear something
            await answer(exchange.send, Disconnected.status, {"error": "disconnected"})


class _Body:
    """The body of a request, read in pieces by the thread that serves it."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._stream = environ["wsgi.input"]
        self._length = declared_length(_raw(environ, "CONTENT_LENGTH"))
        self._has_end = environ.get("wsgi.input_terminated", False)  # else a read beyond the length may never return
        self._is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._size = 0  # bytes that have come

    def read(self) -> Message:
        """The next piece, as a message of ASGI.

        Raises: Empty if there is nothing of what was declared.
        """
        wanted = self._wanted()
        try:
            piece = self._stream.read(wanted) if wanted else b""
        except Exception:  # each server has an error of its own for a sender that left
            return {"type": "http.disconnect"}
        self._size += len(piece)
        if wanted and not piece and self._length is not None:
            return self._cut_short()
        return {"type": "http.request", "body": piece, "more_body": bool(piece) and self._size != self._length}

    def _wanted(self) -> int:
        if self._length is not None:
            return min(PIECE, self._length - self._size)
        if self._is_chunked and not self._has_end:
            raise Empty(
                "the body is chunked and this server does not say where it ends (wsgi.input_terminated); "
                "have the proxy in front buffer requests, or use a server that does, such as gunicorn"
            )
        return PIECE if self._has_end else 0

    def _cut_short(self) -> Message:
        if self._size == 0:
            raise Empty(
                f"empty body where {self._length} bytes were declared; something before us read it: a middleware "
                "around this one, or a body parser; put WSGICallbackMiddleware outermost"
            )
        return {"type": "http.disconnect"}


class _Exchange:
    """One request between two threads: the loop's asks for the body, the one that serves the request reads it."""

    def __init__(self, body: _Body) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self._request = body
        self._asked: SimpleQueue[Future[Message] | None] = SimpleQueue()  # None: it is answered

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Have the request answered on the loop, and read here what is asked for."""
        answered = loop_of_this_process().run(answering)
        answered.add_done_callback(lambda _: self._asked.put(None))
        try:
            for asked in iter(self._asked.get, None):
                self._hand(asked)
            answered.result()
        finally:
            answered.cancel()  # if the server wants this thread to end

    def _hand(self, asked: Future[Message]) -> None:
        if asked.set_running_or_notify_cancel():  # else it took too long for whoever asked
            try:
                asked.set_result(self._request.read())
            except Empty as error:
                asked.set_exception(error)

    async def receive(self) -> Message:
        asked = Future[Message]()
        self._asked.put(asked)
        return await asyncio.wrap_future(asked)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = f"{message['status']} {HTTPStatus(message['status']).phrase}"
            self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            self.body += message["body"]


def _scope(environ: WSGIEnvironment) -> Scope:
    """The request as ASGI has it.

    Source: https://asgi.readthedocs.io/en/latest/specs/www.html#wsgi-compatibility
    """
    root = _decoded(environ.get("SCRIPT_NAME", "")).rstrip("/")
    peer = environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "root_path": root,
        "path": root + _decoded(environ.get("PATH_INFO", "")),
        "query_string": _raw(environ, "QUERY_STRING"),
        "headers": list(_headers(environ)),
        "client": (peer, 0) if peer else None,
    }


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[bytes, bytes]]:
    for name in environ:
        if name.startswith("HTTP_"):
            yield _header_name(name.removeprefix("HTTP_")), _raw(environ, name)
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):  # some servers have it empty where there was none
            yield _header_name(name), _raw(environ, name)


def _header_name(name: str) -> bytes:
    return name.replace("_", "-").lower().encode("latin-1")


def _raw(environ: WSGIEnvironment, name: str) -> bytes:
    """A text of WSGI as what it stands for: bytes."""
    value: str = environ.get(name, "")
    return value.encode("latin-1")


def _decoded(path: str) -> str:
    return path.encode("latin-1").decode("utf-8", "replace")


def _tell_of_failure(start: Future[None]) -> None:
    if (error := start.exception()) and main_thread().is_alive():  # else the process ends, and needs no receiver
        logger.error("%s", error, exc_info=None if isinstance(error, DgreceiverError) else error)
