"""`dgreceiver demo`: Deepgram's side and ours in one terminal, without an account."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import typer
from rich.console import Console

from ..core.auth import SignedAuth
from ..errors import SetupError
from ..inbox.contract import Inbox
from ..receiver import Receiver
from ..server import listen
from ..testing import payloads
from ..testing.payloads import Payload
from .output import console
from .send import Target, read_target
from .settings import PREFIX

HOST = "127.0.0.1"
WAITING = 12  # callbacks that wait while the receiver is killed
PATIENCE = 20.0  # seconds that anything may take before the demo calls it lost
LOOK = 0.03  # seconds between looks at what has happened

# As in demo_app.py, which runs in the other process: nothing is shared with it but these and the folder.
APP = "dgreceiver.cli.demo_app:receiver"
KEY = f"{PREFIX}DEMO_KEY"
INBOX, LEDGER, HOLD, LOG = "demo.db", "ledger.jsonl", "hold", "receiver.log"
AWKWARD = "please fail at first"


def demo() -> None:
    """Show callbacks coming in, a lost answer, a failing handler and a kill -9; no account needed."""
    logging.getLogger("dgreceiver").addHandler(logging.NullHandler())  # what is to be seen is printed
    with TemporaryDirectory(prefix="dgreceiver-demo-") as folder:
        books = asyncio.run(_show(Path(folder), console()))
    if not books.are_right:
        raise typer.Exit(1)


async def _show(folder: Path, out: Console) -> Books:
    async with _stage(folder, out) as stage:
        await _every_product(stage)
        await _a_lost_answer(stage)
        await _a_failing_handler(stage)
        await _a_crash(stage)
    stage.look()
    _tell_sum(stage)
    return stage.books


async def _every_product(stage: _Stage) -> None:
    stage.say("\nEvery product calls back; each is stored, acknowledged, then handled", "bold")
    for build in (payloads.transcript, payloads.analysis, payloads.audio, payloads.failure, payloads.unknown):
        await stage.send(build())
    stage.say("A live stream, over HTTP: all of it by one URL")
    stream, id_ = stage.job(), str(uuid4())
    await stage.send(payloads.speech_started(), stream)
    await stage.send(payloads.live_result(request_id=id_), stream)
    await stage.send(payloads.utterance_end(), stream)
    await stage.send(payloads.stream_metadata(request_id=id_), stream)
    await stage.settle()


async def _a_lost_answer(stage: _Stage) -> None:
    stage.say("\nAn answer is lost: Deepgram sends again what was stored already", "bold")
    payload, job = payloads.transcript("the answer to this is lost"), stage.job()
    await stage.send_and_leave(payload, job)
    await stage.send(payload, job)
    await stage.settle()


async def _a_failing_handler(stage: _Stage) -> None:
    stage.say("\nA handler fails: it runs again, and Deepgram never hears of it", "bold")
    await stage.send(payloads.transcript(AWKWARD))
    await stage.settle()


async def _a_crash(stage: _Stage) -> None:
    stage.say("\nThe handlers are slow, callbacks wait, and the receiver is killed", "bold")
    stage.hold()
    for number in range(WAITING):
        await stage.send(payloads.transcript(f"waiting {number}"))
    await stage.kill()
    stage.let_go()
    await stage.start()
    await stage.settle()


def _tell_sum(stage: _Stage) -> None:
    books = stage.books
    stage.say("\nThe sum", "bold")
    for title, number in (
        ("sent", books.sent),
        ("acknowledged", books.acknowledged),
        ("broken off before the answer", books.broken_off),
        ("duplicates recognised", books.duplicates),
        ("callbacks acknowledged", len(books.promised)),
        ("of these handled once", books.once),
        ("handled twice", books.twice),
        ("lost", books.lost),
    ):
        stage.say(f"  {title:<30} {number:>4}")


@dataclass(slots=True)
class Books:
    """What the sender saw, and what the handlers entered into their ledger: kept apart, compared at the end."""

    sent: int = 0
    acknowledged: int = 0
    broken_off: int = 0
    duplicates: int = 0
    promised: set[str] = field(default_factory=set)  # digests of the bodies that were acknowledged
    handled: Counter[str] = field(default_factory=Counter)  # by digest

    @property
    def once(self) -> int:
        return sum(self.handled[digest] == 1 for digest in self.promised)

    @property
    def twice(self) -> int:
        return sum(count > 1 for count in self.handled.values())

    @property
    def lost(self) -> int:
        return len(self.promised - self.handled.keys())

    @property
    def are_right(self) -> bool:
        """Whether all that was sent was acknowledged in the end, and all that was acknowledged handled once."""
        answered = self.acknowledged == self.sent - self.broken_off
        return answered and self.duplicates == self.broken_off and self.once == len(self.promised) > 0 == self.twice


@asynccontextmanager
async def _stage(folder: Path, out: Console) -> AsyncIterator[_Stage]:
    """The stage, with a receiver on it until the end."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        stage = _Stage(folder, out, client)
        try:
            await stage.start()
            yield stage
        finally:
            await stage.end()


class _Stage:
    """The sender, the folder in which the receiver works, and what is told of both."""

    def __init__(self, folder: Path, out: Console, client: httpx.AsyncClient) -> None:
        with listen(HOST, 0) as door:
            self._port: int = door.getsockname()[1]  # free, and so it stays if nobody is quick
        self._key, self._url = secrets.token_urlsafe(32), f"http://{HOST}:{self._port}/"
        self.books = Books()
        self._folder = folder
        self._hold, self._ledger, self._log = folder / HOLD, folder / LEDGER, folder / LOG
        self._children: list[subprocess.Popen[bytes]] = []  # all that the demo ends
        self._out = out
        self._client = client
        self._twin = Receiver(  # of the one in the other process
            auth=SignedAuth(self._key), inbox=f"sqlite:///{folder / INBOX}", name="demo", public_url=self._url
        )
        self._read = 0  # bytes of the ledger

    def say(self, text: str, style: str = "") -> None:
        self._out.print(text, style=style)

    # --- the receiver ---

    async def start(self) -> None:
        """Start the receiver and wait until it is ready.

        Raises: SetupError with the end of its log if it does not start.
        """
        child = self._begin()
        self._children.append(child)
        if not await _come_true(self._is_ready):
            raise SetupError(f"the demo's receiver did not start: {self._log.read_text()[-500:]}")
        self.say(f"a receiver in process {child.pid}, on {self._url}")

    def _begin(self) -> subprocess.Popen[bytes]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        command = [sys.executable, "-m", "dgreceiver", "serve", APP, "--host", HOST, "--port", str(self._port)]
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - ourselves
                command, cwd=self._folder, env={**others, KEY: self._key}, stdout=log, stderr=log
            )

    async def _is_ready(self) -> bool:
        try:
            return (await self._client.get(f"{self._url}readyz")).is_success
        except httpx.TransportError:
            return False

    async def kill(self) -> None:
        """End it as a crash would."""
        self._children[-1].kill()
        await asyncio.to_thread(self._children[-1].wait)
        self.say("  kill -9", "red")

    async def end(self) -> None:
        """End it as a deployment would."""
        for child in self._children:
            child.terminate()
            await asyncio.to_thread(child.wait)

    def hold(self) -> None:
        """Have all handlers wait."""
        self._hold.touch()

    def let_go(self) -> None:
        self._hold.unlink()

    # --- Deepgram's side ---

    def job(self) -> Target:
        """A callback URL, as for each submission."""
        return read_target(self._twin.callback_url(local=True))

    async def send(self, payload: Payload, to: Target | None = None) -> None:
        to, begun = to or self.job(), time.perf_counter()
        response = await self._client.post(to.url, content=payload.body, headers={**payload.headers, **to.headers})
        self.books.sent += 1
        if response.is_success:
            self.books.acknowledged += 1
            self.books.promised.add(_digest(payload))
        said = response.json().get("status", "refused")
        self.books.duplicates += said == "duplicate"
        took = (time.perf_counter() - begun) * 1000
        self._tell_sent(payload, f"{response.status_code} {said}, {took:.0f} ms")
        self.look()

    async def send_and_leave(self, payload: Payload, to: Target) -> None:
        """Deliver a callback whole, and be gone without having read the answer."""
        _, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(_as_request(payload, to))
        self.books.sent += 1
        self.books.broken_off += 1
        self._tell_sent(payload, "the connection breaks before the answer is read")
        await _come_true(lambda: self._are_handled({_digest(payload)}))
        writer.transport.abort()

    def _tell_sent(self, payload: Payload, outcome: str) -> None:
        self.say(f"  -> {payload.kind:<15} {len(payload.body):>6} bytes  {outcome}")

    # --- our side ---

    async def settle(self) -> None:
        """Wait until all that was promised has been handled, and the inbox knows it."""
        await _come_true(lambda: self._are_handled(self.books.promised))
        async with self._twin.opened() as inbox:
            await _come_true(lambda: _is_idle(inbox))

    async def _are_handled(self, digests: set[str]) -> bool:
        self.look()
        return digests <= self.books.handled.keys()

    def look(self) -> None:
        """Show what is new in the ledger."""
        for entry in self._news():
            if entry["what"] == "handled":
                self.books.handled[entry["digest"]] += 1
            style = "green" if entry["what"] == "handled" else "yellow"
            self.say(f"  <- {entry['kind']:<15} {entry['what']}, attempt {entry['attempt']}", style)

    def _news(self) -> Iterator[dict[str, str]]:
        written = self._ledger.read_bytes()[self._read :] if self._ledger.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]  # the last line may be on its way
        self._read += len(whole)
        return map(json.loads, whole.splitlines())


async def _is_idle(inbox: Inbox) -> bool:
    return not await inbox.busy()


def _digest(payload: Payload) -> str:
    return sha256(payload.body).hexdigest()


def _as_request(payload: Payload, to: Target) -> bytes:
    headers = {**payload.headers, **to.headers, "host": HOST, "content-length": str(len(payload.body))}
    lines = ["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + payload.body


async def _come_true(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Wait for something, though not for ever; whether it came."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK)
    return True
