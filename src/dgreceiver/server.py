"""uvicorn with settings under which no callback is lost, no secret is logged and no stranger stays for ever."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import HANDLED_SIGNALS, ServerState

from .errors import SetupError
from .receiver import Receiver
from .web.http import answer
from .web.refusals import peer_of

DRAIN = 120.0  # seconds that live streams have to end
HEAD_SECONDS = 10.0  # for the head of a request, and for a body that nobody waits for any more
HEAD_BYTES = 64 * 1024
PATIENCE = 10  # seconds that requests have to end when we stop; who is cut off was not acknowledged
LONGEST_PATH = 200  # characters of a path that are logged
MOST_FILES = 65_536  # that are asked for: each connection is one
FEW_FILES = 4096  # fewer than these are a warning
GARBAGE = 10_000  # objects more than were let go, from which the collector looks for some; Python's own is 700

_STARTS = ("http.response.start", "websocket.http.response.start")
_REFUSALS = {
    408: b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
}

logger = logging.getLogger("dgreceiver")
access = logging.getLogger("dgreceiver.access")


def serve(receiver: Receiver, *, host: str, port: int, drain: float = DRAIN, reuse_port: bool = False) -> None:
    """Serve a receiver until SIGTERM or SIGINT, and then its live streams until they end, or for `drain` seconds.

    With `reuse_port` another process may serve at the same address before this one ends, and takes over from it.

    Raises: SetupError if the address cannot be listened on, or the inbox not be opened.
    """
    allow_many_files()
    spare_garbage_rounds()
    with listen(host, port, reuse_port=reuse_port) as door:
        Server(receiver, drain=drain, reuse_port=reuse_port).run(sockets=[door])


def allow_many_files() -> None:
    """Have as many files open as the system grants: it gives a process 1,024 unless asked, and a crowd takes them all.

    Source: getrlimit(2), RLIMIT_NOFILE: a process may raise its soft limit to the hard one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = max(soft, MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES))
    with suppress(OSError, ValueError):  # macOS has a further limit, of the kernel's
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if (files := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) < FEW_FILES:
        logger.warning(
            "this process may have %d files open, so no more connections than that at once; "
            "raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker)",
            files,
        )


def spare_garbage_rounds() -> None:
    """Let the garbage collector look less often at less: most of what it finds is still in use.

    What was imported lives as long as the process, and a round through it holds up all for some 50 ms.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE)


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Open the door; whoever comes before the receiver has started waits.

    With `reuse_port` it is opened when the receiver has started: until then another process takes who comes.

    Source: socket(7), SO_REUSEPORT: the kernel spreads new connections over all who listen.

    Raises: SetupError if the address is taken, not ours, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if reuse_port:
            door = _bind(host, port, family)
        else:
            door = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SetupError(
            f"cannot listen on {_address(host, port)}: {error.strerror}; "
            "end what listens there, or choose another --host or --port"
        ) from None
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; asyncio's loop sets it on its own alone
    return door


def _bind(host: str, port: int, family: socket.AddressFamily) -> socket.socket:
    """A socket that has its address, and on which uvicorn will listen."""
    door = socket.socket(family)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.bind((host, port))
    except OSError:
        door.close()
        raise
    return door


class Server(uvicorn.Server):
    """Runs a receiver and the door to it.

    The receiver starts before the door is opened and stops after it has closed, so its lifespan is not uvicorn's to
    run: what cannot start raises.

    uvicorn closes every WebSocket as soon as it is to end, so it hears of that only when the live streams are over.

    Units: `head_seconds` and `drain` are seconds.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        head_seconds: float = HEAD_SECONDS,
        drain: float = DRAIN,
        reuse_port: bool = False,
    ) -> None:
        self._receiver = receiver
        self._drain = drain
        self._reuse_port = reuse_port
        self._doors: Sequence[socket.socket] = ()
        self._ends_at: float | None = None  # by the monotonic clock, since we were told to end
        self._is_draining = False
        self._handover: asyncio.Task[None] | None = None
        super().__init__(
            _Config(
                _with_access_log(_with_probes(receiver, self._is_ready)),
                interface="asgi3",  # said, since uvicorn takes what is no coroutine function for an older one
                http=partial(_Protocol, head_seconds=head_seconds),  # type: ignore[arg-type]  # it is only called
                ws=_SocketProtocol,
                ws_max_size=receiver.limits.message,
                ws_ping_interval=20.0,
                ws_ping_timeout=None,  # a peer whose pong is late is alive, and the connection is its whole stream
                ws_per_message_deflate=False,  # it costs more memory than all else of a socket
                timeout_keep_alive=75,  # over the minute after which most proxies let go
                timeout_graceful_shutdown=PATIENCE,
                lifespan="off",
                log_config=None,
                log_level="warning",  # at INFO it writes the query of a WebSocket
                access_log=False,
                server_header=False,
            )
        )

    def _is_ready(self) -> bool:
        return self.started and not self._is_ending and not self._receiver.is_over

    @property
    def _is_ending(self) -> bool:
        return self.should_exit or self._ends_at is not None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        with self.capture_signals():
            async with self._receiver.running():
                await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._doors = sockets or ()
        for door in self._doors:
            logger.info("receiving on http://%s", _address(*door.getsockname()[:2]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, then end in order; a second signal finds the system's own way of ending, which is at once."""
        self._ends_at = time.monotonic() + self._drain
        for each in HANDLED_SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    async def main_loop(self) -> None:
        await super().main_loop()
        if self._handover is not None:
            self._handover.cancel()
            await asyncio.wait([self._handover])

    async def on_tick(self, counter: int) -> bool:
        if self._ends_at is not None and not self._is_draining:
            await self._begin_to_drain()
        elif self._ends_at is not None:
            self._end_if_drained(self._ends_at)
        return await super().on_tick(counter)

    async def _begin_to_drain(self) -> None:
        self._is_draining = True
        self._receiver.drain()
        if live := self._receiver.live_streams:
            logger.info("ending when %d live streams have, or in %g s; a second signal ends it now", live, self._drain)
        if self._reuse_port:
            await self._close_doors()
            self._handover = asyncio.create_task(self._receiver.step_aside())

    def _end_if_drained(self, ends_at: float) -> None:
        live = self._receiver.live_streams
        if live and time.monotonic() < ends_at:
            return
        if live:
            logger.warning("cut %d live streams: the %g s of --drain are over", live, self._drain)
        self.should_exit = True

    async def _close_doors(self) -> None:
        """Leave who comes from now on to another process, but take in all who have come.

        Both loops accept all who wait whenever they look at the door: that is, between two turns.
        """
        for _ in range(2):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for door in self._doors:
            door.close()


class _Config(uvicorn.Config):
    """uvicorn's settings, but that it looks for what a proxy says only where a proxy says something."""

    def load(self) -> None:
        super().load()
        direct, proxied = cast(ASGIApp, self.app), cast(ASGIApp, self.loaded_app)

        def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return (proxied if b"x-forwarded-for" in dict(scope["headers"]) else direct)(scope, receive, send)

        self.loaded_app = app


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on all that is not the body: the receiver bounds that."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_seconds = head_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._since = 0  # bytes since the last head or piece of a body: an unfinished head, or trailers
        self._piece = 0  # bytes that came last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn has it so
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]  # it does as one
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._piece = len(data)
        self._since += self._piece
        super().data_received(data)
        if self._since > HEAD_BYTES:
            self._refuse(431)
        self._watch()

    def on_headers_complete(self) -> None:
        if self._since + self._piece > HEAD_BYTES and self._head_bytes() > HEAD_BYTES:  # else it cannot be so long
            self._refuse(431)
            raise ValueError("the head of the request is too large")  # ends the parser
        self._since = 0
        super().on_headers_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(map(len, chain.from_iterable(self.headers)))

    def on_body(self, body: bytes) -> None:
        self._since = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _watch(self) -> None:
        """Let nobody take their time but for a request that is being answered, or a connection that is no longer ours.

        uvicorn closes only what is silent after an answer; a byte is enough to keep it open.
        """
        is_idle = self.cycle is None or self.cycle.response_complete
        if not is_idle or self.transport.get_protocol() is not self:
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._head_seconds, self._refuse, 408)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int) -> None:
        if not self.transport.is_closing():
            access.info("- - %d %s", status, self.client[0] if self.client else "-")
            self.transport.write(_REFUSALS[status])
            self.transport.close()


class _Gathering:
    """A transport that sends what is written in one turn of the loop as one.

    uvicorn writes the head and the body of an answer by themselves, and the loops send each write at once: that is a
    second call of the system and a second packet, which wakes who called with half an answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []
        self.is_closing = transport.is_closing  # asked for each answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        written, self._written = self._written, []
        if written and not self.is_closing():
            self._transport.write(b"".join(written))


class _SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, less three faults.

    It takes a refusal for a handshake that was left open, and logs an error. Where a frame is too large, it forgets
    those that came in one piece with it. And it answers the pings of a peer that reads no pong, and keeps them all.
    """

    async def send(self, message: Any) -> None:
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    async def receive(self) -> Any:
        message = await super().receive()
        if not self.writable.is_set():
            self.transport.pause_reading()
        return message

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def handle_parser_exception(self) -> None:
        self.handle_events()
        super().handle_parser_exception()


def _with_probes(app: ASGIApp, is_ready: Callable[[], bool]) -> ASGIApp:
    """Answer /livez and /readyz to whoever asks; a POST there is a callback as anywhere."""

    def probed(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope.get("method") not in ("GET", "HEAD") or scope["path"] not in ("/livez", "/readyz"):
            return app(scope, receive, send)
        if scope["path"] == "/livez" or is_ready():
            return answer(send, 200, {"status": "ok"})
        return answer(send, 503, {"status": "stopping"})

    return probed


def _with_access_log(app: ASGIApp) -> ASGIApp:
    """Log a line for each request: no query and no header, where credentials are."""

    def logged(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return log(scope, receive, send) if access.isEnabledFor(logging.INFO) else app(scope, receive, send)

    async def log(scope: Scope, receive: Receive, send: Send) -> None:
        begun, status = time.perf_counter(), 0

        def note(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] in _STARTS:
                status = message["status"]
            return send(message)

        try:
            await app(scope, receive, note)
        finally:
            _log(scope, status, time.perf_counter() - begun)

    return logged


def _log(scope: Scope, status: int, seconds: float) -> None:
    method = scope.get("method", "WEBSOCKET")
    path = scope["raw_path"][:LONGEST_PATH].decode("ascii", "backslashreplace")  # as it was sent, oddities escaped
    access.info("%s %s %s %.1f ms %s", method, path, status or "-", seconds * 1000, peer_of(scope) or "-")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
