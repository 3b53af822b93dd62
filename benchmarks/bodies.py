"""What is sent: bodies as Deepgram's for recorded audio, equal in all but their `request_id`."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

PLACEHOLDER = "00000000-0000-4000-8000-000000000000"  # where the request_id stands in a body

_WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an which you "
    "were they one all their has would what will there if can more when who about so no out up into them then she "
    "many some him its only time could these two may first do any my now such like our over man me even most made "
    "after also did before must through years where much your way well down should because long each just people "
    "those how too little state good very make world still own see men work here get both between life being under "
    "never day same another know while last might great old year off come since against go came right used take "
    "three mission spacewalk research station female celebrating qualified extraordinary team astronaut happening"
)
VOCABULARY = _WORDS.split()
FRAME = 0.08  # seconds
EPOCH = 1_790_000_000_000  # milliseconds since 1970


def body_of(size: int, *, seed: int = 1) -> bytes:
    """A recorded transcript of about `size` bytes with PLACEHOLDER once, as its `request_id`."""
    few, many = (len(_body(words, seed)) for words in (20, 520))
    per_word = (many - few) / 500
    return _body(max(1, 20 + round((size - few) / per_word)), seed)


def request_id(run: int, n: int) -> str:
    """The `request_id` of request `n` of load `run`; as long as PLACEHOLDER.

    A UUID of version 7, as Deepgram makes them: its time goes on by a millisecond for every eight.
    """
    made = f"{EPOCH + (run << 24) + n // 8:012x}"
    return f"{made[:8]}-{made[8:]}-7000-{0x8000 | run:04x}-{n:012x}"


def _body(words: int, seed: int) -> bytes:
    dice = random.Random(seed)
    spoken = _speak(words, dice)
    sentences = _sentences(spoken)
    text = " ".join(word["punctuated_word"] for word in spoken)
    model = "30089e05-99d1-4376-b32e-c263170674af"
    metadata = {
        "transaction_key": "deprecated",
        "request_id": PLACEHOLDER,
        "sha256": dice.randbytes(32).hex(),
        "created": "2026-02-06T19:56:16.180Z",
        "duration": spoken[-1]["end"],
        "channels": 1,
        "models": [model],
        "model_info": {model: {"name": "2-general-nova", "version": "2024-01-09.29447", "arch": "nova-3"}},
    }
    paragraphs = [
        {
            "sentences": sentences[n : n + 4],
            "num_words": sum(len(sentence["text"].split()) for sentence in sentences[n : n + 4]),
            "start": sentences[n]["start"],
            "end": sentences[n : n + 4][-1]["end"],
        }
        for n in range(0, len(sentences), 4)
    ]
    alternative = {
        "transcript": text,
        "confidence": 0.99902344,
        "words": spoken,
        "paragraphs": {"transcript": "\n" + text, "paragraphs": paragraphs},
    }
    result = {"metadata": metadata, "results": {"channels": [{"alternatives": [alternative]}]}}
    return json.dumps(result, separators=(",", ":")).encode()


def _speak(words: int, dice: random.Random) -> list[dict[str, Any]]:
    """Words with the times and confidences of a recogniser: digits that hardly repeat.

    As in published payloads, times are whole frames, nine words of ten begin where the one before has ended, and most
    confidences are near 1. Packed by zstd -3, 52 such words are 0.33 of their size and 226 are 0.29; published ones,
    0.30 and 0.29.
    """
    spoken, frame = [], 1
    for n in range(words):
        word = dice.choice(VOCABULARY)
        end = frame + dice.choice((1, 2, 2, 3, 3, 4, 5, 6))
        shown = word.capitalize() if n % 11 == 0 else word
        shown += "." if n % 11 == 10 or n == words - 1 else "," if n % 11 == 5 else ""
        spoken.append(
            {
                "word": word,
                "start": round(frame * FRAME, 2),
                "end": round(end * FRAME, 2),
                "confidence": round(1 - dice.random() ** 6 / 2, 8),
                "punctuated_word": shown,
            }
        )
        frame = end if dice.random() < 0.9 else end + dice.randint(1, 8)
    return spoken


def _sentences(spoken: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cuts = [*range(0, len(spoken), 11), len(spoken)]
    return [
        {
            "text": " ".join(word["punctuated_word"] for word in spoken[start:end]),
            "start": spoken[start]["start"],
            "end": spoken[end - 1]["end"],
        }
        for start, end in pairwise(cuts)
    ]
