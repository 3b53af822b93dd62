"""Registering handlers, and finding those that want an event."""

import operator
from collections import deque
from datetime import timedelta
from functools import partial, wraps
from typing import Any

import pytest

from dgreceiver.core import events
from dgreceiver.core.events import (
    Analysis,
    Event,
    Failure,
    LiveEvent,
    LiveTranscript,
    Transcript,
    Unknown,
    parse,
)
from dgreceiver.errors import SetupError
from dgreceiver.handlers import Handler, Handlers, TakesHandlers, paste
from dgreceiver.inbox.contract import Delivery


class Receiver(TakesHandlers):
    """As much of a receiver as handlers know."""

    @property
    def handlers(self) -> Handlers:
        return self._handlers


def register(function: Any, *event_types: Any, **options: Any) -> Handler:
    receiver = Receiver()
    receiver.on(*(event_types or (Event,)), **options)(function)
    return receiver.handlers.wanting(failure())[0]


def failure() -> Event:
    return parse("Failure", b'{"err_code": "Bad Request", "err_msg": "no", "request_id": "r"}', {})


def speech_started() -> Event:
    return parse("SpeechStarted", b'{"type": "SpeechStarted", "channel": [0], "timestamp": 1.5}', {})


def unknown() -> Event:
    return parse("Unknown", b"?", {})


async def coroutine(event: Event) -> None: ...


def plain(event: Event) -> None: ...


async def with_delivery(event: Event, delivery: Delivery) -> None: ...


async def with_more(event: Event, delivery: Delivery, db: str) -> None: ...


async def with_default(event: Event, db: str = "db") -> None: ...


async def with_keyword(event: Event, *, db: str = "db") -> None: ...


async def with_rest(event: Event, *rest: object, **options: object) -> None: ...


def only_rest(*events: Event) -> None: ...


def generator(event: Event) -> Any:
    yield event


async def async_generator(event: Event) -> Any:
    yield event


@wraps(with_delivery)
def wrapped(*args: Any) -> Any:
    return with_delivery(*args)


class Saver:
    async def save(self, event: Event, delivery: Delivery) -> None: ...

    @staticmethod
    def log(event: Event) -> None: ...

    async def __call__(self, event: Event) -> None: ...


class Printer:
    def __call__(self, event: Event, delivery: Delivery) -> None: ...


class Generator:
    async def __call__(self, event: Event) -> Any:
        yield event


class MyTranscript(Transcript):
    """What no callback becomes."""


@pytest.mark.parametrize(
    ("function", "name", "wants_delivery", "is_async"),
    [
        pytest.param(coroutine, "coroutine", False, True, id="async def"),
        pytest.param(plain, "plain", False, False, id="def"),
        pytest.param(with_delivery, "with_delivery", True, True, id="with delivery"),
        pytest.param(with_default, "with_default", False, True, id="a default is not a delivery"),
        pytest.param(with_keyword, "with_keyword", False, True, id="a keyword is not a delivery"),
        pytest.param(with_rest, "with_rest", False, True, id="nor is *rest"),
        pytest.param(only_rest, "only_rest", False, False, id="*args takes the event alone"),
        pytest.param(partial(with_more, db="db"), "with_more", True, True, id="partial"),
        pytest.param(partial(Saver()), "Saver", False, True, id="partial of an object"),
        pytest.param(Saver().save, "Saver.save", True, True, id="bound method"),
        pytest.param(Saver.log, "Saver.log", False, False, id="static method"),
        pytest.param(Saver(), "Saver", False, True, id="object with async __call__"),
        pytest.param(Printer(), "Printer", True, False, id="object with __call__"),
        pytest.param(operator.itemgetter(0), "itemgetter", False, False, id="object in C"),
        pytest.param(
            deque[Event]().append, "deque.append", False, False, id="method in C, which does not say what it takes"
        ),
        pytest.param(wrapped, "with_delivery", True, False, id="wrapped"),
        pytest.param(lambda event: None, "<lambda>", False, False, id="lambda"),
    ],
)
def test_whatever_can_be_called_with_an_event_can_be_a_handler(function, name, wants_delivery, is_async):
    handler = register(function)
    assert (handler.name, handler.wants_delivery, handler.is_async) == (name, wants_delivery, is_async)
    assert handler.call is function


@pytest.mark.parametrize(
    "function", [coroutine, Saver(), partial(with_more, db="db")], ids=["def", "object", "partial"]
)
def test_what_is_decorated_comes_back_unchanged(function):
    assert Receiver().on(Transcript)(function) is function


ARITY = "a handler takes (event) or (event, delivery)"
DEFAULTS = ": give the others defaults or use functools.partial"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(
            with_more, f"with_more(event, delivery, db) takes 3 arguments; {ARITY}{DEFAULTS}", id="one too many"
        ),
        pytest.param(lambda: None, f"<lambda>() takes no argument; {ARITY}", id="none"),
        pytest.param(lambda *, db: None, f"<lambda>(db=) takes 1 argument; {ARITY}{DEFAULTS}", id="a keyword alone"),
        pytest.param(
            lambda event, *, db: None,
            f"<lambda>(event, db=) takes 2 arguments; {ARITY}{DEFAULTS}",
            id="a keyword that nobody gives",
        ),
        pytest.param(
            partial(Saver(), event=unknown()), f"Saver() takes no argument; {ARITY}", id="a partial that has the event"
        ),
        pytest.param(Saver, "Saver is a class; register an instance: on(…)(Saver(…))", id="a class"),
        pytest.param(3, "a handler is a function or an object with __call__, not int", id="no function"),
        pytest.param(
            generator, "generator is a generator, which nothing would run through; a handler has no yield", id="yield"
        ),
        pytest.param(
            partial(async_generator),
            "async_generator is a generator, which nothing would run through; a handler has no yield",
            id="async yield",
        ),
        pytest.param(
            Generator(), "Generator is a generator, which nothing would run through; a handler has no yield", id="deep"
        ),
    ],
)
def test_what_can_be_no_handler_is_refused_at_the_decorator(function, message):
    with pytest.raises(SetupError) as refusal:
        register(function)
    assert str(refusal.value) == message


def test_a_function_is_shown_as_its_author_wrote_it():
    class Local:
        def save(self) -> None: ...

    with pytest.raises(SetupError, match=r"^Local\.save\(\) takes no argument"):
        register(Local().save)


@pytest.mark.parametrize(
    ("event_types", "message"),
    [
        pytest.param((), "on() names no event; write on(Transcript), or on(Event) for everything", id="no event"),
        pytest.param(
            (plain,),
            "on was used without parentheses; write on(Transcript) above plain, with the event it takes",
            id="no parentheses",
        ),
        pytest.param(
            (Transcript, int), "on() takes classes of events, such as Transcript, not int", id="a class of no event"
        ),
        pytest.param(
            ("Transcript",), "on() takes classes of events, such as Transcript, not str", id="the name of an event"
        ),
        pytest.param(
            (Transcript | Failure,), "on() takes classes one by one; write on(Transcript, Failure)", id="a union"
        ),
        pytest.param(
            (MyTranscript,), "no callback becomes MyTranscript, a class of yours; write on(Transcript)", id="a subclass"
        ),
    ],
)
def test_on_refuses_what_never_comes(event_types, message):
    with pytest.raises(SetupError) as refusal:
        Receiver().on(*event_types)
    assert str(refusal.value) == message


def test_one_name_is_given_once():
    receiver = Receiver()
    receiver.on(Transcript)(plain)
    with pytest.raises(SetupError) as refusal:
        receiver.on(Failure)(plain)
    assert str(refusal.value) == (
        'two handlers are named plain; name this one: on(Failure, name="…"), '
        "or let the first take all: on(Transcript, Failure)"
    )


def test_name_tells_handlers_of_one_function_apart():
    receiver = Receiver()
    receiver.on(Event)(plain)
    receiver.on(Event, name="again")(plain)
    assert [handler.name for handler in receiver.handlers.wanting(unknown())] == ["plain", "again"]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        pytest.param({}, 600.0, id="usually"),
        pytest.param({"timeout": 5}, 5.0, id="seconds"),
        pytest.param({"timeout": timedelta(minutes=1)}, 60.0, id="timedelta"),
    ],
)
def test_timeout_is_in_seconds(options, seconds):
    assert register(plain, **options).timeout == seconds


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), timedelta(0), None, "5"], ids=str)
def test_a_timeout_in_which_nothing_could_run_is_refused(timeout):
    with pytest.raises(SetupError, match=r"^timeout is "):
        register(plain, timeout=timeout)


def test_the_kinds_that_keep_a_handler_busy_are_known():
    receiver = Receiver()
    receiver.on(Transcript, LiveEvent, name="one")(plain)
    receiver.on(Transcript, Failure, name="two")(plain)
    assert set(receiver.handlers.kinds_of({"two"})) == {"Transcript", "Failure"}
    assert {"LiveResult", "SpeechStarted", "Failure"} <= set(receiver.handlers.kinds_of({"one", "two"}))
    assert not receiver.handlers.kinds_of({"three"})


def test_handlers_of_a_kind_are_known_without_an_event():
    receiver = Receiver()
    receiver.on(LiveEvent)(plain)
    assert [handler.name for handler in receiver.handlers.of_kind("SpeechStarted")] == ["plain"]
    assert not receiver.handlers.of_kind("Transcript")


def test_a_handler_takes_its_events_and_their_subclasses_in_the_order_of_registration():
    receiver = Receiver()
    receiver.on(Event, name="all")(plain)
    receiver.on(Failure, Unknown, name="bad")(plain)
    receiver.on(LiveEvent, name="live")(plain)
    receiver.on(Event, name="more")(plain)

    def names(event):
        return [handler.name for handler in receiver.handlers.wanting(event)]

    assert names(failure()) == ["all", "bad", "more"]
    assert names(unknown()) == ["all", "bad", "more"]
    assert names(speech_started()) == ["all", "live", "more"]


def test_a_handler_registered_late_is_found():
    receiver = Receiver()
    assert not receiver.handlers.wanting(failure())
    receiver.on(Failure)(plain)
    assert receiver.handlers.wanting(failure())


def test_handlers_can_be_counted():
    receiver = Receiver()
    assert not receiver.handlers
    receiver.on(Failure)(plain)
    assert len(receiver.handlers) == 1


@pytest.mark.parametrize(
    ("event_types", "wanted"),
    [
        pytest.param([], set(), id="no handler"),
        pytest.param([Transcript], {"Transcript"}, id="one kind"),
        pytest.param([LiveEvent], {"SpeechStarted"}, id="a family"),
        pytest.param([Analysis, LiveTranscript], {"Analysis", "LiveTranscript"}, id="two kinds"),
        pytest.param(
            [Unknown],
            {"Transcript", "Analysis", "SpeechStarted", "LiveTranscript", "Unknown", "FromTomorrow", "parse"},
            id="Unknown, which any may become",
        ),
    ],
)
def test_kinds_that_no_handler_could_want_are_known_without_parsing(event_types, wanted):
    receiver = Receiver()
    for event_type in event_types:
        receiver.on(event_type, name=event_type.__name__)(plain)
    kinds = {"Transcript", "Analysis", "SpeechStarted", "LiveTranscript", "Unknown", "FromTomorrow", "parse"}
    assert {kind for kind in kinds if receiver.handlers.may_want(kind)} == wanted


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("Transcript", "@receiver.on(Transcript)\nasync def on_transcript(event: Transcript) -> None: ..."),
        (
            "LiveTranscript",
            "@receiver.on(LiveTranscript)\nasync def on_live_transcript(event: LiveTranscript) -> None: ...",
        ),
        ("FromTomorrow", "@receiver.on(Unknown)\nasync def on_unknown(event: Unknown) -> None: ..."),
    ],
    ids=["one word", "two words", "another release's"],
)
def test_a_handler_to_paste_is_a_handler(kind, lines):
    assert paste(kind) == lines
    receiver = Receiver()
    exec(lines, vars(events) | {"receiver": receiver})
    assert receiver.handlers.may_want(kind)
