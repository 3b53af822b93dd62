"""The door for a WebSocket: it reads and stores, says nothing, and never hangs up first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import datetime
from functools import partial

from starlette.types import Message, Receive, Scope, Send

from ..core.callbacks import lane_of
from ..errors import Busy, DgreceiverError, InboxError, Refused, SpoolFull
from ..facts import Hook, LiveStreamBegun, LiveStreamCut, LiveStreamEnded, LiveStreamSpooling
from .http import path_below, say_no
from .intake import Connection, Intake
from .refusals import Refusals, peer_of, refuse
from .spool import SPOOL, Backlog, Frame

DENIAL = "websocket.http.response"
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between tries to store, while the inbox fails
LEAVING = 5.0  # seconds that what came has to be stored when the receiver stops


class WebSocketDoor:
    """Takes the live streams of one receiver. `spool`: bytes that one of them may leave on disk."""

    def __init__(
        self,
        intake: Intake,
        refusals: Refusals,
        *,
        receiver: str,
        emit: Hook,
        now: Callable[[], datetime],
        spool: int = SPOOL,
    ) -> None:
        self._intake = intake
        self._refusals = refusals
        self._lane_of = partial(lane_of, receiver=receiver)
        self._emit = emit
        self._now = now
        self._spool = spool
        self._streams: set[_Stream] = set()
        self.draining = False  # no new stream is taken

    @property
    def live(self) -> int:
        """Streams that have not ended, or of which not all is stored."""
        return len(self._streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        try:
            connection = self._admit(scope)
        except Refused as error:
            refuse(self._refusals, scope, error, emit=self._emit, at=self._now())
            await deny(scope, send, error)
            return
        await send({"type": "websocket.accept"})  # raises if the peer has left
        stream = _Stream(connection, self._lane_of(connection.id), self._intake, emit=self._emit, spool=self._spool)
        self._streams.add(stream)
        self._emit(LiveStreamBegun(stream.lane, peer_of(scope), connection.admission.by))
        try:
            await stream.run(receive, send)
        finally:
            self._streams.discard(stream)

    async def stop(self, *, leaving: float = LEAVING) -> None:
        """Take nothing more, and store what has come; what is not stored after `leaving` seconds is lost, and told."""
        storing = [stream.stop() for stream in self._streams]
        if storing:
            _, late = await asyncio.wait(storing, timeout=leaving)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _admit(self, scope: Scope) -> Connection:
        if self.draining:
            raise Busy("this process is about to end, and takes no new live stream; send new ones to another")
        query = scope["query_string"].decode("latin-1")
        return self._intake.connect(scope["headers"], path_below(scope), query)


class _Stream:
    """One socket, from its first frame until the last is stored."""

    def __init__(self, connection: Connection, lane: str, intake: Intake, *, emit: Hook, spool: int) -> None:
        self.lane = lane
        self._connection = connection
        self._intake = intake
        self._emit = emit
        self._backlog = Backlog(spilled=lambda: emit(LiveStreamSpooling(lane)), spool=spool)
        self._loop = asyncio.get_running_loop()
        self._storing = self._loop.create_task(self._store(), context=Context())
        self._storing.add_done_callback(lambda _: self._backlog.end())  # whatever it was, nothing is stored any more
        self._frames = self._stored = 0

    async def run(self, receive: Receive, send: Send) -> None:
        begun, code = self._loop.time(), 1006
        try:
            code = await self._read(receive)
        except SpoolFull as error:
            code = error.close_code
            self._emit(LiveStreamCut(self.lane, str(error)))
            await send({"type": "websocket.close", "code": code})
        finally:
            await asyncio.wait([self.stop()])
            self._backlog.close()
            lasted = self._loop.time() - begun
            self._emit(LiveStreamEnded(self.lane, self._frames, self._stored, lasted, code))

    def stop(self) -> asyncio.Task[None]:
        """Take nothing more; what is to be waited for until all is stored."""
        self._backlog.end()
        return self._storing

    async def _read(self, receive: Receive) -> int:
        """Read until the socket closes; the code with which it was closed."""
        while (message := await receive())["type"] != "websocket.disconnect":
            self._frames += 1
            await self._backlog.add(self._intake.frame(self._frames, _data(message)))
        return int(message.get("code") or 1005)

    async def _store(self) -> None:
        while frames := await self._backlog.take():
            await self._insist(frames)
            self._stored += len(frames)
        if self._stored:
            with suppress(InboxError):  # its end is then told by its silence
                await self._intake.hang_up(self.lane)

    async def _insist(self, frames: Sequence[Frame]) -> None:
        """Store frames, however often it takes: nobody sends them again. The inbox says why it fails."""
        pause = SHORTEST_PAUSE
        while True:
            with suppress(InboxError):
                return await self._intake.keep(self._connection, frames)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _data(message: Message) -> bytes:
    """What a frame carries, whether it came as text or as binary.

    Source: ASGI, WebSocket receive event: one of `bytes` and `text` may be missing or None.
    """
    data: bytes | None = message.get("bytes")
    return (message.get("text") or "").encode("utf-8", "surrogatepass") if data is None else data


async def deny(scope: Scope, send: Send, error: DgreceiverError) -> None:
    """Refuse a WebSocket before it is accepted, with a status where the server can send one.

    Source: ASGI, WebSocket denial response.
    """
    if DENIAL in scope.get("extensions", {}):
        await say_no(send, error, way=DENIAL)
    else:
        await send({"type": "websocket.close", "code": error.close_code})
