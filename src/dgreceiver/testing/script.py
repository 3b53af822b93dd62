"""What the emulator hears: sentences chosen by the digest of what was submitted. No recogniser."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

STEP, SPOKEN, LEAD = 400, 320, 80  # milliseconds from word to word, of it the word, and before the first one
PAUSES = (300, 700, 1200)  # milliseconds more between sentences
STRIDES = (1, 5, 7, 11)  # from line to line; each of them visits every line
LONGEST = 24 * 3_600_000  # milliseconds; nobody speaks for longer than a day
ENTITIES = {
    "jessica": "PERSON",
    "josh": "PERSON",
    "monday": "DATE",
    "friday": "DATE",
    "chicago": "LOCATION",
    "honda": "ORGANIZATION",
    "two": "QUANTITY",
    "seven": "QUANTITY",
}
NUMERALS = {"two": "2", "seven": "7", "twenty": "20"}
LINES = (
    "Hello, this is Jessica from the Honda service desk.",
    "Thank you for calling, how can I help you today?",
    "I ordered two scarves on Monday, and the wrong colour came.",
    "I am so sorry, that should never happen.",
    "Josh said that the parcel left Chicago on Friday.",
    "Could you please send the other seven to my new address?",
    "That sounds wonderful, I am very happy with it.",
    "The invoice says twenty, but the box was broken.",
    "Let me look that up for you.",
    "We are open from Monday to Friday.",
    "Great, then everything is settled.",
    "Is there anything else that I can do for you?",
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word. Units: `start` and `end` in milliseconds."""

    token: str  # as it is written
    start: int
    end: int
    confidence: float

    @property
    def word(self) -> str:
        return self.token.strip(string.punctuation).lower()


def spoken(digest: bytes, duration: float) -> list[list[Spoken]]:
    """The sentences that fit into `duration` seconds, word by word; the last may be cut off."""
    sentences: list[list[Spoken]] = []
    for first, word in words(digest, min(int(duration * 1000), LONGEST)):
        if first:
            sentences.append([])
        sentences[-1].append(word)
    return sentences


def written(digest: bytes, count: int = 6) -> str:
    """A text of `count` sentences."""
    return " ".join(_line(digest, turn) for turn in range(count))


def digest_of(channel: int, digest: bytes) -> bytes:
    """Each channel says something else; the first what there is to say."""
    return sha256(digest + channel.to_bytes(2)).digest() if channel else digest


def words(digest: bytes, until: int = LONGEST) -> Iterator[tuple[bool, Spoken]]:
    """The words that end within so many milliseconds, and whether each is the first of a sentence."""
    at, turn = LEAD, 0
    while True:
        for place, token in enumerate(_line(digest, turn).split()):
            if at + SPOKEN > until:
                return
            yield place == 0, Spoken(token, at, at + SPOKEN, _confidence(digest, turn + place))
            at += STEP
        at += PAUSES[_roll(digest, turn) % len(PAUSES)]
        turn += 1


def _line(digest: bytes, turn: int) -> str:
    return LINES[(_roll(digest, 0) + turn * STRIDES[_roll(digest, 1) % len(STRIDES)]) % len(LINES)]


def _roll(digest: bytes, turn: int) -> int:
    return digest[turn % len(digest)]


def _confidence(digest: bytes, place: int) -> float:
    return round(0.9 + _roll(digest, place) / 2570, 6)
