"""What handlers are tested with: payloads as Deepgram sends them, and `deliver`, which hands them over."""

from .delivered import Delivered, deliver
from .payloads import (
    Payload,
    analysis,
    audio,
    failure,
    live_error,
    live_result,
    speech_started,
    stream_metadata,
    transcript,
    unknown,
    utterance_end,
)

__all__ = [
    "Delivered",
    "Payload",
    "analysis",
    "audio",
    "deliver",
    "failure",
    "live_error",
    "live_result",
    "speech_started",
    "stream_metadata",
    "transcript",
    "unknown",
    "utterance_end",
]
