"""Live streams: the real deepgram-sdk client speaks to the emulator, which calls a receiver, or a bare WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from dgreceiver import Event, LiveTranscript, Receiver
from dgreceiver.streams import Endings
from dgreceiver.testing import FAULTS, Clock, Emulator, SteppedClock
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


class Told(list[Any]):
    """What came back over the socket of a stream, and how that was closed."""

    code: int | None = None


async def speak(
    client: AsyncDeepgramClient, *audio: bytes, finalize: bool = False, leave: bool = False, **options: Any
) -> Told:
    """A whole stream."""
    fault = options.pop("fault", None)
    asked = {"additional_query_parameters": {FAULT_OPTION: fault}} if fault else None
    async with client.listen.v1.connect(**RAW | options, request_options=asked) as stream:
        for each in audio:
            await stream.send_media(each)
            await stream.send_keep_alive()
        if finalize:
            await stream.send_finalize()
        told = Told()
        if not leave:
            with suppress(ConnectionClosed):  # the emulator may have
                await stream.send_close_stream()
                told += [message async for message in stream]
            told.code = stream._websocket.close_code
    return told


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
    assert (messages[-1].duration, messages[-1].channels, messages.code) == (6.0, 1, 1000)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_what_is_called_back_becomes_the_events_of_a_receiver_and_the_whole_stream(tmp_path, scheme):
    heard = list[Event]()
    async with a_receiver(tmp_path, heard) as (_, url), emulated() as (emulator, client):
        callback = url.replace("http", scheme, 1)
        told = await speak(client, *[SECOND] * 6, callback=callback, interim_results="true", vad_events="true")
        await emulator.idle()
        await until(lambda: heard and isinstance(heard[-1], LiveTranscript))
    assert told == []
    assert [type(event).__name__ for event in heard[:2]] == ["SpeechStarted", "LiveResult"]
    assert [type(event).__name__ for event in heard[-2:]] == ["StreamMetadata", "LiveTranscript"]
    whole = heard[-1]
    assert isinstance(whole, LiveTranscript)
    assert (whole.complete, len(whole.utterances), whole.duration) == (True, 2, 6.0)
    [submission] = emulator.record.submissions
    assert whole.request_id == submission.request_id
    assert submission.acknowledged is (scheme == "http")  # nobody acknowledges a frame


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


async def test_the_handshake_tells_the_id():
    async with emulated() as (emulator, client), client.listen.v1.connect(**RAW) as stream:
        told = stream._websocket.response_headers["dg-request-id"]
        assert [submission.request_id for submission in emulator.record.submissions] == [told]
        assert told[14] == "7"  # the version of the UUID


@pytest.mark.parametrize(
    ("key", "options", "code"),
    [
        pytest.param("fake-other-key", {}, 401, id="a key that is not known"),
        pytest.param(KEY, {"sample_rate": None}, 400, id="raw audio without a rate"),
        pytest.param(KEY, {"interim_results": "maybe"}, 400, id="an option that cannot be read"),
        pytest.param(KEY, {"diarize_model": "v2"}, 400, id="a model that does not stream"),
        pytest.param(KEY, {"callback": "ftp://127.0.0.1/"}, 400, id="a callback that cannot be called"),
        pytest.param(KEY, {"fault": "none such"}, 400, id="a fault that there is not"),
    ],
)
async def test_what_is_not_taken_is_refused_before_it_is_accepted(key, options, code):
    emulator = Emulator(keys={KEY: "fake-key-id"})
    async with emulator.serve() as url, a_client(url, key) as client:
        with pytest.raises(ApiError) as refused:
            await speak(client, **options)
    assert (refused.value.status_code, [refusal.status for refusal in emulator.record.refusals]) == (code, [code])
    assert emulator.record.submissions == []


async def test_a_finalize_settles_what_was_heard_and_silence_ends_no_word():
    async with emulated() as (_, client):
        messages = await speak(client, SECOND, finalize=True, utterance_end_ms="1000")
        nothing = await speak(client, finalize=True, utterance_end_ms="1000")
    assert types(messages) == ["Results", "UtteranceEnd", "Metadata"]
    assert (messages[0].from_finalize, messages[0].is_final, messages[1].last_word_end) == (True, True, 0.8)
    assert (types(nothing), nothing[1].last_word_end) == (types(messages), -1)


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        pytest.param('{"type": "Sing"}', ["Error", "Metadata"], id="an unknown type"),
        pytest.param('{"type": 1}', ["Error", "Metadata"], id="no type"),
        pytest.param("[]", ["Error", "Metadata"], id="no object"),
        pytest.param("{", ["Error", "Metadata"], id="no JSON"),
        pytest.param(b"", ["Metadata"], id="an empty frame, which ends the stream"),
    ],
)
async def test_a_message_that_is_not_known_is_an_error_and_the_stream_goes_on(said, answered):
    async with emulated() as (_, client), client.listen.v1.connect(**RAW) as stream:
        await stream._websocket.send(said)
        await stream.send_close_stream()
        assert types([message async for message in stream]) == answered


@pytest.mark.parametrize("transport", ["frames", "posts", "back"])
async def test_who_leaves_without_a_word_has_ended_the_stream(transport):
    async with ears() as listener, a_door() as door, emulated() as (emulator, client):
        callback = {"frames": listener.url, "posts": door.url, "back": None}[transport]
        await speak(client, SIX_SECONDS, leave=True, callback=callback)
        await until(lambda: transport == "back" or [*listener.frames, *door.came][2:])
        await emulator.idle()
    assert (
        transport == "back"
        or (types(listener.messages) or [json.loads(each.body)["type"] for each in door.came]) == TYPES
    )
    assert emulator.record.refusals == []


@pytest.mark.parametrize("after", [0, 1])
async def test_a_stream_is_killed_as_its_callback_hangs_up(after):
    async with ears(hangs_up_after=after) as listener, emulated() as (emulator, client):
        async with client.listen.v1.connect(**RAW, callback=listener.url) as stream:
            if after:
                await stream.send_media(SIX_SECONDS)
            assert [message async for message in quietly(stream)] == []
        assert stream._websocket.close_code == 1011
    assert [refusal.status for refusal in emulator.record.refusals] == [1011]


async def quietly(stream: Any) -> AsyncIterator[Any]:
    """The messages of a stream, however it ends."""
    try:
        async for message in stream:
            yield message
    except ConnectionClosed:
        return


async def test_a_stream_is_killed_if_nobody_opens_its_callback():
    async with a_door(status(401)) as door, emulated() as (emulator, client):
        url = door.url.replace("http", "ws")
        async with client.listen.v1.connect(**RAW, callback=url) as stream:
            assert [message async for message in quietly(stream)] == []
    assert (stream._websocket.close_code, emulator.record.refusals[0].reason) == (
        1011,
        "no WebSocket: server rejected WebSocket connection: HTTP 401",
    )


@pytest.mark.parametrize(("retries", "attempts"), [(0, [1, 1, 1]), (1, [2, 1, 1])])
async def test_a_post_that_is_not_acknowledged_is_repeated_if_that_is_asked_for(retries, attempts):
    async with a_door(status(500)) as door, emulated(live_retries=retries, clock=Clock(60)) as (emulator, client):
        await speak(client, SIX_SECONDS, callback=door.url)
    assert [len(outgoing.attempts) for outgoing in emulator.record.callbacks] == attempts


# What a fault makes of the frames of six seconds.
FRAMES = dict.fromkeys(FAULTS, TYPES) | {
    "duplicate": ["Results", "Results", "Results", "Metadata"],
    "concurrent": ["Results", "Results", "Results", "Results", "Metadata"],
    "conflict": ["Results", "Results", "Results", "Metadata"],
    "late": ["Results", "Metadata"],  # the socket has closed when it would come
    "empty": ["unreadable", "Results", "Metadata"],
    "broken-json": ["unreadable", "Results", "Metadata"],
    "error": ["Error", "Results", "Metadata"],
    "error-code": ["untyped", "Results", "Metadata"],
    "error-category": ["untyped", "Results", "Metadata"],
    "error-text": ["unreadable", "Results", "Metadata"],
    "drop": ["Results", "Metadata"],
    "bad-frame": ["unreadable", "Results", "Results", "Metadata"],
    "no-metadata": ["Results", "Results"],
    "reset": [],
}
POSTS = FRAMES | {
    "late": ["Results", "Metadata", "Results"],
    "reset": ["Results", "Metadata"],
    "empty": FRAMES["empty"],
}


def seen(bodies: Sequence[str | bytes]) -> list[str]:
    return [type_of(body) for body in bodies]


def type_of(body: str | bytes) -> str:
    try:
        return str(json.loads(body).get("type", "untyped"))
    except ValueError:
        return "unreadable"


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_strikes_the_frames_of_a_stream(name):
    async with ears() as listener, emulated(clock=Clock(600)) as (emulator, client):
        told = await speak(client, SIX_SECONDS, callback=listener.url, fault=name)
        await emulator.idle()
        await until(lambda: listener.closed)
    assert seen(listener.frames) == FRAMES[name]
    assert (told.code, listener.closed) == ((1011, [1006]) if name == "reset" else (1000, [1000]))


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_strikes_the_requests_of_a_stream(name):
    async with a_door() as door, emulated(clock=Clock(600)) as (emulator, client):
        told = await speak(client, SIX_SECONDS, callback=door.url, fault=name)
        await emulator.idle()
        posted = [each.body for each in door.came]
    if name != "chunked":  # which the door cannot read
        assert seen(posted) == POSTS[name]
    assert told.code == 1000


async def test_one_message_overtakes_another():
    async with ears() as listener, emulated() as (_, client):
        await speak(client, SIX_SECONDS, callback=listener.url, fault="reorder")
        await until(lambda: listener.closed)
    starts = [message["start"] for message in listener.messages[:-1]]
    assert starts == [4.4, 0.0]


async def test_a_silence_lasts_as_long_as_the_clock_says():
    clock = SteppedClock()
    async with ears() as listener, emulated(clock=clock) as (_, client):
        speaking = asyncio.ensure_future(speak(client, SIX_SECONDS, callback=listener.url, fault="silence"))
        await until(lambda: clock._sleepers)
        await clock.advance(299)
        assert listener.frames == []
        await clock.advance(1)
        await speaking
        await until(lambda: listener.closed)
    assert types(listener.messages) == TYPES
