"""No credential, token or callback secret is in a log line or a file, and nothing of what was said in any line."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from dgreceiver import BasicAuth, Bury, DgTokenAuth, Event, ExtraAuth, Receiver, Retry, RetryPolicy, SignedAuth
from dgreceiver.testing.payloads import BUILDERS, Payload, live_result, stream_metadata, transcript

from .support import (
    Call,
    a_scope,
    calling,
    entries_of,
    in_file,
    living,
    new_receiver,
    piece,
    post,
    served,
    until_state,
)

ROOT = Path(__file__).parents[1]
PASSWORD = "fake-basic-password"
KEY = "fake-signing-key-of-thirty-two-characters"
SECRET = "fake-callback-secret-in-the-body"
TOKEN = "fake-api-key-identifier"
SAID = "heliotrope"
NOTED = "fake-context-value"
WRONG = "fake-wrong-password"

QUICK = RetryPolicy(attempts=2, first_wait=0.01)


class Lines(logging.Handler):
    """All that is logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of all loggers, down to DEBUG."""
    handler, root = Lines(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def userinfo(url: str) -> tuple[str, str]:
    user, _, password = url.removeprefix("https://").partition("@")[0].partition(":")
    return user, unquote(password)


class Trial:
    """A receiver that takes every kind of credential, and everything that may happen to it."""

    def __init__(self, folder: Path) -> None:
        self.receiver = new_receiver(
            auth=BasicAuth("deepgram", PASSWORD) | SignedAuth(KEY) | ExtraAuth(SECRET) | DgTokenAuth(TOKEN),
            inbox=in_file(folder),
            public_url="https://hooks.example.com/deepgram",
            retry=QUICK,
        )
        self.urls = [self.receiver.callback_url({"note": NOTED}) for _ in range(2)]
        self.urls.append(self.receiver.callback_url({"note": NOTED}, expires=1e-6))
        self._folder = folder

    @property
    def secrets(self) -> list[str]:
        signed = [userinfo(url)[1] for url in self.urls]
        headers = [basic(*userinfo(url)).decode() for url in self.urls] + [basic("deepgram", PASSWORD).decode()]
        return [PASSWORD, KEY, SECRET, TOKEN, WRONG, *signed, *(header.partition(" ")[2] for header in headers)]

    async def run(self) -> None:
        self._register()
        async with living(self.receiver):
            await self._send_everything()
            await until_state(self.receiver, "done", "dead", "unhandled", "conflict")
            await self.receiver.replay(state="dead")
            await until_state(self.receiver, "done", "dead", "unhandled", "conflict")

    def _register(self) -> None:
        receiver = self.receiver

        @receiver.on(Event)
        async def fails_once_in_a_while(event: Event, delivery: Any) -> None:
            if delivery.attempt == 1:
                raise [Retry(0.01), Bury("no"), ValueError("no"), SystemExit()][hash(delivery.key) % 4]

        @receiver.on(Event, timeout=0.01)
        async def hangs(event: Event) -> None:
            if event.request_id == "hang":
                await asyncio.Event().wait()

    async def _send_everything(self) -> None:
        ours, extra = {b"authorization": basic("deepgram", PASSWORD)}, {"callback_secret": SECRET}
        for build in BUILDERS.values():
            await self.send(build(), ours)
        await self.send(transcript(SAID, request_id="a"), ours)
        await self.send(transcript(f"{SAID}!", request_id="a"), ours)
        await self.send(transcript(SAID, request_id="hang"), ours)
        await self.send(Payload(SAID.encode() * 9, {}, "Unknown"), ours)
        await self.send(Payload(f'{{"broken": "{SAID}'.encode(), {}, "Unknown"), ours)
        await self.send(Payload(b"", {}, "Unknown"), ours, status=400)
        for payload in (transcript(SAID, extra=extra), live_result(SAID, extra=extra), stream_metadata(extra=extra)):
            await self.send(payload, [])
            await self.send(payload, [(b"authorization", basic("deepgram", PASSWORD))])
        await self.send(transcript(SAID), [(b"dg-token", TOKEN.encode())])
        for number, url in enumerate(self.urls):
            await self.send(transcript(SAID, request_id=f"{number}"), {b"authorization": basic(*userinfo(url))})
        await self.send(transcript(SAID), {b"authorization": basic(*userinfo(self.urls[0]))})  # a second request
        for value in (basic("deepgram", WRONG), b"Bearer " + WRONG.encode(), basic(userinfo(self.urls[0])[0], WRONG)):
            await self.send(transcript(SAID), [(b"authorization", value)], status=401)
        await self.send(transcript(SAID, extra={"callback_secret": WRONG}), [(b"dg-token", WRONG.encode())], status=401)
        await self.send(transcript(SAID), {**ours, b"content-encoding": b"gzip"}, status=415)

    async def send(self, payload: Payload, headers: Any, *, status: int = 200) -> None:
        kept = {name.encode(): value.encode() for name, value in payload.headers.items()}
        headers = [*kept.items(), *headers] if isinstance(headers, list) else {**kept, **headers}
        call = await Call(piece(payload.body))(self.receiver, a_scope(headers=headers))
        assert call.status == status
        for secret in self.secrets:
            assert secret not in str(call.sent)


async def test_no_line_and_no_file_holds_a_secret_and_no_line_what_was_said(tmp_path, lines):
    trial = Trial(tmp_path)
    await trial.run()
    ours = "\n".join(line for line in lines.lines if line.startswith("dgreceiver"))
    assert ours.count("\n") > 50
    assert [secret for secret in [*trial.secrets, SAID, NOTED] if secret in ours] == []
    assert [secret for secret in trial.secrets if secret in "\n".join(lines.lines)] == []
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [secret for secret in trial.secrets if secret.encode() in written] == []
    kept = await everything_kept(trial.receiver)
    assert SAID.encode() in kept
    assert len(trial.receiver.refusals) == 6
    assert [secret for secret in [*trial.secrets, SAID, NOTED] if secret in repr(list(trial.receiver.refusals))] == []
    assert [secret for secret in trial.secrets if secret.encode() in kept] == []


async def everything_kept(receiver: Receiver) -> bytes:
    """Every row and every body, the latter unpacked."""
    async with receiver.opened() as inbox:
        found = [await inbox.get(entry.key) for entry in await entries_of(receiver)]
        return b"\n".join(repr(one[0]).encode() + one[1] for one in found if one)


async def test_what_is_written_while_it_runs_holds_no_secret(tmp_path):
    """The write-ahead log too, which a clean stop would empty."""
    trial = Trial(tmp_path)
    async with living(trial.receiver):
        await trial._send_everything()
        log = (tmp_path / "inbox.db-wal").read_bytes()
    assert log
    assert [secret for secret in trial.secrets if secret.encode() in log] == []


# --- what is done with what came


RECEIVING = """
import asyncio, json, sys
from dgreceiver import Event
from dgreceiver.testing.payloads import BUILDERS
from tests.support import deliver, in_file, new_receiver

watched, heard = {watched!r}, []
sys.addaudithook(lambda event, _: heard.append(event) if event.startswith(watched) else None)

async def main():
    receiver = new_receiver(inbox={inbox!r})
    receiver.on(Event)(lambda event: repr(event) and event.model_dump())
    async with receiver.running():
        await deliver(receiver, *[build() for build in BUILDERS.values()])
        await receiver.idle()

asyncio.run(main())
print(json.dumps(heard))
"""
OUTWARD = ("socket.connect", "socket.send", "socket.getaddrinfo", "socket.gethostby", "urllib", "webbrowser")
RUNNING = ("subprocess", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "ctypes.dlopen")


def test_receiving_and_handling_calls_nobody_and_runs_nothing(tmp_path):
    """Callbacks of every kind, stored and handled in a process that tells what it asks of the system.

    Source: https://docs.python.org/3/library/audit_events.html
    """
    script = RECEIVING.format(watched=OUTWARD + RUNNING, inbox=in_file(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert json.loads(ended.stdout or b"0") == [], ended.stderr.decode()


# --- what others write down, and how to keep them from it


@pytest.fixture
def _as_new() -> Iterator[None]:
    """The loggers of others as a new process has them, whatever was set before."""
    loggers = [logging.getLogger(name) for name in ("httpx", "uvicorn.access")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    yield
    for logger, (level, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.mark.usefixtures("_as_new")
@pytest.mark.parametrize(
    ("level", "tells"),
    [pytest.param(logging.NOTSET, True, id="as it is"), pytest.param(logging.WARNING, False, id="silenced")],
)
async def test_an_http_client_logs_the_callback_url_that_is_submitted_unless_it_is_silenced(lines, level, tells):
    """httpx, which Deepgram's own client is made with."""
    logging.getLogger("httpx").setLevel(level)
    receiver = new_receiver()
    async with receiver.running(), calling(receiver) as client:
        await client.get("/v1/listen", params={"callback": f"https://deepgram:{PASSWORD}@hooks.example.com/"})
    assert any(PASSWORD in line for line in lines.lines) is tells


@pytest.mark.usefixtures("_as_new")
async def test_plain_uvicorn_logs_the_query(lines):
    async with served(new_receiver()) as address, httpx.AsyncClient() as client:
        await post(client, transcript(), f"{address}/?token=fake-token")
    written = [line for line in lines.lines if line.startswith("uvicorn.access")]
    assert any("fake-token" in line for line in written)


# --- from one credential to another


async def test_from_dg_token_to_credentials_there_is_no_gap():
    """What was submitted before comes by its token, what is submitted from now on by its URL; then the old one goes."""
    new = BasicAuth("deepgram", PASSWORD)
    both = new_receiver(auth=new | DgTokenAuth(TOKEN), public_url="https://hooks.example.com/")
    by_token = {b"authorization": b"", b"dg-token": TOKEN.encode()}
    by_url = {b"authorization": basic(*userinfo(both.callback_url()))}
    assert [await status_of(both, headers) for headers in (by_token, by_url)] == [200, 200]
    assert [await status_of(new_receiver(auth=new), headers) for headers in (by_token, by_url)] == [401, 200]


async def status_of(receiver: Receiver, headers: dict[bytes, bytes]) -> int:
    async with receiver.running():
        return (await Call(piece(transcript().body))(receiver, a_scope(headers=headers))).status


def test_no_repr_of_what_a_user_holds_shows_a_secret(tmp_path):
    trial = Trial(tmp_path)
    shown = repr([trial.receiver, trial.receiver._auth, vars(trial.receiver)])
    assert [secret for secret in trial.secrets if secret in shown] == []
