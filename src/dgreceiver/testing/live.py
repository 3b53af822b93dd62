"""Live streams: audio comes in over a WebSocket, messages go out over a WebSocket, by POST, or the way that it came.

Source: https://developers.deepgram.com/docs/callback
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from . import wire
from .clock import Clock
from .delivery import Deliveries
from .faults import Fault
from .payloads import Payload, live_error
from .record import Submission
from .talk import Talk
from .target import Target
from .wire import Request, Way

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


LEFT = (WebSocketDisconnect, RuntimeError)  # what Starlette raises where a submitter has left: now one, now the other


class Gone(Exception):
    """Nobody takes messages any more; says why."""


class Outlet(Protocol):
    """Where the messages of a stream go to."""

    async def send(self, payload: Payload, way: Way) -> None:
        """Raises: Gone"""

    async def broken(self) -> None:
        """Wait until the stream is to be killed; for ever if nothing can break."""

    async def close(self) -> None:
        """There is no more."""


@dataclass(frozen=True, slots=True)
class Back:
    """To the submitter, who named no callback."""

    socket: WebSocket

    async def send(self, payload: Payload, way: Way) -> None:
        with suppress(*LEFT):  # who does not wait for the rest has no use for it
            await self.socket.send_text(payload.body.decode())

    async def broken(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """The socket is closed by who reads from it."""


@dataclass(frozen=True, slots=True)
class Posts:
    """One request for each message. Whether Deepgram repeats one that fails is not known."""

    deliveries: Deliveries
    submission: Submission
    target: Target
    headers: Mapping[str, str]
    retries: int

    async def send(self, payload: Payload, way: Way) -> None:
        request = Request(self.submission.method, self.target, {**payload.headers, **self.headers}, payload.body)
        await self.deliveries.deliver(self.submission.send(payload), request, way, retries=self.retries)

    async def broken(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Each request has a connection of its own."""


@dataclass(frozen=True, slots=True)
class Frames:
    """One frame for each message, over one connection that must last."""

    connection: ClientConnection
    submission: Submission
    clock: Clock

    async def send(self, payload: Payload, way: Way) -> None:
        from websockets.exceptions import ConnectionClosed

        if way is wire.reset:
            self.connection.transport.abort()
            raise Gone("reset (fault)")
        try:
            await self.connection.send(_frame(b"" if way is wire.empty else payload.body))
        except ConnectionClosed as error:
            raise Gone(str(error)) from None
        self.submission.send(payload).note(self.clock.now(), None, "sent")

    async def broken(self) -> None:
        await self.connection.wait_closed()

    async def close(self) -> None:
        await self.connection.close()


async def connect(target: Target, headers: Mapping[str, str], *, within: float) -> ClientConnection:
    """Open the WebSocket of a callback. Units: real seconds.

    Raises: Gone if it cannot be opened.
    """
    from websockets.asyncio.client import connect as open_socket
    from websockets.exceptions import WebSocketException

    own = {**headers, **target.headers}
    try:
        return await open_socket(
            target.url,
            additional_headers=own,
            open_timeout=within,
            user_agent_header=None,
            compression=None,
            proxy=None,
        )
    except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
        raise Gone(f"no WebSocket: {error}") from None


def _frame(body: bytes) -> str | bytes:
    """Text, or what is none."""
    try:
        return body.decode()
    except ValueError:
        return body


class Stream:
    """A live stream that was accepted.

    "If a WebSocket callback connection is disconnected at any point, the entire real-time transcription stream is
    killed": then `run` ends, whatever else there is to say.
    """

    def __init__(self, socket: WebSocket, talk: Talk, outlet: Outlet, clock: Clock, *, request_id: str, fault: Fault):
        self._socket, self._talk, self._outlet, self._clock = socket, talk, outlet, clock
        self._request_id, self._fault = request_id, fault
        self._waiting = deque[Payload]()
        self._behind: Payload | None = None  # what the next message is to overtake
        self._struck = False
        self._gone = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()

    async def run(self) -> None:
        """Take audio until it ends.

        Raises: Gone if the callback's connection broke before.
        """
        reading = asyncio.ensure_future(self._read())
        breaking = [asyncio.ensure_future(each) for each in (self._outlet.broken(), self._gone.wait())]
        await asyncio.wait((reading, *breaking), return_when=asyncio.FIRST_COMPLETED)
        for each in (reading, *breaking):
            each.cancel()
        self._waiting.clear()
        await self._outlet.close()
        if self._gone.is_set() or reading.cancelling():
            raise Gone("the callback's connection broke")

    async def _read(self) -> None:
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            said = message.get("bytes")
            control = None if said is not None else _control(message["text"])
            if control == "CloseStream" or said == b"":  # what came before there was a CloseStream
                break
            self._put(self._talk.hear(said) if said else self._answer(control))
        self._put(self._talk.end())
        await self._rest.wait()

    def _answer(self, control: str | None) -> Iterable[Payload]:
        if control == "Finalize":
            return self._talk.finalize()
        return (
            []
            if control == "KeepAlive"
            else [live_error("The message is not known.", variant="UnparsableClientMessage")]
        )

    # --- on their way out

    def _put(self, payloads: Iterable[Payload]) -> None:
        """Send in order, while the audio goes on."""
        self._waiting.extend(payloads)
        if self._waiting and self._rest.is_set():
            self._rest.clear()
            self._clock.spawn(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting and not self._gone.is_set():
                await self._send(self._waiting.popleft())
        except Gone:
            self._gone.set()
        finally:
            self._rest.set()

    async def _send(self, payload: Payload) -> None:
        if not self._struck and self._fault.hits(payload):
            self._struck = True
            await self._strike(payload)
            return
        await self._outlet.send(payload, wire.whole)
        if self._behind:
            behind, self._behind = self._behind, None
            await self._outlet.send(behind, wire.whole)

    async def _strike(self, payload: Payload) -> None:
        if self._fault.overtaken:
            self._behind = payload
        elif self._fault.delay and not self._fault.blocks:
            self._clock.spawn(self._straggle(payload))
        else:
            await self._go_wrong(payload)

    async def _straggle(self, payload: Payload) -> None:
        with suppress(Gone):  # over a WebSocket nothing comes behind the end
            await self._go_wrong(payload)

    async def _go_wrong(self, payload: Payload) -> None:
        await self._clock.sleep(self._fault.delay)
        await asyncio.gather(*(self._follow(chain) for chain in self._fault.chains(payload, self._request_id)))

    async def _follow(self, chain: Iterable[Payload]) -> None:
        for payload in chain:
            await self._outlet.send(payload, self._fault.way)


def _control(text: str) -> str | None:
    """The type of a control message; None if it is none."""
    try:
        message: Any = json.loads(text)
    except ValueError:
        return None
    named = message.get("type") if isinstance(message, dict) else None
    return named if isinstance(named, str) else None
