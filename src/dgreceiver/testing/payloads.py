"""Payloads as Deepgram sends them: one builder for every kind of callback.

Every keyword that a builder does not name is a top-level field of the JSON object. It replaces one that the builder
made; a mapping is merged into it: `transcript(metadata={"tags": ["sales"]})`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from .shapes import (
    CONFIDENCE,
    MODEL,
    MODEL_ID,
    USAGE,
    channel_of,
    closing_of,
    duration_of,
    live_metadata_of,
    paragraph_of,
    result_of,
    segment_of,
    text_of,
    utterance_of,
)

CREATED = "2026-01-01T00:00:00.000Z"
STEP, SPOKEN = 0.5, 0.4  # seconds from word to word, and of it the word


@dataclass(frozen=True, slots=True)
class Payload:
    """What Deepgram would send, and the name of the event's class that it becomes."""

    body: bytes
    headers: Mapping[str, str]  # lower-case names
    kind: str


def transcript(
    *channels: str,
    request_id: str | None = None,
    speakers: int | None = None,
    utterances: bool = False,
    paragraphs: bool = False,
    summary: str | None = None,
    topics: Iterable[str] = (),
    intents: Iterable[str] = (),
    sentiment: str | None = None,
    language: str | None = None,
    confidence: float = CONFIDENCE,
    start: float = 0.0,
    extra: Mapping[str, str] | None = None,
    **fields: Any,
) -> Payload:
    """The transcript of a recording, `hello world` unless said otherwise.

    Each text is a channel, each of its lines an utterance and a paragraph; the speakers take turns by line. The first
    word of each channel begins at `start` seconds; `language` is the one that was detected.
    """
    texts = channels or ("hello world",)
    spoken = [_lines(text, speakers, start=start, confidence=confidence) for text in texts]
    detected = {"detected_language": language, "language_confidence": confidence} if language else {}
    results: dict[str, Any] = {"channels": [_channel(lines, paragraphs) | detected for lines in spoken]}
    if utterances:
        results["utterances"] = [utterance_of(line, at) for at, lines in enumerate(spoken) for line in lines]
    if summary is not None:
        results["summary"] = {"result": "success", "short": summary}
    results |= _insights(" ".join(texts), topics, intents, sentiment)
    metadata = {
        "transaction_key": "deprecated",
        "request_id": request_id or str(uuid4()),
        "sha256": "0" * 64,
        "created": CREATED,
        "duration": max(duration_of(lines) for lines in spoken),
        "channels": len(spoken),
        "models": [MODEL_ID],
        "model_info": {MODEL_ID: MODEL},
        **({"extra": extra} if extra else {}),
    }
    return _json("Transcript", fields, metadata=metadata, results=results)


def analysis(
    summary: str | None = "A greeting.",
    *,
    request_id: str | None = None,
    language: str = "en",
    topics: Iterable[str] = (),
    intents: Iterable[str] = (),
    sentiment: str | None = None,
    text: str = "hello world",
    **fields: Any,
) -> Payload:
    """What was read out of `text`: a summary, and what else is asked for."""
    metadata = {"request_id": request_id or str(uuid4()), "created": CREATED, "language": language}
    asked = ({"summary": {"text": summary}} if summary else {}) | _insights(text, topics, intents, sentiment)
    usages = {"sentiment_info" if name == "sentiments" else f"{name}_info": USAGE for name in asked}
    return _json("Analysis", fields, metadata=metadata | usages, results=asked)


def audio(
    seconds: float = 1.0,
    *,
    request_id: str | None = None,
    model: str = "aura-2-thalia-en",
    characters: int = 11,
    sample_rate: int = 24_000,
    headers: Mapping[str, str] | None = None,
) -> Payload:
    """A WAV file of silence; `headers` adds to Deepgram's or replaces them.

    Source: Deepgram streams, so the lengths in a WAV's header are placeholders (docs/callback).
    """
    samples = bytes(2 * round(seconds * sample_rate))
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    body = struct.pack("<4sI4s", b"RIFF", 0x7FFF0024, b"WAVE") + form + struct.pack("<4sI", b"data", 0x7FFF0000)
    own = {
        "content-type": "audio/wav",
        "dg-request-id": request_id or str(uuid4()),
        "dg-model-name": model,
        "dg-model-uuid": MODEL_ID,
        "dg-char-count": str(characters),
    }
    return Payload(body + samples, own | dict(headers or {}), "Audio")


def failure(
    message: str = "The request could not be served.",
    *,
    code: str = "INTERNAL_SERVER_ERROR",
    details: str | None = None,
    request_id: str | None = None,
    **fields: Any,
) -> Payload:
    """An error in place of a result."""
    own = {"err_code": code, "err_msg": message, **({"details": details} if details else {})}
    return _json("Failure", fields, **own, request_id=request_id or str(uuid4()))


def live_result(
    text: str = "hello world",
    *,
    request_id: str | None = None,
    start: float = 0.0,
    channel: int = 0,
    channels: int = 1,
    speakers: int | None = None,
    is_final: bool = True,
    speech_final: bool = True,
    from_finalize: bool = False,
    confidence: float = CONFIDENCE,
    extra: Mapping[str, str] | None = None,
    **fields: Any,
) -> Payload:
    """What was heard from `start` seconds on."""
    lines = _lines(text, speakers, start=start, confidence=confidence)
    own = result_of(
        [word for line in lines for word in line],
        start=start,
        duration=round(duration_of(lines) - start, 3) if lines else 0.0,
        channel_index=[channel, channels],
        is_final=is_final,
        speech_final=speech_final,
        from_finalize=from_finalize,
        metadata=live_metadata_of(request_id or str(uuid4()), extra=extra),
    )
    return _json("LiveResult", fields, **own)


def speech_started(timestamp: float = 0.0, *, channel: int = 0, channels: int = 1, **fields: Any) -> Payload:
    """Somebody began to speak, at `timestamp` seconds."""
    return _json("SpeechStarted", fields, type="SpeechStarted", channel=[channel, channels], timestamp=timestamp)


def utterance_end(last_word_end: float = 0.9, *, channel: int = 0, channels: int = 1, **fields: Any) -> Payload:
    """A gap after the word that ended at `last_word_end` seconds."""
    return _json("UtteranceEnd", fields, type="UtteranceEnd", channel=[channel, channels], last_word_end=last_word_end)


def live_error(
    description: str = "The stream could not be served.",
    *,
    variant: str = "InternalError",
    message: str = "try again",
    **fields: Any,
) -> Payload:
    """The stream went wrong."""
    return _json("LiveError", fields, type="Error", variant=variant, description=description, message=message)


def stream_metadata(
    duration: float = 1.0,
    *,
    request_id: str | None = None,
    channels: int = 1,
    extra: Mapping[str, str] | None = None,
    **fields: Any,
) -> Payload:
    """The end of a stream of `duration` seconds."""
    own = closing_of(
        request_id=request_id or str(uuid4()), created=CREATED, duration=duration, channels=channels, extra=extra
    )
    return _json("StreamMetadata", fields, **own)


def unknown(type: str = "SomethingNew", *, request_id: str | None = None, **fields: Any) -> Payload:  # noqa: A002 - its name
    """A message of a type that nobody has seen yet."""
    return _json("Unknown", fields, type=type, request_id=request_id or str(uuid4()))


BUILDERS: Mapping[str, Callable[..., Payload]] = {
    "Transcript": transcript,
    "Analysis": analysis,
    "Audio": audio,
    "Failure": failure,
    "LiveResult": live_result,
    "SpeechStarted": speech_started,
    "UtteranceEnd": utterance_end,
    "LiveError": live_error,
    "StreamMetadata": stream_metadata,
    "Unknown": unknown,
}


def json_payload(kind: str, document: Mapping[str, Any]) -> Payload:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Payload(body.encode(), {"content-type": "application/json"}, kind)


def _json(kind: str, fields: Mapping[str, Any], /, **own: Any) -> Payload:
    return json_payload(kind, merged(own, fields))


def merged(own: Any, given: Any) -> Any:
    """What is given, in place of what is there; into a mapping a mapping is merged."""
    if not (isinstance(own, Mapping) and isinstance(given, Mapping)):
        return given
    return {**own, **{name: merged(own.get(name), value) for name, value in given.items()}}


def _lines(text: str, speakers: int | None, *, start: float, confidence: float) -> list[list[dict[str, Any]]]:
    """The words of each line that has some, one after the other."""
    at = count()
    lines = [line.split() for line in text.splitlines() if line.split()]
    return [
        [
            _word(token, start + STEP * next(at), confidence) | ({"speaker": turn % speakers} if speakers else {})
            for token in line
        ]
        for turn, line in enumerate(lines)
    ]


def _word(token: str, start: float, confidence: float) -> dict[str, Any]:
    return {
        "word": token.strip('.,;:!?"()').lower(),
        "start": round(start, 3),
        "end": round(start + SPOKEN, 3),
        "confidence": confidence,
        "punctuated_word": token,
    }


def _channel(lines: Sequence[Sequence[dict[str, Any]]], paragraphs: bool) -> dict[str, Any]:
    words = [word for line in lines for word in line]
    whole = {"transcript": "\n\n".join(map(text_of, lines)), "paragraphs": list(map(paragraph_of, lines))}
    return channel_of(words, whole if paragraphs else None)


def _insights(text: str, topics: Iterable[str], intents: Iterable[str], sentiment: str | None) -> dict[str, Any]:
    """What text models found, if they were asked for it."""
    stretch = {"text": text, "start_word": 0, "end_word": max(len(text.split()) - 1, 0)}
    found = {
        "topics": _segments(stretch, "topic", topics),
        "intents": _segments(stretch, "intent", intents),
        "sentiments": _sentiments(stretch, sentiment) if sentiment else None,
    }
    return {name: insight for name, insight in found.items() if insight}


def _segments(stretch: Mapping[str, Any], name: str, found: Iterable[str]) -> dict[str, Any] | None:
    whole = segment_of(stretch, name, found)
    return {"segments": [whole]} if whole[f"{name}s"] else None


def _sentiments(stretch: Mapping[str, Any], sentiment: str) -> dict[str, Any]:
    score = {"positive": 0.5, "negative": -0.5}.get(sentiment, 0.0)
    felt = {"sentiment": sentiment, "sentiment_score": score}
    return {"segments": [{**stretch, **felt}], "average": felt}
