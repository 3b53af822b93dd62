"""Live streams: the real deepgram-sdk client speaks to the emulator, which calls a receiver, or a bare WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from dgreceiver import Event, LiveTranscript, Receiver
from dgreceiver.streams import Endings
from dgreceiver.testing import Emulator, SteppedClock
from dgreceiver.testing.submissions import FAULT_OPTION

from ..support import BASIC, PASSWORD, USER, in_file, new_receiver, served, until
from .emulating import KEY, a_door, status
from .test_sdk import a_client, a_synchronous_client

pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")  # the client imports old names

RAW = {"model": "nova-3", "encoding": "linear16", "sample_rate": "8000"}
SECOND = bytes(16_000)
SIX_SECONDS = SECOND * 6  # a sentence, and the beginning of the next one
# What six seconds come to.
TYPES = ["Results", "Results", "Metadata"]
CREDENTIALS = f"{USER}:{PASSWORD}@"


def types(messages: list[Any]) -> list[str]:
    return [message["type"] if isinstance(message, dict) else message.type for message in messages]


# --- those who are called


@dataclass
class Ears:
    """A bare WebSocket server: what it was sent, and how it was closed."""

    port: int = 0
    hangs_up_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    path: str = ""
    frames: list[str | bytes] = field(default_factory=list)
    closed: list[int | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://{CREDENTIALS}127.0.0.1:{self.port}/live?token=t"

    @property
    def messages(self) -> list[Any]:
        return [json.loads(frame) for frame in self.frames]

    async def listen(self, connection: ServerConnection) -> None:
        self.headers, self.path = dict(connection.request.headers.raw_items()), connection.request.path
        try:
            while len(self.frames) != self.hangs_up_after:
                self.frames.append(await connection.recv())
        except ConnectionClosed:
            self.closed.append(connection.close_code)


@asynccontextmanager
async def ears(hangs_up_after: int | None = None) -> AsyncIterator[Ears]:
    listener = Ears(hangs_up_after=hangs_up_after)
    async with serve(listener.listen, "127.0.0.1", 0) as server:
        listener.port = server.sockets[0].getsockname()[1]
        yield listener


@asynccontextmanager
async def a_receiver(folder, heard: list[Event]) -> AsyncIterator[tuple[Receiver, str]]:
    """A receiver whose streams end soon, and its address."""
    receiver = new_receiver(inbox=in_file(folder))
    receiver._endings = Endings(idle=0.4, settling=0.1, apart=0.5, look=0.2)

    @receiver.on(Event)
    async def note(event: Event) -> None:
        heard.append(event)

    async with receiver.running(), served(receiver, lifespan="off") as address:
        yield receiver, address.replace("://", f"://{CREDENTIALS}") + "/"


# --- those who speak

Speech = Callable[[Any], Any]


async def speak(
    client: AsyncDeepgramClient, *audio: bytes, finalize: bool = False, leave: bool = False, **options: Any
) -> list[Any]:
    """A whole stream; what came back over its socket."""
    fault = options.pop("fault", None)
    asked = {"additional_query_parameters": {FAULT_OPTION: fault}} if fault else None
    async with client.listen.v1.connect(**RAW | options, request_options=asked) as stream:
        for each in audio:
            await stream.send_media(each)
            await stream.send_keep_alive()
        if finalize:
            await stream.send_finalize()
        if leave:
            return []
        await stream.send_close_stream()
        try:
            return [message async for message in stream]
        finally:
            client.close_code = stream._websocket.close_code


@asynccontextmanager
async def emulated(**options: Any) -> AsyncIterator[tuple[Emulator, AsyncDeepgramClient]]:
    emulator = Emulator(**{"keys": {KEY: "fake-key-id"}, **options})
    async with emulator.serve() as url, a_client(url, KEY) as client:
        yield emulator, client


async def test_without_a_callback_the_messages_come_back_over_the_same_socket():
    async with emulated() as (emulator, client):
        messages = await speak(client, SIX_SECONDS, extra="a:b")
    assert types(messages) == TYPES
    [submission] = emulator.record.submissions
    assert {each.metadata.request_id for each in messages[:-1]} == {messages[-1].request_id} == {submission.request_id}
    assert (messages[-1].duration, messages[-1].channels, client.close_code) == (6.0, 1, 1000)


async def test_what_is_posted_becomes_the_events_of_a_receiver_and_the_whole_stream(tmp_path):
    heard = list[Event]()
    async with a_receiver(tmp_path, heard) as (_, url), emulated() as (emulator, client):
        told = await speak(client, *[SECOND] * 6, callback=url, interim_results="true", vad_events="true")
        await emulator.idle()
        await until(lambda: heard and isinstance(heard[-1], LiveTranscript))
    assert told == []
    assert [type(event).__name__ for event in heard[:2]] == ["SpeechStarted", "LiveResult"]
    assert [type(event).__name__ for event in heard[-2:]] == ["StreamMetadata", "LiveTranscript"]
    whole = heard[-1]
    assert (whole.complete, len(whole.utterances), whole.duration) == (True, 2, 6.0)
    assert whole.request_id == emulator.record.submissions[0].request_id
    assert emulator.record.submissions[0].acknowledged


async def test_the_synchronous_client_is_served_too(tmp_path):
    heard = list[Event]()
    async with a_receiver(tmp_path, heard) as (_, url), emulated() as (emulator, client):

        def speak_here(address: str) -> None:
            with (
                a_synchronous_client(address, api_key=KEY) as client,
                client.listen.v1.connect(**RAW, callback=url) as stream,
            ):
                stream.send_media(SIX_SECONDS)
                stream.send_close_stream()
                assert list(stream) == []

        address = client._client_wrapper.get_environment().base
        await asyncio.to_thread(speak_here, address)
        await until(lambda: heard and isinstance(heard[-1], LiveTranscript))
    assert emulator.record.submissions[0].acknowledged


async def test_what_is_sent_as_frames_reaches_a_websocket():
    async with ears() as listener, emulated(dg_token=True) as (emulator, client):
        assert await speak(client, SIX_SECONDS, callback=listener.url) == []
        await until(lambda: listener.closed)
    assert (types(listener.messages), listener.closed) == (TYPES, [1000])
    assert (listener.headers["authorization"], listener.headers["dg-token"]) == (BASIC, "fake-key-id")
    assert listener.path == "/live?token=t"
    [submission] = emulator.record.submissions
    assert [attempt.note for outgoing in submission.callbacks for attempt in outgoing.attempts] == ["sent"] * 3
    assert submission.callback == f"ws://127.0.0.1:{listener.port}/live"
