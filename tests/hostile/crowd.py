"""Many slow clients at little cost: one loop, and no task for each."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

SECONDS_APART = 0.5  # between two drips of each


class SlowClient(asyncio.Protocol):
    """Says its opening, then as little as keeps it there; notes how it was sent away, if it was."""

    def __init__(self, opening: bytes, *, reads: bool) -> None:
        self._opening = opening
        self._reads = reads
        self.transport: asyncio.Transport | None = None
        self.heard = b""
        self.is_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self._reads:
            transport.pause_reading()
        transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True

    def drip(self, data: bytes) -> None:
        if self.transport and not self.transport.is_closing():
            self.transport.write(data)


@asynccontextmanager
async def crowd(
    port: int, size: int, opening: bytes, *, drip: bytes = b"", reads: bool = True
) -> AsyncIterator[list[SlowClient]]:
    """So many slow clients, each of which goes on dripping until the end."""
    loop, clients = asyncio.get_running_loop(), list[SlowClient]()
    for _ in range(size):
        _, client = await loop.create_connection(lambda: SlowClient(opening, reads=reads), "127.0.0.1", port)
        clients.append(client)
    dripping = asyncio.create_task(_drip(clients, drip))
    try:
        yield clients
    finally:
        dripping.cancel()
        with suppress(asyncio.CancelledError):
            await dripping
        for client in clients:
            if client.transport:
                client.transport.abort()


async def _drip(clients: list[SlowClient], drip: bytes) -> None:
    while drip:
        await asyncio.sleep(SECONDS_APART)
        for client in clients:
            client.drip(drip)


@contextmanager
def descriptors(wanted: int) -> Iterator[None]:
    """So many file descriptors for this process, while it lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
