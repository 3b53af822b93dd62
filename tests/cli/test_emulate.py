"""`dgreceiver emulate`: a process that calls back, and what it shows."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dgreceiver.cli.emulate import table
from dgreceiver.cli.main import app
from dgreceiver.testing.record import Attempt, Outgoing, Record, Refusal, Submission

from ..support import LOOK, PASSWORD, USER
from ..testing.emulating import BODIES, LISTEN, a_door, status

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRETS = ("fake-api-key", "fake-other-key", "fake-key-id-sent", PASSWORD, "hush")


@dataclass
class Emulating:
    """The command while it runs, and what it said when it was ended."""

    client: httpx.AsyncClient
    output: str = ""

    async def submit(self, callback: str, key: str = "fake-api-key", **query: str) -> httpx.Response:
        query = {"callback": callback, "extra": "callback_secret:hush", **query}
        headers = {"authorization": f"Token {key}"}
        return await self.client.post(LISTEN, params=query, headers=headers, json=BODIES[LISTEN])

    async def completed(self, request_id: str) -> dict[str, Any]:
        """What is told of a callback when it has been acknowledged."""
        headers = {"authorization": "Token fake-api-key"}
        async with asyncio.timeout(20):
            while True:
                answer = await self.client.get(f"/v1/projects/p/requests/{request_id}", headers=headers)
                told: dict[str, Any] = answer.json()["request"]["callback"]
                if "completed" in told:
                    return told
                await asyncio.sleep(LOOK)


@asynccontextmanager
async def emulate(*arguments: str) -> AsyncIterator[Emulating]:
    command = (sys.executable, "-m", "dgreceiver", "emulate", "--port", "0", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        said = (await process.stderr.readline()).decode()
        async with httpx.AsyncClient(base_url=re.findall(r"http://[\d.:]+", said)[0], trust_env=False) as client:
            emulating = Emulating(client)
            yield emulating
    finally:
        process.terminate()
        written = await process.communicate()
    assert (process.returncode, written[1]) == (0, b"")
    emulating.output = written[0].decode()


async def test_it_calls_back_and_the_record_is_json_without_a_secret():
    options = ("--json", "--speed", "1000", "--key", "fake-api-key", "--dg-token", "fake-key-id-sent")
    async with a_door(status(503)) as door, emulate(*options) as emulating:
        url = f"http://{USER}:{PASSWORD}@127.0.0.1:{door.port}/?token=hush"
        answer = await emulating.submit(url)
        denied = await emulating.submit(url, "fake-other-key")
        told = await emulating.completed(answer.json()["request_id"])
    record = json.loads(emulating.output)
    [submission] = record["submissions"]
    assert submission["request_id"] == answer.json()["request_id"]
    assert [attempt["status"] for attempt in submission["callbacks"][0]["attempts"]] == [503, 200]
    assert (told["attempts"], told["code"]) == (2, 200)
    assert (denied.status_code, record["refusals"][0]["status"]) == (401, 401)
    assert door.came[0].headers["dg-token"] == "fake-key-id-sent"
    assert not [secret for secret in SECRETS if secret in emulating.output]


async def test_faults_come_in_turn_and_the_table_shows_them():
    async with a_door() as door, emulate("--fault", "reset", "--fault", "error", "--speed", "1000") as emulating:
        answers = [await emulating.submit(door.url) for _ in range(3)]
        for answer in answers:
            await emulating.completed(answer.json()["request_id"])
    shown = [re.findall(r"reset|error", line)[0] for line in emulating.output.splitlines() if LISTEN in line]
    assert shown == ["reset", "error", "reset"]


async def test_a_seed_mixes_faults():
    async with a_door() as door, emulate("--seed", "7", "--json") as emulating:
        for _ in range(20):
            assert (await emulating.submit(door.url)).status_code == 200
    faults = {submission["fault"] for submission in json.loads(emulating.output)["submissions"]}
    assert None in faults
    assert len(faults) > 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--fault", "hiccup"), "'hiccup' is no fault; write one of lost-answer, ", id="fault"),
        pytest.param(("--speed", "0"), "speed=0.0 does not move", id="speed"),
        pytest.param(("--host", "192.0.2.1"), "cannot listen on 192.0.2.1:8090: ", id="host"),
    ],
)
def test_what_cannot_be_is_told(arguments, said):
    ended = CliRunner().invoke(app, ["emulate", *arguments])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert said in ended.stderr


def test_the_table_tells_what_came_of_each():
    record = Record()
    sent = Outgoing("Transcript", "0" * 64, 10, [Attempt(NOON, None, "no answer within 10 s"), Attempt(NOON, 200)])
    for number, (callback, callbacks) in enumerate([(None, []), ("http://h/", []), ("http://h/", [sent])]):
        given = (f"id-{number}", LISTEN, NOON, "Transcript", "POST", callback, "reset" if callbacks else None)
        record.submissions.append(Submission(*given, callbacks))
    record.refusals.append(Refusal(NOON, "/v1/\x1bread", 401, "Invalid credentials."))
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(record))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in captured.get().splitlines() if "12:00" in line]
    assert rows == [
        ["12:00:00", "/v1/listen id-0", "", "answered at once", ""],
        ["12:00:00", "/v1/listen id-1", "", "http://h/", ""],
        ["12:00:00", "/v1/listen id-2", "reset", "Transcript to http://h/", "no answer within 10 s, 200"],
        ["12:00:00", "/v1/\\x1bread", "", "refused 401", "Invalid credentials."],
    ]
