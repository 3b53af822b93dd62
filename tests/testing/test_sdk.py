"""The real deepgram-sdk client, pointed at the emulator, with a real receiver behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from deepgram.errors import BadRequestError

from dgreceiver import Analysis, Audio, Delivery, Event, Receiver, SetupError, Transcript
from dgreceiver.server import listen
from dgreceiver.testing import Emulator, SteppedClock

from .emulating import a_signed_receiver

pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")  # the client imports old names
METHODS = pytest.mark.parametrize("method", ["POST", "PUT"])


@dataclass
class Stage:
    """A receiver with an address, the emulator, and what the handler was given."""

    receiver: Receiver
    emulator: Emulator
    address: str
    client: AsyncDeepgramClient
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
    async with a_signed_receiver(tmp_path) as receiver, emulator.serve() as url, a_client(url) as client:
        stage = Stage(receiver, emulator, url, client)

        @receiver.on(Event)
        async def note(event: Event, delivery: Delivery) -> None:
            stage.handled.append((event, delivery))

        yield stage


@asynccontextmanager
async def a_client(url: str, key: str = "fake-api-key") -> AsyncIterator[AsyncDeepgramClient]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield AsyncDeepgramClient(api_key=key, environment=environment(url), httpx_client=http)


@contextmanager
def a_synchronous_client(url: str, **options: str) -> Iterator[DeepgramClient]:
    with httpx.Client(trust_env=False) as http:
        yield DeepgramClient(environment=environment(url), httpx_client=http, **options)


@METHODS
@pytest.mark.parametrize(
    "source",
    [pytest.param({"url": "https://example.com/a.wav"}, id="url"), pytest.param({"request": b"RIFF" * 99}, id="file")],
)
async def test_a_transcript_comes_back_under_the_id_that_was_told(stage, source, method):
    media = stage.client.listen.v1.media
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
    told = await stage.client.read.v1.text.analyze(
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
    speak = getattr(stage.client.speak, version)
    spoken = speak.audio.generate(
        text="hello", model=model, encoding="linear16", callback=stage.url(article="9"), callback_method=method
    )
    told = json.loads(b"".join([piece async for piece in spoken]))
    event, delivery = await stage.settled()
    assert isinstance(event, Audio)
    assert (event.content[:4], event.request_id) == (b"RIFF", told["request_id"])
    assert delivery.context == {"article": "9"}


async def test_the_synchronous_client_finds_it_too(stage):
    def submit() -> set[str]:
        with a_synchronous_client(stage.address, access_token="fake-api-key") as client:
            told = client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback=stage.url())
            spoken = b"".join(client.speak.v1.audio.generate(text="hello", callback=stage.url()))
        return {told.request_id, json.loads(spoken)["request_id"]}

    ids = await asyncio.to_thread(submit)
    await stage.emulator.idle()
    await stage.receiver.idle()
    assert {event.request_id for event, _ in stage.handled} == ids


async def test_without_a_callback_the_result_is_the_answer(stage):
    answer = await stage.client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", model="nova-3")
    assert answer.metadata.request_id == stage.emulator.record.submissions[0].request_id


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"additional_headers": {"x-emulator-fault": "lost-answer"}}, id="header"),
        pytest.param({"additional_query_parameters": {"fault": "lost-answer"}}, id="query"),
    ],
)
async def test_a_fault_is_asked_for_by_what_the_client_can_send(stage, options):
    told = await stage.client.listen.v1.media.transcribe_url(
        url="https://example.com/a.wav", callback=stage.url(), request_options=options
    )
    assert stage.emulator.record.of(told.request_id).fault == "lost-answer"


async def test_what_became_of_it_is_told(stage):
    told = await stage.client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback=stage.url())
    await stage.settled()
    found = (await stage.client.manage.v1.projects.requests.get("fake-project", told.request_id)).request
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
    async with a_client(stage.address, "fake-other-key") as client:
        with denied(401, err_code="INVALID_AUTH", err_msg="Invalid credentials."):
            await client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback=stage.url())


async def test_a_callback_that_cannot_be_called_is_denied(stage):
    with denied(400, err_msg="Failed to resolve callback."):
        await stage.client.listen.v1.media.transcribe_url(
            url="https://example.com/a.wav", callback="https://a_b.example.com"
        )


def test_a_program_without_a_loop_has_it_in_a_thread():
    emulator = Emulator(clock=SteppedClock())
    with listen("127.0.0.1", 0) as door:
        nobody = f"http://127.0.0.1:{door.getsockname()[1]}/"
    with emulator.running() as url, a_synchronous_client(url, api_key="fake-api-key") as client:
        told = client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", callback=nobody)
        emulator.wait(lambda: emulator.advance(300))
        emulator.wait(emulator.idle)
    assert len(emulator.record.of(told.request_id).callbacks[0].attempts) == 11
    with pytest.raises(SetupError, match=r"with emulator\.running\(\) as url"):
        emulator.wait(emulator.idle)
