"""A receiver inside another ASGI app."""

from __future__ import annotations

from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import DgreceiverError, SetupError
from ..receiver import Receiver, lifespan


class CallbackMiddleware:
    """Gives one path, and all below it, to a receiver; everything else goes to the app as it came.

    The receiver starts when the app has started and stops before the app stops, so that handlers find what the
    app's own lifespan opens; for an app that knows no lifespan, it has its own.

    Raises: SetupError unless `path` begins with a slash and is more than that.
    """

    def __init__(self, app: ASGIApp, *, receiver: Receiver, path: str) -> None:
        if not path.startswith("/") or not path.strip("/"):
            raise SetupError(f'path={path!r} is no path to give away; write one such as path="/deepgram"')
        self._app = app
        self._receiver = receiver
        self._path = path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(self._app, self._receiver, receive, send).run(scope)
        elif scope["type"] in ("http", "websocket") and self._is_ours(scope):
            ours = {**scope, "root_path": scope.get("root_path", "").rstrip("/") + self._path}
            await self._receiver(ours, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        return path == self._path or path.startswith(self._path + "/")


class _Lifespan:
    """The app's lifespan with the receiver's inside it.

    Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """

    def __init__(self, app: ASGIApp, receiver: Receiver, receive: Receive, send: Send) -> None:
        self._app = app
        self._receiver = receiver
        self._receive = receive
        self._send = send
        self._receiving = AsyncExitStack()
        self._answered = False  # the app has, so it knows the protocol
        self._failed = False  # the receiver did not start

    async def run(self, scope: Scope) -> None:
        startup = await self._receive()
        messages = [startup]

        async def receive() -> Message:
            return messages.pop() if messages else await self._next()

        try:
            await self._app(scope, receive, self._pass)
        except Exception:  # the protocol's way to say that an app knows no lifespan
            if self._answered:
                raise
        finally:
            await self._receiving.aclose()
        if not self._answered:
            messages[:] = [startup]
            await lifespan(self._receiver.running, receive, self._send)

    async def _next(self) -> Message:
        if self._failed:
            return {"type": "lifespan.shutdown"}  # of what the app has opened; the server will send no more
        message = await self._receive()
        await self._receiving.aclose()
        return message

    async def _pass(self, message: Message) -> None:
        self._answered = True
        if message["type"] == "lifespan.startup.complete":
            message = await self._start(message)
        elif self._failed:
            return  # the server has heard the last of it
        await self._send(message)

    async def _start(self, complete: Message) -> Message:
        try:
            await self._receiving.enter_async_context(self._receiver.running())
        except DgreceiverError as error:
            self._failed = True
            return {"type": "lifespan.startup.failed", "message": str(error)}
        return complete
