"""What the receiver promises, with everything in place: files, sockets, processes, and what ends them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from dgreceiver import Event, RetryPolicy, Transcript, UtteranceEnd
from dgreceiver.core.callbacks import LIVE_KINDS
from dgreceiver.testing.payloads import Payload, audio, live_result, transcript, utterance_end

from .support import (
    PASSWORD,
    USER,
    Call,
    Ledger,
    Server,
    a_scope,
    address,
    bodies_of,
    deliver,
    entries_of,
    in_file,
    ledger_app,
    new_receiver,
    piece,
    post,
    serving,
    small_app,
    until,
    until_state,
)

PUBLISHED = Path(__file__).parents[2] / "shared" / "payloads"  # where there are some
MIB = 1024 * 1024


# --- nothing is handled twice, nothing is taken for what it is not


async def test_a_thousand_copies_at_once_are_handled_once(tmp_path):
    receiver, handled = new_receiver(inbox=in_file(tmp_path)), list[str]()
    receiver.on(Transcript)(lambda event: handled.append(event.request_id))
    payload = transcript()
    async with receiver.running():
        calls = await asyncio.gather(*(Call(piece(payload.body))(receiver, a_scope()) for _ in range(1000)))
        await receiver.idle()
    assert Counter((call.status, call.json["status"]) for call in calls) == {
        (200, "stored"): 1,
        (200, "duplicate"): 999,
    }
    assert len(handled) == 1


async def test_a_retry_changes_nothing_while_its_first_copy_is_handled():
    receiver, runs, go = new_receiver(), list[str](), asyncio.Event()

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        runs.append(event.request_id)
        await go.wait()

    async with receiver.running():
        payload = transcript()
        await deliver(receiver, payload)
        await until(lambda: runs)
        [answer] = await deliver(receiver, payload)
        go.set()
        await receiver.idle()
        assert answer["status"] == "duplicate"
        assert [entry.state for entry in await entries_of(receiver)] == ["done"]
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        pytest.param(RetryPolicy(first_wait=60.0), "waiting", id="after it failed"),
        pytest.param(RetryPolicy(attempts=1), "dead", id="after it is dead"),
    ],
)
async def test_a_retry_changes_nothing_when_its_first_copy_went_wrong(policy, state):
    receiver, runs = new_receiver(retry=policy), list[str]()

    @receiver.on(Transcript)
    async def fail(event: Transcript) -> None:
        runs.append(event.request_id)
        raise ValueError("no")

    async with receiver.running():
        payload = transcript()
        await deliver(receiver, payload)
        await until(lambda: runs)
        await until_state(receiver, state)
        [answer] = await deliver(receiver, payload)
        await receiver.idle()
        assert answer["status"] == "duplicate"
        assert [entry.state for entry in await entries_of(receiver)] == [state]
    assert len(runs) == 1


async def test_another_body_under_a_known_id_is_kept_as_a_conflict_until_it_is_replayed():
    receiver, said = new_receiver(), list[str]()
    receiver.on(Transcript)(lambda event: said.append(event.text))
    async with receiver.running():
        answers = await deliver(
            receiver,
            transcript("one", request_id="r"),
            transcript("two", request_id="r"),
            transcript("two", request_id="r"),
        )
        await receiver.idle()
        assert [answer["status"] for answer in answers] == ["stored", "conflict", "duplicate"]
        assert said == ["one"]
        assert await receiver.replay(state="conflict") == 1
        await receiver.idle()
    assert said == ["one", "two"]


@pytest.mark.parametrize("streams", [1, 2])
async def test_equal_messages_of_one_stream_or_two_are_never_taken_for_retries(streams):
    receiver, ends = new_receiver(), list[UtteranceEnd]()
    receiver.on(UtteranceEnd)(ends.append)
    async with receiver.running():
        for stream in range(streams):
            await deliver(receiver, live_result(request_id=f"stream {stream}"))
        answers = await deliver(receiver, *[utterance_end(-1)] * 6)
        await receiver.idle()
    assert {answer["status"] for answer in answers} == {"stored"}
    assert len(ends) == 6


# --- nothing acknowledged is lost


class Sender:
    """Deepgram's side: sends each callback until it is acknowledged."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.acknowledged: list[str] = []
        self.statuses = Counter[int | str]()
        self.over = False

    async def send_on(self) -> None:
        while not self.over:
            await self.send(transcript(request_id=str(uuid4())))

    async def until_acknowledged(self, more: int) -> None:
        enough = len(self.acknowledged) + more
        await until(lambda: len(self.acknowledged) >= enough)

    async def send(self, payload: Payload) -> None:
        while True:
            try:
                answer = await post(self._client, payload)
            except httpx.TransportError as error:
                self.statuses[type(error).__name__] += 1
            else:
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.acknowledged.append(answer.json()["request_id"])
                    return


async def test_what_was_acknowledged_is_handled_whenever_the_process_is_killed(tmp_path):
    ledger, dice = Ledger(tmp_path), random.Random(7)
    with serving(ledger_app, tmp_path) as (listening, servers):
        async with httpx.AsyncClient(base_url=address(listening), auth=(USER, PASSWORD), timeout=20.0) as client:
            sender = Sender(client)
            sending = [asyncio.create_task(sender.send_on()) for _ in range(8)]
            for _ in range(20):
                await sender.until_acknowledged(1)
                await asyncio.sleep(dice.uniform(0.05, 0.4))  # any moment will do
                await asyncio.to_thread(servers[-1].kill)
                servers.append(Server(ledger_app, tmp_path, listening))
            sender.over = True
            await asyncio.gather(*sending)
            await until(lambda: set(sender.acknowledged) <= set(ledger.about("ended")), within=30.0)
            await asyncio.to_thread(servers[-1].stop)
    assert set(sender.statuses) & {500, 503} == set()
    assert {entry.state for entry in await entries_of(new_receiver(inbox=in_file(tmp_path)))} == {"done"}
    assert unexplained(ledger, {server.pid: server.killed_at for server in servers}) == []


def unexplained(ledger: Ledger, killed_at: Mapping[int, float]) -> list[str]:
    """What was handled again though its handling before was not cut off by a kill."""
    runs = defaultdict[str, list[Mapping[str, Any]]](list)
    for line in ledger.read():
        if line["what"] == "begun":
            runs[line["about"]].append(line)
    ended = {(line["about"], line["by"]): line["at"] for line in ledger.read() if line["what"] == "ended"}
    return [
        about
        for about, its in runs.items()
        for first, second in pairwise(its)
        if first["by"] == second["by"]
        or not first["at"] <= killed_at[first["by"]] <= second["at"]
        or ended.get((about, first["by"]), killed_at[first["by"]]) < killed_at[first["by"]] - 1.0  # settled by then
    ]


async def test_of_four_processes_all_store_and_one_dispatches_until_it_is_killed(tmp_path):
    ledger = Ledger(tmp_path)
    with serving(ledger_app, tmp_path, processes=4) as (listening, servers):
        limits = httpx.Limits(max_keepalive_connections=0)  # so that every process gets some
        async with httpx.AsyncClient(
            base_url=address(listening), auth=(USER, PASSWORD), timeout=20.0, limits=limits
        ) as client:
            sender = Sender(client)
            await asyncio.gather(*(sender.send(transcript()) for _ in range(200)))
            await until(lambda: len(ledger.about("ended")) == 200)
            [owner] = ledger.by("begun")
            assert len(ledger.by("stored")) > 1
            [first] = [server for server in servers if server.pid == owner]
            before = time.monotonic()
            await asyncio.to_thread(first.kill)
            await asyncio.gather(*(sender.send(transcript()) for _ in range(20)))
            await until(lambda: len(set(ledger.about("ended"))) == 220)
            late = [line for line in ledger.read() if line["what"] == "begun" and line["by"] != owner]
    assert set(sender.acknowledged) == set(ledger.about("ended"))
    assert len({line["by"] for line in late}) == 1
    assert late[0]["at"] - before < 1.0


# --- nobody else's trouble


async def test_large_bodies_wait_for_room_and_memory_stays_bounded(tmp_path):
    with serving(small_app, tmp_path) as (listening, [server]):
        async with httpx.AsyncClient(base_url=address(listening), auth=(USER, PASSWORD), timeout=20.0) as client:
            await client.get("/")
            before, most = server.memory(), 0
            bodies = [asyncio.create_task(post(client, Payload(random_body(), {}, "Unknown"))) for _ in range(60)]
            while not all(task.done() for task in bodies):
                most = max(most, server.memory())
                await asyncio.sleep(0.01)
            statuses = Counter(task.result().status_code for task in bodies)
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 12
    assert (
        most - before < 256 * MIB
    )  # 64 in pieces; and while one is put together and looked through, it is there twice


def random_body() -> bytes:
    return random.Random(uuid4().int).randbytes(5 * MIB)


# --- every payload that was ever published


def published() -> list[tuple[str, Payload]]:
    """The whole bodies that the index names, each with an id of its own where its kind has one, and audio."""
    index = json.loads((PUBLISHED / "INDEX.json").read_text())
    files = [one["file"] for one in index if one["file"].endswith(".json") and one["whole_body"] and one["valid_json"]]
    return [(file, payload) for file in files if (payload := unique(PUBLISHED / file))]


def unique(path: Path) -> Payload | None:
    document = json.loads(path.read_text())
    kind = {"listen_batch": "Transcript", "read": "Analysis", "errors": "Failure"}.get(path.parent.name)
    if path.parent.name == "speak_headers":
        return audio(0.1, headers={name: value for name, value in document.items() if name.startswith("dg-")})
    if path.parent.name == "listen_stream":
        kind = LIVE_KINDS[document["type"]]
    if kind is None:
        return None
    place = document.get("metadata", document)
    if "request_id" in place:
        place["request_id"] = str(uuid4())
    return Payload(json.dumps(document).encode(), {"content-type": "application/json"}, kind)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published payloads are not part of the project")
async def test_every_published_payload_is_stored_as_it_came_and_becomes_its_event():
    receiver, events = new_receiver(), list[Event]()
    receiver.on(Event)(events.append)
    payloads = published()
    async with receiver.running():
        await deliver(receiver, *(payload for _, payload in payloads))
        await receiver.idle()
        assert await bodies_of(receiver) == [payload.body for _, payload in payloads]
    became = {event.raw: type(event).__name__ for event in events}
    assert [(file, became[payload.body]) for file, payload in payloads] == [
        (file, payload.kind) for file, payload in payloads
    ]
