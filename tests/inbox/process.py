"""A process that works on an inbox until it is killed; it says what it does line by line."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from dgreceiver.core.callbacks import Callback
from dgreceiver.errors import InboxError
from dgreceiver.inbox.contract import Mark
from dgreceiver.inbox.sqlite import SqliteFile, SqliteInbox

from ..support import FORKED

ROOM = 1024 * 1024 * 1024
DONE = {"save": Mark(1, done=True)}


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def numbered(n: object, size: int = 0) -> Callback:
    """A callback of that request, with so many bytes of noise."""
    body = b'{"request_id":"%s","noise":"%s"}' % (str(n).encode(), os.urandom(size // 2).hex().encode())
    return Callback(body, {}, "/", "", time.time())


async def opened(path: str) -> SqliteInbox:
    inbox = SqliteInbox(Path(path), receiver="default", emit=lambda fact: None)
    await inbox.open()
    return inbox


async def hold(path: str) -> None:
    """Lease what there is, and keep it."""
    inbox = await opened(path)
    say("ready")
    for entry, _ in await inbox.claim(10, room=ROOM):
        say("leased", entry.key)
    await asyncio.Event().wait()


async def stream(path: str) -> None:
    """Hold a live stream's socket, as far as the inbox knows."""
    inbox = await opened(path)
    result = b'{"type":"Results","metadata":{"request_id":"r-1"}}'
    await inbox.put_frames([Callback(result, {}, "/", "", time.time(), connection="c-1", frame=0)])
    say("ready")
    await asyncio.Event().wait()


async def stop(path: str) -> None:
    """Stop in the midst of a transaction, until somebody lets it go on or ends it."""
    place = SqliteFile(Path(path), receiver="default", emit=lambda fact: None)
    connection = place.connect()
    with place.write:
        connection.exec_driver_sql(place.begin)
        say("ready")
        os.kill(os.getpid(), signal.SIGSTOP)
        connection.exec_driver_sql("COMMIT")
    await asyncio.Event().wait()


async def fork(path: str) -> None:
    """Lease what there is, and leave a child behind that lives on."""
    inbox = await opened(path)
    [(entry, _)] = await inbox.claim(1, room=ROOM)
    child = os.fork()
    if child == 0:
        os.read(0, 1)  # until the test ends
        os._exit(0)
    say("child", child, entry.key)
    await asyncio.Event().wait()


async def work(path: str, first: str) -> None:
    """Store and handle at once, without end; say what was acknowledged and what was settled."""
    inbox = await opened(path)

    async def store(begin: int) -> None:
        for n in range(begin, begin + 1_000_000, 4):
            with suppress(InboxError):  # so many at once may hold each other up
                await inbox.put(numbered(n))
                say("stored", n)

    async def handle() -> None:
        while True:
            for entry, _ in await inbox.claim(3, room=ROOM):
                await inbox.settle(entry, "done", DONE)
                say("settled", entry.request_id)

    await asyncio.gather(*(store(int(first) + n) for n in range(4)), handle())


async def overflow(path: str) -> None:
    """Store more than a file may hold, then as much as before when it may hold more."""
    inbox = await opened(path)
    await inbox.put(numbered("early"))
    [(entry, _)] = await inbox.claim(1, room=ROOM)
    size = max(each.stat().st_size for each in Path(path).parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, resource.RLIM_INFINITY))
    for round_ in ("full", "free"):
        puts = [inbox.put(numbered(f"{round_}-{n}", 10_000)) for n in range(50)]
        for n, said in enumerate(await asyncio.gather(*puts, return_exceptions=True)):
            assert not isinstance(said, BaseException) or isinstance(said, InboxError)
            say("refused" if isinstance(said, InboxError) else "stored", f"{round_}-{n}", said)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await inbox.settle(entry, "done", DONE)
    await inbox.close()


class Process:
    """A process that does one of these things; what it says goes to a file, or can be read."""

    def __init__(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object, said: Path | None = None) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = FORKED.Process(target=_run, args=(theirs, said, work, *map(str, args)), daemon=True)
            self._process.start()
            self.said = ours.makefile("r")  # in it the socket stays open
        self.pid = self._process.pid or 0

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def close(self) -> None:
        self.kill()
        self.wait()
        self.said.close()


def _run(channel: socket.socket, said: Path | None, work: Callable[..., Coroutine[Any, Any, None]], *args: str) -> None:
    os.dup2(channel.fileno(), 0)
    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if said else channel.fileno(), 1)
    channel.close()
    asyncio.run(work(*args))
