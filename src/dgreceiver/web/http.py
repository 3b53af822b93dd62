"""The door for a POST or PUT: one callback a request, answered when it is stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus

import msgspec
from starlette.types import Receive, Scope, Send

from ..errors import DgreceiverError, Disconnected, InboxError, MethodNotAllowed, NoWebSocket, Refused
from ..facts import Hook
from .intake import Intake
from .refusals import Refusals, refuse

# Deepgram comes again 30 s later, whatever is said here; a proxy in between may listen.
EXTRA_HEADERS = {
    401: (b"www-authenticate", b'Basic realm="dgreceiver"'),
    405: (b"allow", b"POST, PUT"),
    503: (b"retry-after", b"30"),
}

HTTP = "http.response"

_encode = msgspec.json.Encoder().encode


class HttpDoor:
    """Answers the requests of one receiver."""

    def __init__(self, intake: Intake, refusals: Refusals, *, emit: Hook, now: Callable[[], datetime]) -> None:
        self._intake = intake
        self._refusals = refusals
        self._emit = emit
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] not in ("POST", "PUT"):
                raise _no_callback(scope)
            query = scope["query_string"].decode("latin-1")
            stored = await self._intake.take(scope["headers"], path_below(scope), query, receive)
        except (Refused, InboxError) as error:
            await self._refuse(scope, send, error)
        else:
            await answer(send, 200, {"status": stored.outcome, "request_id": stored.request_id})

    async def _refuse(self, scope: Scope, send: Send, error: DgreceiverError) -> None:
        refuse(self._refusals, scope, error, emit=self._emit, at=self._now())
        if not isinstance(error, Disconnected):
            await say_no(send, error)


async def answer(send: Send, status: int, content: dict[str, str | None], *, way: str = HTTP) -> None:
    """Answer in JSON; a WebSocket that is not accepted is answered by way of `websocket.http.response`."""
    body = _encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in EXTRA_HEADERS:
        headers.append(EXTRA_HEADERS[status])
    await send({"type": f"{way}.start", "status": status, "headers": headers})
    await send({"type": f"{way}.body", "body": body})


async def say_no(send: Send, error: DgreceiverError, *, way: str = HTTP) -> None:
    """Answer with a status; the reason is for the log."""
    await answer(send, error.status, {"error": HTTPStatus(error.status).phrase.lower()}, way=way)


def _no_callback(scope: Scope) -> Refused:
    if (b"upgrade", b"websocket") in ((name, value.lower()) for name, value in scope["headers"]):
        return NoWebSocket(
            "a WebSocket, which this server cannot take; serve the receiver over ASGI for live streams to a ws or wss "
            "callback URL (dgreceiver serve), or submit an https one: their messages then come by POST"
        )
    return MethodNotAllowed(f"{scope['method']} is no way to call back; Deepgram sends POST or PUT")


def path_below(scope: Scope) -> str:
    """The path below where the receiver stands; empty on the spot.

    Source: ASGI, HTTP connection scope: `path` includes `root_path`.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if not root:
        return path
    below = path.removeprefix(root)
    return below if below.startswith("/") or not below else path
