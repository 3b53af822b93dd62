"""Requests over raw connections, one for each; what each was answered, word for word."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

PATIENCE = 8.0  # seconds for an answer: longer than anybody is frozen


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said; a status of 0 is no answer."""

    status: int
    said: str = ""  # stored, duplicate or conflict


NONE = Answer(0)


async def post(port: int, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send a callback over a connection of its own."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_head(path, headers, len(body)) + body)
                return await _answer(reader)
            finally:
                writer.close()
    except (OSError, EOFError, ValueError):  # a TimeoutError is an OSError
        return NONE


async def break_off(port: int, path: str, headers: Mapping[str, str], body: bytes) -> None:
    """Send half of a callback, then reset the connection."""
    with suppress(OSError):  # whoever listened may be gone before
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_head(path, headers, len(body)) + body[: len(body) // 2])
        await asyncio.sleep(0.03)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def _head(path: str, headers: Mapping[str, str], size: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "connection: close", f"content-length: {size}", "", ""]).encode()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    status = int(head.split(maxsplit=2)[1]) if head else 0
    return Answer(status, json.loads(content)["status"]) if status == 200 else Answer(status)
