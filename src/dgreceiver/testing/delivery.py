"""Calling back: once, and ten more times if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from .clock import Clock
from .faults import Fault, fault_named
from .payloads import Payload
from .record import Outgoing, Submission
from .target import CONNECT_TIMEOUT, RESPONSE_TIMEOUT, RETRIES, RETRY_WAIT, Target
from .wire import NoAnswer, Request, Way, call, whole


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a receiver may take.

    Units: seconds of Deepgram's time; at least half a second of ours is left, or what is said here.
    """

    connect: float = CONNECT_TIMEOUT
    response: float = RESPONSE_TIMEOUT


class Deliveries:
    """All callbacks of one emulator; at most `in_flight` requests are made at once."""

    def __init__(self, clock: Clock, timeouts: Timeouts, in_flight: int) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._room = asyncio.Semaphore(in_flight)

    def begin(self, submission: Submission, target: Target, headers: dict[str, str], payload: Payload) -> None:
        """Call back with a payload, or with what the submission's fault makes of it; returns at once."""
        fault = fault_named(submission.fault)
        for chain in fault.chains(payload, submission.request_id):
            requests = [
                (each, Request(submission.method, target, {**each.headers, **headers}, each.body)) for each in chain
            ]
            self._clock.spawn(self._follow(submission, requests, fault))

    async def _follow(self, submission: Submission, requests: Sequence[tuple[Payload, Request]], fault: Fault) -> None:
        await self._clock.sleep(fault.delay)
        for payload, request in requests:
            await self.deliver(submission.send(payload), request, fault.way)

    async def deliver(self, outgoing: Outgoing, request: Request, way: Way, *, retries: int = RETRIES) -> None:
        """Attempt until it is acknowledged, or given up."""
        await self._attempt(outgoing, request, way)
        while not outgoing.acknowledged and len(outgoing.attempts) <= retries:
            await self._clock.sleep(RETRY_WAIT)
            await self._attempt(outgoing, request, whole)

    async def _attempt(self, outgoing: Outgoing, request: Request, way: Way) -> None:
        connect, response = (self._clock.patience(each) for each in (self._timeouts.connect, self._timeouts.response))
        async with self._room:
            at = self._clock.now()
            try:
                status = await call(request, way, sleep=self._clock.sleep, connect=connect, response=response)
            except NoAnswer as error:
                outgoing.note(at, None, str(error))
            else:
                outgoing.note(at, status)
