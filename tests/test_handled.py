"""`ack="handled"`: the answer comes when the handlers are through, for hosts that freeze between requests."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from dgreceiver import Bury, Receiver, RetryPolicy, Transcript
from dgreceiver.facts import CallbackRefused, CallbackStored, SetupDoubtful
from dgreceiver.inbox.memory import MemoryInbox
from dgreceiver.testing.payloads import transcript
from dgreceiver.web.http import HttpDoor
from dgreceiver.web.intake import Intake, Limits
from dgreceiver.web.refusals import Refusals

from .support import (
    AUTH,
    PASSWORD,
    USER,
    Call,
    Facts,
    Ledger,
    Server,
    a_scope,
    address,
    calling,
    in_file,
    new_receiver,
    piece,
    post,
    serving,
    until,
)

MIB = 1024 * 1024
NEVER = RetryPolicy(first_wait=600.0)  # within a test, unless the sender asks again


def noon() -> datetime:
    return datetime(2026, 1, 1, 12, tzinfo=UTC)


def failing(*errors: Exception, **options: Any) -> tuple[Receiver, list[int]]:
    """A receiver whose handler raises these and then succeeds, and the attempts that it was given."""
    receiver, attempts, left = new_receiver(ack="handled", retry=NEVER, **options), list[int](), list(errors)

    @receiver.on(Transcript)
    async def save(event: Transcript, delivery: Any) -> None:
        attempts.append(delivery.attempt)
        if left:
            raise left.pop(0)

    return receiver, attempts


async def statuses(receiver: Receiver, *, times: int) -> list[int]:
    """The answers to one callback that is sent so many times, one after the other."""
    payload = transcript()
    async with receiver.running(), calling(receiver) as client:
        return [(await post(client, payload)).status_code for _ in range(times)]


async def counts_of(receiver: Receiver) -> Mapping[Any, int]:
    async with receiver.opened() as inbox:
        return await inbox.counts()


@pytest.mark.parametrize(
    ("errors", "answers", "attempts"),
    [
        pytest.param([], [200, 200], [1], id="it succeeds"),
        pytest.param([ValueError(), ValueError()], [503, 503, 200, 200], [1, 2, 3], id="it fails twice"),
        pytest.param([Bury("no use")], [200, 200], [1], id="it gives up"),
    ],
)
async def test_the_sender_asks_until_the_handlers_are_through(errors, answers, attempts):
    receiver, run = failing(*errors)
    assert await statuses(receiver, times=len(answers)) == answers
    assert run == attempts


async def test_what_nobody_wants_is_acknowledged():
    receiver = new_receiver(ack="handled")
    receiver.on(Transcript)(lambda event: None)
    async with receiver.running(), calling(receiver) as client:
        assert (await client.post("/", content=b"?")).status_code == 200


async def test_a_conflict_is_kept_and_not_waited_for():
    receiver, _ = failing()
    async with receiver.running(), calling(receiver) as client:
        answers = [await post(client, transcript(request_id="r-1", a=a)) for a in (1, 2)]
    assert [answer.json()["status"] for answer in answers] == ["stored", "conflict"]


@pytest.mark.parametrize(("error", "answer"), [(None, 200), (ValueError(), 503)])
async def test_duplicates_that_come_in_the_meantime_get_the_same_answer(error, answer):
    facts, go, runs = Facts(), asyncio.Event(), list[str]()
    receiver = new_receiver(ack="handled", retry=NEVER, hooks=[facts])

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        runs.append(event.request_id)
        await go.wait()
        if error:
            raise error

    payload = transcript()
    async with receiver.running(), calling(receiver) as client:
        first = asyncio.ensure_future(post(client, payload))
        await until(lambda: runs)
        others = [asyncio.ensure_future(post(client, payload)) for _ in range(5)]
        await until(lambda: len(facts.of(CallbackStored)) == 6)
        await counts_of(receiver)  # behind what they asked of the inbox
        go.set()
        answers = await asyncio.gather(first, *others)
    assert {response.status_code for response in answers} == {answer}
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("begun", "reason"),
    [
        pytest.param(True, "stored, and its handlers run on after 0.02 s; a retry asks again", id="they run"),
        pytest.param(False, "stored, and waits for another attempt of its handlers; a retry is one", id="they wait"),
    ],
)
async def test_handlers_that_take_too_long_are_left_to_go_on(begun, reason):
    facts, inbox = Facts(), MemoryInbox(receiver="default", emit=Facts())
    await inbox.open()
    claim = asyncio.ensure_future(inbox.claim(1, room=MIB))
    if not begun:
        claim.cancel()
    intake = Intake(inbox, AUTH, Limits(), ack="handled", emit=facts, now=time.time, handled_within=0.02)
    call = await Call(piece(transcript().body))(HttpDoor(intake, Refusals(), emit=facts, now=noon), a_scope())
    await asyncio.wait([claim])
    states = await inbox.counts()
    await inbox.close()
    assert (call.status, [fact.reason for fact in facts.of(CallbackRefused)]) == (503, [reason])
    assert states == {"leased" if begun else "waiting": 1}


async def test_without_handlers_the_start_says_what_becomes_of_it():
    facts = Facts()
    async with new_receiver(ack="handled", hooks=[facts]).running():
        pass
    [doubt] = facts.of(SetupDoubtful)
    assert doubt.advice.startswith('ack="handled" waits for handlers, and this receiver has none')


def noting_app(folder: Path) -> Receiver:
    """Answers when it has handled; notes what it handles."""
    receiver, ledger = new_receiver(ack="handled", inbox=in_file(folder)), Ledger(folder)
    receiver.on(Transcript)(lambda event: ledger.note("handled", event.request_id))
    return receiver


async def test_a_process_that_is_frozen_after_its_answer_loses_nothing(tmp_path):
    with serving(noting_app, tmp_path) as (listening, servers):
        async with httpx.AsyncClient(base_url=address(listening), auth=(USER, PASSWORD), timeout=20) as client:
            answers = [await post(client, transcript(request_id="r-1"))]
            os.kill(servers[0].pid, signal.SIGSTOP)  # as a host that freezes, and then ends it
            servers[0].kill()
            servers.append(Server(noting_app, tmp_path, listening))
            answers += [await post(client, transcript(request_id=id_)) for id_ in ("r-1", "r-2")]
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [
        (200, "stored"),
        (200, "duplicate"),
        (200, "stored"),
    ]
    assert Ledger(tmp_path).about("handled") == ["r-1", "r-2"]
