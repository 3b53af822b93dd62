"""A receiver inside another ASGI app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ..errors import DgreceiverError
from ..receiver import Receiver, lifespan
from ..telemetry import logger
from .place import Place

AnyASGIApp = Callable[[Any, Any, Any], Awaitable[None]]  # frameworks have types of their own for the three


class CallbackMiddleware:
    """Gives one path, and all below it, to a receiver; everything else goes to the app as it came.

    The receiver starts when the app has started and stops before the app stops, so that handlers find what the
    app's own lifespan opens; for an app that knows no lifespan, it has its own.

    Raises: SetupError unless `path` begins with a slash and is more than that.
    """

    def __init__(self, app: AnyASGIApp, *, receiver: Receiver, path: str) -> None:
        self._app = app
        self._receiver = receiver
        self._place = Place(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(self._app, self._receiver, receive, send).run(scope)
        elif scope["type"] in ("http", "websocket") and self._place.takes(scope):
            await self._receiver(self._place.below(scope), receive, send)
        else:
            await self._app(scope, receive, send)


class _Lifespan:
    """The app's lifespan with the receiver's inside it.

    Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """

    def __init__(self, app: AnyASGIApp, receiver: Receiver, receive: Receive, send: Send) -> None:
        self._app = app
        self._receiver = receiver
        self._receive = receive
        self._send = send
        self._receiving = AsyncExitStack()
        self._answered = False  # the app has, so it knows the protocol
        self._failure: Message | None = None  # that the receiver did not start

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
            if self._failure:  # only now: the server ends when it hears of it, and with it the app
                await self._send(self._failure)
        if not self._answered:
            messages[:] = [startup]
            await lifespan(self._receiver.running, receive, self._send)

    async def _next(self) -> Message:
        if self._failure:
            return {"type": "lifespan.shutdown"}  # of what the app has opened; the server will not ask for it
        message = await self._receive()
        await self._receiving.aclose()
        return message

    async def _pass(self, message: Message) -> None:
        self._answered = True
        if message["type"] == "lifespan.startup.complete":
            await self._start()
        if not self._failure:
            await self._send(message)

    async def _start(self) -> None:
        try:
            await self._receiving.enter_async_context(self._receiver.running())
        except Exception as error:  # whatever it is, the app is to be shut down before the server hears of it
            logger.error("%s", error, exc_info=not isinstance(error, DgreceiverError))
            self._failure = {"type": "lifespan.startup.failed", "message": str(error)}
