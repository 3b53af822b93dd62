"""Requests that are read in two ways, or are none: whatever a server makes of them, what is stored is whole and told."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from ..support import bodies_of, new_receiver
from .requests import REQUESTS
from .servers import listening

ANSWER = re.compile(rb"HTTP/1\.1 (\d+) ")
WAIT = 1.0  # seconds for what may follow an answer


async def statuses(port: int, request: bytes) -> list[int]:
    """What is answered, until the server closes or says nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = bytearray()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(WAIT):
            writer.write(request)
            while piece := await reader.read(65_536):
                said += piece
    writer.transport.abort()
    return [int(status) for status in ANSWER.findall(said)]


def numbered(text: bytes, number: int) -> bytes:
    """The same with bodies that no other request has."""
    return text.replace(b'"A00"', b'"A%02d"' % number).replace(b'"B00"', b'"B%02d"' % number)


@pytest.mark.parametrize("server", ["dgreceiver serve", "httptools", "h11"])
async def test_of_odd_requests_what_is_stored_is_whole_and_acknowledged_and_nothing_else_is(server):
    receiver, odd = new_receiver(), list[str]()
    requests = [numbered(request, number) for number, (request, _) in enumerate(REQUESTS.values())]
    async with listening(receiver, server) as port:
        answers = await asyncio.gather(*(statuses(port, request) for request in requests))
        stored = await bodies_of(receiver)
        assert await statuses(port, requests[0]) == [200]  # it is well
    for number, (name, (_, bodies)) in enumerate(REQUESTS.items()):
        allowed = {numbered(body, number) for body in bodies}
        kept = [body for body in stored if body[9:11].isalnum() and int(body[10:12]) == number]
        if set(kept) - allowed or len(kept) != answers[number].count(200):
            odd.append(f"{name}: {answers[number]}, stored {kept}")
    assert odd == []
    assert len(stored) == sum(answer.count(200) for answer in answers) > 10
