"""What text models make of sentences: topics, intents, sentiments. By rule of thumb, the same for the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .options import Options, is_on, one_of
from .shapes import MODEL_ID, segment_of

MODES = ("extended", "strict")
GOOD = frozenset(["good", "great", "glad", "happy", "thank", "thanks", "love", "wonderful", "perfect", "excellent"])
BAD = frozenset(["bad", "sorry", "wrong", "angry", "broken", "late", "problem", "hate", "terrible", "refund"])


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of the text; `start` and `end` are the places of its first and last word."""

    text: str
    start: int
    end: int


def sentences(text: str) -> list[Sentence]:
    """The text in its own sentences."""
    return list(_placed(part for part in re.split(r"(?<=[.!?…])\s+", text.strip()) if part))


def _placed(texts: Iterator[str]) -> Iterator[Sentence]:
    at = 0
    for text in texts:
        count = len(text.split())
        yield Sentence(text, at, at + count - 1)
        at += count


def insights(options: Options, spoken: Sequence[Sentence]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is asked for, as fields of the metadata and of the results.

    Raises: Invalid
    """
    metadata: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for name in ("topic", "intent"):
        found = _found(options, name, spoken)
        if is_on(options, f"{name}s"):
            results[f"{name}s"] = {"segments": found}
            metadata[f"{name}s_info"] = usage(spoken)
    if is_on(options, "sentiment"):
        results["sentiments"] = _sentiments(spoken)
        metadata["sentiment_info"] = usage(spoken)
    return metadata, results


def usage(spoken: Sequence[Sentence]) -> dict[str, Any]:
    words = spoken[-1].end + 1 if spoken else 0
    return {"model_uuid": MODEL_ID, "input_tokens": words, "output_tokens": len(spoken)}


def feeling(text: str) -> dict[str, Any]:
    """The sentiment of a text by the words in it, from -1 to 1.

    Source: https://developers.deepgram.com/docs/sentiment-analysis has the thresholds
    """
    words = re.findall(r"\w+", text.casefold())
    return _felt(0.4 * (sum(word in GOOD for word in words) - sum(word in BAD for word in words)))


def _felt(score: float) -> dict[str, Any]:
    score = round(max(-1.0, min(1.0, score)), 6)
    sentiment = "positive" if score >= 1 / 3 else "negative" if score <= -1 / 3 else "neutral"
    return {"sentiment": sentiment, "sentiment_score": score}


def _sentiments(spoken: Sequence[Sentence]) -> dict[str, Any]:
    segments = [_stretch(sentence) | feeling(sentence.text) for sentence in spoken]
    scores = [segment["sentiment_score"] for segment in segments]
    return {"segments": segments, "average": _felt(sum(scores) / len(scores) if scores else 0.0)}


def _stretch(sentence: Sentence) -> dict[str, Any]:
    return {"text": sentence.text, "start_word": sentence.start, "end_word": sentence.end}


def _found(options: Options, name: str, spoken: Sequence[Sentence]) -> list[Mapping[str, Any]]:
    strict = one_of(options, f"custom_{name}_mode", MODES) == "strict"
    custom = options.get(f"custom_{name}", ())
    named = [(sentence, _names(name, sentence.text, custom, strict)) for sentence in spoken]
    return [segment_of(_stretch(sentence), name, names) for sentence, names in named if names]


def _names(name: str, text: str, custom: Sequence[str], strict: bool) -> list[str]:
    """The longest word is the topic; whoever says a thing means to discuss it."""
    said = [each for each in custom if each.casefold() in text.casefold()]
    longest = max(re.findall(r"\w+", text), key=len, default="")
    own = {"topic": longest.capitalize(), "intent": f"Discuss {longest.lower()}"}[name]
    return said if strict or not longest else [*said, own]
