"""`dgreceiver demo`: Deepgram's side and ours in one terminal, without an account."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from ..receiver import Receiver
from ..server import listen
from ..testing import payloads
from ..testing.payloads import Payload
from ..testing.target import Target, read_target
from .output import console
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
        books = _show(Path(folder), console())
    raise typer.Exit(0 if books.are_right else 1)


def _show(folder: Path, out: Console) -> Books:
    with _stage(folder, out) as stage:
        _every_product(stage)
        _a_lost_answer(stage)
        _a_failing_handler(stage)
        _a_crash(stage)
    stage.look()
    _tell_sum(stage)
    return stage.books


def _every_product(stage: _Stage) -> None:
    stage.say("\nEvery product calls back; each is stored, acknowledged, then handled", "bold")
    for build in (payloads.transcript, payloads.analysis, payloads.audio, payloads.failure, payloads.unknown):
        stage.send(build())
    stage.say("A live stream, over HTTP: all of it by one URL")
    stream, id_ = stage.job(), str(uuid4())
    stage.send(payloads.speech_started(), stream)
    stage.send(payloads.live_result(request_id=id_), stream)
    stage.send(payloads.utterance_end(), stream)
    stage.send(payloads.stream_metadata(request_id=id_), stream)
    stage.settle()


def _a_lost_answer(stage: _Stage) -> None:
    stage.say("\nAn answer is lost: Deepgram sends again what was stored already", "bold")
    payload, job = payloads.transcript("the answer to this is lost"), stage.job()
    stage.send_and_leave(payload, job)
    stage.send(payload, job)
    stage.settle()


def _a_failing_handler(stage: _Stage) -> None:
    stage.say("\nA handler fails: it runs again, and Deepgram never hears of it", "bold")
    stage.send(payloads.transcript(AWKWARD))
    stage.settle()


def _a_crash(stage: _Stage) -> None:
    stage.say("\nThe handlers are slow, callbacks wait, and the receiver is killed", "bold")
    stage.hold()
    for number in range(WAITING):
        stage.send(payloads.transcript(f"waiting {number}"))
    stage.kill()
    stage.let_go()
    stage.start()
    stage.settle()


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


@contextmanager
def _stage(folder: Path, out: Console) -> Iterator[_Stage]:
    """The stage, with a receiver on it until the end."""
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        stage = _Stage(folder, out, client)
        try:
            stage.start()
            yield stage
        finally:
            stage.end()


class _Stage:
    """The sender, the folder in which the receiver works, and what is told of both."""

    def __init__(self, folder: Path, out: Console, client: httpx.Client) -> None:
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

    def start(self) -> None:
        """Start the receiver and wait until it is ready.

        Raises: SetupError with the end of its log if it does not start.
        """
        self._children.append(self._begin())
        _come_true(self._is_ready)
        self.say(f"a receiver in process {self._children[-1].pid}, on {self._url}")

    def _begin(self) -> subprocess.Popen[bytes]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        command = [sys.executable, "-m", "dgreceiver", "serve", APP, "--host", HOST, "--port", str(self._port)]
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - ourselves
                command, cwd=self._folder, env={**others, KEY: self._key}, stdout=log, stderr=log
            )

    def _is_ready(self) -> bool:
        if self._children[-1].poll() is not None:
            raise SetupError(f"the demo's receiver did not start: {self._log.read_text()[-500:]}")
        try:
            return (self._client.get(f"{self._url}readyz")).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        self._children[-1].kill()
        self._children[-1].wait()
        self.say("  kill -9", "red")

    def end(self) -> None:
        """End it as a deployment would."""
        for child in self._children:
            child.terminate()
            child.wait()

    def hold(self) -> None:
        """Have all handlers wait."""
        self._hold.touch()

    def let_go(self) -> None:
        self._hold.unlink()

    # --- Deepgram's side ---

    def job(self) -> Target:
        """A callback URL, as for each submission."""
        return read_target(self._twin.callback_url(local=True))

    def send(self, payload: Payload, to: Target | None = None) -> None:
        to, begun = to or self.job(), time.perf_counter()
        response = self._client.post(to.url, content=payload.body, headers={**payload.headers, **to.headers})
        taken = {_digest(payload)} if response.is_success else set()
        said = response.json().get("status", "refused")
        self.books.sent += 1
        self.books.acknowledged += len(taken)
        self.books.promised |= taken
        self.books.duplicates += said == "duplicate"
        took = (time.perf_counter() - begun) * 1000
        self._tell_sent(payload, f"{response.status_code} {said}, {took:.0f} ms")
        self.look()

    def send_and_leave(self, payload: Payload, to: Target) -> None:
        """Deliver a callback whole, and be gone without having read the answer."""
        with socket.create_connection((HOST, self._port)) as connection:
            connection.sendall(_as_request(payload, to))
            self.books.sent += 1
            self.books.broken_off += 1
            self._tell_sent(payload, "the connection breaks before the answer is read")
            _come_true(lambda: self._are_handled({_digest(payload)}))

    def _tell_sent(self, payload: Payload, outcome: str) -> None:
        self.say(f"  -> {payload.kind:<15} {len(payload.body):>6} bytes  {outcome}")

    # --- our side ---

    def settle(self) -> None:
        """Wait until all that was promised has been handled, and the inbox knows it."""
        _come_true(lambda: self._are_handled(self.books.promised))
        _come_true(lambda: asyncio.run(self._is_idle()))

    async def _is_idle(self) -> bool:
        async with self._twin.opened() as inbox:
            return not await inbox.busy()

    def _are_handled(self, digests: set[str]) -> bool:
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


def _digest(payload: Payload) -> str:
    return sha256(payload.body).hexdigest()


def _as_request(payload: Payload, to: Target) -> bytes:
    headers = {**payload.headers, **to.headers, "host": HOST, "content-length": str(len(payload.body))}
    lines = ["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + payload.body


def _come_true(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Wait for something, though not for ever: what never came shows in the sum."""
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(LOOK)
