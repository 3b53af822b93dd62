"""A process that is killed at any point of the way loses nothing, and repeats nothing but what it could not note."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ..support import PASSWORD, USER, in_file, new_receiver
from .lives import OFTEN, Lives
from .stories import STORIES

AT_A_TIME = 2
PAGE = Path(__file__).parents[2] / "docs" / "crash-points.md"


@pytest.fixture(scope="module")
async def template(tmp_path_factory):
    """A folder with an inbox that is ready: to migrate one takes longer than a telling."""
    folder = tmp_path_factory.mktemp("template")
    async with new_receiver(inbox=in_file(folder)).opened():
        pass
    return folder


@pytest.fixture
async def client():
    async with httpx.AsyncClient(auth=(USER, PASSWORD)) as opened:
        yield opened


@pytest.mark.parametrize("name", STORIES)
async def test_whenever_a_process_is_killed_all_is_handled_once_and_in_order(name, tmp_path, template, client):
    lives = []
    for n in range(AT_A_TIME):
        folder = shutil.copytree(template, tmp_path / str(n))
        lives.append(Lives(STORIES[name], folder, client))
    points = await lives[0].points()
    tellings = await asyncio.gather(*(each.end_at(points[n::AT_A_TIME]) for n, each in enumerate(lives)))
    told = [telling for each in tellings for telling in each]
    assert [f"{telling.point}: {wrong}" for telling in told for wrong in telling.wrong] == []
    print(sorted({t.point.name for t in told if t.again}))
    print(sorted({p.name for p in points}))
