"""`dgreceiver emulate`: a process that calls back, and what it shows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from .test_send import a_door

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRETS = ("fake-api-key", "fake-key-id", "fake-password", "hush")


@dataclass
class Emulating:
    """The command while it runs, and what it said when it was ended."""

    process: subprocess.Popen[str]
    url: str = ""
    stdout: str = ""
    stderr: str = ""

    def submit(self, callback: str, key: str = "fake-api-key") -> httpx.Response:
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            return client.post(
                "/v1/listen",
                params={"callback": callback, "extra": "callback_secret:hush"},
                headers={"authorization": f"Token {key}"},
                json={"url": "https://example.com/a.wav"},
            )


@contextmanager
def emulate(*arguments: str) -> Iterator[Emulating]:
    command = [sys.executable, "-m", "dgreceiver", "emulate", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        emulating = Emulating(process)
        try:
            emulating.url = process.stderr.readline().split(" on ")[1].split(";")[0]
            yield emulating
        finally:
            process.send_signal(signal.SIGINT)
            emulating.stdout, emulating.stderr = process.communicate(timeout=20)


def came(door, number: int) -> None:
    """Wait until so many requests came to a door."""
    with httpx.Client() as clock:  # noqa: F841 - replaced below
        pass


def test_it_calls_back_and_the_record_is_json_without_a_secret():
    with a_door(503) as door:
        url = door.url.replace("//deepgram:", "//deepgram:").replace("hush", "hush")
        with emulate("--json", "--speed", "1000", "--key", "fake-api-key", "--dg-token", "fake-key-id") as emulating:
            answer = emulating.submit(url)
            denied = emulating.submit(url, "fake-other-key")
            door.wait_for(2)
    record = json.loads(emulating.stdout)
    [submission] = record["submissions"]
    assert submission["request_id"] == answer.json()["request_id"]
    assert [attempt["status"] for attempt in submission["callbacks"][0]["attempts"]] == [503, 200]
    assert (denied.status_code, record["refusals"][0]["status"]) == (401, 401)
    assert door.requests[0].headers["dg-token"] == "fake-key-id"
    assert not [secret for secret in SECRETS if secret in emulating.stdout + emulating.stderr]
