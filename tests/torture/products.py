"""Deepgram's products, by way of the emulator: submitted with faults of its own, and noted as it recorded them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Coroutine
from contextlib import suppress
from datetime import datetime
from itertools import count
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from dgreceiver.testing import FAULTS, Clock, Emulator
from dgreceiver.testing.delivery import Timeouts
from dgreceiver.testing.record import Outgoing, Submission

from ..support import Ledger
from .senders import Post

SPEED = 30.0  # so that ten retries are over in ten seconds
TIMEOUTS = Timeouts(connect=30.0, response=90.0)  # seconds of the emulator's: one and three of ours
TOKEN = {"authorization": "Token fake-api-key"}
ALONE = ("/v1/listen", "/v1/read", "/v1/speak", "/v2/speak")
REQUIRED = {"/v1/read": {"language": "en"}, "/v2/speak": {"model": "flux-alexis-en"}}
ONE_BY_ONE = {"concurrent", "late"}  # faults under which a stream's messages do not come one by one
SPOKEN = ("/v1/speak", "/v2/speak")  # an empty body is no speech, but a callback that is taken
NOT_AS_RECORDED = {"empty", "reset"}  # of a frame
OVER_AND_OVER = {"UtteranceEnd", "SpeechStarted", "LiveError"}  # kinds of which equal bytes are another message
KEYED = {"Transcript", "Analysis", "Audio", "Failure"}  # kinds of which another body under one id is a conflict
SECOND = bytes(16_000)


class Products:
    """An emulator and those who submit to it."""

    def __init__(self, out: Post) -> None:
        self._out = out
        self.clock = Clock(SPEED)
        self.emulator = Emulator(clock=self.clock, timeouts=TIMEOUTS, live_retries=10)
        self._began = asyncio.get_running_loop().time(), self.clock.now()
        self._scopes: dict[str, str] = {}  # by request_id

    def submitters(self, url: str) -> list[Coroutine[Any, Any, None]]:
        return [self._submit_singles(url), self._stream_on(url, websocket=False), self._stream_on(url, websocket=True)]

    async def _submit_singles(self, url: str) -> None:
        dice = self._out.dice("products")
        soon = httpx.Limits(keepalive_expiry=1.0)  # by itself it is the server's 5 s, and both may end it at once
        async with httpx.AsyncClient(base_url=url, headers=TOKEN, trust_env=False, timeout=30.0, limits=soon) as client:
            for n in count():
                path, pause = dice.choice(ALONE), dice.uniform(0.1, 0.4)
                fault = _fault(dice, leave_out={"empty"} if path in SPOKEN else ())
                method = dice.choice(("POST", "PUT"))
                if self._out.over:
                    return
                scope = f"product-{n}"
                asked = {**REQUIRED.get(path, {}), "callback": self._out.url(scope), "callback_method": method, **fault}
                body = {"url": f"https://example.com/{n}.wav"} if path == "/v1/listen" else {"text": f"hello {n}"}
                answer = await client.post(path, params=asked, json=body)
                self._scopes[answer.raise_for_status().json()["request_id"]] = scope
                await asyncio.sleep(pause)

    async def _stream_on(self, url: str, *, websocket: bool) -> None:
        name = "spoken" if websocket else "heard"
        dice = self._out.dice(name)
        for n in count():
            seconds, pace = dice.randint(5, 15), dice.choice((0.05, 0.2))
            fault = _fault(dice, leave_out=NOT_AS_RECORDED if websocket else ())
            if self._out.over:
                return
            with suppress(OSError, WebSocketException):
                await self._stream(url, f"{name}-{n}", websocket=websocket, seconds=seconds, pace=pace, fault=fault)
            await asyncio.sleep(dice.uniform(0.5, 2.0))

    async def _stream(
        self, url: str, scope: str, *, websocket: bool, seconds: int, pace: float, fault: dict[str, str]
    ) -> None:
        asked = {"model": "nova-3", "encoding": "linear16", "sample_rate": "8000", "interim_results": "true", **fault}
        query = httpx.QueryParams({**asked, "callback": self._out.url(scope, websocket=websocket)})
        address = f"{url.replace('http', 'ws')}/v1/listen?{query}"
        async with connect(address, additional_headers=TOKEN, proxy=None, ping_interval=None) as socket:
            self._scopes[socket.response.headers["dg-request-id"]] = scope
            self._out.opened(scope)
            for _ in range(seconds):
                await socket.send(SECOND)
                await asyncio.sleep(pace)
            await socket.send('{"type":"Finalize"}')
            await socket.send('{"type":"CloseStream"}')
            await socket.wait_closed()
        self._out.closed(scope, socket.close_code)

    def write_down(self, ledger: Ledger) -> None:
        """Note in the ledger what the emulator sent and was answered."""
        for submission in self.emulator.record.submissions:
            scope = self._scopes.get(submission.request_id)
            if scope is None:  # who submitted it was cut off
                continue
            for place, outgoing in enumerate(submission.callbacks):
                self._write(ledger, scope, submission, place, outgoing)

    def _write(self, ledger: Ledger, scope: str, submission: Submission, place: int, outgoing: Outgoing) -> None:
        about, kind = f"{scope}:{outgoing.digest[:16]}", outgoing.kind
        if (submission.callback or "").startswith("ws"):
            if outgoing.attempts:
                ledger.note("framed", about, scope=scope, place=place, kind=kind, said=None)
            return
        conflicts = submission.fault == "conflict" and place > 0 and kind in KEYED
        ordered = submission.path == "/v1/listen" and scope.startswith("heard") and submission.fault not in ONE_BY_ONE
        more = {"repeats": kind in OVER_AND_OVER, "place": place if ordered else None, "conflicts": conflicts}
        ledger.note("message", about, scope=scope, kind=kind, said=None, **more)
        for attempt in outgoing.attempts:
            ledger.note("sent", about, at=self._real(attempt.at))
            ledger.note("answered", about, at=self._real(attempt.at), status=attempt.status or 0, said="")

    def _real(self, at: datetime) -> float:
        """The emulator's time, by the monotonic clock."""
        began, shown = self._began
        return began + (at - shown).total_seconds() / SPEED


def _fault(dice: random.Random, leave_out: Collection[str] = ()) -> dict[str, str]:
    """A fault in half of the cases, as a query's parameter."""
    name = dice.choice([each for each in FAULTS if each not in leave_out])
    return {"fault": name} if dice.random() < 0.5 else {}
