"""What mypy --strict and pyright must refuse, on each line marked so and on no other."""

from functools import partial

from dgreceiver import (
    Analysis,
    Delivery,
    Event,
    Failure,
    LiveResult,
    LiveTranscript,
    NoAuth,
    Receiver,
    Transcript,
    Unknown,
)

receiver = Receiver(auth=NoAuth())


@receiver.on(Transcript)  # refused
async def of_another(analysis: Analysis) -> None: ...


@receiver.on(Transcript)  # refused
def of_another_in_a_thread(analysis: Analysis) -> None: ...


@receiver.on(Transcript)  # refused
async def of_another_with_delivery(analysis: Analysis, delivery: Delivery) -> None: ...


@receiver.on(Event)  # refused
async def of_a_part(transcript: Transcript) -> None: ...


@receiver.on(Transcript, Failure)  # refused
async def of_one_of_two(transcript: Transcript) -> None: ...


@receiver.on(Transcript, Failure, Analysis, LiveTranscript)  # refused
async def of_three_of_four(event: Transcript | Failure | Analysis) -> None: ...


@receiver.on(Transcript, Failure, Analysis, LiveTranscript, Unknown)  # refused
async def of_five(event: Transcript | Failure | Analysis | LiveTranscript | Unknown) -> None: ...


@receiver.on(Transcript)  # refused
async def of_nothing() -> None: ...


@receiver.on(Transcript)  # refused
async def with_too_much(transcript: Transcript, delivery: Delivery, db: str) -> None: ...


@receiver.on(Transcript)  # refused
async def with_a_keyword(transcript: Transcript, *, db: str) -> None: ...


@receiver.on(Transcript)  # refused
async def with_something_else(transcript: Transcript, db: str) -> None: ...


@receiver.on  # refused
async def without_parentheses(transcript: Transcript) -> None: ...


class Saver:
    async def save(self, analysis: Analysis) -> None: ...

    async def __call__(self, analysis: Analysis) -> None: ...


async def into(analysis: Analysis, db: str) -> None: ...


@receiver.on(LiveResult)
async def right(result: LiveResult) -> None: ...


receiver.on(Transcript)(Saver())  # refused
receiver.on(Transcript)(Saver().save)  # refused
receiver.on(Transcript)(partial(into, db="db"))  # refused by pyright: mypy forgets what a partial still takes
receiver.on(Transcript)(lambda transcript: transcript.language)  # refused by pyright: mypy takes a lambda for anything
receiver.on(Transcript)("save")  # refused
receiver.on()  # refused
receiver.on(int)  # refused
receiver.on("Transcript")  # refused
receiver.on(Transcript, timeout="1 s")  # refused
right("a result")  # refused
