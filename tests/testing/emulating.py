"""What the tests of the emulator share: doors that behave in a given way, and the requests that submit something."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

from dgreceiver import Receiver, SignedAuth
from dgreceiver.testing import Emulator, SteppedClock, Submission

from ..support import in_file, new_receiver, served

KEY = "fake-api-key"
SIGNING_KEY = "fake-signing-key-of-thirty-two-characters"
TOKEN = {"authorization": f"Token {KEY}"}
LISTEN, READ, SPEAK, SPEAK_2 = "/v1/listen", "/v1/read", "/v1/speak", "/v2/speak"
RESET = b"no answer but a reset"
BODIES = {LISTEN: {"url": "https://example.com/a.wav"}, READ: {"text": "hello"}, SPEAK: {"text": "hello"}}
BODIES[SPEAK_2] = BODIES[SPEAK]
REQUIRED = {READ: {"language": "en"}, SPEAK_2: {"model": "flux-alexis-en"}}


@dataclass
class Came:
    """A request that came to a door."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Door:
    """A server that answers with one piece after the other, and then with a 200; None is no answer at all."""

    answers: list[bytes | None]
    port: int = 0
    came: list[Came] = field(default_factory=list)
    broke: list[type[Exception]] = field(default_factory=list)  # how connections ended before their request did
    open: int = 0
    most_open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await self._take(reader, writer)
        except (EOFError, OSError) as error:
            self.broke.append(type(error))
        finally:
            self.open -= 1
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(header.split(": ", 1) for header in rest if header)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.came.append(Came(line, headers, body))
        answer = self.answers.pop(0) if self.answers else status(200)
        if answer is None:
            await reader.read()  # until the other side has had enough
        elif answer is RESET:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.write(answer)
            await writer.drain()


def status(code: int, *, headers: str = "") -> bytes:
    return f"HTTP/1.1 {code} Words\r\ncontent-length: 0\r\n{headers}\r\n".encode()


@asynccontextmanager
async def a_door(*answers: bytes | None) -> AsyncIterator[Door]:
    door = Door(list(answers))
    server = await asyncio.start_server(door.take, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    async with server:
        yield door


async def submit(url: str, path: str = LISTEN, *, headers: dict[str, str] = TOKEN, **query: Any) -> httpx.Response:
    """Submit something to an emulator at this address."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return await client.post(path, params=REQUIRED.get(path, {}) | query, headers=headers, json=BODIES[path])


async def submitted(emulator: Emulator, url: str, path: str = LISTEN, **query: Any) -> Submission:
    """Submit something that is taken; what is recorded of it."""
    answer = await submit(url, path, **query)
    assert (answer.status_code, list(answer.json())) == (200, ["request_id"]), answer.text
    return emulator.record.submissions[-1]


def stepped(**options: Any) -> tuple[Emulator, Callable[[float], Awaitable[None]]]:
    """An emulator on a clock that stands still, and what advances it."""
    clock = SteppedClock()
    return Emulator(**{"clock": clock, **options}), clock.advance


@asynccontextmanager
async def a_signed_receiver(folder: Path) -> AsyncIterator[Receiver]:
    """A receiver that runs, is served, and knows its address."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receiver(scope, receive, send)

    async with served(app, lifespan="off") as address:
        receiver = new_receiver(auth=SignedAuth(SIGNING_KEY), inbox=in_file(folder), public_url=f"{address}/")
        async with receiver.running():
            yield receiver
