"""The user's app under torture: handlers that note what they do, and go wrong as it was planned."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from dgreceiver import (
    Analysis,
    Audio,
    Bury,
    Delivery,
    Event,
    LiveTranscript,
    Receiver,
    Retry,
    RetryPolicy,
    Transcript,
)

from ..support import Ledger
from .plan import ATTEMPTS, AUTH, FIRST, TIMEOUT, Plan, plan_of

LINGERS = 30.0  # seconds at most
PR_SET_PDEATHSIG = 1  # prctl(2): whoever started us takes us along, even by kill -9

ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

folder, seed = Path(os.environ["TORTURE_FOLDER"]), int(os.environ["TORTURE_SEED"])
ledger = Ledger(folder)
receiver = Receiver(
    auth=AUTH,
    inbox=f"sqlite:///{os.environ['TORTURE_INBOX']}",
    retry=RetryPolicy(attempts=ATTEMPTS, first_wait=0.2, longest_wait=1.0),
    stream_idle=6.0,
)


@contextmanager
def noted(handler: str, event: Event, delivery: Delivery) -> Iterator[Plan]:
    """Note where a run begins and how it ends; what is to become of it."""
    scope = str(delivery.context.get("id", "-"))
    about, run, more = f"{scope}:{sha256(event.raw).hexdigest()[:16]}", uuid4().hex[:12], {}
    if isinstance(event, LiveTranscript):
        about, more = f"{scope}:whole:{event.request_id}:{event.revision}", {"text": event.text, "scope": scope}
    ledger.note(
        "begun",
        about,
        handler=handler,
        run=run,
        key=delivery.key,
        lane=delivery.stream,
        attempt=delivery.attempt,
        kind=type(event).__name__,
        **more,
    )
    try:
        yield plan_of(seed, about, handler)
    except BaseException as error:
        ledger.note("raised", about, run=run, error=type(error).__name__)
        raise
    ledger.note("ended", about, run=run)


def go_wrong(plan: Plan, attempt: int) -> None:
    if plan.how == "bury":
        raise Bury("as planned")
    if plan.how == "retry" and plan.goes_wrong(attempt):
        raise Retry(after=0.3)
    if plan.how in ("raise", "die") and plan.goes_wrong(attempt):
        raise RuntimeError("as planned")


@receiver.on(Event)
async def save(event: Event, delivery: Delivery) -> None:
    with noted("save", event, delivery) as plan:
        await (linger() if FIRST in event.raw else asyncio.sleep(plan.seconds))
        go_wrong(plan, delivery.attempt)


async def linger() -> None:
    """Go on, whoever cancels it, until the next run has begun; the next one goes on until after this has ended."""
    turn = int(is_there("lingers-0"))
    (folder / f"lingers-{turn}").touch()
    await until_there("lingered-0" if turn else "lingers-1", 1.5)
    (folder / f"lingered-{turn}").touch()


def is_there(name: str) -> bool:
    return (folder / name).exists()


async def until_there(name: str, seconds: float) -> None:
    """Wait for a file, and then so many seconds more."""
    ends = time.monotonic() + LINGERS
    while (now := time.monotonic()) < ends:
        if is_there(name):
            ends = min(ends, now + seconds)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@receiver.on(Transcript, Analysis, Audio, timeout=TIMEOUT)
async def mirror(event: Event, delivery: Delivery) -> None:
    with noted("mirror", event, delivery) as plan:
        hangs = plan.how == "hang" and plan.goes_wrong(delivery.attempt)
        await asyncio.sleep(60.0 if hangs else plan.seconds / 2)
        go_wrong(plan, delivery.attempt)


@receiver.on(Transcript, timeout=TIMEOUT)
def index(event: Transcript, delivery: Delivery) -> None:
    with noted("index", event, delivery) as plan:
        hangs = plan.how == "hang" and plan.goes_wrong(delivery.attempt)
        time.sleep(TIMEOUT + 1.0 if hangs else plan.seconds / 2)
        go_wrong(plan, delivery.attempt)
