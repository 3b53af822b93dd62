"""A real socket in front of an app, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from ..server import listen


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the program."""
        yield


@asynccontextmanager
async def served(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """The address of an app while it is served from this loop; port 0 is any that is free.

    Raises: SetupError if the address cannot be listened on.
    """
    config = uvicorn.Config(app, lifespan="on", ws="auto", log_config=None, log_level="warning", access_log=False)
    server = _Server(config)
    with listen(host, port) as door:  # from here on whoever comes waits
        serving = asyncio.ensure_future(server.serve([door]))
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
