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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import typer
from rich.console import Console
from websockets.sync.client import connect

from ..core.auth import SignedAuth
from ..errors import SetupError
from ..receiver import Receiver
from ..server import listen
from ..testing.clock import SteppedClock
from ..testing.emulator import Emulator
from ..testing.record import Attempt, Outgoing, Record
from ..testing.target import RETRY_WAIT
from .output import console
from .settings import PREFIX

HOST = "127.0.0.1"
WAITING = 12  # callbacks that wait while the receiver is killed
MISSED = 3  # callbacks that come while nobody is there
PATIENCE = 20.0  # seconds that anything may take before the demo calls it lost
LOOK = 0.03  # seconds between looks at what has happened

# As in demo_app.py, which runs in the other process: nothing is shared with it but these and the folder.
APP = "dgreceiver.cli.demo_app:receiver"
KEY = f"{PREFIX}DEMO_KEY"
INBOX, LEDGER, HOLD, LOG = "demo.db", "ledger.jsonl", "hold", "receiver.log"
AWKWARD = {"fails": True}

RECORDING = {"url": "https://example.com/call.wav"}
PRODUCTS: Mapping[str, Mapping[str, str]] = {  # where it is submitted, and what; a fault has something else come back
    "/v1/listen": RECORDING,
    "/v1/read?language=en": {"text": "The callback is the only copy."},
    "/v1/speak": {"text": "It is stored before it is acknowledged."},
    "/v2/speak?model=flux-alexis-en": {"text": "And it is handled once."},
    "/v1/listen?fault=error": RECORDING,
    "/v1/listen?fault=broken-json": RECORDING,
}
LIVE = {
    "encoding": "linear16",
    "sample_rate": "8000",
    "interim_results": "true",
    "vad_events": "true",
    "utterance_end_ms": "1000",
}
LIVE_SECONDS, SECOND = 6, bytes(2 * 8000)  # of such audio


def demo() -> None:
    """Show callbacks coming in, a lost answer, a failing handler and a kill -9; no account needed."""
    for name in ("dgreceiver", "uvicorn"):
        logging.getLogger(name).addHandler(logging.NullHandler())  # what is to be seen is printed
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
    for path, body in PRODUCTS.items():
        stage.submit(path, body)
    stage.say("A live stream, over HTTP: all of it by one URL")
    stage.stream()
    stage.settle()


def _a_lost_answer(stage: _Stage) -> None:
    stage.say("\nAn answer is lost: half a minute later Deepgram sends again what was handled already", "bold")
    stage.submit("/v1/listen?fault=lost-answer")
    stage.catch_up()
    stage.settle()


def _a_failing_handler(stage: _Stage) -> None:
    stage.say("\nA handler fails: it runs again, and Deepgram never hears of it", "bold")
    stage.submit(context=AWKWARD)
    stage.settle()


def _a_crash(stage: _Stage) -> None:
    stage.say("\nThe handlers are slow, callbacks wait, the receiver is killed, and Deepgram calls on", "bold")
    stage.hold()
    for _ in range(WAITING):
        stage.submit()
    stage.kill()
    for _ in range(MISSED):
        stage.submit()
    stage.later()
    stage.let_go()
    stage.start()
    stage.settle()


def _tell_sum(stage: _Stage) -> None:
    books, record = stage.books, stage.books.record
    stage.say("\nThe sum", "bold")
    for title, number in (
        ("submitted", len(record.submissions)),
        ("called back", len(record.callbacks)),
        ("attempts it took", sum(len(outgoing.attempts) for outgoing in record.callbacks)),
        ("callbacks acknowledged", len(books.promised)),
        ("of these handled once", books.once),
        ("handled twice", books.twice),
        ("lost", books.lost),
    ):
        stage.say(f"  {title:<30} {number:>4}")


@dataclass(slots=True)
class Books:
    """Deepgram's side and ours: kept apart, compared at the end."""

    record: Record
    handled: Counter[str] = field(default_factory=Counter)  # what the handlers entered into their ledger, by digest

    @property
    def promised(self) -> set[str]:
        return {outgoing.digest for outgoing in self.record.acknowledged}

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
        """Whether all that was submitted was called back, acknowledged, and handled once."""
        answered = all(submission.acknowledged for submission in self.record.submissions)
        return answered and self.once == len(self.record.callbacks) > 0 == self.twice


@contextmanager
def _stage(folder: Path, out: Console) -> Iterator[_Stage]:
    """The stage, with Deepgram and a receiver on it until the end."""
    emulator = Emulator(clock=SteppedClock())  # so that nothing is given up while the receiver starts
    with emulator.running() as deepgram, httpx.Client(base_url=deepgram, timeout=PATIENCE, trust_env=False) as client:
        stage = _Stage(folder, out, emulator, client)
        try:
            stage.start()
            yield stage
        finally:
            stage.end()


class _Stage:
    """Deepgram, the folder in which the receiver works, and what is told of both."""

    def __init__(self, folder: Path, out: Console, emulator: Emulator, client: httpx.Client) -> None:
        with listen(HOST, 0) as door:
            self._port: int = door.getsockname()[1]  # free, and so it stays if nobody is quick
        self._key, self._url = secrets.token_urlsafe(32), f"http://{HOST}:{self._port}/"
        self.books = Books(emulator.record)
        self._folder = folder
        self._hold, self._ledger, self._log = folder / HOLD, folder / LEDGER, folder / LOG
        self._children: list[subprocess.Popen[bytes]] = []  # all that the demo ends
        self._out = out
        self._emulator, self._client = emulator, client
        self._twin = Receiver(  # of the one in the other process
            auth=SignedAuth(self._key), inbox=f"sqlite:///{folder / INBOX}", name="demo", public_url=self._url
        )
        self._told: set[tuple[str, int]] = set()  # attempts, by digest and number
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
            return self._client.get(f"{self._url}readyz").is_success
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

    def submit(
        self, path: str = "/v1/listen", body: Mapping[str, str] = RECORDING, context: Mapping[str, bool] = {}
    ) -> None:
        """Submit something, and wait until the first attempt to call back was made."""
        url = httpx.URL(path).copy_add_param("callback", self._twin.callback_url(context, local=True))
        self._client.post(url, headers={"authorization": "Token any"}, json=body).raise_for_status()
        self.later(0)

    def stream(self) -> None:
        """Stream some audio; each message comes back as a POST of its own."""
        url = self._client.base_url.join("/v1/listen").copy_with(scheme="ws", params=LIVE)
        callback = url.copy_add_param("callback", self._twin.callback_url(local=True))
        with connect(str(callback), additional_headers={"authorization": "Token any"}) as socket:
            for _ in range(LIVE_SECONDS):
                socket.send(SECOND)
                self.later(0)
            socket.send('{"type": "CloseStream"}')
            list(socket)  # until Deepgram closes
        self.later(0)

    def later(self, seconds: float = RETRY_WAIT) -> None:
        """Let some of Deepgram's time pass, and show what came of it."""
        self._emulator.wait(lambda: self._emulator.advance(seconds))
        self.look()

    # --- our side ---

    def catch_up(self) -> None:
        """Wait until all that was called back has been handled."""
        _come_true(self._is_handled)

    def settle(self) -> None:
        """Let time pass until all is acknowledged, and wait until it has been handled, and the inbox knows it."""
        _come_true(self._is_acknowledged)
        self.catch_up()
        _come_true(lambda: asyncio.run(self._is_idle()))

    def _is_acknowledged(self) -> bool:
        self.later()
        return all(submission.acknowledged for submission in self.books.record.submissions)

    async def _is_idle(self) -> bool:
        async with self._twin.opened() as inbox:
            return not await inbox.busy()

    def _is_handled(self) -> bool:
        self.look()
        return {outgoing.digest for outgoing in self.books.record.callbacks} <= self.books.handled.keys()

    def look(self) -> None:
        """Show what is new in both books."""
        for outgoing, number, attempt in self._calls():
            told, style = attempt.status or attempt.note, "" if attempt.acknowledged else "yellow"
            self.say(f"  -> {outgoing.kind:<15} {outgoing.size:>6} bytes  attempt {number}: {told}", style)
        for entry in self._entries():
            if entry["what"] == "handled":
                self.books.handled[entry["digest"]] += 1
            style = "green" if entry["what"] == "handled" else "yellow"
            self.say(f"  <- {entry['kind']:<15} {entry['what']}, attempt {entry['attempt']}", style)

    def _calls(self) -> Iterator[tuple[Outgoing, int, Attempt]]:
        for outgoing in self.books.record.callbacks:
            for number, attempt in enumerate(outgoing.attempts, 1):
                if (outgoing.digest, number) not in self._told:
                    self._told.add((outgoing.digest, number))
                    yield outgoing, number, attempt

    def _entries(self) -> Iterator[dict[str, str]]:
        written = self._ledger.read_bytes()[self._read :] if self._ledger.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]  # the last line may be on its way
        self._read += len(whole)
        return map(json.loads, whole.splitlines())


def _come_true(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Wait for something, though not for ever: what never came shows in the sum."""
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(LOOK)
