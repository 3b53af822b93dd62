"""The servers that are compared, each run as a process of its own: `python servers.py NAME --port N …`."""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from load import PASSWORD, USER
from starlette.types import ASGIApp, Receive, Scope, Send


class Progress:
    """How many callbacks a handler has finished, and when the last: two numbers in a file, seen from outside."""

    LAYOUT = struct.Struct("=Qd")

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(self.LAYOUT.size)
            self._shared = mmap.mmap(file.fileno(), self.LAYOUT.size)

    def note(self) -> None:
        self.LAYOUT.pack_into(self._shared, 0, self.read()[0] + 1, time.monotonic())

    def read(self) -> tuple[int, float]:
        count, last = self.LAYOUT.unpack_from(self._shared)
        return count, last


def bare(folder: Path) -> ASGIApp:
    """Reads the body, keeps nothing, answers 200: as fast as uvicorn can be here."""
    answer = b'{"status":"stored","request_id":"00000000-0000-4000-8000-000000000000"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        b"".join(parts)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def storing(folder: Path) -> ASGIApp:
    """A Receiver without handlers: everything is stored, nothing is parsed."""
    from dgreceiver import BasicAuth, Receiver

    return Receiver(auth=BasicAuth(USER, PASSWORD), inbox=f"sqlite:///{folder / 'inbox.db'}")


def handling(folder: Path) -> ASGIApp:
    """A Receiver with one typed handler, which reads the text and counts."""
    from dgreceiver import BasicAuth, Receiver, Transcript

    receiver = Receiver(auth=BasicAuth(USER, PASSWORD), inbox=f"sqlite:///{folder / 'inbox.db'}")
    progress = progress_of(folder)

    @receiver.on(Transcript)
    async def count(transcript: Transcript) -> None:
        if transcript.text:
            progress.note()

    return receiver


def handwritten(folder: Path) -> ASGIApp:
    """What a careful user writes by hand: one INSERT and one COMMIT before each 200, one request at a time."""
    from handwritten import app_with

    return app_with(folder / "inbox.db", exclusive=True)


def unlocked(folder: Path) -> ASGIApp:
    """`handwritten` without its lock: requests share transactions by accident, and a ROLLBACK would lose others'."""
    from handwritten import app_with

    return app_with(folder / "inbox.db", exclusive=False)


@dataclass(frozen=True, slots=True)
class Server:
    """One of those that are compared."""

    make: Callable[[Path], ASGIApp]
    stores: bool = True
    handles: bool = False
    ours: bool = False


SERVERS = {
    "bare": Server(bare, stores=False),
    "storing": Server(storing, ours=True),
    "handling": Server(handling, handles=True, ours=True),
    "handwritten": Server(handwritten),
    "unlocked": Server(unlocked),
}


def progress_of(folder: Path) -> Progress:
    return Progress(folder / "progress")


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the inbox goes")
    parser.add_argument("--core", type=int, help="the only core it may use")
    parser.add_argument("--lifetime", type=int, default=300, help="seconds after which it ends whatever happens")
    options = parser.parse_args()
    signal.alarm(options.lifetime)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    uvicorn.run(
        SERVERS[options.name].make(options.folder),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        timeout_keep_alive=75,  # with uvicorn's 5 s, a loop that is busy for longer closes on requests it has not read
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
