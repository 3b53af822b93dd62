"""Deepgram's side of the app: the receiver, what is submitted, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from django.conf import settings
from django.db import close_old_connections

from dgreceiver import Delivery, Receiver, SignedAuth, Transcript

from .models import Recording

receiver = Receiver(
    auth=SignedAuth(settings.CALLBACK_KEY),
    inbox=f"sqlite:///{settings.DATA / 'inbox.db'}",
    public_url=settings.PUBLIC_URL,
)
deepgram = DeepgramClient(
    api_key=settings.DEEPGRAM_API_KEY,
    environment=DeepgramClientEnvironment(
        base=settings.DEEPGRAM_URL, agent_rest=settings.DEEPGRAM_URL, production="wss://unused", agent="wss://unused"
    ),
)


def transcribe(recording: Recording, audio: bytes) -> None:
    deepgram.listen.v1.media.transcribe_file(
        request=audio,
        model="nova-3",
        smart_format=True,
        callback=receiver.callback_url({"recording": recording.pk}, local=settings.LOCAL),
    )


@receiver.on(Transcript)
def save(transcript: Transcript, delivery: Delivery) -> None:
    """Keep what was said. It may run twice, and then writes the same into the same row."""
    with fresh_connections():
        own = Recording.objects.filter(pk=delivery.context["recording"])
        own.update(request_id=transcript.request_id, text=transcript.text)


@contextmanager
def fresh_connections() -> Iterator[None]:
    """What Django does around a request: none that the database has closed is used, and none stays open too long."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
