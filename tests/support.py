"""What the tests of the whole receiver share: receivers, clients, servers, and the apps that the servers run.

Such an app is a process that imports this first, so httpx and uvicorn are imported where they are used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import ASGIApp, Message, Scope

from dgreceiver import BasicAuth, Event, ExtraAuth, Limits, Receiver
from dgreceiver.facts import CallbackStored, Fact

if TYPE_CHECKING:
    import httpx

    from dgreceiver.testing.payloads import Payload

USER, PASSWORD = "deepgram", "fake-password"
AUTH = BasicAuth(USER, PASSWORD)
BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
LOOK = 0.005  # seconds between two looks

A_Fact = TypeVar("A_Fact", bound=Fact)


class Facts(list[Fact]):
    """A hook that remembers what it heard."""

    def __call__(self, fact: Fact) -> None:
        self.append(fact)

    def of(self, kind: type[A_Fact]) -> list[A_Fact]:
        return [fact for fact in self if isinstance(fact, kind)]


def new_receiver(**options: Any) -> Receiver:
    """A receiver in memory, unless said otherwise; all are made on this line, so that each may have any name."""
    return Receiver(**{"auth": AUTH, "inbox": "memory://", **options})


def in_file(folder: Path) -> str:
    return f"sqlite:///{folder / 'inbox.db'}"


async def until(condition: Callable[[], object], *, within: float = 10.0) -> None:
    """Look until it is so; a test that waits in vain fails here."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(LOOK)


async def until_state(receiver: Receiver, *states: str, within: float = 10.0) -> None:
    """Look until all callbacks are in one of these states, and there are some."""
    async with asyncio.timeout(within):
        while not (found := await states_of(receiver)) or not found <= set(states):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(LOOK)


async def entries_of(receiver: Receiver) -> list[Any]:
    """All that is in the inbox, oldest first."""
    async with receiver.opened() as inbox:
        entries: list[Any] = []
        while page := await inbox.page(before=entries[-1].id if entries else None, limit=200):
            entries += page
        return entries[::-1]


async def states_of(receiver: Receiver) -> set[str]:
    return {entry.state for entry in await entries_of(receiver)}


async def bodies_of(receiver: Receiver) -> list[bytes]:
    async with receiver.opened() as inbox:
        kept = [await inbox.get(entry.key) for entry in await entries_of(receiver)]
        return [found[1] for found in kept if found]


# --- clients


@asynccontextmanager
async def calling(
    app: ASGIApp, *, auth: tuple[str, str] | None = (USER, PASSWORD), root_path: str = ""
) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls an app without a socket in between."""
    import httpx

    transport = httpx.ASGITransport(app, raise_app_exceptions=True, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://hooks.example.com", auth=auth) as client:
        yield client


async def post(client: httpx.AsyncClient, payload: Payload, path: str = "/", **options: Any) -> httpx.Response:
    return await client.post(path, content=payload.body, headers=dict(payload.headers), **options)


async def deliver(receiver: Receiver, *payloads: Payload) -> list[dict[str, Any]]:
    """Post one after the other to a receiver that runs; what each was answered."""
    async with calling(receiver) as client:
        answers = [await post(client, payload) for payload in payloads]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    return [answer.json() for answer in answers]


def a_scope(method: str = "POST", path: str = "/", **options: Any) -> Scope:
    """The scope of a request that is admitted; a mapping of headers adds to it or replaces, a list is all there is."""
    headers = options.pop("headers", {})
    if not isinstance(headers, list):
        own = {b"host": b"hooks.example.com", b"authorization": BASIC.encode()}
        headers = list({**own, **headers}.items())
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.1", 1234),
        "server": ("hooks.example.com", 80),
        "extensions": {},
    }
    return {**scope, **options}


class Call:
    """One call of an ASGI app by hand: it reads `messages`, then waits for ever; what it sent, what it read."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.sent: list[Message] = []
        self.reads = 0

    async def __call__(self, app: ASGIApp, scope: Scope) -> Call:
        await app(scope, self._receive, self._send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def json(self) -> Any:
        return json.loads(self.sent[1]["body"])

    async def _receive(self) -> Message:
        self.reads += 1
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


@asynccontextmanager
async def living(app: ASGIApp, state: dict[str, Any] | None = None) -> AsyncIterator[list[Message]]:
    """Start an app by the lifespan protocol and stop it at the end; what it says in between."""
    said, asked = list[Message](), asyncio.Queue[Message]()

    async def send(message: Message) -> None:
        said.append(message)

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {} if state is None else state}
    asked.put_nowait({"type": "lifespan.startup"})
    life = asyncio.ensure_future(app(scope, asked.get, send))
    try:
        await until(lambda: said or life.done())
        yield said
    finally:
        asked.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([life], timeout=20)
    await life


# --- servers


def unmeasured() -> dict[str, str]:
    """The environment of a process whose lines others count too: to count them takes as long again as to run them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@asynccontextmanager
async def served(app: ASGIApp, **config: Any) -> AsyncIterator[str]:
    """The address of a uvicorn that serves an app from the test's own loop."""
    import uvicorn

    listening = listen()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **{"ws": "websockets-sansio", **config}))
    serving = asyncio.create_task(server._serve([listening]))
    try:
        await until(lambda: server.started or serving.done())
        if serving.done():
            serving.result()
        yield address(listening)
    finally:
        server.should_exit = True
        await asyncio.wait([serving])
        listening.close()
        if not serving.cancelled() and (error := serving.exception()):
            raise error


def listen() -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    return listening


@contextmanager
def a_port() -> Iterator[int]:
    """A port that no other socket is given meanwhile: it is bound, but nobody listens."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


FORKED = multiprocessing.get_context("forkserver")  # a fork of what has all imported is up at once
FORKED.set_forkserver_preload(["tests.warm"])


class Server:
    """A process that serves an app at a socket which outlives it, so that callers wait while it is replaced."""

    def __init__(self, make: Callable[[Path], ASGIApp], folder: Path, listening: socket.socket) -> None:
        self._process = FORKED.Process(target=_serve, args=(make, folder, listening), daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0
        self.killed_at = 0.0  # by the monotonic clock

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.join()
        self.killed_at = self.killed_at or time.monotonic()

    def stop(self) -> None:
        """SIGTERM."""
        self._process.terminate()
        self._process.join(20)

    def memory(self) -> int:
        """Bytes that it has in memory now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _serve(make: Callable[[Path], ASGIApp], folder: Path, listening: socket.socket) -> None:
    import uvicorn

    logging.basicConfig(filename=folder / "log.txt", level=logging.WARNING)
    uvicorn.Server(uvicorn.Config(make(folder), log_config=None, lifespan="on")).run([listening])


@contextmanager
def serving(
    make: Callable[[Path], ASGIApp], folder: Path, *, processes: int = 1
) -> Iterator[tuple[socket.socket, list[Server]]]:
    """One socket and the processes that serve it; more may be added to the list."""
    listening = listen()
    servers = [Server(make, folder, listening) for _ in range(processes)]
    try:
        yield listening, servers
    finally:
        for server in servers:
            server.kill()
        listening.close()


class Ledger:
    """What handlers note, in a file to which any number of processes append."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, what: str, about: str | None, **more: Any) -> None:
        line = json.dumps({"what": what, "about": about, "by": os.getpid(), "at": time.monotonic(), **more})
        os.write(self._file, line.encode() + b"\n")

    def read(self) -> Sequence[Mapping[str, Any]]:
        whole, _, _ = self._path.read_text().rpartition("\n")  # the last line may be on its way
        return [json.loads(line) for line in whole.splitlines()]

    def by(self, what: str) -> set[int]:
        """The processes that noted it."""
        return {line["by"] for line in self.read() if line["what"] == what}

    def about(self, what: str) -> list[str]:
        return [line["about"] for line in self.read() if line["what"] == what]


def ledger_app(folder: Path) -> Receiver:
    """Notes where each handling begins and ends; in between it gives way to others."""
    ledger = Ledger(folder)

    def hook(fact: Fact) -> None:
        if isinstance(fact, CallbackStored):
            ledger.note("stored", fact.request_id)

    receiver = new_receiver(inbox=in_file(folder), hooks=[hook])

    @receiver.on(Event)
    async def note(event: Event) -> None:
        ledger.note("begun", event.request_id)
        await asyncio.sleep(0.002)
        ledger.note("ended", event.request_id)

    return receiver


def small_app(folder: Path) -> Receiver:
    """Stores, with room for 64 MiB of bodies on their way in, of which each is held whole until it is stored."""
    auth = AUTH | ExtraAuth("fake-callback-secret")
    return new_receiver(auth=auth, inbox=in_file(folder), limits=Limits(in_flight=64 * 1024 * 1024))
