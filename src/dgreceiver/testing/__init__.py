"""What users test with: payloads as Deepgram sends them, `deliver`, which hands them over, and Deepgram's side."""

from .clock import Clock, SteppedClock
from .delivered import Delivered, deliver
from .delivery import Timeouts
from .emulator import Emulator
from .faults import FAULTS, Fault, mix
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
from .record import Attempt, Outgoing, Record, Refusal, Submission
from .streams import live_stream, live_transcript

__all__ = [
    "FAULTS",
    "Attempt",
    "Clock",
    "Delivered",
    "Emulator",
    "Fault",
    "Outgoing",
    "Payload",
    "Record",
    "Refusal",
    "SteppedClock",
    "Submission",
    "Timeouts",
    "analysis",
    "audio",
    "deliver",
    "failure",
    "live_error",
    "live_result",
    "live_stream",
    "live_transcript",
    "mix",
    "speech_started",
    "stream_metadata",
    "transcript",
    "unknown",
    "utterance_end",
]
