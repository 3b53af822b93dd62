"""What every store promises, whatever it is made of."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest

from dgreceiver.core.callbacks import identify, lane_of
from dgreceiver.errors import InboxError, SetupError
from dgreceiver.facts import DispatchTaken
from dgreceiver.inbox.contract import STATES, Erased, Mark, Purged
from dgreceiver.inbox.tables import bodies, callbacks, lanes, parts

from .stores import (
    FAILED,
    NOON,
    SAVED,
    ask,
    callback,
    claimed,
    end_as,
    entry_of,
    in_states,
    known,
    message,
    nothing_is_due,
    rows_in,
    transcript,
    until,
)

WEEK, DAYS, NEVER = timedelta(days=7), timedelta(days=3), timedelta(days=10_000)
HOUR = 3600.0
MB = 1024 * 1024
WEBM = {"content-type": "audio/webm"}


async def uploaded(inbox, body, *, audio=False):
    """An upload of the body, in parts."""
    upload = inbox.upload(audio=audio)
    for start in range(0, len(body), MB):
        await upload.write(body[start : start + MB])
    return upload


def large_transcript(request_id="r-1"):
    return transcript(request_id, "all work and no play " * 150_000).body


# --- putting ---


@pytest.mark.parametrize(
    ("bodies_", "outcomes"),
    [
        pytest.param("a", ["stored"], id="new"),
        pytest.param("aa", ["stored", "duplicate"], id="again"),
        pytest.param("ab", ["stored", "conflict"], id="another body under its key"),
        pytest.param("abb", ["stored", "conflict", "duplicate"], id="a conflict again"),
        pytest.param("aba", ["stored", "conflict", "duplicate"], id="the first after a conflict"),
        pytest.param("abcabc", ["stored", "conflict", "conflict", *["duplicate"] * 3], id="three bodies, twice"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "one after another"])
async def test_a_put_says_what_became_of_it(inbox, bodies_, outcomes, at_once):
    came = [transcript("r-1", text) for text in bodies_]
    puts = await asyncio.gather(*map(inbox.put, came)) if at_once else [await inbox.put(each) for each in came]
    assert [put.outcome for put in puts] == outcomes
    assert await in_states(inbox) == {"waiting": 1, **({"conflict": n} if (n := outcomes.count("conflict")) else {})}


async def test_of_a_thousand_equal_callbacks_one_is_stored(inbox):
    puts = await asyncio.gather(*(inbox.put(transcript("r-1")) for _ in range(1_000)))
    assert [put.outcome for put in puts].count("stored") == 1
    assert len({put.key for put in puts}) == 1
    assert (await rows_in(inbox, callbacks), await rows_in(inbox, bodies)) == (1, 1)


async def test_a_thousand_different_callbacks_are_all_stored(inbox):
    puts = await asyncio.gather(*(inbox.put(transcript(f"r-{n}")) for n in range(1_000)))
    assert {put.outcome for put in puts} == {"stored"}
    assert await in_states(inbox) == {"waiting": 1_000}


async def test_what_was_put_is_given_back_as_it_came(inbox):
    came = callback(
        b"\x00\xff any bytes",
        headers={"content-type": "application/json", "dg-x": "é"},
        path="/päth",
        query="a=b&c",
        job="j-1",
        context={"order": 17, "who": "Zoë", "nothing": None},
    )
    put = await inbox.put(came)
    entry, body = await inbox.get(put.key)
    assert (body, entry.headers, entry.path, entry.query) == (came.body, came.headers, came.path, came.query)
    assert (entry.job, entry.context, entry.received_at) == ("j-1", came.context, NOON)
    assert (entry.key, entry.kind, entry.size, entry.state) == (put.key, "Unknown", len(came.body), "waiting")


async def test_no_bytes_are_a_body_too(inbox):
    put = await inbox.put(callback(b""))
    assert (await inbox.get(put.key))[1] == b""
    assert (await claimed(inbox))[0][1] == b""


async def test_two_receivers_of_one_store_do_not_meet(durable):
    async with durable.opened("one") as one, durable.opened("two") as two:
        puts = [await inbox.put(transcript("r-1")) for inbox in (one, two)]
        assert [put.outcome for put in puts] == ["stored", "stored"]
        assert [entry.key for entry in await two.page()] == [puts[1].key]
        assert await one.get(puts[1].key) is None
        assert (await entry_of(one)).key == puts[0].key
        assert (await entry_of(two)).key == puts[1].key


@pytest.mark.parametrize("state", ["waiting", "leased", "done", "unhandled", "dead"])
async def test_a_duplicate_changes_nothing(inbox, state):
    put = await inbox.put(transcript("r-1"))
    await end_as(inbox, state)
    before = await inbox.get(put.key)
    assert (await inbox.put(transcript("r-1"))).outcome == "duplicate"
    assert await inbox.get(put.key) == before


async def test_a_conflict_is_kept_with_its_body_and_not_handled(inbox):
    first = await inbox.put(transcript("r-1", "one"))
    other = await inbox.put(transcript("r-1", "other"))
    entry, body = await inbox.get(other.key)
    assert (entry.state, body, other.key != first.key) == ("conflict", transcript("r-1", "other").body, True)
    assert [entry.key for entry, _ in await claimed(inbox)] == [first.key]


async def test_what_came_too_late_is_kept_as_dead(inbox):
    put = await inbox.put(transcript("r-1"), buried="URL expired")
    entry = await known(inbox, put.key)
    assert (put.outcome, entry.state, entry.error) == ("stored", "dead", "URL expired")
    assert await nothing_is_due(inbox)


# --- keys that are no more than equal bytes ---


@pytest.mark.parametrize(
    ("waits", "outcomes"),
    [
        pytest.param([0], ["duplicate"], id="at once"),
        pytest.param([600], ["duplicate"], id="after ten minutes"),
        pytest.param([601], ["stored"], id="after more"),
        pytest.param([300, 301], ["duplicate", "stored"], id="more than ten minutes after the first"),
        pytest.param([601, 600], ["stored", "duplicate"], id="within ten minutes of the news"),
        pytest.param([601, 601], ["stored", "stored"], id="news twice"),
    ],
)
async def test_equal_bytes_without_an_id_are_a_retry_for_ten_minutes(shelf, inbox, waits, outcomes):
    first, said = await inbox.put(callback()), []
    for wait in waits:
        shelf.clock.now += wait
        said.append(await inbox.put(callback()))
    assert [put.outcome for put in said] == outcomes
    assert [put.late for put in (first, *said)] == [False, *(outcome == "stored" for outcome in outcomes)]
    assert len({put.key for put in (first, *said)}) == 1 + outcomes.count("stored")


async def test_of_equal_bytes_that_come_late_together_one_is_news(shelf, inbox):
    await inbox.put(callback())
    shelf.clock.now += 601
    said = await asyncio.gather(inbox.put(callback()), inbox.put(callback()))
    assert [(put.outcome, put.late) for put in said] == [("stored", True), ("duplicate", False)]


# --- bodies in parts ---


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        pytest.param(large_transcript(), {}, "Transcript", id="3 MB of JSON"),
        pytest.param(os.urandom(3 * MB), WEBM, "Audio", id="3 MB of audio"),
        pytest.param(b"", WEBM, "Audio", id="nothing"),
    ],
)
async def test_a_body_in_parts_is_one_body(inbox, body, headers, kind):
    put = await inbox.put(callback(b"", headers=headers), upload=await uploaded(inbox, body, audio=kind == "Audio"))
    assert (put.outcome, put.kind, put.size) == ("stored", kind, len(body))
    [(entry, given)] = await claimed(inbox)
    assert (entry.key, entry.size, given == body) == (put.key, len(body), True)
    assert (await inbox.get(put.key))[1] == body


async def test_a_body_in_parts_has_the_identity_that_it_has_in_one_piece(inbox):
    body = large_transcript()
    first = await inbox.put(callback(body))
    again = await inbox.put(callback(b""), upload=await uploaded(inbox, body))
    assert (again.outcome, again.key, await rows_in(inbox, parts)) == ("duplicate", first.key, 0)


async def test_a_duplicate_in_parts_leaves_the_parts_of_the_first(inbox):
    body = large_transcript()
    puts = [await inbox.put(callback(b""), upload=await uploaded(inbox, body)) for _ in range(2)]
    assert [put.outcome for put in puts] == ["stored", "duplicate"]
    assert (await claimed(inbox))[0][1] == body
    assert await rows_in(inbox, parts) == 4


async def test_a_conflict_in_parts_keeps_both_bodies(inbox):
    one, other = large_transcript(), large_transcript() + b" "
    puts = [await inbox.put(callback(b""), upload=await uploaded(inbox, body)) for body in (one, other)]
    assert [put.outcome for put in puts] == ["stored", "conflict"]
    assert [(await inbox.get(put.key))[1] for put in puts] == [one, other]


async def test_a_discarded_upload_leaves_nothing(inbox):
    upload = await uploaded(inbox, b"x" * MB)
    await upload.discard()
    assert await rows_in(inbox, parts) == 0


async def test_an_upload_that_was_put_can_no_longer_be_discarded(inbox):
    upload = await uploaded(inbox, large_transcript())
    put = await inbox.put(callback(b""), upload=upload)
    await upload.discard()
    assert (await inbox.get(put.key))[1] == large_transcript()


async def test_an_upload_that_was_cut_off_is_swept_after_an_hour(shelf, inbox):
    await uploaded(inbox, b"x" * MB)
    put = await inbox.put(callback(b""), upload=await uploaded(inbox, large_transcript()))
    shelf.clock.now += 3_599
    await inbox.purge(keep=WEEK, dedupe_for=DAYS)
    assert await rows_in(inbox, parts) == 5
    shelf.clock.now += 2
    await inbox.purge(keep=WEEK, dedupe_for=DAYS)
    assert await rows_in(inbox, parts) == 4
    assert (await inbox.get(put.key))[1] == large_transcript()


async def test_discarding_never_raises(shelf):
    inbox = shelf.inbox()
    await inbox.upload(audio=False).discard()


# --- claiming ---


async def test_a_claim_waits_until_there_is_something(inbox):
    claim = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    assert not claim.done()
    put = await inbox.put(transcript("r-1"))
    assert [entry.key for entry, _ in await claim] == [put.key]


async def test_a_claim_is_given_the_oldest_first_and_no_more_than_it_asked_for(shelf, inbox):
    puts = []
    for n in range(5):
        shelf.clock.now += 1
        puts.append(await inbox.put(transcript(f"r-{n}")))
    assert [entry.key for entry, _ in await claimed(inbox, 3)] == [put.key for put in puts[:3]]
    assert [entry.key for entry, _ in await claimed(inbox, 3)] == [put.key for put in puts[3:]]


@pytest.mark.parametrize(
    ("room", "given"),
    [
        pytest.param(0, 1, id="for none: one all the same"),
        pytest.param(199, 1, id="for one"),
        pytest.param(200, 2, id="for two"),
        pytest.param(10_000, 4, id="for all"),
    ],
)
async def test_a_claim_is_given_what_there_is_room_for(inbox, room, given):
    await asyncio.gather(*(inbox.put(callback(bytes([n]) * 100)) for n in range(4)))
    assert len(await claimed(inbox, room=room)) == given


async def test_a_claim_is_given_nothing_of_what_it_skips(inbox):
    await inbox.put(transcript("r-1"))
    put = await inbox.put(callback(b"?"))
    assert [entry.key for entry, _ in await claimed(inbox, skip=["Transcript"])] == [put.key]
    assert await nothing_is_due(inbox, skip=["Transcript"])
    assert (await entry_of(inbox)).kind == "Transcript"


async def test_what_is_leased_is_given_to_nobody_else(inbox):
    await inbox.put(transcript("r-1"))
    entry = await entry_of(inbox)
    assert (entry.state, (await known(inbox, entry.key)).state) == ("waiting", "leased")
    assert await nothing_is_due(inbox)


async def test_a_new_claim_takes_the_place_of_the_one_before(inbox):
    before = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    after = asyncio.ensure_future(claimed(inbox))
    assert await before == []
    put = await inbox.put(transcript("r-1"))
    assert [entry.key for entry, _ in await after] == [put.key]


async def test_a_cancelled_claim_is_given_nothing(inbox):
    claim = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    claim.cancel()
    await inbox.put(transcript("r-1"))
    assert await in_states(inbox) == {"waiting": 1}


async def test_what_a_claim_was_given_as_it_was_cancelled_waits_again(inbox):
    """The lease is durable together with the put, and nobody has been told of it yet."""
    claim = asyncio.ensure_future(inbox.claim(10, room=1))
    await inbox.counts()
    await inbox.put(transcript("r-1"), release=claim.cancel)
    with pytest.raises(asyncio.CancelledError):
        await claim
    assert (await entry_of(inbox)).crashes == 0


async def test_a_claim_that_was_replaced_can_still_be_cancelled(inbox):
    before = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    after = asyncio.ensure_future(claimed(inbox))
    await asyncio.sleep(0)
    before.cancel()
    put = await inbox.put(transcript("r-1"))
    assert [entry.key for entry, _ in await after] == [put.key]


async def test_a_claim_can_be_cancelled_while_the_inbox_closes(shelf):
    inbox = shelf.inbox()
    await inbox.open()
    claim = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    closing = asyncio.ensure_future(inbox.close())
    await asyncio.sleep(0)
    claim.cancel()
    await closing
    assert claim.cancelled()


async def test_a_claim_is_empty_when_the_inbox_closes(shelf):
    async with shelf.opened() as inbox:
        claim = asyncio.ensure_future(claimed(inbox))
        await inbox.counts()
    assert await claim == []


# --- ending ---


@pytest.mark.parametrize("state", ["done", "unhandled"])
async def test_what_is_settled_is_over(inbox, state):
    await inbox.put(transcript("r-1"))
    entry = await entry_of(inbox)
    await inbox.settle(entry, state, SAVED)
    after = await known(inbox, entry.key)
    assert (after.state, after.marks, after.error) == (state, SAVED, None)
    assert await nothing_is_due(inbox)


async def test_what_is_buried_is_dead_for_a_reason(inbox):
    await inbox.put(transcript("r-1"))
    marks = {"save": Mark(3, buried="no"), "log": Mark(1, done=True)}
    await inbox.bury(await entry_of(inbox), marks, error="save: no")
    [after] = await inbox.page(state="dead")
    assert (after.marks, after.error) == (marks, "save: no")
    assert await nothing_is_due(inbox)


async def test_what_is_postponed_comes_again_in_its_time(shelf, inbox):
    await inbox.put(transcript("r-1"))
    await inbox.postpone(await entry_of(inbox), FAILED, wait=30, error="not yet")
    shelf.clock.now += 29
    assert await nothing_is_due(inbox)
    shelf.clock.now += 1
    again = await entry_of(inbox)
    assert (again.marks, again.error, again.crashes) == (FAILED, "not yet", 0)


async def test_a_claim_that_waits_is_given_what_becomes_due(shelf, inbox):
    await inbox.put(transcript("r-1"))
    await inbox.postpone(await entry_of(inbox), FAILED, wait=30, error="not yet")
    claim = asyncio.ensure_future(claimed(inbox))
    await inbox.counts()
    shelf.clock.now += 30
    assert len(await claim) == 1


async def test_many_endings_at_once_are_each_as_they_were_meant(inbox):
    await asyncio.gather(*(inbox.put(transcript(f"r-{n}")) for n in range(90)))
    given = [entry for entry, _ in await claimed(inbox, 90)]
    await asyncio.gather(
        *(inbox.settle(entry, "done", SAVED) for entry in given[:30]),
        *(inbox.postpone(entry, FAILED, wait=n, error=f"error {n}") for n, entry in enumerate(given[30:60], start=1)),
        *(inbox.bury(entry, FAILED, error=f"error {n}") for n, entry in enumerate(given[60:])),
    )
    assert await in_states(inbox) == {"done": 30, "waiting": 30, "dead": 30}
    assert [(await known(inbox, entry.key)).error for entry in given[60:]] == [f"error {n}" for n in range(30)]


async def test_what_is_no_longer_leased_is_not_ended_twice(inbox):
    await inbox.put(transcript("r-1"))
    entry = await entry_of(inbox)
    await inbox.bury(entry, FAILED, error="no")
    await inbox.settle(entry, "done", SAVED)
    assert await in_states(inbox) == {"dead": 1}


@pytest.mark.parametrize("state", ["done", "unhandled", "dead", "waiting"])
async def test_an_outcome_is_told_when_it_has_come(inbox, state):
    put = await inbox.put(transcript("r-1"))
    outcome = asyncio.ensure_future(inbox.outcome(put.key, again=False, within=HOUR))
    await end_as(inbox, state)
    assert await outcome == state


async def test_an_outcome_that_does_not_come_in_time_is_open(inbox):
    put = await inbox.put(transcript("r-1"))
    assert await inbox.outcome(put.key, again=False, within=0.02) == "waiting"
    await entry_of(inbox)
    assert await inbox.outcome(put.key, again=False, within=0.02) == "leased"


async def test_what_has_ended_is_told_at_once(inbox):
    put = await inbox.put(transcript("r-1"))
    await end_as(inbox, "done")
    assert await inbox.outcome(put.key, again=True, within=0.0) == "done"


async def test_what_comes_again_is_due_now_and_has_the_outcome_of_its_next_attempt(inbox):
    put = await inbox.put(transcript("r-1"))
    await end_as(inbox, "waiting")
    outcome = asyncio.ensure_future(inbox.outcome(put.key, again=True, within=HOUR))
    await inbox.settle(await entry_of(inbox), "done", SAVED)
    assert await outcome == "done"


async def test_what_comes_again_does_not_pass_what_is_before_it_in_its_lane(inbox):
    first, second = [await inbox.put(message("j-1", text)) for text in ("a", "b")]
    assert await inbox.outcome(second.key, again=True, within=0.0) == "waiting"
    assert (await entry_of(inbox)).key == first.key


# --- lanes ---


async def test_a_lane_is_worked_off_in_order_and_one_at_a_time(inbox):
    puts = await asyncio.gather(*(inbox.put(message("j-1", str(n))) for n in range(5)))
    for put in puts:
        [(entry, _)] = await claimed(inbox)
        assert entry.key == put.key
        assert await nothing_is_due(inbox)
        await inbox.settle(entry, "done", SAVED)


async def test_lanes_do_not_wait_for_each_other(inbox):
    puts = [await inbox.put(message(job)) for job in ("j-1", "j-1", "j-2", "j-2")]
    puts.append(await inbox.put(transcript("r-1")))
    assert {entry.key for entry, _ in await claimed(inbox)} == {puts[0].key, puts[2].key, puts[4].key}


@pytest.mark.parametrize("state", ["done", "unhandled", "dead"])
async def test_what_is_over_does_not_stop_its_lane(inbox, state):
    puts = [await inbox.put(message("j-1")) for _ in range(2)]
    await end_as(inbox, state)
    assert (await entry_of(inbox)).key == puts[1].key


async def test_what_came_too_late_does_not_stop_its_lane(inbox):
    await inbox.put(message("j-1"), buried="URL expired")
    put = await inbox.put(message("j-1"))
    assert (await entry_of(inbox)).key == put.key


async def test_a_postponed_callback_holds_its_lane(shelf, inbox):
    puts = [await inbox.put(message("j-1")) for _ in range(2)]
    await inbox.postpone(await entry_of(inbox), FAILED, wait=30, error="not yet")
    assert await nothing_is_due(inbox)
    shelf.clock.now += 30
    [(entry, _)] = await claimed(inbox)
    assert entry.key == puts[0].key
    await inbox.settle(entry, "done", SAVED)
    assert (await entry_of(inbox)).key == puts[1].key


async def test_a_lane_that_was_worked_off_goes_on(inbox):
    await inbox.put(message("j-1"))
    await end_as(inbox, "done")
    await inbox.put(message("j-1"))
    await end_as(inbox, "done")
    assert await in_states(inbox) == {"done": 2}


# --- over a WebSocket ---


def frames(*numbers, connection="c-1", text="{}", **fields):
    return [callback(text.encode(), connection=connection, frame=number, **fields) for number in numbers]


async def test_the_frames_of_a_connection_are_stored_and_worked_off_in_their_order(inbox):
    for some in (range(1, 4), range(4, 200), [200]):
        put = await inbox.put_frames(frames(*some))
        assert [each.outcome for each in put] == ["stored"] * len(some)
    given = [(await end_as(inbox, "done")).key for _ in range(200)]
    assert given == [identify(each, receiver="default").key for each in frames(*range(1, 201))]


async def test_frames_that_may_have_been_stored_are_put_again_without_harm(inbox):
    first = await inbox.put_frames(frames(1, 2))
    again = await inbox.put_frames(frames(1, 2, 3))
    assert [each.outcome for each in again] == ["duplicate", "duplicate", "stored"]
    assert [(await end_as(inbox, "done")).key for _ in range(3)] == [each.key for each in (*first, again[2])]


async def test_large_frames_are_identified_like_small_ones(inbox):
    put = await inbox.put_frames(frames(1, 2, text="x" * MB))
    assert [each.key for each in put] == [identify(each, receiver="default").key for each in frames(1, 2)]
    assert (await inbox.get(put[1].key))[1] == b"x" * MB


async def test_frames_that_came_by_a_url_past_its_time_are_dead(inbox):
    await inbox.put_frames(frames(1, 2), buried="URL expired")
    assert await in_states(inbox) == {"dead": 2}


async def test_of_frames_that_cannot_all_be_stored_none_is(inbox):
    with pytest.raises(InboxError, match="no Unicode"):
        await inbox.put_frames([*frames(1, 2), *frames(3, path="/\ud800")])
    assert await in_states(inbox) == {}


async def test_a_socket_that_hangs_up_leaves_its_frames_as_they_are(inbox):
    await inbox.put_frames(frames(1))
    await inbox.hang_up(lane_of("c-1", receiver="default"))
    assert await in_states(inbox) == {"waiting": 1}


# --- stepping aside ---


async def test_who_steps_aside_lets_another_go_on_with_what_is_not_finished(durable):
    async with durable.opened() as inbox, durable.opened() as other:
        await asyncio.gather(*(inbox.put(transcript(f"r-{n}")) for n in range(2)))
        first, second = [entry for entry, _ in await claimed(inbox)]
        await inbox.settle(first, "done", SAVED)
        await inbox.step_aside()
        [(entry, _)] = await claimed(other)
        assert (entry.key, entry.crashes) == (second.key, 0)
        assert await nothing_is_due(inbox)


async def test_who_steps_aside_for_nobody_goes_on(inbox):
    await inbox.step_aside()
    await inbox.put(transcript("r-1"))
    before = await entry_of(inbox)
    await inbox.step_aside()
    after = await entry_of(inbox)
    assert (after.key, after.crashes) == (before.key, 0)


# --- replaying ---


@pytest.mark.parametrize("state", ["done", "unhandled", "dead"])
@pytest.mark.parametrize("by", ["key", "state"])
async def test_what_is_over_can_be_replayed(inbox, state, by):
    await inbox.put(transcript("r-1"))
    entry = await end_as(inbox, state)
    assert await inbox.replay(**({"key": entry.key} if by == "key" else {"state": state})) == 1
    again = await entry_of(inbox)
    assert (again.key, again.replayed, again.marks, again.error) == (entry.key, True, {}, None)


async def test_of_a_dead_callback_the_handlers_that_were_done_stay_done(inbox):
    await inbox.put(transcript("r-1"))
    marks = {"save": Mark(20, buried="no"), "log": Mark(3, done=True)}
    await inbox.bury(await entry_of(inbox), marks, error="no")
    await inbox.replay(state="dead")
    assert (await entry_of(inbox)).marks == {"log": Mark(done=True)}


async def test_a_conflict_can_be_replayed(inbox):
    await inbox.put(transcript("r-1"))
    await end_as(inbox, "done")
    put = await inbox.put(transcript("r-1", "other"))
    assert await inbox.replay(state="conflict") == 1
    [(entry, body)] = await claimed(inbox)
    assert (entry.key, body) == (put.key, transcript("r-1", "other").body)


@pytest.mark.parametrize("state", ["waiting", "leased"])
async def test_what_is_not_over_is_not_replayed(inbox, state):
    await inbox.put(transcript("r-1"))
    entry = await end_as(inbox, state)
    assert (await inbox.replay(key=entry.key), await inbox.replay(state=state)) == (0, 0)
    assert await in_states(inbox) == {state: 1}


async def test_what_has_no_body_any_more_is_not_replayed(shelf, inbox):
    await inbox.put(transcript("r-1"))
    await end_as(inbox, "done")
    shelf.clock.now += 2
    await inbox.purge(keep=timedelta(seconds=1), dedupe_for=DAYS)
    assert await inbox.replay(state="done") == 0


async def test_many_are_replayed_at_once(inbox):
    await asyncio.gather(*(inbox.put(transcript(f"r-{n}"), buried="URL expired") for n in range(450)))
    assert await inbox.replay(state="dead") == 450
    assert len(await claimed(inbox, 1_000)) == 450


async def test_a_replayed_lane_is_worked_off_in_order(inbox):
    puts = [await inbox.put(message("j-1")) for _ in range(4)]
    for state in ("dead", "done", "dead"):
        await end_as(inbox, state)
    assert await inbox.replay(state="dead") == 2
    for put in (puts[0], puts[2], puts[3]):
        assert (await end_as(inbox, "done")).key == put.key
    assert await nothing_is_due(inbox)


async def test_a_replayed_message_is_due_by_its_age_like_all_of_its_lane(shelf, inbox):
    put = await inbox.put(message("j-1"))
    await end_as(inbox, "dead")
    shelf.clock.now += 10
    await inbox.put(message("j-2"))
    shelf.clock.now += 10
    await inbox.replay(key=put.key)
    assert (await entry_of(inbox)).key == put.key


async def test_a_replay_behind_what_is_postponed_waits_with_it(shelf, inbox):
    puts = [await inbox.put(message("j-1")) for _ in range(2)]
    await end_as(inbox, "dead")
    await inbox.postpone(await entry_of(inbox), FAILED, wait=30, error="not yet")
    last = await inbox.put(message("j-1"), buried="URL expired")
    await inbox.replay(key=last.key)
    assert await nothing_is_due(inbox)
    shelf.clock.now += 30
    assert (await end_as(inbox, "done")).key == puts[1].key
    assert (await entry_of(inbox)).key == last.key


async def test_a_replay_says_which_by_one_name(inbox):
    with pytest.raises(SetupError, match=r"exactly one of key=, state="):
        await inbox.replay()
    with pytest.raises(SetupError, match=r"exactly one of request_id=, job="):
        await inbox.erase(request_id="r-1", job="j-1")


# --- burying what waits ---


async def test_what_waits_is_buried_by_its_key_and_once(inbox):
    put = await inbox.put(transcript("r-1"))
    assert await inbox.bury_waiting(put.key, error="a poison message")
    entry, body = await inbox.get(put.key)
    assert (entry.state, entry.error, body) == ("dead", "a poison message", transcript("r-1").body)
    assert await nothing_is_due(inbox)
    assert not await inbox.bury_waiting(put.key, error="again")


@pytest.mark.parametrize("state", ["leased", "done", "unhandled", "dead"])
async def test_nothing_is_buried_that_does_not_wait(inbox, state):
    put = await inbox.put(transcript("r-1"))
    await end_as(inbox, state)
    assert not await inbox.bury_waiting(put.key, error="no")
    assert (await inbox.get(put.key))[0].state == state


async def test_a_lane_goes_on_without_what_was_buried(inbox):
    first, second = [await inbox.put(message("j-1")) for _ in range(2)]
    await end_as(inbox, "waiting")
    await inbox.bury_waiting(first.key, error="it stands in the way")
    assert (await entry_of(inbox)).key == second.key


# --- the oldest ---


async def test_the_oldest_is_of_what_has_not_ended(inbox):
    assert await inbox.oldest() is None
    for minutes in (0, 1, 2):
        await inbox.put(transcript(f"r-{minutes}", received_at=(NOON + timedelta(minutes=minutes)).timestamp()))
    await end_as(inbox, "done")
    assert await inbox.oldest() == NOON + timedelta(minutes=1)
    await end_as(inbox, "leased")
    assert await inbox.oldest() == NOON + timedelta(minutes=1)


# --- erasing ---


@pytest.mark.parametrize("state", ["waiting", "done", "unhandled", "dead"])
async def test_what_is_erased_is_gone_but_for_its_key(inbox, state):
    put = await inbox.put(transcript("r-1", path="/p", query="q", job="j", context={"a": 1}, headers={"dg-x": "y"}))
    await end_as(inbox, state)
    assert await inbox.erase(request_id="r-1") == Erased(1, [])
    entry, body = await inbox.get(put.key)
    assert (entry.state, body, entry.size, entry.request_id, entry.job) == ("erased", b"", 0, None, None)
    assert (entry.marks, entry.error, entry.path, entry.query) == ({}, None, "", "")
    assert (entry.headers, entry.context, await rows_in(inbox, bodies)) == ({}, {}, 0)
    assert await nothing_is_due(inbox)


async def test_a_retry_of_what_was_erased_is_a_duplicate_that_stores_nothing(inbox):
    put = await inbox.put(transcript("r-1"))
    await inbox.erase(request_id="r-1")
    for text in ("hello", "other"):
        again = await inbox.put(transcript("r-1", text))
        assert (again.outcome, again.key) == ("duplicate", put.key)
    again = await inbox.put(callback(b""), upload=await uploaded(inbox, large_transcript()))
    assert again.outcome == "duplicate"
    assert await in_states(inbox) == {"erased": 1}
    assert (await rows_in(inbox, bodies), await rows_in(inbox, parts)) == (0, 0)


async def test_an_erasure_says_that_some_messages_name_nobody(inbox):
    await inbox.put(transcript("r-1"))
    await inbox.put(callback(b'{"type": "UtteranceEnd", "last_word_end": -1}'))
    erased = await inbox.erase(request_id="r-1")
    assert (erased.rows, [left[:24] for left in erased.unreached]) == (1, ["what carries no id, such"])


async def test_conflicts_and_parts_are_erased_too(inbox):
    await inbox.put(transcript("r-1"))
    await inbox.put(callback(b""), upload=await uploaded(inbox, large_transcript()))
    assert (await inbox.erase(request_id="r-1")).rows == 2
    assert await in_states(inbox) == {"erased": 2}
    assert (await rows_in(inbox, bodies), await rows_in(inbox, parts)) == (0, 0)


@pytest.mark.parametrize(
    ("which", "left"),
    [
        pytest.param({"request_id": "r-1"}, {"r-2", "r-3"}, id="a request"),
        pytest.param({"job": "j-2"}, {"r-1", "r-3"}, id="a job"),
        pytest.param({"job": "nobody's"}, {"r-1", "r-2", "r-3"}, id="nothing"),
    ],
)
async def test_nothing_else_is_erased(inbox, which, left):
    for n in (1, 2, 3):
        await inbox.put(transcript(f"r-{n}", job=f"j-{n}"))
    assert (await inbox.erase(**which)).rows == 3 - len(left)
    assert {entry.request_id for entry in await inbox.page(state="waiting")} == left


async def test_a_stream_is_erased_with_all_its_messages(inbox):
    named = callback(b'{"type":"Results","metadata":{"request_id":"s-1"}}', job="j-1")
    for came in (message("j-1"), named, message("j-1"), message("j-2")):
        await inbox.put(came)
    assert (await inbox.erase(request_id="s-1")).rows == 3
    assert await in_states(inbox) == {"erased": 3, "waiting": 1}
    later = await inbox.put(message("j-1"))
    assert later.key in {entry.key for entry, _ in await claimed(inbox)}


async def test_many_are_erased_at_once(inbox):
    await asyncio.gather(*(inbox.put(message("j-1")) for _ in range(450)))
    assert (await inbox.erase(job="j-1")).rows == 450


async def test_what_is_being_handled_is_erased_and_said_to_be_out_of_reach(inbox):
    await inbox.put(transcript("r-1"))
    entry = await entry_of(inbox)
    assert await inbox.erase(request_id="r-1") == Erased(1, ["a handler that was running with it"])
    await inbox.settle(entry, "done", SAVED)
    assert await in_states(inbox) == {"erased": 1}


# --- purging ---


@pytest.mark.parametrize(
    ("kept", "days", "left"),
    [
        pytest.param((7, 3), 2, (2, 2), id="before both"),
        pytest.param((7, 3), 4, (2, 2), id="after dedupe_for"),
        pytest.param((7, 3), 7.01, (0, 0), id="after keep, the later"),
        pytest.param((3, 7), 4, (0, 2), id="after keep"),
        pytest.param((3, 7), 7.01, (0, 0), id="after dedupe_for, the later"),
    ],
)
async def test_bodies_go_after_keep_and_keys_when_both_are_over(shelf, inbox, kept, days, left):
    keep, dedupe_for = (timedelta(days=each) for each in kept)
    for n, state in enumerate(("done", "unhandled")):
        await inbox.put(transcript(f"r-{n}"))
        await end_as(inbox, state)
    shelf.clock.now += days * 86_400
    assert await inbox.purge(keep=keep, dedupe_for=dedupe_for) == Purged(bodies=2 - left[0], rows=2 - left[1])
    assert (await rows_in(inbox, bodies), await rows_in(inbox, callbacks)) == left
    assert (await inbox.put(transcript("r-0"))).outcome == ("duplicate" if left[1] else "stored")


async def test_the_parts_of_a_large_body_are_purged_with_it(shelf, inbox):
    await inbox.put(callback(b""), upload=await uploaded(inbox, large_transcript()))
    await end_as(inbox, "done")
    shelf.clock.now += 8 * 86_400
    await inbox.purge(keep=WEEK, dedupe_for=NEVER)
    assert (await rows_in(inbox, parts), await in_states(inbox)) == (0, {"done": 1})


async def test_the_key_of_what_was_erased_goes_in_its_time(shelf, inbox):
    await inbox.put(message("j-1"))
    await inbox.erase(job="j-1")
    await inbox.purge(keep=WEEK, dedupe_for=DAYS)
    assert await in_states(inbox) == {"erased": 1}
    shelf.clock.now += 8 * 86_400
    assert (await inbox.purge(keep=WEEK, dedupe_for=DAYS)).rows == 1
    assert (await rows_in(inbox, callbacks), await rows_in(inbox, lanes)) == (0, 0)


@pytest.mark.parametrize("state", ["waiting", "leased", "dead"])
async def test_what_is_not_done_is_never_purged(shelf, inbox, state):
    put = await inbox.put(transcript("r-1"))
    await end_as(inbox, state)
    shelf.clock.now += 10_000 * 86_400
    assert (await inbox.purge(keep=timedelta(0), dedupe_for=timedelta(0))).rows == 0
    entry, body = await inbox.get(put.key)
    assert (entry.state, body) == (state, transcript("r-1").body)


async def test_a_conflict_is_never_purged(shelf, inbox):
    await inbox.put(transcript("r-1"))
    await end_as(inbox, "done")
    put = await inbox.put(transcript("r-1", "other"))
    shelf.clock.now += 10_000 * 86_400
    assert (await inbox.purge(keep=timedelta(0), dedupe_for=timedelta(0))).rows == 1
    assert (await inbox.get(put.key))[1] == transcript("r-1", "other").body


async def test_many_are_purged_at_once(shelf, inbox):
    await asyncio.gather(*(inbox.put(transcript(f"r-{n}")) for n in range(450)))
    given = await claimed(inbox, 450)
    await asyncio.gather(*(inbox.settle(entry, "done", SAVED) for entry, _ in given))
    shelf.clock.now += 8 * 86_400
    assert (await inbox.purge(keep=WEEK, dedupe_for=DAYS)).rows == 450
    assert (await rows_in(inbox, callbacks), await rows_in(inbox, bodies)) == (0, 0)


# --- looking ---


async def test_a_key_nobody_has_is_nothing(inbox):
    assert await inbox.get("0" * 32) is None


async def test_pages_are_newest_first_and_follow_each_other(inbox):
    puts = [await inbox.put(transcript(f"r-{n}")) for n in range(5)]
    first = await inbox.page(limit=2)
    second = await inbox.page(limit=2, before=first[-1].id)
    assert [entry.key for entry in (*first, *second)] == [put.key for put in puts[:0:-1]]
    assert await inbox.page(before=first[-1].id, state="dead") == []


async def test_a_page_has_at_most_200_callbacks(inbox):
    await asyncio.gather(*(inbox.put(transcript(f"r-{n}")) for n in range(210)))
    assert len(await inbox.page(limit=10_000)) == 200


async def test_every_state_is_counted_and_listed(inbox):
    wanted = [state for state in STATES if state not in ("waiting", "conflict", "erased")]
    for n, state in enumerate(wanted):
        await inbox.put(transcript(f"r-{n}"))
        await end_as(inbox, state)
    await inbox.put(transcript("r-0", "other"))
    await inbox.put(transcript("r-w"))
    await inbox.put(transcript("r-e"))
    await inbox.erase(request_id="r-e")
    assert await in_states(inbox) == dict.fromkeys(STATES, 1)
    assert {state: len(await inbox.page(state=state)) for state in STATES} == dict.fromkeys(STATES, 1)


@pytest.mark.parametrize(
    ("state", "busy"),
    [
        pytest.param(None, True, id="due"),
        pytest.param("leased", True, id="leased"),
        pytest.param("waiting", False, id="waiting for its time"),
        pytest.param("done", False, id="done"),
        pytest.param("dead", False, id="dead"),
    ],
)
async def test_an_inbox_is_busy_with_what_is_due_or_leased(inbox, state, busy):
    assert not await inbox.busy()
    await inbox.put(transcript("r-1"))
    if state:
        await end_as(inbox, state)
    assert await inbox.busy() is busy


async def test_an_inbox_is_busy_with_what_is_on_its_way_in(shelf, inbox):
    puts = [asyncio.ensure_future(inbox.put(transcript(f"r-{n}"))) for n in range(100)]
    await asyncio.sleep(0)
    assert await inbox.busy()
    await asyncio.gather(*puts)


# --- leaving ---


async def test_closing_gives_leases_back_and_counts_no_crash(durable):
    async with durable.opened() as inbox:
        await inbox.put(transcript("r-1"))
        await entry_of(inbox)
    async with durable.opened() as inbox:
        assert (await entry_of(inbox)).crashes == 0
    assert [fact.recovered for fact in durable.facts if isinstance(fact, DispatchTaken)] == [0, 0]


async def test_closing_finishes_what_was_begun(durable):
    inbox = durable.inbox()
    await inbox.open()
    puts = [asyncio.ensure_future(inbox.put(transcript(f"r-{n}"))) for n in range(600)]
    await asyncio.sleep(0)
    await inbox.close()
    assert {(await put).outcome for put in puts} == {"stored"}
    async with durable.opened() as again:
        assert await in_states(again) == {"waiting": 600}


async def test_a_closed_inbox_takes_nothing_more(shelf):
    async with shelf.opened() as inbox:
        await inbox.put(transcript("r-1"))
        entry = await entry_of(inbox)
    released = []
    with pytest.raises(InboxError, match="not open"):
        await inbox.put(transcript("r-2"), release=lambda: released.append(1))
    with pytest.raises(InboxError, match="not open"):
        await inbox.settle(entry, "done", SAVED)
    assert released == [1]
    await inbox.close()


async def test_a_put_that_is_cancelled_is_stored_all_the_same(inbox):
    released = []
    puts = [
        asyncio.ensure_future(inbox.put(transcript(f"r-{n}"), release=lambda n=n: released.append(n)))
        for n in range(100)
    ]
    await asyncio.sleep(0)
    for put in puts[::2]:
        put.cancel()
    said = await asyncio.gather(*puts, return_exceptions=True)
    assert [type(each).__name__ for each in said] == ["CancelledError", "Stored"] * 50
    await until(lambda: len(released) == 100)
    assert sorted(released) == list(range(100))
    assert await in_states(inbox) == {"waiting": 100}


async def test_a_body_is_released_when_it_is_stored(inbox):
    released = []
    for came in (transcript("r-1"), transcript("r-1"), transcript("r-1", "other")):
        await inbox.put(came, release=lambda: released.append(1))
    assert released == [1, 1, 1]


async def test_nobody_is_left_waiting_by_a_question_that_cannot_be_answered(inbox):
    with pytest.raises(InboxError, match="ZeroDivisionError"):
        await ask(inbox, lambda connection: 1 / 0)
    assert (await inbox.put(transcript("r-1"))).outcome == "stored"
