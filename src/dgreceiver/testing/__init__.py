"""What users test with: Deepgram's side of the wire, and payloads as Deepgram sends them."""

from __future__ import annotations

from .clock import Clock, SteppedClock
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

__all__ = [
    "FAULTS",
    "Attempt",
    "Clock",
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
    "failure",
    "live_error",
    "live_result",
    "mix",
    "speech_started",
    "stream_metadata",
    "transcript",
    "unknown",
    "utterance_end",
]
