"""The servers that read HTTP for a receiver, each with a parser or bounds of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dgreceiver import Receiver

from ..serving import running
from ..support import served


@asynccontextmanager
async def listening(receiver: Receiver, server: str, **bounds: Any) -> AsyncIterator[int]:
    """The port of one of the servers that there are; `bounds` are for plain uvicorn, which has others of its own."""
    if server == "dgreceiver serve":
        async with running(receiver) as ours:
            yield ours.port
    else:
        async with served(receiver, http=server, **bounds) as url:
            yield int(url.rpartition(":")[2])
