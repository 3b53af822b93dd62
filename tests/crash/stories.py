"""What a sender does while the receiver is killed: it repeats what was not acknowledged, as Deepgram does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from dgreceiver.testing.payloads import Payload, analysis, audio, live_result, stream_metadata, transcript

from ..support import LOOK, PASSWORD, USER, Ledger, post, until
from . import apps
from .points import Point

WORDS = ("one", "two", "three")
PATIENCE = 10.0  # seconds; with ack="handled" an answer takes up to 8


class Sender:
    """Deepgram's side. `url` is that of the process which lives."""

    def __init__(self, client: httpx.AsyncClient, ledger: Ledger) -> None:
        self.client = client
        self.ledger = ledger
        self.url = ""

    async def post(self, payload: Payload) -> None:
        """Send a callback until it is acknowledged."""
        while True:
            try:
                answer = await post(self.client, payload, f"{self.url}/deepgram/", timeout=PATIENCE)
            except httpx.TransportError:
                await asyncio.sleep(LOOK)  # whoever takes its place is about to
            else:
                if answer.status_code == 200:
                    return self.ledger.note("acknowledged", answer.json()["request_id"])

    async def stream(self, request_id: str) -> None:
        """Send a live stream over a socket, each frame when the one before is stored.

        Raises: ConnectionClosed, InvalidHandshake or OSError if it breaks.
        """
        before = self._stored
        async with connect(self._socket_url, ping_interval=None, compression=None) as socket:
            for n, word in enumerate(WORDS):
                await socket.send(live_result(word, request_id=request_id, start=float(n)).body)
                await until(partial(self._has_stored, before + n + 1, socket))
            await socket.ping()  # raises if it is closed
            self.ledger.note("all sent", None)

    @property
    def _socket_url(self) -> str:
        return self.url.replace("http://", f"ws://{USER}:{PASSWORD}@")

    def _has_stored(self, count: int, socket: ClientConnection) -> bool:
        return self._stored >= count or socket.close_code is not None

    @property
    def _stored(self) -> int:
        return self.ledger.about("point").count("fact: CallbackStored")


@dataclass(frozen=True, slots=True)
class Story:
    """What is sent under an id, what is to come of it, in order if it is a lane, and in which states its rows end."""

    send: Callable[[Sender, str], Awaitable[None]]
    handled: Callable[[Ledger, str], Sequence[str]]
    states: Sequence[str]
    before: Callable[[str], Payload] | None = None  # is handled before the points count
    in_order: bool = False
    stands_by: bool = False  # a second process waits to take over
    serve: Callable[..., None] = apps.serve
    options: Mapping[str, Any] = field(default_factory=dict)
    since: str = ""  # the points count from this one on: those before it are as in another story
    after: Point | None = None  # the process before was killed there, and the points are those of starting again


def posting(*builders: Callable[[str], Payload]) -> Callable[[Sender, str], Awaitable[None]]:
    async def send(sender: Sender, id_: str) -> None:
        for build in builders:
            await sender.post(build(id_))
        sender.ledger.note("all sent", None)

    return send


def handling(*notes: str) -> Callable[[Ledger, str], Sequence[str]]:
    return lambda _, id_: [f"{id_} {note}" for note in notes]


def saying(text: str) -> Callable[[str], Payload]:
    return lambda id_: transcript(text, request_id=id_)


def resulting(n: int) -> Callable[[str], Payload]:
    return lambda id_: live_result(WORDS[n], request_id=id_, start=float(n))


async def stream(sender: Sender, id_: str) -> None:
    """Send a stream over a socket; if that breaks, whoever streams begins another."""
    for n in count(1):
        sender.ledger.note("streams", f"{id_}.{n}")
        try:
            await sender.stream(f"{id_}.{n}")
        except (ConnectionClosed, InvalidHandshake, OSError):
            sender.ledger.note("all sent", None)
        else:
            return


def of_streams(ledger: Ledger, _: str) -> list[str]:
    """All of a stream that did not break; of one that did what was stored, from its beginning on; both as a whole."""
    seen, expected = set(ledger.about("ended")), list[str]()
    *broken, last = ledger.about("streams")
    for name in [*broken, last]:
        words = [word for word in WORDS if name == last or f"{name} {word!r} save 1" in seen]
        assert words == list(WORDS[: len(words)])
        expected += [f"{name} {word!r} save 1" for word in words]
        expected += [f"{name} whole {' '.join(words)!r} save 1"] if words else []
    return expected


HELLO = saying("hello world")
SAVED = handling("save 1")

STORIES: Mapping[str, Story] = {
    "a transcript": Story(posting(HELLO), SAVED, ["done"]),
    "a body of several parts": Story(posting(saying("word " * 16_000)), SAVED, ["done"]),
    "audio, to a function in a thread": Story(
        posting(lambda id_: audio(0.1, request_id=id_)), handling("play 1"), ["done"], since="parse: begins"
    ),
    "a duplicate": Story(posting(HELLO), SAVED, ["done"], before=HELLO, since="INSERT callback"),
    "a conflict": Story(posting(saying("other")), SAVED, ["conflict", "done"], before=HELLO, since="INSERT callback"),
    "a handler that fails, asks for another attempt and gives up, beside one that succeeds": Story(
        posting(lambda id_: analysis(request_id=id_)),
        handling("save 1", "look_twice 1", "look_twice 2", "look_twice 3"),
        ["dead"],
        since="handler: begins",
    ),
    "a live stream over HTTP": Story(
        posting(*map(resulting, range(3)), lambda id_: stream_metadata(request_id=id_)),
        handling(*(f"{word!r} save 1" for word in WORDS), "save 1", "whole 'one two three' save 1"),
        ["done"] * 5,
        in_order=True,
        since="identify: ended",
    ),
    "a live stream over WebSocket": Story(stream, of_streams, [], in_order=True),
    'a transcript with ack="handled"': Story(
        posting(HELLO), SAVED, ["done"], options={"ack": "handled"}, since="after COMMIT of INSERT callback"
    ),
    "a transcript in a WSGI app": Story(posting(HELLO), SAVED, ["done"], serve=apps.serve_wsgi),
    "a transcript, while a second process stands by": Story(
        posting(HELLO), SAVED, ["done"], stands_by=True, since="COMMIT of INSERT callback"
    ),
    "starting after a crash": Story(posting(HELLO), SAVED, ["done"], after=Point("handler: begins", 1)),
}
