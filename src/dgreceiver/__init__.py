"""Receives Deepgram's callbacks: stored before they are acknowledged, handled once, typed."""

from .core.auth import BasicAuth, DgTokenAuth, ExtraAuth, NoAuth, SignedAuth
from .core.events import (
    Analysis,
    Audio,
    Event,
    Failure,
    LiveError,
    LiveResult,
    LiveTranscript,
    SpeechStarted,
    StreamMetadata,
    Transcript,
    Unknown,
    UtteranceEnd,
)
from .core.retry import RetryPolicy
from .errors import Bury, DgreceiverError, InboxError, Refused, Retry, SetupError
from .hosts.asgi import CallbackMiddleware
from .hosts.wsgi import WSGICallbackMiddleware
from .inbox.contract import Delivery, Erased
from .receiver import Receiver
from .web.intake import Limits

__all__ = [
    "Analysis",
    "Audio",
    "BasicAuth",
    "Bury",
    "CallbackMiddleware",
    "Delivery",
    "DgTokenAuth",
    "DgreceiverError",
    "Erased",
    "Event",
    "ExtraAuth",
    "Failure",
    "InboxError",
    "Limits",
    "LiveError",
    "LiveResult",
    "LiveTranscript",
    "NoAuth",
    "Receiver",
    "Refused",
    "Retry",
    "RetryPolicy",
    "SetupError",
    "SignedAuth",
    "SpeechStarted",
    "StreamMetadata",
    "Transcript",
    "Unknown",
    "UtteranceEnd",
    "WSGICallbackMiddleware",
]
