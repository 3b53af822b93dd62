"""What waits between a socket and an inbox that is slow: it stays in order, in bounds, and off the disk if it can."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import stat
import tempfile
from datetime import UTC, datetime

import pytest

from dgreceiver.errors import SpoolFull
from dgreceiver.web.spool import AT_ONCE, HELD, Backlog, Frame

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC).timestamp()
BIG = HELD // 4  # bytes: four fill the memory


def frame(number: int, size: int = BIG) -> Frame:
    return Frame(number, NOON, bytes([number % 256]) * size)


class Spilled(list[int]):
    def __call__(self) -> None:
        self.append(1)


def a_backlog(*, patience: float = 0.0, spool: int = 64 * HELD) -> tuple[Backlog, Spilled]:
    spilled = Spilled()
    return Backlog(spilled=spilled, patience=patience, spool=spool), spilled


async def rest(backlog: Backlog) -> list[Frame]:
    """All that is still to come out."""
    backlog.end()
    taken: list[Frame] = []
    while some := await backlog.take():
        taken += some
    backlog.close()
    return taken


@pytest.mark.parametrize(
    ("sizes", "spills"),
    [
        pytest.param([10] * 300, 0, id="small ones stay in memory"),
        pytest.param([BIG] * 40, 1, id="what is over goes to the disk"),
        pytest.param([16 * HELD, 0, 16 * HELD, 3], 1, id="one that is larger than the memory"),
        pytest.param([0] * 4200, 1, id="empty ones weigh too"),
    ],
)
async def test_what_goes_in_comes_out_in_order_and_whole(sizes, spills):
    backlog, spilled = a_backlog()
    frames = [frame(number, size) for number, size in enumerate(sizes, 1)]
    for each in frames:
        await backlog.add(each)
    assert await rest(backlog) == frames
    assert len(spilled) == spills


async def test_order_holds_while_it_is_emptied_and_filled_again():
    backlog, spilled = a_backlog()
    frames = [frame(number) for number in range(1, 61)]
    taken: list[Frame] = []
    for some, left in ((frames[:20], 7), (frames[20:21], 0), (frames[21:45], 7), (frames[45:], 7)):
        for each in some:
            await backlog.add(each)
        while len(taken) < some[-1].number - left:
            taken += await backlog.take()
    assert taken + await rest(backlog) == frames
    assert len(spilled) > 1


async def test_no_more_is_taken_at_once_than_is_stored_together():
    backlog, _ = a_backlog()
    for number in range(2 * AT_ONCE + 1):
        await backlog.add(frame(number, 1))
    assert [len(await backlog.take()) for _ in range(3)] == [AT_ONCE, AT_ONCE, 1]


async def test_who_finds_no_room_waits_a_moment_for_it():
    backlog, spilled = a_backlog(patience=10)
    for number in range(4):
        await backlog.add(frame(number))
    adding = asyncio.create_task(backlog.add(frame(4)))
    await asyncio.sleep(0)
    assert not adding.done()
    assert len(await backlog.take()) == 4
    await adding
    assert [each.number for each in await rest(backlog)] == [4]
    assert spilled == []


async def test_who_takes_waits_until_something_comes():
    backlog, _ = a_backlog()
    taking = asyncio.create_task(backlog.take())
    await asyncio.sleep(0)
    await backlog.add(frame(1, 1))
    assert await taking == [frame(1, 1)]
    taking = asyncio.create_task(backlog.take())
    backlog.end()
    assert await taking == []


async def test_the_disk_that_one_socket_may_use_is_bounded_and_what_came_stays():
    backlog, _ = a_backlog(spool=HELD)
    added = 0
    with pytest.raises(SpoolFull, match=f"nothing for so long that {HELD} bytes were put aside"):  # noqa: PT012 - which one it is, is not the point
        while True:
            await backlog.add(frame(added))
            added += 1
    assert [each.number for each in await rest(backlog)] == list(range(added))


async def test_a_disk_that_takes_nothing_is_an_error_and_what_came_stays():
    backlog, _ = a_backlog()
    for number in range(6):
        await backlog.add(frame(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BIG, hard))
    try:
        with pytest.raises(SpoolFull, match=os.strerror(errno.EFBIG)):
            await backlog.add(frame(6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [each.number for each in await rest(backlog)] == list(range(6))


async def test_what_is_put_aside_has_no_name_and_nobody_else_may_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    backlog, _ = a_backlog()
    for number in range(6):
        await backlog.add(frame(number))
    there = os.fstat(backlog._spool._file.fileno())
    assert (stat.filemode(there.st_mode), there.st_nlink) == ("-rw-------", 0)
    assert (there.st_dev, list(tmp_path.iterdir())) == (tmp_path.stat().st_dev, [])
    await rest(backlog)


async def test_what_is_over_takes_nothing():
    backlog, _ = a_backlog()
    backlog.end()
    with pytest.raises(SpoolFull, match="stopped"):
        await backlog.add(frame(1))
