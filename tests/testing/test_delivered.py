"""deliver() runs handlers as production would, once, and says what came of it."""

import asyncio
import sqlite3
import threading
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from dgreceiver import Bury, Delivery, Event, ExtraAuth, NoAuth, Receiver, Retry, SetupError, SignedAuth, Transcript
from dgreceiver.testing import Delivered, Payload, deliver, live_result, speech_started, transcript, unknown


class Oops(Exception):
    """The user's own."""


ERRORS = [Oops("no"), Retry(after=3.0), Bury("never")]


class Trial:
    """A receiver whose handlers note what they are given, and then raise what they are told to."""

    def __init__(self, *, auth=NoAuth(), raising=()):  # noqa: B008 - it has no state
        self.receiver = Receiver(auth=auth, inbox="memory://", name="trial")
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.threads: list[threading.Thread] = []
        self.raising = iter(raising)

    def on(self, event_type, kind):
        getattr(self, f"_{kind}")(self.receiver.on(event_type, name=kind))
        return self

    def note(self, event, delivery=None):
        self.events.append(event)
        self.deliveries += [delivery] if delivery else []
        self.threads.append(threading.current_thread())
        if error := next(self.raising, None):
            raise error

    def note_both(self, event, delivery):
        self.note(event, delivery)

    def _plain(self, register):
        register(self.note_both)

    def _coroutine(self, register):
        async def handle(event: Event, delivery: Delivery) -> None:
            await asyncio.sleep(0)
            self.note(event, delivery)

        register(handle)

    def _disguised(self, register):
        async def handle(event):
            self.note(event)

        def seems_plain(event):
            return handle(event)

        register(seems_plain)


BOTH = pytest.mark.parametrize("kind", ["plain", "coroutine", "disguised"])


@BOTH
def test_without_a_loop_handlers_have_run_when_it_returns(kind):
    trial = Trial().on(Transcript, kind)
    delivered = deliver(trial.receiver, transcript("hello"))
    assert [event.text for event in trial.events] == ["hello"]
    assert (delivered.event, delivered.handlers, trial.threads) == (trial.events[0], (kind,), [threading.main_thread()])


@BOTH
async def test_on_a_loop_handlers_run_when_it_is_awaited(kind):
    trial = Trial().on(Transcript, kind)
    delivered = await deliver(trial.receiver, transcript("hello"))
    assert (trial.events, delivered.handlers) == ([delivered.event], (kind,))
    assert (trial.threads[0] is threading.main_thread()) == (kind != "plain")


async def test_what_has_run_may_be_awaited_and_does_not_run_again():
    trial = Trial().on(Transcript, "plain")
    delivered = await asyncio.to_thread(deliver, trial.receiver, transcript())  # no loop in that thread
    assert (await delivered is delivered, len(trial.events)) == (True, 1)


def test_a_plain_handler_may_use_what_belongs_to_the_thread_of_its_test():
    receiver, database = Receiver(auth=NoAuth(), inbox="memory://"), sqlite3.connect(":memory:")
    database.execute("CREATE TABLE call (text)")
    receiver.on(Transcript)(lambda said: database.execute("INSERT INTO call VALUES (?)", [said.text]))
    deliver(receiver, transcript("hello"))
    assert database.execute("SELECT text FROM call").fetchall() == [("hello",)]


@pytest.mark.parametrize("awaits", [True, False], ids=["on a loop", "without a loop"])
def test_a_plain_handler_may_start_a_loop(awaits):
    receiver, ran = Receiver(auth=NoAuth(), inbox="memory://"), list[str]()

    @receiver.on(Transcript)
    def save(said: Transcript) -> None:
        ran.append(asyncio.run(asyncio.sleep(0, said.text)))

    async def on_a_loop() -> None:
        await deliver(receiver, transcript("hello"))

    asyncio.run(on_a_loop()) if awaits else deliver(receiver, transcript("hello"))
    assert ran == ["hello"]


@BOTH
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_handler_raises_is_raised(kind, error):
    with pytest.raises(type(error)) as raised:
        deliver(Trial(raising=[error]).on(Transcript, kind).receiver, transcript())
    assert raised.value is error


@BOTH
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_a_handler_raises_is_raised_where_it_is_awaited(kind, error):
    with pytest.raises(type(error)) as raised:
        await deliver(Trial(raising=[error]).on(Transcript, kind).receiver, transcript())
    assert raised.value is error


def test_one_failure_keeps_no_other_handler_from_running():
    trial = Trial(raising=[Oops()]).on(Transcript, "plain").on(Transcript, "coroutine")
    with pytest.raises(Oops):
        deliver(trial.receiver, transcript())
    assert len(trial.events) == 2


def test_several_failures_are_a_group_that_names_the_handlers():
    trial = Trial(raising=[Oops(), Bury("no")]).on(Transcript, "plain").on(Transcript, "coroutine")
    with pytest.raises(ExceptionGroup, match="2 handlers failed: plain, coroutine") as raised:
        deliver(trial.receiver, transcript())
    assert [type(error) for error in raised.value.exceptions] == [Oops, Bury]


def test_what_nobody_wants_runs_nothing():
    delivered = deliver(Trial().on(Transcript, "plain").receiver, unknown("News"))
    assert (type(delivered.event).__name__, delivered.handlers) == ("Unknown", ())


def test_a_delivery_is_as_it_is_told_to_be():
    trial = Trial().on(Event, "plain")
    options: dict[str, Any] = {"attempt": 3, "path": "/calls", "query": "a=b", "replayed": True}
    delivered = deliver(trial.receiver, transcript(), context={"call_id": 7}, **options)
    [delivery] = trial.deliveries
    assert delivery is delivered.delivery
    assert {name: getattr(delivery, name) for name in options} == options
    assert (delivery.context, delivery.stream, delivery.headers) == (
        {"call_id": 7},
        None,
        {"content-type": "application/json"},
    )


def test_a_delivery_is_plain_unless_more_is_said():
    delivery = deliver(Trial().receiver, transcript(request_id="r")).delivery
    again = deliver(Trial().receiver, transcript("other", request_id="r")).delivery
    assert (delivery.attempt, delivery.context, delivery.query, delivery.replayed) == (1, {}, "", False)
    assert delivery.key == again.key


def test_headers_are_kept_as_a_receiver_keeps_them():
    delivered = deliver(Trial().receiver, transcript(), headers={"DG-Project-Id": "p", "dg-token": "t", "host": "h"})
    assert delivered.delivery.headers == {"content-type": "application/json", "dg-project-id": "p"}


def test_messages_of_one_job_are_one_stream():
    def stream(payload: Payload, job: str) -> str | None:
        return deliver(Trial().receiver, payload, job=job).delivery.stream

    assert stream(speech_started(), "1") == stream(live_result(), "1") != stream(live_result(), "2")


def test_a_context_that_no_url_could_carry_is_refused():
    with pytest.raises(SetupError, match="flat JSON object"):
        deliver(Trial(auth=SignedAuth("k" * 32)).receiver, transcript(), context={"nested": {}})


def test_a_callback_secret_does_not_reach_a_handler():
    trial = Trial(auth=ExtraAuth("fake-secret")).on(Transcript, "plain")
    deliver(trial.receiver, transcript(extra={"callback_secret": "fake-secret"}))
    assert trial.events[0].metadata.extra == {"callback_secret": "***"}


def test_what_was_delivered_shows_no_transcript():
    delivered: Delivered = deliver(Trial().receiver, transcript("private", request_id="r"))
    assert repr(delivered) == "Delivered(Transcript(request_id='r'), handlers=())"


def test_every_keyword_is_documented():
    page = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    keywords = [name for name, each in signature(deliver).parameters.items() if each.kind is each.KEYWORD_ONLY]
    assert [name for name in keywords if f"`{name}`" not in page] == []
