"""One request over a connection of its own, in the ways in which a request can be sent, and break.

An HTTP client would be too polite for this: it sends no half bodies, and resets nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import parse_headers
from io import BytesIO
from urllib.parse import quote, urlsplit

from .target import Target

PIECES = 10  # of a body that is not sent at once
PAUSE = 0.5  # seconds of Deepgram's time between two pieces of a slow body
BRIEF = 0.05  # real seconds in which a receiver begins to read, or ends its answer
LONGEST = 64 * 1024  # bytes of an answer that are read; the status is all that counts

Sleep = Callable[[float], Awaitable[None]]


class NoAnswer(Exception):
    """There was no whole request, or no answer to it; says what happened instead."""


@dataclass(frozen=True, slots=True)
class Request:
    """A callback as it is to be sent."""

    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes

    def head(self, framing: str) -> bytes:
        """Everything before the body.

        Source: the one callback whose head is public has these headers and no user-agent (docs/callback.md).
        """
        parts = urlsplit(self.target.url)
        path = quote(parts._replace(scheme="", netloc="", fragment="").geturl() or "/", safe="%/:?[]@!$&'()*+,;=~")
        headers = {"host": parts.netloc, "accept": "*/*", **self.headers, **self.target.headers}
        lines = [f"{self.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), framing]
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Line:
    """An open connection, and the request that is to go over it."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sleep: Sleep
    response_timeout: float  # real seconds

    def send(self, data: bytes) -> None:
        self.writer.write(data)  # not drained: who does not read has the time that there is for an answer

    async def answer(self) -> int:
        """The status of the answer.

        Raises: NoAnswer if there is none in time.
        """
        try:
            async with asyncio.timeout(self.response_timeout):
                status, size = await self._head()
        except TimeoutError:
            raise NoAnswer(f"no answer within {self.response_timeout:g} s") from None
        with suppress(OSError, EOFError):  # it said what it had to say
            async with asyncio.timeout(BRIEF):
                await self.reader.readexactly(min(size, LONGEST))
        return status

    async def _head(self) -> tuple[int, int]:
        """The status and the declared size of the answer; answers that come before the answer are skipped."""
        while True:
            line, _, headers = (await self.reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            if (status := int(line.split()[1])) >= 200:
                return status, int(parse_headers(BytesIO(headers)).get("content-length", "0"))


Way = Callable[[Line], Awaitable[int]]


async def call(request: Request, way: Way, *, sleep: Sleep, connect: float, response: float) -> int:
    """Send a request; the status of the answer.

    Units: both time-outs are real seconds.

    Raises: NoAnswer if there is none.
    """
    reader, writer = await _connect(request.target, connect)
    try:
        return await way(Line(request, reader, writer, sleep, response))
    except EOFError:
        raise NoAnswer("the connection was closed before the answer") from None
    except OSError as error:
        raise NoAnswer(f"the connection broke: {error}") from None
    except (ValueError, IndexError, asyncio.LimitOverrunError):
        raise NoAnswer("what was answered is not HTTP") from None
    finally:
        writer.close()


async def _connect(target: Target, within: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(target.url)
    is_secure = parts.scheme == "https"
    try:
        async with asyncio.timeout(within):
            port = parts.port or (443 if is_secure else 80)
            return await asyncio.open_connection(parts.hostname, port, ssl=is_secure or None)
    except TimeoutError:
        raise NoAnswer(f"no connection within {within:g} s") from None
    except OSError as error:
        raise NoAnswer(f"no connection: {error}") from None


async def whole(line: Line) -> int:
    """Head and body at once, as Deepgram does."""
    _begin(line)
    line.send(line.request.body)
    return await line.answer()


async def slowly(line: Line) -> int:
    """The body in pieces, with a pause before each."""
    _begin(line)
    for piece in _pieces(line.request.body):
        await line.sleep(PAUSE)
        line.send(piece)
    return await line.answer()


async def chunked(line: Line) -> int:
    """The body in chunks, of which no header says how many there are."""
    line.send(line.request.head("transfer-encoding: chunked"))
    for piece in _pieces(line.request.body):
        line.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    line.send(b"0\r\n\r\n")
    return await line.answer()


async def empty(line: Line) -> int:
    """The head of a request without a body."""
    line.send(line.request.head("content-length: 0"))
    return await line.answer()


async def reset(line: Line) -> int:
    """Half of the body, then a RST."""
    _begin(line)
    line.send(line.request.body[: len(line.request.body) // 2])
    await asyncio.sleep(BRIEF)
    connection = line.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    line.writer.transport.abort()
    raise NoAnswer("reset in the middle of the body (fault)")


async def unheard(line: Line) -> int:
    """The whole request, and an answer that is lost on its way back."""
    status = await whole(line)
    raise NoAnswer(f"the answer, {status}, was lost (fault)")


def _begin(line: Line) -> None:
    line.send(line.request.head(f"content-length: {len(line.request.body)}"))


def _pieces(body: bytes) -> list[bytes]:
    size = max(1, -(-len(body) // PIECES))
    return [body[at : at + size] for at in range(0, len(body), size)]
