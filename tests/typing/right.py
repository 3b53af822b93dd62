"""What mypy --strict and pyright must accept. No test runs it; `test_typing.py` has it checked."""

# pyright: strict

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, assert_type

from dgreceiver import (
    Analysis,
    Delivery,
    Event,
    Failure,
    LiveResult,
    LiveTranscript,
    NoAuth,
    Receiver,
    SpeechStarted,
    Transcript,
    Unknown,
)
from dgreceiver.core.events import LiveEvent

E = TypeVar("E", bound=Event)

receiver = Receiver(auth=NoAuth())
seen: list[Event] = []


@receiver.on(Transcript)
async def asynchronous(transcript: Transcript) -> None: ...


@receiver.on(Transcript)
def synchronous(transcript: Transcript) -> None: ...


@receiver.on(Transcript)
async def with_delivery(transcript: Transcript, delivery: Delivery) -> None: ...


@receiver.on(Transcript)
def synchronous_with_delivery(transcript: Transcript, delivery: Delivery) -> None: ...


@receiver.on(Transcript, name="named", timeout=timedelta(minutes=1))
async def with_options(transcript: Transcript) -> None: ...


@receiver.on(Transcript)
async def with_defaults(transcript: Transcript, db: str = "db", *, table: str = "table") -> int:
    return len(db + table)


@receiver.on(Transcript)
async def of_the_root(event: Event) -> None: ...


@receiver.on(LiveResult, SpeechStarted)
async def of_a_family(event: LiveEvent, delivery: Delivery) -> None: ...


@receiver.on(Transcript, Failure)
async def of_two(event: Transcript | Failure) -> None: ...


@receiver.on(Transcript, Failure)
async def of_more_than_asked(event: Transcript | Failure | Analysis) -> None: ...


@receiver.on(Transcript, Failure, Analysis)
async def of_three(event: Transcript | Failure | Analysis, delivery: Delivery) -> None: ...


@receiver.on(Transcript, Failure, Analysis, LiveTranscript)
async def of_four(event: Transcript | Failure | Analysis | LiveTranscript) -> None: ...


@receiver.on(Transcript, Failure, Analysis, LiveTranscript, Unknown)
async def of_five(event: Event) -> None: ...


@receiver.on(Transcript, Failure, Analysis, LiveTranscript, Unknown, LiveResult)
async def of_six(event: Event, delivery: Delivery) -> None: ...


@receiver.on(Event)
async def of_everything(event: Event) -> None: ...


@receiver.on(Transcript)
def generic(event: E) -> E:
    return event


@receiver.on(Transcript)
async def of_anything(event: Any) -> None: ...


@receiver.on(Transcript)
def of_the_rest(*events: object) -> None: ...


class Saver:
    async def save(self, transcript: Transcript, delivery: Delivery) -> None: ...

    async def __call__(self, transcript: Transcript) -> None: ...


def into(transcript: Transcript, delivery: Delivery, db: str) -> None: ...


receiver.on(Transcript)(Saver())
receiver.on(Transcript)(Saver().save)
receiver.on(Transcript)(partial(into, db="db"))
receiver.on(Transcript)(lambda transcript: transcript.request_id)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownLambdaType]
receiver.on(Transcript)(seen.append)
receiver.on(Transcript)(receiver.on(Failure)(of_two))

# The type that comes back is the one that went in, names, defaults and attributes included.
assert_type(receiver.on(Transcript)(Saver()), Saver)
assert_type(receiver.on(Transcript)(partial(into, db="db")), partial[None])
assert_type(receiver.on(Transcript)(Saver().save).__name__, str)


async def what_is_decorated_is_called_as_before(transcript: Transcript, delivery: Delivery) -> None:
    await with_delivery(transcript=transcript, delivery=delivery)
    assert_type(await with_defaults(transcript, table="other"), int)
    assert_type(generic(transcript), Transcript)
    assert_type(synchronous(transcript=transcript), None)


def a_function_that_registers(function: Callable[[Transcript], None]) -> Callable[[Transcript], None]:
    return receiver.on(Transcript, name="later")(function)
