"""The real deepgram-sdk client, pointed at the emulator, with a real receiver behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from deepgram.errors import BadRequestError

from dgreceiver import Analysis, Audio, Delivery, Event, Receiver, SignedAuth, Transcript
from dgreceiver.testing import Emulator

from ..support import in_file, new_receiver, served

KEY = "fake-signing-key-of-thirty-two-characters"
METHODS = pytest.mark.parametrize("method", ["POST", "PUT"])


@dataclass
class Stage:
    """A receiver with an address, the emulator, and what the handler was given."""

    receiver: Receiver
    emulator: Emulator
    environment: DeepgramClientEnvironment
    handled: list[tuple[Event, Delivery]] = field(default_factory=list)

    def url(self, **context: Any) -> str:
        return self.receiver.callback_url(context, local=True)

    async def settled(self) -> tuple[Event, Delivery]:
        """The one event that was handled, when nothing is left to do."""
        await self.emulator.idle()
        await self.receiver.idle()
        [one] = self.handled
        return one


def environment(url: str) -> DeepgramClientEnvironment:
    """Where the client is to find Deepgram: at the emulator."""
    socket = url.replace("http", "ws", 1)
    return DeepgramClientEnvironment(base=url, production=socket, agent=socket, agent_rest=url)


@pytest.fixture
async def stage(tmp_path) -> AsyncIterator[Stage]:
    emulator = Emulator(keys={"fake-api-key": "fake-key-id"})
    async with a_receiver(tmp_path) as (receiver, handled), emulator.serve() as url:
        yield Stage(receiver, emulator, environment(url), handled)


@asynccontextmanager
async def a_receiver(folder: Any) -> AsyncIterator[tuple[Receiver, list[Any]]]:
    handled: list[Any] = []
    at_hand: list[Receiver] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await at_hand[0](scope, receive, send)

    async with served(app, lifespan="off") as address:
        receiver = new_receiver(auth=SignedAuth(KEY), inbox=in_file(folder), public_url=f"{address}/")
        at_hand.append(receiver)

        @receiver.on(Event)
        async def note(event: Event, delivery: Delivery) -> None:
            handled.append((event, delivery))

        async with receiver.running():
            yield receiver, handled


@METHODS
@pytest.mark.parametrize(
    "source",
    [pytest.param({"url": "https://example.com/a.wav"}, id="url"), pytest.param({"request": b"RIFF" * 99}, id="file")],
)
async def test_a_transcript_comes_back_under_the_id_that_was_told(stage, source, method):
    media = AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment).listen.v1.media
    transcribe = media.transcribe_url if "url" in source else media.transcribe_file
    callback = stage.url(call_id=7)
    told = await transcribe(**source, model="nova-3", callback=callback, callback_method=method, extra="a:b", tag="t")
    event, delivery = await stage.settled()
    assert isinstance(event, Transcript)
    assert event.request_id == told.request_id
    assert event.metadata.extra == {"a": "b"}
    assert (delivery.context, delivery.attempt) == ({"call_id": 7}, 1)
    assert stage.emulator.record.of(told.request_id).method == method


@METHODS
async def test_an_analysis_comes_back_under_the_id_that_was_told(stage, method):
    client = AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment)
    told = await client.read.v1.text.analyze(
        request={"text": "hello"},
        language="en",
        summarize="v2",
        callback=stage.url(),
        callback_method=method,
    )
    event, _ = await stage.settled()
    assert isinstance(event, Analysis)
    assert event.request_id == told.request_id


@METHODS
@pytest.mark.parametrize(("version", "model"), [("v1", "aura-2-thalia-en"), ("v2", "flux-alexis-en")])
async def test_speech_comes_back_and_the_context_says_which(stage, version, model, method):
    speak = getattr(AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment).speak, version)
    spoken = speak.audio.generate(text="hello", model=model, callback=stage.url(article="9"), callback_method=method)
    told = json.loads(b"".join([piece async for piece in spoken]))
    event, delivery = await stage.settled()
    assert isinstance(event, Audio)
    assert (event.content[:4], event.request_id) == (b"RIFF", told["request_id"])
    assert delivery.context == {"article": "9"}


async def test_the_synchronous_client_finds_it_too(stage):
    client = DeepgramClient(access_token="fake-api-key", environment=stage.environment)
    told = await asyncio.to_thread(
        client.listen.v1.media.transcribe_url, url="https://example.com/a.wav", callback=stage.url()
    )
    spoken = await asyncio.to_thread(
        lambda: b"".join(client.speak.v1.audio.generate(text="hello", callback=stage.url()))
    )
    await stage.emulator.idle()
    await stage.receiver.idle()
    ids = {told.request_id, json.loads(spoken)["request_id"]}
    assert {event.request_id for event, _ in stage.handled} == ids


async def test_without_a_callback_the_result_is_the_answer(stage):
    client = AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment)
    answer = await client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", model="nova-3")
    assert answer.metadata.request_id == stage.emulator.record.submissions[0].request_id


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"additional_headers": {"x-emulator-fault": "lost-answer"}}, id="header"),
        pytest.param({"additional_query_parameters": {"fault": "lost-answer"}}, id="query"),
    ],
)
async def test_a_fault_is_asked_for_by_what_the_client_can_send(stage, options):
    client = AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment)
    told = await client.listen.v1.media.transcribe_url(
        url="https://example.com/a.wav", callback=stage.url(), request_options=options
    )
    assert stage.emulator.record.of(told.request_id).fault == "lost-answer"


async def test_what_became_of_it_is_told(stage):
    client = AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment)
    told = await client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback=stage.url())
    await stage.settled()
    found = (await client.manage.v1.projects.requests.get("fake-project", told.request_id)).request
    assert (found.request_id, found.project_uuid, found.api_key_id) == (told.request_id, "fake-project", "fake-key-id")
    assert (found.callback["attempts"], found.callback["code"]) == (1, 200)


@contextmanager
def denied(status: int, **content: str) -> Iterator[None]:
    with pytest.raises(ApiError) as raised:
        yield
    assert raised.value.status_code == status
    assert isinstance(raised.value, BadRequestError) == (status == 400)
    assert {**raised.value.body, **content} == raised.value.body


async def test_a_key_that_is_not_known_is_denied(stage):
    client = AsyncDeepgramClient(api_key="fake-other-key", environment=stage.environment)
    with denied(401, err_code="INVALID_AUTH", err_msg="Invalid credentials."):
        await client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback=stage.url())


async def test_a_callback_that_cannot_be_called_is_denied(stage):
    client = AsyncDeepgramClient(api_key="fake-api-key", environment=stage.environment)
    with denied(400, err_msg="Failed to resolve callback."):
        await client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback="https://a_b.example.com")


def test_a_program_without_a_loop_has_it_in_a_thread():
    emulator = Emulator()
    with emulator.running() as url:
        client = DeepgramClient(api_key="fake-api-key", environment=environment(url))
        told = client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback="http://127.0.0.1:9/")
        emulator.wait(lambda: asyncio.sleep(0))
    assert emulator.record.of(told.request_id)
