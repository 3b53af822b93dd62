"""The receiver in the apps of four frameworks and by itself, under four servers, each a process as users start it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, product
from pathlib import Path

import httpx
import pytest

from dgreceiver.testing.payloads import transcript

from ..support import PASSWORD, USER, Ledger, a_port, post, unmeasured, until
from .apps import APPS, a_receiver

ROOT = Path(__file__).parents[2]
SERVERS = {
    "uvicorn httptools": "uvicorn --http httptools --port {port}",
    "uvicorn h11": "uvicorn --http h11 --port {port}",
    "hypercorn": "hypercorn --bind 127.0.0.1:{port}",
    "granian": "granian --interface asgi --port {port}",
}
PATHS = {"alone": "/any/path", "middleware": "/middleware", "mounted": "/mounted/"}  # of the ways in
EVERY_CASE = bool(os.environ.get("EVERY_CASE"))  # else about half: each is a process with all its imports
AT_ONCE = 3  # servers that run at a time
CALLERS = 4  # for each way
ENOUGH = 30  # callbacks that are acknowledged before the server is stopped
ALARM = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|Warning|Exception|Traceback")
CUT_OFF = "the connection ended before the body was whole"  # hypercorn does that when it stops; nobody was answered


@dataclass(frozen=True)
class Case:
    server: str
    app: str

    def __str__(self) -> str:
        return f"{self.app} under {self.server}"

    @property
    def ways(self) -> tuple[str, ...]:
        return APPS[self.app][1]


@dataclass(frozen=True)
class Story:
    """What a server did from its start to its end, and who handled what in that time and after it."""

    answers: dict[str, list[str]]  # by way: to a callback and to its retry
    own: str  # of the app's own route
    acknowledged: list[str]
    left: int  # that were not handled when the server had ended
    handled: Counter[str]
    log: str
    code: int | None


def is_tried(server: int, app: int) -> bool:
    """By itself under every server, and each framework under every other one, so that each server has some of them."""
    return EVERY_CASE or app == 0 or (server + app) % 2 == 1


CASES = [Case(server, app) for (s, server), (a, app) in product(enumerate(SERVERS), enumerate(APPS)) if is_tried(s, a)]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
async def stories(request, tmp_path_factory) -> AsyncIterator[dict[Case, asyncio.Task[Story]]]:
    """The story of each case that is to be tested; a few go on at a time."""
    few = asyncio.Semaphore(AT_ONCE)

    async def tell(case: Case) -> Story:
        async with few:
            return await story_of(case, tmp_path_factory.mktemp("served"))

    mine = [item for item in request.session.items if item.path == request.path and "story" in item.fixturenames]
    cases = dict.fromkeys(item.callspec.params["case"] for item in mine)
    tasks = {case: asyncio.create_task(tell(case)) for case in cases}
    yield tasks
    await asyncio.wait(tasks.values())


@pytest.fixture
async def story(case: Case, stories: dict[Case, asyncio.Task[Story]]) -> Story:
    need(case)
    return await stories[case]


def need(case: Case) -> None:
    for module in (case.server.split()[0], case.app.split()[0]):
        if module != "alone" and find_spec(module) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{module} is not installed")


async def story_of(case: Case, folder: Path) -> Story:
    async with server_of(case, folder) as (process, client):
        answers = {way: [await send(client, way, "first"), await send(client, way, "first")] for way in case.ways}
        own = "" if case.app == "alone" else (await client.get("/own")).text
        acknowledged = [f"{way} first" for way in case.ways]
        callers = [
            asyncio.create_task(call_on(client, way, str(number), acknowledged))
            for way, number in product(case.ways, range(CALLERS))
        ]
        await until(lambda: len(acknowledged) >= ENOUGH or all(caller.done() for caller in callers))
        process.terminate()
        await asyncio.gather(*callers)
        code = await asyncio.wait_for(process.wait(), 20)
    before = len(Ledger(folder).about("handled"))
    for way in case.ways:
        await start_again(folder, way)
    handled = Ledger(folder).about("handled")
    log = (folder / "log.txt").read_text()
    return Story(answers, own, acknowledged, len(handled) - before, Counter(handled), log, code)


@asynccontextmanager
async def server_of(case: Case, folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    with a_port() as port, (folder / "log.txt").open("w") as log:
        words = SERVERS[case.server].format(port=port).split()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words, "tests.hosts.apps:app"),
            cwd=ROOT,
            env={**unmeasured(), "PYTHONPATH": os.pathsep.join(["src", "."]), "APP": case.app, "FOLDER": str(folder)},
            stdout=log,
            stderr=log,
        )
        try:
            await until(lambda: is_open(port) or process.returncode is not None, within=30)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", auth=(USER, PASSWORD), timeout=20
            ) as client:
                yield process, client
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


async def send(client: httpx.AsyncClient, way: str, number: str) -> str:
    answer = await post(client, transcript(request_id=f"{way} {number}"), PATHS[way])
    return str(answer.json().get("status", answer.status_code))


async def call_on(client: httpx.AsyncClient, way: str, caller: str, acknowledged: list[str]) -> None:
    """Send one callback after the other until one is not taken; note those that are."""
    for number in count():
        name = f"{caller}.{number}"
        try:
            if await send(client, way, name) != "stored":
                return
        except httpx.TransportError:
            return
        acknowledged.append(f"{way} {name}")


async def start_again(folder: Path, way: str) -> None:
    receiver = a_receiver(folder, way, work=0)
    async with receiver.running():
        await receiver.idle()


@every_case
async def test_a_callback_is_stored_and_its_retry_recognised_beside_the_apps_own_routes(case, story):
    assert story.answers == {way: ["stored", "duplicate"] for way in case.ways}
    assert story.own == ("" if case.app == "alone" else "the app")


@every_case
async def test_a_server_stopped_under_load_loses_nothing_and_handles_nothing_twice(case, story):
    assert len(story.acknowledged) >= ENOUGH
    assert set(story.acknowledged) - set(story.handled) == set()
    assert [name for name, times in story.handled.items() if times > 1] == []
    assert story.left > 0  # it was behind with its handlers: what was left, waited


@every_case
async def test_the_log_holds_no_alarm(case, story):
    alarms = [line for line in story.log.splitlines() if ALARM.search(line) and CUT_OFF not in line]
    assert alarms == []


@pytest.mark.parametrize("server", ["uvicorn httptools", "hypercorn", "granian"])
async def test_a_server_ends_and_says_why_when_the_receiver_does_not_start(server, tmp_path):
    case = Case(server, "starlette")
    need(case)
    (tmp_path / "middleware.db").mkdir()  # in the place of the inbox
    async with server_of(case, tmp_path) as (process, _):
        await asyncio.wait_for(process.wait(), 20)
    assert "cannot open the inbox" in (tmp_path / "log.txt").read_text()
