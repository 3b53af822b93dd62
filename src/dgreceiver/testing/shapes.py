"""Parts that results share: words, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

CONFIDENCE = 0.99
MODEL_ID = str(uuid5(NAMESPACE_URL, "dgreceiver"))
MODEL = {"name": "general-nova-3", "version": "2026-01-01.0", "arch": "nova-3"}
USAGE = {"model_uuid": MODEL_ID, "input_tokens": 10, "output_tokens": 5}


def text_of(words: Iterable[Mapping[str, Any]]) -> str:
    return " ".join(word.get("punctuated_word", word["word"]) for word in words)


def span_of(words: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """When the words were said, and by whom if that is known."""
    who = {"speaker": words[0]["speaker"]} if "speaker" in words[0] else {}
    return {"start": words[0]["start"], "end": words[-1]["end"], **who}


def duration_of(lines: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    return float(lines[-1][-1]["end"]) if lines else 0.0


def channel_of(words: Sequence[Mapping[str, Any]], paragraphs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    confidence = words[0]["confidence"] if words else 0.0
    best: dict[str, Any] = {"transcript": text_of(words), "confidence": confidence, "words": words}
    return {"alternatives": [best | ({"paragraphs": paragraphs} if paragraphs else {})]}


def result_of(
    words: Sequence[Mapping[str, Any]],
    *,
    start: float,
    duration: float,
    channel_index: Sequence[int],
    is_final: bool,
    speech_final: bool,
    from_finalize: bool,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """What was heard in a stretch of a live stream."""
    return {
        "type": "Results",
        "channel_index": channel_index,
        "start": start,
        "duration": duration,
        "is_final": is_final,
        "speech_final": speech_final,
        "from_finalize": from_finalize,
        "channel": channel_of(words),
        "metadata": metadata,
    }


def closing_of(
    *,
    request_id: str,
    created: str,
    duration: float,
    channels: int,
    sha256: str = "0" * 64,
    model: tuple[str, Mapping[str, str]] = (MODEL_ID, MODEL),
    extra: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The last message of a live stream."""
    return {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": sha256,
        "created": created,
        "duration": duration,
        "channels": channels,
        "models": [model[0]],
        "model_info": {model[0]: model[1]},
        **({"extra": extra} if extra else {}),
    }


def live_metadata_of(
    request_id: str,
    model: tuple[str, Mapping[str, str]] = (MODEL_ID, MODEL),
    extra: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What each result of a live stream says of its stream."""
    about = {"request_id": request_id, "model_uuid": model[0], "model_info": model[1]}
    return about | ({"extra": extra} if extra else {})


def paragraph_of(*sentences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    words = [word for sentence in sentences for word in sentence]
    those = [{"text": text_of(each), "start": each[0]["start"], "end": each[-1]["end"]} for each in sentences]
    return {"sentences": those, "num_words": len(words), **span_of(words)}


def utterance_of(words: Sequence[Mapping[str, Any]], channel: int, *, source: str = "") -> dict[str, Any]:
    said = {"confidence": words[0]["confidence"], "channel": channel, "transcript": text_of(words), "words": words}
    return {**span_of(words), **said, "id": str(uuid5(NAMESPACE_URL, f"{source}{channel} {words[0]['start']}"))}


def segment_of(stretch: Mapping[str, Any], name: str, found: Iterable[str]) -> dict[str, Any]:
    return {**stretch, f"{name}s": [{name: each, "confidence_score": CONFIDENCE} for each in found]}
