"""Hostile peers of a WebSocket: what came whole before is kept, nothing else is, and no other stream hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from dgreceiver import Limits
from dgreceiver.facts import CallbackStored

from ..serving import running
from ..support import BASIC, Facts, bodies_of, new_receiver, until
from .frames import FRAMES, LIMIT, PING, TEXT, frame
from .servers import listening

HANDSHAKE = (
    f"GET / HTTP/1.1\r\nhost: localhost\r\nauthorization: {BASIC}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "sec-websocket-extensions: permessage-deflate\r\n\r\n"
).encode()
WAIT = 2.0  # seconds for what may follow


async def stream(port: int, frames: bytes) -> bytes:
    """Shake hands, send, and hear until the other side has had enough; the head of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HANDSHAKE)
    answer = await reader.readuntil(b"\r\n\r\n")
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(WAIT):
            writer.write(frames)
            while await reader.read(65_536):
                pass
    writer.transport.abort()
    return answer


def mark(number: int) -> bytes:
    return b"%02d:" % number


EXPECTED = {name: [mark(at) + body for body in (b"1", *also)] for at, (name, (_, also)) in enumerate(FRAMES.items())}


async def test_of_a_hostile_stream_what_came_whole_is_kept_and_no_other_stream_hears_of_it():
    stored, answers = await streamed("dgreceiver serve")
    assert stored == EXPECTED
    assert not [answer for answer in answers if not answer.startswith(b"HTTP/1.1 101 ") or b"deflate" in answer]


@pytest.mark.parametrize("server", ["httptools", "h11"])
async def test_under_plain_uvicorn_nothing_else_is_kept_either(server):
    """What came in one piece with a broken frame is lost there; dgreceiver serve keeps it."""
    stored, _ = await streamed(server, ws_max_size=LIMIT, ws_per_message_deflate=False)
    assert {name: bodies for name, bodies in stored.items() if bodies not in (EXPECTED[name], [])} == {}
    assert stored["another good one"] == EXPECTED["another good one"]


async def streamed(server: str, **bounds: Any) -> tuple[dict[str, list[bytes]], list[bytes]]:
    """What is stored of each stream, and how each handshake was answered, if all come at once."""
    receiver = new_receiver(limits=Limits(message=LIMIT))
    hostile = [frame(TEXT, mark(at) + b"1") + made(mark(at)) for at, (made, _) in enumerate(FRAMES.values())]
    async with listening(receiver, server, **bounds) as port:
        answers = await asyncio.gather(*(stream(port, frames) for frames in hostile))
        await until(lambda: receiver.live_streams == 0)
        kept = await bodies_of(receiver)
    stored = {name: [body for body in kept if body.startswith(mark(at))] for at, name in enumerate(FRAMES)}
    assert len(kept) == sum(map(len, stored.values()))
    return stored, answers


@pytest.mark.parametrize("also", [b"", frame(TEXT, b"still here")], ids=["nothing else", "and speaks"])
async def test_a_peer_that_pings_and_reads_no_pong_is_not_read_either_until_it_does(also):
    facts, pings = Facts(), 1000 * frame(PING, b"x" * 125) + also
    async with running(new_receiver(hooks=[facts])) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        [peer] = served.server.server_state.connections
        times = await send(writer, pings, while_=peer.transport.is_reading)
        assert times * len(pings) < 50_000_000  # no more than systems hold between the two
        writer.write(frame(TEXT, b"heard"))
        hearing = asyncio.create_task(reader.read(-1))
        await until(lambda: len(facts.of(CallbackStored)) == 1 + times * bool(also))
        hearing.cancel()
        writer.transport.abort()


async def send(writer: asyncio.StreamWriter, frames: bytes, *, while_: Callable[[], bool]) -> int:
    """Send frames again and again, up to a limit; how many times. What comes back is left where it is."""
    times = 0
    while while_() and times * len(frames) < 100_000_000:
        writer.write(frames)
        times += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await writer.drain()
    return times
