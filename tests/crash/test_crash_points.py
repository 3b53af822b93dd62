"""A process that is killed at any point of the way loses nothing, and repeats nothing but what it could not note."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from dgreceiver import Bury, Transcript
from dgreceiver.inbox.contract import Inbox
from dgreceiver.testing.payloads import transcript

from ..support import PASSWORD, USER, Ledger, deliver, in_file, new_receiver
from .apps import Life, Process, erase, make, purge, replay, work
from .lives import OFTEN, Lives, passages
from .points import Point
from .stories import STORIES

AT_A_TIME = 2
TRIED_WHOLE = "a transcript"
EACH = int(os.environ.get("EACH_CRASH_POINT", "5"))  # of the other stories is tried: all take half a minute
PAGE = (Path(__file__).parents[2] / "docs" / "crash-points.md").read_text()


def listed(section: str) -> set[str]:
    """The points that the page names there."""
    return set(re.findall(r"`([^`]+)`", PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]))


@pytest.fixture(scope="module")
async def template(tmp_path_factory):
    """A folder with an inbox that is ready: to migrate one takes longer than a telling."""
    folder = tmp_path_factory.mktemp("template")
    async with new_receiver(inbox=in_file(folder)).opened():
        return folder


@pytest.fixture
async def client():
    async with httpx.AsyncClient(auth=(USER, PASSWORD)) as opened:
        yield opened


# --- from body to settled


@pytest.mark.parametrize("name", STORIES)
async def test_whenever_a_process_is_killed_all_is_handled_once_and_in_order(name, tmp_path, template, client):
    lives = [Lives(STORIES[name], shutil.copytree(template, tmp_path / str(n)), client) for n in range(AT_A_TIME)]
    points = await lives[0].points()
    tried = points if name == TRIED_WHOLE else points[::EACH]
    told = await asyncio.gather(*(each.end_at(tried[n::AT_A_TIME]) for n, each in enumerate(lives)))
    tellings = [telling for each in told for telling in each]
    again = {telling.point.name for telling in tellings if telling.point and telling.again}
    assert [f"{telling.point}: {wrong}" for telling in tellings for wrong in telling.wrong] == []
    assert sum(telling.missed for telling in tellings) <= len(tellings) // 10
    assert {point.name for point in points} - listed("The points") == set()
    if name == TRIED_WHOLE:  # in the others something else may be done at the same time
        assert {each for each in again if not each.startswith(OFTEN)} == listed("Where a repeat comes from")


# --- what is done to a file


async def unmade(folder: Path) -> None:
    """Leave the folder empty."""


async def used(folder: Path) -> None:
    """Make an inbox in which one callback is done and one is dead."""
    receiver = new_receiver(inbox=in_file(folder))

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        if event.request_id == "dead-1":
            raise Bury("never")

    async with receiver.running():
        await deliver(receiver, transcript(request_id="secret-1"), transcript(request_id="dead-1"))
        await receiver.idle()


@pytest.mark.parametrize(
    ("arrange", "what", "states"),
    [
        pytest.param(unmade, make, {}, id="it is made"),
        pytest.param(used, erase, {"erased": 1, "dead": 1}, id="a request is erased"),
        pytest.param(used, purge, {"dead": 1}, id="what is over is purged"),
        pytest.param(used, replay, {"done": 1, "waiting": 1}, id="what is dead is replayed"),
    ],
)
async def test_what_is_done_to_a_file_is_done_when_it_is_tried_again(arrange, what, states, tmp_path):
    folder = tmp_path / "before"
    folder.mkdir()
    await arrange(folder)
    points = passages(await passed(shutil.copytree(folder, tmp_path / "seen"), what, None))
    ends = await in_turn(points, lambda point: ended_at(point, shutil.copytree(folder, tmp_path / str(point)), what))
    assert ends == dict.fromkeys(points, states)
    assert {point.name for point in points} - listed("The points") == set()


async def passed(folder: Path, what: Callable[[Inbox], Awaitable[object]], ends_at: Point | None) -> list[str]:
    """The points that a process comes by while it does something to a file."""
    process = Process(work, folder, Life(ends_at, counts_at_once=what is make), what)
    await process.ended()
    lines = Ledger(folder).read()
    [begun] = [n for n, line in enumerate(lines) if line["what"] == "begin"]
    return [line["about"] for line in lines[begun:] if line["what"] == "point"]


async def ended_at(point: Point, folder: Path, what: Callable[[Inbox], Awaitable[object]]) -> Mapping[str, int]:
    """How it stands when a process was killed there and another has tried again."""
    assert (await passed(folder, what, point))[-1] == point.name
    async with new_receiver(inbox=in_file(folder)).opened() as inbox:
        await what(inbox)
        states: Mapping[Any, int] = await inbox.counts()
    assert what is not erase or b"secret-1" not in contents(folder)
    return states


def contents(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.iterdir())


async def in_turn(points: Collection[Point], end: Callable[[Point], Awaitable[object]]) -> dict[Point, object]:
    """What came of each, so many at a time."""
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(point: Point) -> tuple[Point, object]:
        async with turns:
            return point, await end(point)

    return dict(await asyncio.gather(*map(one, points)))
