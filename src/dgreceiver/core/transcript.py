"""From the messages of a live stream to its whole transcript.

What each message does stands in TRANSITIONS; docs/live-transcripts.md shows it as a table. What is said does not
depend on the order of arrival; where an utterance ends does, where Deepgram gives no time for it.

Source: Deepgram promises no order and numbers nothing (docs/callback), so a result is known by its channel and start.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeGuard

from .callbacks import find_request_id, load_json
from .parts import LATEST, fitting

Document = dict[str, Any]


class _Heard(NamedTuple):
    """One result: what was heard in a stretch of a channel. Units: seconds."""

    channel: int
    start: float
    duration: float
    text: str
    words: Sequence[Document]
    speech_final: bool
    body: bytes

    @property
    def end(self) -> float:
        return self.start + self.duration

    @property
    def middle(self) -> float:
        return self.start + self.duration / 2

    @property
    def first_word_start(self) -> float:
        return float(self.words[0]["start"]) if self.words else self.start

    @property
    def first_word_middle(self) -> float:
        return (self.words[0]["start"] + self.words[0]["end"]) / 2 if self.words else self.middle

    @property
    def last_word_end(self) -> float:
        return float(self.words[-1]["end"]) if self.words else self.end

    @property
    def rank(self) -> tuple[bool, float, bool, bytes]:
        """Of two results of one place the higher counts, whichever came first: that with a text, then the longer.

        An empty one may begin where the next begins: a Finalize gives a result of no length.
        """
        return bool(self.text), self.duration, self.speech_final, self.body


Places = dict[tuple[int, float], _Heard]  # by channel and start


@dataclass(slots=True)
class _Stream:
    """What is known of a stream so far."""

    request_id: str | None = None
    settled: Places = field(default_factory=dict)
    interim: Places = field(default_factory=dict)
    heard_until: dict[int, float] = field(default_factory=dict)  # by channel: where the last word ended
    ends: dict[int, list[float]] = field(default_factory=dict)  # by channel: where utterances ended
    extra: Any = None
    metadata: Document | None = None

    def settle(self, message: Document, body: bytes) -> None:
        """is settled: in its place until the end; `speech_final` ends an utterance"""
        _keep(self.settled, self._hear(message, body))

    def guess(self, message: Document, body: bytes) -> None:
        """is a guess: in `interim` at the end, unless a final result covers it"""
        _keep(self.interim, self._hear(message, body))

    def end_at(self, message: Document, body: bytes) -> None:
        """ends an utterance after the result with that word"""
        self.ends.setdefault(_channel(message), []).append(message["last_word_end"])

    def end_here(self, message: Document, body: bytes) -> None:
        """ends an utterance after all that had come of its channel by then"""
        channel = _channel(message)
        if channel in self.heard_until:
            self.ends.setdefault(channel, []).append(self.heard_until[channel])

    def complete(self, message: Document, body: bytes) -> None:
        """makes the transcript complete and is its `metadata`; the last one counts"""
        self.metadata = {name: value for name, value in message.items() if name != "type"}

    def pass_by(self, message: Document, body: bytes) -> None:
        """changes nothing"""

    def _hear(self, message: Document, body: bytes) -> _Heard:
        heard = _heard(message, body)
        if heard.text:
            self.heard_until[heard.channel] = max(heard.last_word_end, self.heard_until.get(heard.channel, 0.0))
        about = message.get("metadata")
        if isinstance(about, dict) and about.get("extra"):
            self.extra = about["extra"]
        return heard


def _keep(places: Places, heard: _Heard) -> None:
    place = heard.channel, heard.start
    places[place] = max(heard, places.get(place, heard), key=attrgetter("rank"))


def _is_placed(message: Document) -> bool:
    """it has a `channel` and a `start`"""
    return isinstance(message.get("channel"), dict) and _is_time(message.get("start"))


def _is_interim(message: Document) -> bool:
    """it has a `channel` and a `start`, and `is_final` is false"""
    return _is_placed(message) and message.get("is_final") is False


def _says_when(message: Document) -> bool:
    """`last_word_end` is a time"""
    when = message.get("last_word_end")
    return _is_time(when) and when >= 0


def _always(message: Document) -> bool:
    """always"""
    return True


class Transition(NamedTuple):
    """What a message of a type does to the transcript. The first lines of `when` and `then` say it in words."""

    type: str | None  # None for any
    when: Callable[[Document], bool]
    then: Callable[[_Stream, Document, bytes], None]


# The first row that fits a message is its row.
TRANSITIONS = (
    Transition("Results", _is_interim, _Stream.guess),
    Transition("Results", _is_placed, _Stream.settle),
    Transition("UtteranceEnd", _says_when, _Stream.end_at),
    Transition("UtteranceEnd", _always, _Stream.end_here),
    Transition("Metadata", _always, _Stream.complete),
    Transition(None, _always, _Stream.pass_by),
)


def assemble(bodies: Iterable[bytes], *, revision: int = 0) -> bytes | None:
    """The JSON of a stream's LiveTranscript, made of its messages in order of arrival.

    None if no message names a `request_id`; a message that names another than the first does not belong, and is left
    out. Never raises: what cannot be read says nothing.
    """
    stream = _Stream()
    for body in bodies:
        message = _read(body)
        named = find_request_id(message)
        stream.request_id = stream.request_id or named
        if named in (None, stream.request_id):
            _transition(message).then(stream, message, body)
    return _written(stream, revision) if stream.request_id else None


def _read(body: bytes) -> Document:
    try:
        message = load_json(body)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _transition(message: Document) -> Transition:
    type_ = message.get("type")
    return next(row for row in TRANSITIONS if row.type in (type_, None) and row.when(message))


def _heard(message: Document, body: bytes) -> _Heard:
    best = _best(message)
    text, words, duration = best.get("transcript"), best.get("words"), message.get("duration")
    return _Heard(
        channel=_channel(message),
        start=message["start"],
        duration=duration if _is_time(duration) and duration > 0 else 0.0,
        text=text if isinstance(text, str) else "",
        words=fitting(words) if isinstance(words, list) else [],
        speech_final=message.get("speech_final") is True,
        body=body,
    )


def _best(message: Document) -> Document:
    alternatives = message["channel"].get("alternatives")
    first = alternatives[0] if isinstance(alternatives, list) and alternatives else None
    return first if isinstance(first, dict) else {}


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LATEST < value < LATEST


def _channel(message: Document) -> int:
    """The first of `[this channel, number of channels]`, which is called `channel` where there are no words."""
    index = message.get("channel_index", message.get("channel"))
    first = index[0] if isinstance(index, list) and index else 0
    return int(first) if _is_time(first) and first >= 0 else 0


def _written(stream: _Stream, revision: int) -> bytes:
    channels = _by_channel(stream.settled)
    about = {"extra": stream.extra} if stream.extra else {}
    document = {
        "request_id": stream.request_id,
        "text": "\n".join(filter(None, map(_text, channels.values()))),
        "words": [word for results in channels.values() for each in results for word in each.words],
        "utterances": _in_time(_utterances(results, stream.ends.get(at, [])) for at, results in channels.items()),
        "interim": _in_time(
            _uncovered(results, channels.get(at, [])) for at, results in _by_channel(stream.interim).items()
        ),
        "duration": _duration(stream),
        "complete": stream.metadata is not None,
        "revision": revision,
        "metadata": about | (stream.metadata or {}) | {"request_id": stream.request_id},
    }
    return _json(document)


def _by_channel(places: Places) -> dict[int, list[_Heard]]:
    """The results of each channel in order of time."""
    in_order = [places[place] for place in sorted(places)]
    return {channel: list(results) for channel, results in groupby(in_order, key=attrgetter("channel"))}


def _in_time(parts: Iterable[list[Document]]) -> list[Document]:
    return sorted((each for part in parts for each in part), key=itemgetter("start"))


def _text(results: Sequence[_Heard]) -> str:
    return " ".join(each.text for each in results if each.text)


def _utterances(results: Sequence[_Heard], ends: Iterable[float]) -> list[Document]:
    """The results of a channel, joined from one end of an utterance to the next.

    An end that is given as a time lies between two results: it is compared with the middle of a word, because the
    same time comes with other last digits.
    """
    openings = list(accumulate((each.first_word_middle for each in results), max))
    bounds = {bisect_left(openings, end) for end in ends}
    bounds |= {at for at, each in enumerate(results, start=1) if each.speech_final}
    numbers = accumulate(at in bounds for at in range(len(results)))
    numbered = zip(numbers, results, strict=True)
    said = [[each for _, each in group if each.text] for _, group in groupby(numbered, key=itemgetter(0))]
    return [_utterance(group) for group in said if group]


def _uncovered(results: Sequence[_Heard], settled: Sequence[_Heard]) -> list[Document]:
    """The interim results with a text whose place or middle is in no settled one."""
    starts = [each.start for each in settled]
    ends = [-LATEST, *accumulate((each.end for each in settled), max)]
    places = set(starts)
    return [
        _utterance([each])
        for each in results
        if each.text and each.start not in places and ends[bisect_right(starts, each.middle)] <= each.middle
    ]


def _utterance(results: Sequence[_Heard]) -> Document:
    words = [word for each in results for word in each.words]
    speaker = words[0].get("speaker") if words else None
    spoken_by_one = speaker is not None and all(word.get("speaker") == speaker for word in words)
    return {
        "start": results[0].first_word_start,
        "end": results[-1].last_word_end,
        "channel": results[0].channel,
        "transcript": _text(results),
        "words": words,
        **({"speaker": speaker} if spoken_by_one else {}),
    }


def _duration(stream: _Stream) -> float | None:
    """What the stream's end says, else where its last result ends."""
    said = (stream.metadata or {}).get("duration")
    if _is_time(said) and said >= 0:
        return float(said)
    return max((each.end for places in (stream.settled, stream.interim) for each in places.values()), default=None)


def _json(document: Document) -> bytes:
    """As text that any reader takes: half a surrogate pair becomes a question mark."""
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # what could just be read is nested too deeply to be written
        bare = {name: value for name, value in document.items() if not isinstance(value, dict | list)}
        text = json.dumps(bare, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
