"""`dgreceiver serve` as tests start it: in their own loop, or as a process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from websockets.asyncio.client import connect

from dgreceiver import Receiver
from dgreceiver.server import Server, listen
from dgreceiver.testing.payloads import transcript

from .support import PASSWORD, USER, new_receiver, until


@asynccontextmanager
async def running(receiver: Receiver | None = None, **options: Any) -> AsyncIterator[Served]:
    """A server in the test's own loop."""
    server = Server(receiver or new_receiver(), **options)
    with listen("127.0.0.1", 0) as door:
        port: int = door.getsockname()[1]
        serving = asyncio.create_task(server.serve([door]))
        await until(lambda: server.started)
        try:
            yield Served(server, port)
        finally:
            server.should_exit = True
            await serving


class Served:
    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)

    def socket(self) -> connect:
        return connect(f"ws://{USER}:{PASSWORD}@127.0.0.1:{self.port}", ping_interval=None)

    async def say(self, *pieces: bytes, every: float = 0.0) -> bytes:
        """Send pieces through a plain socket until the other side has had enough; all that it said."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        hearing = asyncio.create_task(_hear(reader))
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.wait([hearing], timeout=every)
        async with asyncio.timeout(5):
            said = await hearing
        writer.transport.abort()
        return said


async def _hear(reader: asyncio.StreamReader) -> bytes:
    said = bytearray()
    with suppress(ConnectionError):
        while piece := await reader.read(4096):
            said += piece
    return bytes(said)


class Process:
    """`dgreceiver serve` in a folder, and what it has written."""

    def __init__(
        self, folder: Path, app: str, *options: str, port: int | None = None, before: Sequence[str] = ()
    ) -> None:
        (folder / "app.py").write_text(app)
        self._log = folder / f"log-{uuid4().hex}.txt"
        self.port = port or a_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            *before,
            sys.executable,
            "-m",
            "dgreceiver",
            "serve",
            "app:receiver",
            "--port",
            str(self.port),
            *options,
        ]
        with self._log.open("wb") as log:
            self.child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 20
        while words not in self.log:
            assert time.monotonic() < deadline, self.log
            assert self.child.poll() is None, self.log
            time.sleep(0.02)

    def socket(self) -> connect:
        return connect(f"ws://{USER}:{PASSWORD}@127.0.0.1:{self.port}/", ping_interval=1, ping_timeout=5)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.child.wait, 20)

    def probe(self, path: str) -> int:
        return httpx.get(f"{self.url}{path}").status_code

    def post(self) -> httpx.Response:
        payload = transcript()
        return httpx.post(
            f"{self.url}/?token=hush", content=payload.body, headers=dict(payload.headers), auth=(USER, PASSWORD)
        )


def a_port() -> int:
    with listen("127.0.0.1", 0) as door:
        port: int = door.getsockname()[1]
        return port


@contextmanager
def a_process(folder: Path, app: str, *options: str, **how: Any) -> Iterator[Process]:
    process = Process(folder, app, *options, **how)
    try:
        process.wait_for("receiving on")
        yield process
    finally:
        process.child.kill()
        process.child.wait()
