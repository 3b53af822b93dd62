"""Deepgram's side under torture: what each sender sends is decided by the seed; all of it, and each answer, is noted."""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from dgreceiver import Receiver
from dgreceiver.testing import Payload, analysis, audio, failure, live_result, speech_started, transcript
from dgreceiver.testing.payloads import stream_metadata, unknown, utterance_end
from dgreceiver.testing.target import LIVE, Target, read_target

from ..support import Ledger
from .plan import AUTH, FIRST, STUBBORN
from .wire import Answer, break_off, post

MARKER = "whisperedword"  # in every transcript, and to be in no log
PAUSE = 0.15  # seconds before something is sent again
KEPT = 40  # callbacks that are sent once more at the end
RECENT = 60  # callbacks that are sent once more after a power cut
LARGE = 100_000  # bytes of a body that is not


@dataclass(frozen=True, slots=True)
class Message:
    """A callback as it is sent."""

    scope: str  # what is signed into its URL
    target: Target
    payload: Payload

    @property
    def about(self) -> str:
        return name_of(self.scope, self.payload.body)


def name_of(scope: str, body: bytes) -> str:
    """What the ledger calls a callback: where it was sent to, and what it says."""
    return f"{scope}:{sha256(body).hexdigest()[:16]}"


class Post:
    """The way out: sends, insists, and notes what became of it."""

    def __init__(self, ledger: Ledger, port: int, seed: int) -> None:
        self._ledger = ledger
        self._seed = seed
        self._receiver = Receiver(auth=AUTH, inbox="memory://", name="sender", public_url=f"http://127.0.0.1:{port}/")
        self.port = port
        self.over = False  # nothing new is begun
        self.kept: list[Message] = []
        self.recent = deque[Message](maxlen=RECENT)  # that were acknowledged, and would be known again

    def dice(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}:{name}")

    def url(self, scope: str, *, websocket: bool = False) -> str:
        return self._receiver.callback_url({"id": scope}, websocket=websocket, local=True)

    def messages(self, scope: str, payloads: Iterable[Payload]) -> list[Message]:
        """Callbacks to one signed URL: of one job."""
        target = read_target(self.url(scope))
        return [Message(scope, target, payload) for payload in payloads]

    def message(self, scope: str, payload: Payload) -> Message:
        return self.messages(scope, [payload])[0]

    def expect(self, message: Message, place: int | None = None) -> None:
        """Note what is going to be sent, and its place if it has one in a stream."""
        payload = message.payload
        more = {"repeats": never_a_retry(payload), "said": _said(payload), "place": place}
        self._ledger.note("message", message.about, scope=message.scope, kind=payload.kind, **more)

    async def send(self, message: Message) -> Answer:
        self._ledger.note("sent", message.about)
        headers = {**message.payload.headers, **message.target.headers}
        answer = await post(self.port, "/", headers, message.payload.body)
        self._ledger.note("answered", message.about, status=answer.status, said=answer.said)
        return answer

    async def insist(self, message: Message) -> None:
        """Send it until it is acknowledged."""
        while (await self.send(message)).status != 200:  # noqa: ASYNC110 - as Deepgram does, if faster
            await asyncio.sleep(PAUSE)
        if not never_a_retry(message.payload) and len(message.payload.body) < LARGE:
            self.recent.append(message)

    async def reset(self, message: Message) -> None:
        self._ledger.note("sent", message.about)
        headers = {**message.payload.headers, **message.target.headers}
        await break_off(self.port, "/", headers, message.payload.body)
        self._ledger.note("answered", message.about, status=0, said="")

    def frame(self, scope: str, place: int, payload: Payload) -> None:
        """Note a frame that is going to be sent."""
        about = name_of(scope, payload.body)
        self._ledger.note("framed", about, scope=scope, place=place, kind=payload.kind, said=_said(payload))

    def opened(self, scope: str) -> None:
        self._ledger.note("opened", None, scope=scope)

    def closed(self, scope: str, code: int | None) -> None:
        self._ledger.note("closed", None, scope=scope, code=code)


def never_a_retry(payload: Payload) -> bool:
    """Whether equal bytes are another message: so it is of all live messages but results and the end of a stream."""
    if payload.kind == "Audio":
        return False
    return json.loads(payload.body).get("type") not in (None, "Results", "Metadata")


def request_id(dice: random.Random) -> str:
    return str(UUID(int=dice.getrandbits(128)))


# --- callbacks that stand alone


def _some_payload(dice: random.Random) -> Payload:
    """A callback of any product."""
    id_ = request_id(dice)
    text = f"{MARKER} {id_}"
    return dice.choice(
        (
            lambda: transcript(text, request_id=id_),
            lambda: transcript(text, request_id=id_),
            lambda: analysis(text, request_id=id_),
            lambda: audio(dice.uniform(0.01, 0.2), request_id=id_),
            lambda: failure(text, request_id=id_),
            lambda: unknown(request_id=id_, said=text),
        )
    )()


def _large_payload(dice: random.Random) -> Payload:
    return transcript(MARKER, request_id=request_id(dice), noise=dice.randbytes(dice.randint(500_000, 1_500_000)).hex())


async def send_singles(out: Post, worker: int) -> None:
    """One callback after the other, each until it is acknowledged; some are cut off at first."""
    dice = out.dice(f"single {worker}")
    for scope in _scopes(f"single-{worker}"):
        message = out.message(scope, _some_payload(dice))
        cut_off, keep, pause = dice.random() < 0.1, dice.random() < 0.2, dice.uniform(0.05, 0.3)
        if out.over:
            return
        out.expect(message)
        if cut_off:
            await out.reset(message)
        await out.insist(message)
        if keep and len(out.kept) < KEPT and message.payload.kind != "Unknown":
            out.kept.append(message)
        await asyncio.sleep(pause)


async def send_large(out: Post) -> None:
    dice = out.dice("large")
    for scope in _scopes("large"):
        message = out.message(scope, _large_payload(dice))
        if out.over:
            return
        out.expect(message)
        await out.insist(message)
        await asyncio.sleep(dice.uniform(0.5, 1.5))


async def send_twins(out: Post) -> None:
    """The same callback over several connections at once."""
    dice = out.dice("twins")
    for scope in _scopes("twins"):
        id_ = request_id(dice)
        message = out.message(scope, transcript(f"{MARKER} {id_}", request_id=id_))
        copies, pause = dice.randint(2, 6), dice.uniform(0.1, 0.4)
        if out.over:
            return
        out.expect(message)
        await asyncio.gather(*(out.insist(message) for _ in range(copies)))
        await asyncio.sleep(pause)


def _scopes(name: str) -> Iterator[str]:
    n = 0
    while True:
        n += 1
        yield f"{name}-{n}"


# --- live streams


def _stream(scope: str, dice: random.Random, length: int) -> Iterator[Payload]:
    """The messages of a live stream: of each word one final result; ends without a time, equal to the letter."""
    id_ = request_id(dice)
    for n in range(length):
        said = f"{MARKER}{scope.replace('-', '')}n{n}"
        if dice.random() < 0.1:
            yield speech_started(float(n))
        yield live_result(said, request_id=id_, start=float(n))
        if dice.random() < 0.3:
            yield utterance_end(-1)
    yield stream_metadata(float(length), request_id=id_)


async def post_streams(out: Post, worker: int) -> None:
    """Live streams over HTTP: the next message when the one before was acknowledged."""
    dice = out.dice(f"posted {worker}")
    for scope in _scopes(f"posted-{worker}"):
        messages = out.messages(scope, _stream(scope, dice, dice.randint(5, 12)))
        if out.over:
            return
        for place, message in enumerate(messages):
            out.expect(message, place)
            await out.insist(message)
            await asyncio.sleep(0.03)
        await asyncio.sleep(dice.uniform(0.0, 0.5))


async def open_streams(out: Post, worker: int) -> None:
    """Live streams over WebSocket; nobody repeats what was sent, or opens again what broke."""
    dice = out.dice(f"socket {worker}")
    for scope in _scopes(f"socket-{worker}"):
        payloads = list(_stream(scope, dice, dice.randint(5, 40)))
        pace = dice.choice((0.0, 0.03, 0.2))
        if out.over:
            return
        await open_stream(out, scope, payloads, pace)
        await asyncio.sleep(dice.uniform(0.5, 2.0))


async def open_stream(
    out: Post, scope: str, payloads: Sequence[Payload], pace: float, *, pause: Awaitable[object] | None = None
) -> None:
    """One stream over a socket of its own; there may be a long pause before its last message."""
    target = read_target(out.url(scope, websocket=True), schemes=LIVE)
    options: dict[str, Any] = {"additional_headers": target.headers, "compression": None, "proxy": None}
    code: int | None = None
    with suppress(OSError, WebSocketException):
        async with connect(target.url, open_timeout=5, ping_interval=None, close_timeout=8, **options) as socket:
            out.opened(scope)
            for place, payload in enumerate(payloads):
                if pause is not None and place == len(payloads) - 1:
                    await pause
                out.frame(scope, place, payload)
                await socket.send(payload.body.decode())
                await asyncio.sleep(pace)
        code = socket.close_code
    out.closed(scope, code)


async def open_stubborn_stream(out: Post, until: Awaitable[object]) -> None:
    """A stream whose first message is handled for long, and whose socket stays open for as long."""
    payloads = list(_stream(STUBBORN, out.dice(STUBBORN), 5))
    first = next(each for each in payloads if each.kind == "LiveResult")
    slow = Payload(first.body[:-1] + b"," + FIRST + b"}", first.headers, first.kind)
    rest = [each for each in payloads if each is not first]
    await open_stream(out, STUBBORN, [slow, *rest], 0.05, pause=until)


def _said(payload: Payload) -> str | None:
    """The words of a final result, by which it is known in the whole."""
    if payload.kind != "LiveResult":
        return None
    return str(json.loads(payload.body)["channel"]["alternatives"][0]["transcript"])


def senders(out: Post) -> list[Coroutine[Any, Any, None]]:
    return [
        *(send_singles(out, worker) for worker in range(4)),
        send_large(out),
        send_twins(out),
        *(post_streams(out, worker) for worker in range(2)),
        *(open_streams(out, worker) for worker in range(2)),
    ]


async def send_again(out: Post, messages: Iterable[Message]) -> list[tuple[str, Answer]]:
    """Send once more what was acknowledged, as a retry that comes late; what each was answered."""
    again = list(messages)
    answers = await asyncio.gather(*map(out.send, again))
    return [(message.about, answer) for message, answer in zip(again, answers, strict=True)]
