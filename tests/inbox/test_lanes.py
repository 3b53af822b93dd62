"""Live streams in every store: when they end, what belongs to them, and that each is told of once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dgreceiver.core.callbacks import identify
from dgreceiver.inbox.tables import bodies, callbacks, lanes, streams

from .stores import (
    FAILED,
    ask,
    callback,
    claimed,
    ending,
    entry_of,
    look,
    message,
    nothing_is_due,
    result,
    rows_in,
    told,
    transcript,
    wholes,
    worked_off,
)

IDLE, SETTLING, APART, LOOK = 600.0, 5.0, 30.0, 5.0  # seconds
DAY = timedelta(days=1)
SOCKET: dict[str, Any] = {"connection": "c-1", "frame": 0}


def lane_of(came):
    return identify(came, receiver="default").lane


async def put_all(inbox, *came):
    return [await inbox.put(each) for each in came]


async def ended_stream(inbox, shelf, request_id="r-1", **fields):
    """A stream of two results that has been handled, all of it; its first LiveTranscript."""
    await put_all(inbox, result(request_id, "one", **fields), result(request_id, "two", **fields))
    await inbox.put(ending(request_id, **fields))
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    return (await wholes(inbox))[-1]


# --- when it ends ---


@pytest.mark.parametrize(
    ("last", "after", "complete"),
    [
        pytest.param(ending("r-1"), SETTLING, True, id="after its own end"),
        pytest.param(result("r-1", "two"), IDLE, False, id="after a long silence"),
    ],
)
async def test_a_stream_ends_in_its_time_and_is_told_of_once(shelf, inbox, last, after, complete):
    await put_all(inbox, result("r-1", "one"), last)
    shelf.clock.now += after - 0.1
    assert next(entry.kind for entry, _ in await worked_off(inbox)) == "LiveResult"
    assert await wholes(inbox) == []
    shelf.clock.now += 0.1
    [(entry, _)] = await worked_off(inbox)
    text = "one" if complete else "one two"
    assert (entry.kind, entry.request_id, await told(inbox, entry)) == ("LiveTranscript", "r-1", (text, complete, 0))
    shelf.clock.now += 10 * IDLE
    assert await worked_off(inbox) == []


async def test_each_message_of_an_open_stream_puts_its_end_off(shelf, inbox):
    for text in "abc":
        await inbox.put(result("r-1", text))
        shelf.clock.now += IDLE - 1
    await worked_off(inbox)
    assert await wholes(inbox) == []


async def test_a_message_after_its_own_end_does_not_put_the_end_off(shelf, inbox):
    await put_all(inbox, result("r-1", "one"), ending("r-1"))
    shelf.clock.now += SETTLING - 1
    await inbox.put(result("r-1", "late"))
    shelf.clock.now += 1
    await worked_off(inbox)
    [entry] = await wholes(inbox)
    assert await told(inbox, entry) == ("one late", True, 0)


async def test_a_claim_that_waits_is_given_the_end(shelf, inbox):
    await put_all(inbox, result("r-1", "one"), ending("r-1"))
    await worked_off(inbox)
    claim = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    shelf.clock.now += SETTLING
    [(entry, _)] = await claim
    assert entry.kind == "LiveTranscript"


async def test_the_end_comes_while_there_is_no_pause_in_what_comes_in(shelf, inbox):
    await put_all(inbox, ending("r-1"))
    await worked_off(inbox)
    shelf.clock.now += SETTLING
    await inbox.put(transcript("r-2"))
    assert len(await wholes(inbox)) == 1


async def test_an_inbox_is_busy_with_an_end_that_is_due(shelf, inbox):
    await inbox.put(ending("r-1"))
    await worked_off(inbox)
    assert not await inbox.busy()
    shelf.clock.now += SETTLING
    assert await inbox.busy()


async def test_many_streams_end_at_once(shelf, inbox):
    await asyncio.gather(*(inbox.put(ending(f"r-{n}")) for n in range(200)))
    await asyncio.gather(*(inbox.settle(entry, "done", {}) for entry, _ in await claimed(inbox, 200)))
    shelf.clock.now += SETTLING
    done = await worked_off(inbox)
    assert len({entry.request_id for entry, _ in done}) == len(done) == 200


# --- sockets ---


async def test_a_stream_that_comes_by_a_socket_ends_when_it_is_hung_up(shelf, inbox):
    came = [result("r-1", "one", **SOCKET), ending("r-1", connection="c-1", frame=1)]
    await inbox.put_frames(came)
    shelf.clock.now += 10 * IDLE
    await worked_off(inbox)
    assert await wholes(inbox) == []
    await inbox.hang_up(lane_of(came[0]))
    [(entry, _)] = await worked_off(inbox)
    assert await told(inbox, entry) == ("one", True, 0)


async def test_a_lane_that_is_hung_up_before_it_has_a_name_tells_of_nothing(inbox):
    await inbox.put_frames([message("j-1", **SOCKET)])
    await inbox.hang_up(lane_of(message("j-1", **SOCKET)))
    await inbox.hang_up("a lane that nothing came by")
    assert [entry.kind for entry, _ in await worked_off(inbox)] == ["SpeechStarted"]


async def test_a_socket_whose_process_closed_its_inbox_has_ended(durable):
    async with durable.opened() as inbox:
        await inbox.put_frames([result("r-1", "one", **SOCKET)])
    durable.clock.now += LOOK
    async with durable.opened() as inbox:
        await worked_off(inbox)
        assert await told(inbox, (await wholes(inbox))[0]) == ("one", False, 0)


async def test_a_socket_of_another_process_that_lives_goes_on(durable):
    async with durable.opened() as holder, durable.opened() as owner:
        await holder.put_frames([result("r-1", "one", **SOCKET)])
        for _ in range(3):
            durable.clock.now += LOOK
            await worked_off(owner)
        assert await wholes(owner) == []
        await holder.hang_up(lane_of(result("r-1", **SOCKET)))
        [(entry, _)] = await worked_off(owner)
        assert entry.kind == "LiveTranscript"


# --- what belongs to it ---


async def test_a_whole_stands_behind_its_messages(shelf, inbox):
    await put_all(inbox, result("r-1", "one"), ending("r-1"))
    shelf.clock.now += SETTLING
    for kind in ("LiveResult", "StreamMetadata", "LiveTranscript"):
        [(entry, _)] = await claimed(inbox)
        assert entry.kind == kind
        assert await nothing_is_due(inbox)
        await inbox.settle(entry, "done", {})


async def test_two_submissions_by_one_url_are_two_streams(shelf, inbox):
    await put_all(
        inbox,
        *(message("j-1"), result("r-1", "one", job="j-1"), message("j-1")),
        *(result("r-2", "two", job="j-1"), result("r-1", "more", job="j-1"), message("j-1")),
        *(ending("r-1", job="j-1"), ending("r-2", job="j-1")),
    )
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    assert [await told(inbox, entry) for entry in await wholes(inbox)] == [("one more", True, 0), ("two", True, 0)]
    assert [len(await inbox.messages(entry)) for entry in await wholes(inbox)] == [5, 3]


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "one after another"])
async def test_what_came_before_the_first_name_belongs_to_the_stream(shelf, inbox, at_once):
    came = [message("j-1", "a"), message("j-1", "b"), ending("r-1", job="j-1")]
    await (asyncio.gather(*map(inbox.put, came)) if at_once else put_all(inbox, *came))
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    [entry] = await wholes(inbox)
    assert await inbox.messages(entry) == [each.body for each in came]


async def test_a_stream_that_names_no_request_is_told_of_never(shelf, inbox):
    await put_all(inbox, message("j-1"), message("j-1"))
    shelf.clock.now += 10 * IDLE
    assert [entry.kind for entry, _ in await worked_off(inbox)] == ["SpeechStarted"] * 2


async def test_a_long_stream_is_told_of_in_order(shelf, inbox):
    came = [result("r-1", str(n)) for n in range(450)]
    await asyncio.gather(*map(inbox.put, came))
    shelf.clock.now += IDLE
    await look(inbox)
    [entry] = await wholes(inbox)
    assert await inbox.messages(entry) == [each.body for each in came]


async def test_a_whole_tells_how_its_stream_came(shelf, inbox):
    fields = {"job": "j-1", "context": {"order": 17}, "path": "/live", "query": "a=b", "headers": {"dg-x": "1"}}
    entry = await ended_stream(inbox, shelf, **fields)
    assert (entry.job, entry.context, entry.path, entry.query, entry.headers) == tuple(fields.values())
    assert entry.lane == lane_of(message("j-1"))


async def test_what_came_by_an_expired_url_belongs_to_no_stream(shelf, inbox):
    await inbox.put(result("r-1", "stale", job="j-1"), buried="URL expired")
    shelf.clock.now += IDLE
    assert await nothing_is_due(inbox)
    assert await wholes(inbox) == []


async def test_a_dead_message_stops_neither_its_lane_nor_the_whole(shelf, inbox):
    await put_all(inbox, result("r-1", "one"), ending("r-1"))
    await inbox.bury(await entry_of(inbox), FAILED, error="no")
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    [entry] = await wholes(inbox)
    assert (entry.state, await told(inbox, entry)) == ("done", ("one", True, 0))


async def test_a_damaged_message_is_missing_in_the_whole(shelf, inbox):
    put, _ = await put_all(inbox, result("r-1", "one" * 99), result("r-1", "two"))
    damaged = bodies.update().where(bodies.c.coding == "zstd").values(data=b"?")
    entry, _ = await inbox.get(put.key)
    await ask(inbox, lambda connection: connection.execute(damaged.where(bodies.c.id == entry.id)))
    shelf.clock.now += IDLE
    await look(inbox)
    assert (await told(inbox, (await wholes(inbox))[0]))[0] == "two"


# --- stragglers ---


async def test_stragglers_make_one_revision_every_thirty_seconds_at_most(shelf, inbox):
    first = await ended_stream(inbox, shelf)
    for text in ("three", "four"):
        await inbox.put(result("r-1", text))
        shelf.clock.now += APART / 2 - 0.1
        await worked_off(inbox)
    assert await wholes(inbox) == [first]
    shelf.clock.now += 0.2
    await worked_off(inbox)
    assert [await told(inbox, entry) for entry in await wholes(inbox)] == [
        ("one two", True, 0),
        ("one two three four", True, 1),
    ]
    assert len({entry.key for entry in await wholes(inbox)}) == 2


async def test_a_straggler_that_comes_late_is_told_of_soon(shelf, inbox):
    await ended_stream(inbox, shelf)
    shelf.clock.now += 10 * APART
    await inbox.put(result("r-1", "three"))
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    assert [entry.request_id for entry in await wholes(inbox)] == ["r-1"] * 2


async def test_a_silent_stream_that_goes_on_is_told_of_when_it_ends_again(shelf, inbox):
    await inbox.put(result("r-1", "one"))
    shelf.clock.now += IDLE
    await worked_off(inbox)
    await inbox.put(result("r-1", "two"))
    shelf.clock.now += 2 * APART
    await worked_off(inbox)
    await inbox.put(ending("r-1"))
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    assert [await told(inbox, entry) for entry in await wholes(inbox)] == [("one", False, 0), ("one two", True, 1)]


async def test_a_retry_is_no_straggler(shelf, inbox):
    await ended_stream(inbox, shelf)
    assert [put.outcome for put in await put_all(inbox, result("r-1", "one"), ending("r-1"))] == ["duplicate"] * 2
    shelf.clock.now += 10 * IDLE
    assert await worked_off(inbox) == []


# --- processes, clocks ---


async def test_a_stream_that_was_cut_off_ends_in_the_next_process(durable):
    async with durable.opened() as inbox:
        await inbox.put(result("r-1", "one"))
    durable.clock.now += IDLE
    async with durable.opened() as inbox:
        await worked_off(inbox)
        assert [await told(inbox, entry) for entry in await wholes(inbox)] == [("one", False, 0)]


async def test_an_end_that_one_owner_made_is_delivered_by_the_next(durable):
    async with durable.opened() as inbox:
        await put_all(inbox, ending("r-1"))
        await worked_off(inbox)
        durable.clock.now += SETTLING
        assert (await entry_of(inbox)).kind == "LiveTranscript"
    async with durable.opened() as inbox:
        assert [entry.kind for entry, _ in await worked_off(inbox)] == ["LiveTranscript"]
        assert len(await wholes(inbox)) == 1


async def test_a_clock_that_went_back_while_nobody_looked_puts_no_end_off(durable):
    async with durable.opened() as inbox:
        await ended_stream(inbox, durable)
        await put_all(inbox, result("r-1", "three"), result("r-2", "one"))
    durable.clock.now -= 30 * 86_400
    async with durable.opened() as inbox:
        await worked_off(inbox)
        durable.clock.now += APART
        await worked_off(inbox)
        durable.clock.now += IDLE - APART
        await worked_off(inbox)
        assert sorted(str(entry.request_id) for entry in await wholes(inbox)) == ["r-1", "r-1", "r-2"]


async def test_two_receivers_of_one_store_end_their_own_streams(durable):
    async with durable.opened("one") as one, durable.opened("two") as two:
        for inbox in (one, two):
            await inbox.put(ending("r-1"))
            await worked_off(inbox)
        durable.clock.now += SETTLING
        await worked_off(one)
        assert (len(await wholes(one)), len(await wholes(two))) == (1, 0)
        assert await two.busy()


# --- replaying, erasing, purging ---


async def test_a_whole_that_is_replayed_says_what_it_said(shelf, inbox):
    entry = await ended_stream(inbox, shelf)
    await inbox.put(result("r-1", "three"))
    assert await inbox.replay(key=entry.key) == 1
    [again, *_] = [entry for entry, _ in await worked_off(inbox) if entry.kind == "LiveTranscript"]
    assert (again.replayed, await told(inbox, again)) == (True, ("one two", True, 0))


@pytest.mark.parametrize("which", [{"request_id": "r-1"}, {"job": "j-1"}], ids=["request", "job"])
async def test_an_erasure_takes_the_whole_too_and_forgets_the_lane(shelf, inbox, which):
    await ended_stream(inbox, shelf, job="j-1")
    assert (await inbox.erase(**which)).rows == 4
    assert [await rows_in(inbox, table) for table in (lanes, streams, bodies)] == [0, 0, 0]
    left = await ask(inbox, lambda connection: connection.execute(select(callbacks.c.lane, callbacks.c.stream)).all())
    assert set(left) == {(None, None)}


async def test_what_was_erased_is_not_told_of_again(shelf, inbox):
    entry = await ended_stream(inbox, shelf)
    await inbox.erase(request_id="r-1")
    await inbox.put(result("r-1", "three"))
    shelf.clock.now += IDLE
    assert [entry.kind for entry, _ in await worked_off(inbox)] == ["LiveResult"]
    assert [each.key for each in await inbox.page(state="erased") if each.key == entry.key] == [entry.key]


async def test_of_what_is_erased_as_it_is_handled_nothing_is_told(shelf, inbox):
    await inbox.put(ending("r-1"))
    await worked_off(inbox)
    shelf.clock.now += SETTLING
    entry = await entry_of(inbox)
    await inbox.erase(request_id="r-1")
    assert await inbox.messages(entry) == []


async def test_a_stream_that_nothing_is_left_of_is_told_of_never(shelf, inbox):
    await inbox.put(ending("r-1"))
    await ask(inbox, lambda connection: connection.execute(callbacks.delete()))
    shelf.clock.now += SETTLING
    assert await nothing_is_due(inbox)
    assert await rows_in(inbox, callbacks) == 0


@pytest.mark.parametrize("state", ["waiting", "leased", "dead"])
async def test_the_messages_of_a_stream_are_kept_until_its_whole_has_settled(shelf, inbox, state):
    await put_all(inbox, result("r-1", "one"), ending("r-1"))
    await worked_off(inbox)
    shelf.clock.now += SETTLING
    entry = await entry_of(inbox)
    if state == "waiting":
        await inbox.postpone(entry, FAILED, wait=10 * 86_400, error="not yet")
    elif state == "dead":
        await inbox.bury(entry, FAILED, error="no")
    shelf.clock.now += 2 * 86_400
    await inbox.purge(keep=DAY, dedupe_for=DAY)
    assert await told(inbox, entry) == ("one", True, 0)


async def test_the_messages_of_a_stream_that_goes_on_are_kept(shelf, inbox):
    await inbox.put_frames([result("r-1", "one", **SOCKET)])
    await worked_off(inbox)
    shelf.clock.now += 2 * 86_400
    await inbox.purge(keep=DAY, dedupe_for=DAY)
    await inbox.hang_up(lane_of(result("r-1", **SOCKET)))
    [(entry, _)] = await worked_off(inbox)
    assert await told(inbox, entry) == ("one", False, 0)


async def test_the_messages_of_a_stream_are_purged_together_with_its_whole(shelf, inbox):
    await put_all(inbox, result("r-1", "one"))
    await worked_off(inbox)
    shelf.clock.now += 86_400
    await inbox.put(ending("r-1"))
    shelf.clock.now += SETTLING
    await worked_off(inbox)
    shelf.clock.now += 86_399
    await inbox.purge(keep=DAY, dedupe_for=2 * DAY)
    assert await rows_in(inbox, bodies) == 3
    shelf.clock.now += 2
    await inbox.purge(keep=DAY, dedupe_for=2 * DAY)
    assert await rows_in(inbox, bodies) == 0
    shelf.clock.now += 2 * 86_400
    await inbox.purge(keep=DAY, dedupe_for=2 * DAY)
    assert [await rows_in(inbox, table) for table in (callbacks, lanes, streams)] == [0, 0, 0]


async def test_a_callback_without_a_lane_writes_nothing_about_streams(inbox):
    await inbox.put(callback())
    assert [await rows_in(inbox, table) for table in (lanes, streams)] == [0, 0]
