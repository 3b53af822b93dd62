"""What the thread that writes is given at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from dgreceiver.inbox import writer as writing
from dgreceiver.inbox.writer import Job, Writer


class Batches:
    """Does nothing, and remembers how many jobs it was given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def transact(self, jobs: Sequence[Job]) -> Sequence[Job]:
        if jobs:
            self.sizes.append(len(jobs))
        return jobs

    def follow_up(self) -> Sequence[Job]:
        return []

    def pause(self) -> float | None:
        return None

    def shut(self) -> Sequence[Job]:
        return []


@asynccontextmanager
async def a_writer() -> AsyncIterator[tuple[Writer, Batches]]:
    batches = Batches()
    writer = Writer(batches, name="test", stuck=lambda error, left: None)
    writer.start()
    yield writer, batches
    await writer.stop()


async def test_what_comes_while_each_turn_of_the_loop_brings_more_is_one_batch(monkeypatch):
    monkeypatch.setattr(writing, "LONGEST_GATHERING", 60.0)
    async with a_writer() as (writer, batches):
        for _ in range(50):
            writer.do(Job())
            writer.do(Job())
            await asyncio.sleep(0)
    assert batches.sizes == [100]


async def test_no_more_is_held_back_than_a_batch_may_be():
    async with a_writer() as (writer, _):
        for _ in range(writing.MOST_JOBS):
            writer.do(Job())
        await asyncio.sleep(0)
        assert not writer._gathered


async def test_nothing_is_held_back_for_long_whatever_comes(monkeypatch):
    monkeypatch.setattr(writing, "LONGEST_GATHERING", 0.0)
    async with a_writer() as (writer, _):
        writer.do(Job())
        writer.do(Job())
        await asyncio.sleep(0)
        assert not writer._gathered


async def test_who_comes_alone_waits_for_nobody():
    async with a_writer() as (writer, _):
        writer.do(Job())
        await asyncio.sleep(0)
        assert not writer._gathered


@pytest.mark.parametrize("count", [1, 3])
async def test_what_was_held_back_is_done_before_the_end(count):
    async with a_writer() as (writer, _):
        jobs = [writer.do(Job()) for _ in range(count)]
    assert all(job.done() for job in jobs)
