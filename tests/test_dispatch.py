"""What becomes of a callback between the inbox and the end of its handlers."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial, wraps
from itertools import pairwise
from random import Random
from typing import Any, Self

import pytest

from dgreceiver import (
    Bury,
    Delivery,
    Event,
    Failure,
    InboxError,
    LiveResult,
    LiveTranscript,
    Retry,
    RetryPolicy,
    Transcript,
    Unknown,
)
from dgreceiver.dispatch import ALONE_FROM, IN_A_TURN, LARGE, MOST_CRASHES, Dispatcher
from dgreceiver.facts import (
    DeliveryBuried,
    DeliveryUnhandled,
    HandlerAbandoned,
    HandlerFailed,
    HandlerSucceeded,
)
from dgreceiver.inbox.sqlite import SqliteInbox
from dgreceiver.streams import Endings
from dgreceiver.testing.payloads import (
    failure,
    live_error,
    live_result,
    speech_started,
    stream_metadata,
    transcript,
    utterance_end,
)

from .support import Facts, deliver, entries_of, in_file, new_receiver, until, until_state

QUICK = RetryPolicy(first_wait=0.01, longest_wait=0.02)
ONCE = RetryPolicy(attempts=1)
NEVER = RetryPolicy(first_wait=3600.0, longest_wait=3600.0)  # again, but not within a test


def that_fails(times: int, runs: list[int], error: BaseException | None = None) -> Any:
    """A handler that fails so many times, then succeeds; it notes the number of each attempt."""

    async def handler(event: Event, delivery: Delivery) -> None:
        runs.append(delivery.attempt)
        if len(runs) <= times:
            raise error or ValueError("not yet")

    return handler


async def the_entry(receiver: Any) -> Any:
    [entry] = await entries_of(receiver)
    return entry


# --- again and again


async def test_each_handler_has_attempts_of_its_own():
    receiver, good, bad = new_receiver(retry=QUICK), list[int](), list[int]()
    receiver.on(Transcript, name="good")(that_fails(0, good))
    receiver.on(Transcript, name="bad")(that_fails(3, bad))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "done")
    assert (good, bad) == ([1], [1, 2, 3, 4])


async def test_a_handler_is_tried_again_as_the_policy_says():
    facts = Facts()
    receiver, runs = new_receiver(retry=RetryPolicy(attempts=4, first_wait=0.02), hooks=[facts]), list[int]()
    receiver.on(Transcript, name="save")(that_fails(4, runs))
    async with receiver.running():
        await deliver(receiver, transcript(request_id="r"))
        await until_state(receiver, "dead")
        entry = await the_entry(receiver)
    *waits, last = [fact.wait for fact in facts.of(HandlerFailed)]
    assert runs == [1, 2, 3, 4]
    assert last is None
    assert [wait and 0.01 <= wait / 2**n <= 0.02 for n, wait in enumerate(waits)] == [True] * 3
    assert [(fact.handler, fact.attempt, fact.error) for fact in facts.of(HandlerFailed)] == [
        ("save", attempt, "ValueError: not yet") for attempt in runs
    ]
    assert entry.error == "save: ValueError: not yet"
    assert [(fact.request_id, fact.reason) for fact in facts.of(DeliveryBuried)] == [("r", "save: ValueError: not yet")]


async def test_no_run_comes_before_its_time():
    receiver, at, beside = new_receiver(), list[float](), list[int]()

    @receiver.on(Transcript)
    async def patient(event: Transcript) -> None:
        at.append(time.monotonic())
        if len(at) == 1:
            raise Retry(after=0.3)

    receiver.on(Transcript, name="impatient")(that_fails(1, beside, Retry(after=0.0)))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "done")
    assert at[1] - at[0] >= 0.3
    assert beside == [1, 2]


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        pytest.param(Retry(after=0.0), [0.0, 0.0, None], id="at once"),
        pytest.param(Retry(after=0.01), [0.01, 0.01, None], id="a float of seconds"),
        pytest.param(Retry(after=timedelta(milliseconds=10)), [0.01, 0.01, None], id="a timedelta"),
        pytest.param(Retry(), [0.02, 0.02, None], id="by the policy"),
    ],
)
async def test_a_handler_may_ask_for_another_try_which_counts_as_an_attempt(error, waits):
    facts = Facts()
    receiver, runs = (
        new_receiver(retry=RetryPolicy(attempts=3, first_wait=0.02, longest_wait=0.02), hooks=[facts]),
        list[int](),
    )
    receiver.on(Transcript)(that_fails(3, runs, error))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "dead")
    found = [fact.wait for fact in facts.of(HandlerFailed)]
    assert [wait is None or wait <= at_most for wait, at_most in zip(found, waits, strict=True)] == [True, True, True]
    assert runs == [1, 2, 3]


@pytest.mark.parametrize("after", [float("nan"), float("inf"), -1.0, "soon"])
async def test_a_wait_that_is_none_is_told_of_and_the_policy_decides(after):
    facts = Facts()
    receiver, runs = new_receiver(retry=QUICK, hooks=[facts]), list[int]()
    receiver.on(Transcript)(that_fails(1, runs, Retry(after=after)))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "done")
    [failed] = facts.of(HandlerFailed)
    assert runs == [1, 2]
    assert failed.error.startswith("SetupError: Retry's after is ")


async def test_a_reason_that_is_empty_buries_all_the_same():
    receiver = new_receiver()
    receiver.on(Transcript, name="save")(that_fails(1, [], Bury("")))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "dead", "done")
        entry = await the_entry(receiver)
    assert (entry.state, entry.error) == ("dead", "save: Bury")


async def test_a_handler_may_give_a_delivery_up():
    facts = Facts()
    receiver, runs = new_receiver(hooks=[facts]), list[int]()
    receiver.on(Transcript, name="save")(that_fails(1, runs, Bury("the call is unknown")))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "dead")
        assert (await the_entry(receiver)).error == "save: the call is unknown"
    assert runs == [1]
    assert [fact.reason for fact in facts.of(DeliveryBuried)] == ["save: the call is unknown"]


async def test_what_one_handler_gave_up_it_is_not_given_again_while_another_retries():
    receiver, buried, retried = new_receiver(retry=QUICK), list[int](), list[int]()
    receiver.on(Transcript, name="buries")(that_fails(9, buried, Bury("no")))
    receiver.on(Transcript, name="retries")(that_fails(2, retried))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "dead")
        entry = await the_entry(receiver)
    assert (buried, retried) == ([1], [1, 2, 3])
    assert entry.marks["retries"].done
    assert entry.error == "buries: no"


async def test_of_a_dead_delivery_only_what_failed_is_replayed_with_its_attempts_counted_anew():
    receiver, good, bad, seen = new_receiver(retry=ONCE), list[int](), list[int](), list[bool]()
    receiver.on(Transcript, name="good")(that_fails(0, good))
    receiver.on(Transcript, name="bad")(that_fails(1, bad))
    receiver.on(Failure)(lambda event, delivery: seen.append(delivery.replayed))
    async with receiver.running():
        [answer] = await deliver(receiver, transcript())
        await until_state(receiver, "dead")
        assert await receiver.replay(state="dead") == 1
        await receiver.idle()
        assert (await the_entry(receiver)).state == "done"
    assert (good, bad) == ([1], [1, 1])
    assert answer["status"] == "stored"


async def test_a_done_delivery_is_replayed_to_all_and_says_so():
    receiver, seen = new_receiver(), list[Delivery]()
    receiver.on(Transcript)(lambda event, delivery: seen.append(delivery))
    async with receiver.running():
        await deliver(receiver, transcript())
        await receiver.idle()
        assert await receiver.replay(key=seen[0].key) == 1
        await receiver.idle()
    assert [(delivery.attempt, delivery.replayed) for delivery in seen] == [(1, False), (1, True)]
    assert seen[0].key == seen[1].key


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        pytest.param(["done", "new"], [1, 1], id="one that was renamed is a new one"),
        pytest.param(["done"], [1], id="where every one is done the delivery is"),
    ],
)
async def test_of_the_handlers_that_are_registered_now_those_run_that_are_not_done(tmp_path, names, wanted):
    first, second, runs = (
        new_receiver(inbox=in_file(tmp_path), retry=NEVER),
        new_receiver(inbox=in_file(tmp_path)),
        list[int](),
    )
    first.on(Transcript, name="done")(that_fails(0, runs))
    first.on(Transcript, name="old")(that_fails(9, []))
    async with first.running():
        await deliver(first, transcript())
        await until_state(first, "waiting")
        await until(lambda: runs)
    make_due(tmp_path)
    for name in names:
        second.on(Transcript, name=name)(that_fails(0, runs))
    async with second.running():
        await until_state(second, "done")
    assert runs == wanted


async def test_where_the_one_that_gave_up_is_all_that_is_left_the_delivery_stays_dead(tmp_path):
    first, second = new_receiver(inbox=in_file(tmp_path), retry=NEVER), new_receiver(inbox=in_file(tmp_path))
    first.on(Transcript, name="buries")(that_fails(9, [], Bury("no")))
    first.on(Transcript, name="old")(that_fails(9, []))
    async with first.running():
        await deliver(first, transcript())
        await until_state(first, "waiting")
    make_due(tmp_path)
    second.on(Transcript, name="buries")(that_fails(0, []))
    async with second.running():
        await until_state(second, "dead")
        assert (await the_entry(second)).error == "buries: no"


def make_due(folder: Any, **values: Any) -> None:
    """Change what stands in the file while nobody has it open: what waits is due, as after a long time."""
    columns = ", ".join(f"{name} = :{name}" for name in {"due": 0.0, **values})
    with closing(sqlite3.connect(folder / "inbox.db")) as connection, connection:
        connection.execute(f"UPDATE dgreceiver_callback SET {columns}", {"due": 0.0, **values})


# --- what nobody wants


async def test_what_nobody_handles_is_kept_and_each_kind_is_told_of_once(caplog):
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    receiver.on(Failure)(lambda event: None)
    async with receiver.running():
        await deliver(receiver, transcript(), transcript(), utterance_end())
        await receiver.idle()
        assert [entry.state for entry in await entries_of(receiver)] == ["unhandled"] * 3
    assert [(fact.kind, fact.hint) for fact in facts.of(DeliveryUnhandled)] == [
        ("Transcript", True),
        ("Transcript", False),
        ("UtteranceEnd", True),
    ]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.splitlines()[0] for line in warnings] == [
        "nothing handles Transcript (kept; replay with: dgreceiver inbox replay --unhandled); to handle it:",
        "nothing handles UtteranceEnd (kept; replay with: dgreceiver inbox replay --unhandled); to handle it:",
    ]
    assert warnings[1].endswith(
        "@receiver.on(UtteranceEnd)\nasync def on_utterance_end(event: UtteranceEnd) -> None: ..."
    )


async def test_whoever_handles_the_whole_of_a_stream_is_not_told_of_its_messages():
    facts, wholes = Facts(), list[Event]()
    receiver = new_receiver(hooks=[facts])
    receiver._endings = Endings(settling=0.05)
    receiver.on(LiveTranscript)(wholes.append)
    heard = live_result(request_id="s", is_final=True)
    async with receiver.running():
        await deliver(receiver, speech_started(), heard, utterance_end(), live_error(), stream_metadata(request_id="s"))
        await until(lambda: wholes)
        await receiver.idle()
        assert Counter(entry.state for entry in await entries_of(receiver)) == {"unhandled": 5, "done": 1}
    assert [fact.kind for fact in facts.of(DeliveryUnhandled) if fact.hint] == ["LiveError"]


async def test_what_turns_out_to_be_something_else_goes_to_who_wants_that():
    receiver, seen = new_receiver(), list[Event]()
    receiver.on(Transcript)(seen.append)
    receiver.on(Unknown, name="odd")(seen.append)
    async with receiver.running():
        await deliver(receiver, transcript(results={"channels": ["not one"]}))
        await receiver.idle()
    assert [type(event) for event in seen] == [Unknown]


async def test_what_turns_out_to_be_something_that_nobody_wants_is_unhandled():
    receiver, seen = new_receiver(), list[Event]()
    receiver.on(Transcript)(seen.append)
    async with receiver.running():
        await deliver(receiver, transcript(results={"channels": ["not one"]}))
        await receiver.idle()
        assert (await the_entry(receiver)).state == "unhandled"
    assert seen == []


async def test_what_was_unhandled_is_replayed_to_a_new_handler():
    receiver, seen = new_receiver(), list[Event]()
    receiver.on(Failure)(lambda event: None)
    async with receiver.running():
        await deliver(receiver, transcript())
        await receiver.idle()
        receiver.on(Transcript)(seen.append)
        assert await receiver.replay(state="unhandled") == 1
        await receiver.idle()
    assert len(seen) == 1


# --- every shape of a handler


class Saves:
    """Objects may be handlers."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    async def __call__(self, event: Event) -> None:
        await asyncio.sleep(0)
        self._seen.append(threading.current_thread())


def disguised(seen: list[Any]) -> Any:
    """A coroutine function that a decorator hides: it is called in a thread and awaited on the loop."""

    async def save(event: Event) -> None:
        seen.append(threading.current_thread())

    @wraps(save)
    def hidden(event: Event) -> Any:
        return save(event)

    return hidden


def plain(seen: list[Any]) -> Any:
    def save(event: Event) -> None:
        seen.append(threading.current_thread())

    return save


async def of_two(seen: list[Any], event: Event) -> None:
    seen.append(threading.current_thread())


@pytest.mark.parametrize(
    ("make", "on_the_loop"),
    [
        pytest.param(plain, False, id="a function"),
        pytest.param(disguised, True, id="a coroutine function in disguise"),
        pytest.param(Saves, True, id="an object with an async __call__"),
        pytest.param(lambda seen: partial(of_two, seen), True, id="a partial of a coroutine function"),
    ],
)
async def test_a_handler_runs_where_it_does_no_harm(make, on_the_loop):
    receiver, seen = new_receiver(), list[threading.Thread]()
    receiver.on(Event)(make(seen))
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "done")
    assert [thread is threading.current_thread() for thread in seen] == [on_the_loop]


async def test_plain_functions_run_beside_each_other_and_the_loop_goes_on():
    receiver, together = new_receiver(), threading.Barrier(3)
    receiver.on(Transcript)(lambda event: together.wait(10))
    async with receiver.running():
        await deliver(receiver, transcript(), transcript())
        await asyncio.to_thread(together.wait, 10)
        await receiver.idle()
        assert {entry.state for entry in await entries_of(receiver)} == {"done"}


@pytest.mark.parametrize("value", [None, 7, "text", NotImplemented, ..., ValueError("returned"), object()])
async def test_what_a_handler_returns_means_nothing(value):
    receiver = new_receiver()
    receiver.on(Event, name="sync")(lambda event: value)

    @receiver.on(Event)
    async def returns(event: Event) -> Any:
        return value

    async with receiver.running():
        await deliver(receiver, transcript())
        await receiver.idle()
        assert (await the_entry(receiver)).state == "done"


# --- errors of every kind


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Wordless(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307 - what is meant


ERRORS = [
    pytest.param(ValueError("no"), "ValueError: no", id="an error"),
    pytest.param(ValueError(), "ValueError", id="an error without a message"),
    pytest.param(ValueError("x" * 10_000), "ValueError: " + "x" * 482, id="an error with a long message"),
    pytest.param(ValueError("\ud800 \0"), "ValueError: \\ud800 \0", id="what no database writes"),
    pytest.param(Unprintable(), "Unprintable: (its message cannot be shown)", id="an error that cannot be shown"),
    pytest.param(Wordless(), "Wordless: (its message cannot be shown)", id="an error whose message is none"),
    pytest.param(TimeoutError("theirs"), "TimeoutError: theirs", id="a timeout of its own"),
    pytest.param(SystemExit(3), "SystemExit: 3", id="SystemExit"),
    pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", id="KeyboardInterrupt"),
    pytest.param(GeneratorExit(), "GeneratorExit", id="GeneratorExit"),
    pytest.param(BaseException("base"), "BaseException: base", id="BaseException"),
    pytest.param(BaseExceptionGroup("all", [SystemExit(1)]), "BaseExceptionGroup: all (1 sub-exception)", id="a group"),
    pytest.param(asyncio.CancelledError(), "CancelledError", id="CancelledError"),
    pytest.param(StopIteration(1), "StopIteration", id="StopIteration"),
    pytest.param(StopAsyncIteration(), "StopAsyncIteration", id="StopAsyncIteration"),
    pytest.param(InboxError("theirs"), "InboxError: theirs", id="one of our errors"),
]


@pytest.mark.parametrize("is_async", [pytest.param(True, id="async"), pytest.param(False, id="sync")])
@pytest.mark.parametrize("beside", [0, 1])
@pytest.mark.parametrize(("error", "said"), ERRORS)
async def test_whatever_a_handler_raises_hurts_its_delivery_alone(error, said, is_async, beside):
    receiver, others = new_receiver(retry=ONCE), list[Event]()

    def fails(event: Event) -> None:
        raise error

    async def fails_on_the_loop(event: Event) -> None:
        raise error

    receiver.on(Transcript, name="fails")(fails_on_the_loop if is_async else fails)
    receiver.on(Failure)(others.append)
    for _ in range(beside):
        receiver.on(Transcript, name="beside")(others.append)
    async with receiver.running():
        await deliver(receiver, transcript(), failure())
        await until(lambda: len(others) == 1 + beside)
        await until_state(receiver, "dead", "done")
        dead, done = await entries_of(receiver)
    told = f"RuntimeError: {'coroutine' if is_async else 'the handler'} raised {said}"
    odd = (GeneratorExit, asyncio.CancelledError)
    carried = isinstance(error, StopIteration) or (isinstance(error, odd) and not is_async)
    assert (dead.state, done.state) == ("dead", "done")
    assert dead.error == (f"fails: {told}" if carried else f"fails: {said}")[:500]


# --- handlers that take too long


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_coroutine_past_its_timeout_is_cancelled(stubborn):
    facts, cancelled = Facts(), list[bool]()
    receiver = new_receiver(retry=ONCE, hooks=[facts])

    @receiver.on(Transcript, timeout=0.05, name="hangs")
    async def hangs(event: Transcript) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
            if stubborn:
                raise ValueError("on the way out")

    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "dead")
        entry = await the_entry(receiver)
    why = "ValueError: on the way out" if stubborn else "TimeoutError: it ran longer than its timeout of 0.05 s"
    assert cancelled == [True]
    assert entry.error == f"hangs: {why}"
    assert facts.of(HandlerAbandoned) == []


async def test_a_thread_past_its_timeout_is_abandoned_and_replaced():
    facts, go, threads = Facts(), threading.Event(), list[threading.Thread]()
    receiver = new_receiver(retry=RetryPolicy(attempts=2, first_wait=0.01), hooks=[facts])

    @receiver.on(Transcript, timeout=0.05, name="hangs")
    def hangs(event: Transcript) -> None:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            go.wait(10)

    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "done")
        entry = await the_entry(receiver)
        assert threads[0].is_alive()
        go.set()
        await until(lambda: not threads[0].is_alive())
    assert entry.marks["hangs"].attempts == 2
    assert [(fact.handler, fact.timeout) for fact in facts.of(HandlerAbandoned)] == [("hangs", 0.05)]
    assert threads[0] is not threads[1]


async def test_a_coroutine_in_disguise_that_is_cancelled_leaves_no_thread_behind():
    facts = Facts()
    receiver = new_receiver(retry=ONCE, hooks=[facts])

    async def hangs(event: Event) -> None:
        await asyncio.Event().wait()

    receiver.on(Event, timeout=0.05)(lambda event: hangs(event))  # noqa: PLW0108 - the disguise
    async with receiver.running():
        await deliver(receiver, transcript())
        await until_state(receiver, "dead")
    assert facts.of(HandlerAbandoned) == []


async def test_a_handler_that_hangs_holds_half_of_the_slots_at_most():
    receiver, hanging, seen, go = new_receiver(concurrency=4), list[Event](), list[Event](), asyncio.Event()

    @receiver.on(Transcript)
    async def hangs(event: Transcript) -> None:
        hanging.append(event)
        await go.wait()

    receiver.on(Failure)(seen.append)
    async with receiver.running():
        await deliver(receiver, *(transcript() for _ in range(6)))
        await until(lambda: len(hanging) == 2)
        for _ in range(5):
            seen.clear()
            await deliver(receiver, failure())
            await until(lambda: seen)
        assert len(hanging) == 2
        go.set()
        await receiver.idle()
    assert len(hanging) == 6


async def test_what_was_claimed_ahead_waits_while_its_handler_is_too_busy_and_others_pass():
    receiver, seen, go = new_receiver(concurrency=2), Counter[str](), asyncio.Event()

    @receiver.on(Transcript)
    async def gets_slow(event: Transcript) -> None:
        seen["Transcript"] += 1
        if seen["Transcript"] > 50:
            await go.wait()

    receiver.on(Failure)(lambda event: seen.update(["Failure"]))
    async with receiver.running():
        await deliver(receiver, *(transcript() for _ in range(100)))
        await deliver(receiver, *(failure() for _ in range(5)))
        await until(lambda: seen == {"Transcript": 51, "Failure": 5})
        go.set()
        await receiver.idle()
    assert seen == {"Transcript": 100, "Failure": 5}


async def test_what_waits_in_memory_for_a_busy_handler_keeps_nothing_else_from_being_claimed(tmp_path):
    await filled(tmp_path, *(transcript() for _ in range(20)), failure())
    receiver, failed, go = new_receiver(inbox=in_file(tmp_path), concurrency=4), list[Event](), asyncio.Event()

    @receiver.on(Transcript)
    async def hangs(event: Transcript) -> None:
        await go.wait()

    receiver.on(Failure)(failed.append)
    async with receiver.running():
        await until(lambda: failed)
        go.set()
        await receiver.idle()


async def test_one_handler_alone_has_all_slots():
    receiver, together = new_receiver(concurrency=4), asyncio.Barrier(4)

    @receiver.on(Transcript)
    async def meets(event: Transcript) -> None:
        await together.wait()

    async with receiver.running():
        await deliver(receiver, *(transcript() for _ in range(4)))
        await until_state(receiver, "done")


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_run_than_there_are_slots_however_much_was_claimed_ahead(tmp_path, concurrency):
    await filled(tmp_path, *(transcript() for _ in range(100)))
    receiver = new_receiver(inbox=in_file(tmp_path), concurrency=concurrency)
    running, most, done = set[int](), 0, 0

    @receiver.on(Transcript)
    async def counts(event: Transcript) -> None:
        nonlocal most, done
        running.add(id(event))
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.discard(id(event))
        done += 1

    async with receiver.running():
        await receiver.idle()
    assert (most, done) == (concurrency, 100)


# --- streams


async def test_messages_of_a_stream_are_handled_in_order_however_slow_the_first_is():
    receiver, seen, go = new_receiver(), list[float](), asyncio.Event()

    @receiver.on(LiveResult)
    async def slow_at_first(event: LiveResult) -> None:
        if event.start == 0.0:
            await go.wait()
        seen.append(event.start)

    async with receiver.running():
        await deliver(receiver, *(live_result(request_id="s", start=float(n)) for n in range(5)))
        await deliver(receiver, live_result(request_id="another", start=9.0))
        await until(lambda: seen)
        assert seen == [9.0]
        go.set()
        await receiver.idle()
    assert seen == [9.0, 0.0, 1.0, 2.0, 3.0, 4.0]


async def test_a_message_waits_until_all_handlers_of_the_one_before_have_succeeded():
    receiver, seen, fails = new_receiver(retry=QUICK), list[tuple[str, float]](), iter([True, True])

    @receiver.on(LiveResult)
    async def quick(event: LiveResult) -> None:
        seen.append(("quick", event.start))

    @receiver.on(LiveResult)
    async def fails_twice(event: LiveResult) -> None:
        if next(fails, False):
            raise ValueError("not yet")
        seen.append(("fails twice", event.start))

    async with receiver.running():
        await deliver(receiver, *(live_result(request_id="s", start=float(n)) for n in range(2)))
        await until_state(receiver, "done")
    assert seen == [("quick", 0.0), ("fails twice", 0.0), ("quick", 1.0), ("fails twice", 1.0)]


async def test_a_dead_message_does_not_stop_its_stream_and_five_attempts_make_it_dead():
    receiver, attempts, seen = (
        new_receiver(retry=RetryPolicy(first_wait=0.01, longest_wait=0.01)),
        list[int](),
        list[float](),
    )

    @receiver.on(LiveResult)
    async def save(event: LiveResult, delivery: Delivery) -> None:
        if event.start == 0.0:
            attempts.append(delivery.attempt)
            raise ValueError("no")
        seen.append(event.start)

    async with receiver.running():
        await deliver(receiver, *(live_result(request_id="s", start=float(n)) for n in range(2)))
        await until(lambda: seen)
        await receiver.idle()
        assert [entry.state for entry in await entries_of(receiver)] == ["dead", "done"]
    assert attempts == [1, 2, 3, 4, 5]


async def test_what_others_wait_behind_is_not_put_off_for_long():
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    receiver.on(LiveResult)(that_fails(9, [], Retry(after=timedelta(hours=1))))
    async with receiver.running():
        await deliver(receiver, live_result(request_id="s"))
        await until(lambda: facts.of(HandlerFailed))
    assert [fact.wait for fact in facts.of(HandlerFailed)] == [30.0]


# --- processes that die


def as_left_by_a_crash(folder: Any, crashes: int, which: str = "TRUE") -> None:
    """The file as a process leaves it that dies for the so-manieth time with what it was handling."""
    with closing(sqlite3.connect(folder / "inbox.db")) as connection, connection:
        connection.execute(
            "UPDATE dgreceiver_callback SET state = 'leased', due = NULL, lease = 'the one that died', "
            f"crashes = ? WHERE {which}",
            [crashes - 1],
        )


async def filled(folder: Any, *payloads: Any) -> None:
    receiver = new_receiver(inbox=in_file(folder))
    async with receiver.running():
        await deliver(receiver, *payloads)


@pytest.mark.parametrize(
    ("crashes", "beside"),
    [
        pytest.param(ALONE_FROM - 1, True, id="the fourth time"),
        pytest.param(ALONE_FROM, False, id="from the fifth time"),
    ],
)
async def test_what_keeps_losing_its_process_runs_alone(tmp_path, crashes, beside):
    await filled(tmp_path, *(transcript(request_id=f"{n}") for n in range(6)))
    as_left_by_a_crash(tmp_path, crashes, "request_id IN ('1', '3', '4')")
    receiver, running, together = new_receiver(inbox=in_file(tmp_path)), set[str](), list[set[str]]()

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        running.add(event.request_id)
        for _ in range(5):
            await asyncio.sleep(0.002)
            together.append(set(running))
        running.remove(event.request_id)

    async with receiver.running():
        await until_state(receiver, "done")
        assert {entry.crashes for entry in await entries_of(receiver)} == {0}
    assert set().union(*together) == set("012345")
    assert any(len(those) > 1 and those & {"1", "3", "4"} for those in together) is beside


async def test_what_waits_to_run_alone_is_not_starved_by_what_comes_in(tmp_path):
    await filled(tmp_path, transcript(request_id="fragile"))
    as_left_by_a_crash(tmp_path, ALONE_FROM)
    receiver, seen, go = new_receiver(inbox=in_file(tmp_path)), list[str](), asyncio.Event()

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        seen.append(event.request_id)
        if event.request_id == "fragile":
            await go.wait()

    async with receiver.running():
        await until(lambda: seen)
        await deliver(receiver, *(transcript(request_id=f"{n}") for n in range(20)))
        assert seen == ["fragile"]
        go.set()
        await receiver.idle()
    assert len(seen) == 21


async def test_what_is_to_run_alone_waits_for_those_that_run(tmp_path):
    receiver, seen, go = new_receiver(inbox=in_file(tmp_path)), list[str](), asyncio.Event()

    @receiver.on(Transcript)
    async def save(event: Transcript, delivery: Delivery) -> None:
        seen.append(f"{event.request_id} begins")
        if event.request_id == "fragile" and delivery.attempt == 1:
            raise Retry(after=0.2)
        if event.request_id == "slow":
            await go.wait()
        seen.append(f"{event.request_id} ends")

    async with receiver.running():
        await deliver(receiver, transcript(request_id="fragile"))
        await until_state(receiver, "waiting")
        with closing(sqlite3.connect(tmp_path / "inbox.db")) as connection, connection:
            connection.execute("UPDATE dgreceiver_callback SET crashes = ?", [ALONE_FROM])
        await deliver(receiver, transcript(request_id="slow"))
        await until_state(receiver, "leased")
        assert seen == ["fragile begins", "slow begins"]
        go.set()
        await receiver.idle()
    assert seen[2:] == ["slow ends", "fragile begins", "fragile ends"]


async def test_what_has_cost_a_hundred_processes_is_given_up(tmp_path):
    await filled(tmp_path, transcript())
    as_left_by_a_crash(tmp_path, MOST_CRASHES)
    receiver, seen = new_receiver(inbox=in_file(tmp_path)), list[Event]()
    receiver.on(Transcript)(seen.append)
    async with receiver.running():
        await until_state(receiver, "dead")
        assert (await the_entry(receiver)).error == "the process died while handling it"
    assert seen == []


# --- the end


class Dispatching:
    """A dispatcher over an inbox in a file, beside which a receiver stores."""

    def __init__(self, folder: Any, **options: Any) -> None:
        self.facts = Facts()
        self.receiver = new_receiver(inbox=in_file(folder), name="dispatching")
        self._folder = folder
        self._options = {"retry": QUICK, "concurrency": 4, "patience": 0.05, **options}

    async def __aenter__(self) -> Self:
        self._inbox = SqliteInbox(self._folder / "inbox.db", receiver="dispatching", emit=self.facts)
        await self._inbox.open()
        handlers, options = self.receiver._handlers, self._options
        retry = options.pop("retry")
        self.dispatcher = Dispatcher(self._inbox, handlers, retry, emit=self.facts, roll=Random(7).random, **options)
        self._running = asyncio.create_task(self.dispatcher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        await self.dispatcher.stop()
        await self._inbox.close()


async def stored(folder: Any, *payloads: Any) -> None:
    receiver = new_receiver(inbox=in_file(folder), name="dispatching")
    async with receiver.running():
        await deliver(receiver, *payloads)


async def after(folder: Any) -> list[tuple[str, int, dict[str, tuple[int, bool]]]]:
    """What the inbox remembers: state, crashes, and of each handler its attempts and whether it is done."""
    entries = await entries_of(new_receiver(inbox=in_file(folder), name="dispatching"))
    return [
        (entry.state, entry.crashes, {name: (mark.attempts, mark.done) for name, mark in entry.marks.items()})
        for entry in entries
    ]


async def test_what_does_not_end_in_time_is_given_back_and_counts_as_no_attempt(tmp_path):
    await stored(tmp_path, *(transcript() for _ in range(3)))
    work, seen = Dispatching(tmp_path, concurrency=2), list[Event]()

    @work.receiver.on(Transcript)
    async def hangs(event: Transcript) -> None:
        seen.append(event)
        await asyncio.Event().wait()

    async with work:
        await until(lambda: len(seen) == 2)
    assert await after(tmp_path) == [("waiting", 0, {})] * 3
    assert work.facts.of(HandlerFailed) == []


async def test_a_thread_that_does_not_end_in_time_is_left_behind(tmp_path):
    await stored(tmp_path, transcript())
    work, seen, go = Dispatching(tmp_path), list[Event](), threading.Event()

    @work.receiver.on(Transcript)
    def hangs(event: Transcript) -> None:
        seen.append(event)
        go.wait(10)

    async with work:
        await until(lambda: seen)
    go.set()
    assert await after(tmp_path) == [("waiting", 0, {})]


async def test_what_ends_in_time_has_ended(tmp_path):
    await stored(tmp_path, transcript())
    work, seen = Dispatching(tmp_path, patience=10.0), list[Event]()

    @work.receiver.on(Transcript, name="slow")
    async def slow(event: Transcript) -> None:
        seen.append(event)
        await asyncio.sleep(0.1)

    async with work:
        await until(lambda: seen)
    assert await after(tmp_path) == [("done", 0, {"slow": (1, True)})]


async def test_of_two_handlers_the_one_that_has_ended_is_not_run_again_after_a_stop(tmp_path):
    await stored(tmp_path, transcript(), transcript())
    work, seen = Dispatching(tmp_path), list[Event]()

    @work.receiver.on(Transcript, name="quick")
    async def quick(event: Transcript) -> None:
        seen.append(event)

    @work.receiver.on(Transcript, name="hangs")
    async def hangs(event: Transcript) -> None:
        seen.append(event)
        await asyncio.Event().wait()

    async with work:
        await until(lambda: len(seen) == 4)
    assert await after(tmp_path) == [("waiting", 0, {"quick": (1, True)})] * 2


async def test_a_handler_that_ends_when_it_is_cancelled_has_ended(tmp_path):
    await stored(tmp_path, transcript())
    work, seen = Dispatching(tmp_path), list[Event]()

    @work.receiver.on(Transcript, name="heeds")
    async def heeds(event: Transcript) -> None:
        seen.append(event)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with work:
        await until(lambda: seen)
    assert await after(tmp_path) == [("done", 0, {"heeds": (1, True)})]


async def test_a_handler_that_will_not_be_cancelled_does_not_keep_us_from_stopping(tmp_path):
    await stored(tmp_path, transcript())
    work, seen, go = Dispatching(tmp_path), list[Event](), asyncio.Event()

    @work.receiver.on(Transcript)
    async def stubborn(event: Transcript) -> None:
        seen.append(event)
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    async with work:
        await until(lambda: seen)
    assert await after(tmp_path) == [("waiting", 0, {})]
    go.set()
    await until(lambda: work.facts.of(HandlerSucceeded))  # and nobody hears of it


async def test_what_was_claimed_ahead_is_not_begun_while_the_running_ones_end(tmp_path):
    await stored(tmp_path, *(transcript() for _ in range(40)))
    work, begun, slow = Dispatching(tmp_path, concurrency=1, patience=10.0), 0, asyncio.Event()

    @work.receiver.on(Transcript)
    async def gets_slow(event: Transcript) -> None:
        nonlocal begun
        begun += 1
        if work.dispatcher._ready and begun > 5:
            slow.set()
            await asyncio.sleep(0.1)

    async with work:
        await slow.wait()
        so_far = begun
    assert begun == so_far
    assert Counter(state for state, *_ in await after(tmp_path)) == {"done": begun, "waiting": 40 - begun}


async def test_bodies_are_claimed_only_as_far_as_there_is_room_for_them(tmp_path):
    payload = transcript("word " * 100)
    await stored(tmp_path, *(transcript("word " * 100) for _ in range(8)))
    work, running, most, go = (
        Dispatching(tmp_path, concurrency=8, room=2 * len(payload.body)),
        set[str](),
        0,
        asyncio.Event(),
    )

    @work.receiver.on(Transcript)
    async def slow(event: Transcript) -> None:
        nonlocal most
        running.add(event.request_id)
        most = max(most, len(running))
        await go.wait()
        running.remove(event.request_id)

    async with work:
        await until(lambda: len(running) == 2)
        go.set()
        await until_state(work.receiver, "done")
    assert most == 2


@pytest.mark.parametrize(
    ("words", "count", "between"), [(48_000, 3, 3), (11_000, 4, 0)], ids=["one by one", "claimed together"]
)
async def test_between_large_bodies_the_loop_turns_the_more_often_the_larger_they_are(tmp_path, words, count, between):
    text = "word " * words
    await stored(tmp_path, *(transcript(text) for _ in range(count)))
    work, turns, at = Dispatching(tmp_path), 0, list[int]()

    @work.receiver.on(Transcript)
    async def note(event: Transcript) -> None:
        at.append(turns)

    async with work:
        while len(at) < count:
            turns += 1
            await asyncio.sleep(0)
    size = len(transcript(text).body)
    owed = size // IN_A_TURN
    assert size >= LARGE
    assert owed >= between
    assert [later - sooner >= owed for sooner, later in pairwise(at)] == [True] * (count - 1)
    assert at[-1] - at[0] >= (count - 1) * size // IN_A_TURN >= 2
