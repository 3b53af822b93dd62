"""Reading a transcript's JSON around its words, which are four fifths of it and are left until somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from .callbacks import load_json
from .parts import Words

SHORTEST = 64  # bytes of a list that is worth it


class _Spoken(msgspec.Struct):
    words: msgspec.Raw = msgspec.Raw()


class _Channel(msgspec.Struct):
    alternatives: list[_Spoken] = []


class _Results(msgspec.Struct):
    channels: list[_Channel] = []
    utterances: list[_Spoken] | None = None


class _Transcript(msgspec.Struct):
    results: _Results


_decode = msgspec.json.Decoder().decode
_decode_words = msgspec.json.Decoder(_Transcript).decode


def load_transcript(body: bytes) -> Any:
    """Read JSON as load_json() does; the lists of words in a transcript are `Words`, which are read when looked at.

    Raises: ValueError if it is no JSON.
    """
    try:
        return _load_around_words(body)
    except (ValueError, RecursionError):  # odd, or no JSON
        return load_json(body)


def _load_around_words(body: bytes) -> Any:
    """Read the body with a number in place of each list of words, then put the words where the numbers are.

    Raises: ValueError if that is not to be had; RecursionError.
    """
    if not body.isascii():
        body.decode()  # msgspec does not look into the text that it passes over
    results = _decode_words(body).results
    alternatives = chain.from_iterable(channel.alternatives for channel in results.channels)
    lists = [memoryview(spoken.words) for spoken in chain(alternatives, results.utterances or ())]
    worth = {number: words for number, words in enumerate(lists) if len(words) >= SHORTEST and words[0] == ord("[")}
    document = _decode(b"".join(_around(body, worth)))
    for number, (holder, words) in enumerate(zip(_holders(document["results"]), lists, strict=True)):
        if number in worth:
            if holder.get("words") != number:
                raise ValueError("the same bytes stand elsewhere too")
            holder["words"] = Words(words)
    return document


def _around(body: bytes, lists: dict[int, memoryview]) -> Iterator[bytes]:
    """The body, each list replaced by its number. Raises: ValueError if they do not stand there in this order."""
    at = 0
    for number, words in lists.items():
        start = body.index(words[:SHORTEST], at)
        if not body.startswith(words, start):  # so that what is cut out is that list, wherever it stands
            raise ValueError("another list begins with the same bytes")
        yield body[at:start]
        yield b"%d" % number
        at = start + len(words)
    yield body[at:]


def _holders(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What has words, in the order in which `lists` were found."""
    for channel in results.get("channels", ()):
        yield from channel.get("alternatives", ())
    yield from results.get("utterances") or ()
