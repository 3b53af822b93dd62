"""What is said in a live stream: the same for the same amount of audio, however it was cut up. No recogniser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from heapq import merge
from itertools import pairwise
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple

from .options import Invalid, Options, extra, is_on, last, number, one_of, whole
from .payloads import Payload, json_payload, speech_started, utterance_end
from .recordings import RAW, UNKNOWN_RATE
from .results import Wanted, instant, model_of, speaker_of, wanted_of, word_of
from .script import Spoken, digest_of, words
from .shapes import closing_of, live_metadata_of, result_of

SCRIPT = sha256(b"a live stream").digest()  # what is said; the audio is not known yet when it is
UNHEARD = -1  # the `last_word_end` of an utterance without words
DIARIZERS = ("latest", "v1")
PACKED = ("flac", "amr-nb", "amr-wb", "opus", "ogg-opus", "speex", "g729")  # whose length is guessed

Timed = tuple[float, Payload]  # the milliseconds of audio after which it comes


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the options ask of a stream, checked."""

    wanted: Wanted
    bytes_per_second: int
    channels: int
    model: tuple[str, Mapping[str, str]]
    extra: Mapping[str, str]
    interim: bool
    vad_events: bool
    gap: int | None  # milliseconds of silence after which an utterance has ended
    endpointing: bool

    @property
    def voices(self) -> int:
        return self.channels if self.wanted.multichannel else 1


class Talk:
    """A live stream, from its audio to its messages.

    Raises: Invalid for options that are not taken.

    Source: https://developers.deepgram.com/reference/speech-to-text/listen-streaming
    """

    def __init__(self, options: Options, *, request_id: str, created: datetime) -> None:
        self._asked = _asked(options)
        self._request_id, self._created = request_id, created
        self._digest, self._size = sha256(), 0
        about = live_metadata_of(request_id, self._asked.model, self._asked.extra)
        self._voices = [_Voice(channel, self._asked, about) for channel in range(self._asked.voices)]

    @property
    def seconds(self) -> float:
        """How much audio came."""
        return round(self._size / self._asked.bytes_per_second, 6)

    def hear(self, audio: bytes) -> Iterable[Payload]:
        """What there is to say after some more audio."""
        self._digest.update(audio)
        self._size += len(audio)
        heard = (voice.hear(self.seconds * 1000) for voice in self._voices)
        return [payload for _, payload in merge(*heard, key=itemgetter(0))]

    def finalize(self) -> Iterable[Payload]:
        """All that was heard up to here, be it a sentence or not."""
        return [payload for voice in self._voices for payload in voice.finalize(self.seconds)]

    def end(self) -> Iterable[Payload]:
        """What is left, and the end of the stream."""
        rest = [payload for voice in self._voices for payload in voice.rest(self.seconds)]
        closing = closing_of(
            request_id=self._request_id,
            created=instant(self._created),
            duration=self.seconds,
            channels=self._asked.voices,
            sha256=self._digest.hexdigest(),
            model=self._asked.model,
            extra=self._asked.extra,
        )
        return [*rest, json_payload("StreamMetadata", closing)]


class _Voice:
    """What is said on a channel. Units: seconds."""

    def __init__(self, channel: int, asked: _Asked, about: Mapping[str, Any]) -> None:
        self._asked, self._about = asked, about
        self._where = {"channel": channel, "channels": asked.voices}
        self._turn = -1
        self._said: list[dict[str, Any]] = []  # and not yet final
        self._since = 0.0  # where the next result begins
        self._moments = _moments(digest_of(channel, SCRIPT), asked.gap)
        self._next = next(self._moments)

    def hear(self, until: float) -> Iterator[Timed]:
        """Units: `until` in milliseconds."""
        while (moment := self._next).at <= until:
            self._next = next(self._moments, NEVER)
            for payload in moment.then(self, moment.word):
                yield moment.at, payload

    def finalize(self, at: float) -> Iterator[Payload]:
        heard_until = self._said[-1]["end"] if self._said else UNHEARD
        yield self._settle(at, from_finalize=True)
        if self._asked.gap is not None:
            yield utterance_end(heard_until, **self._where)

    def rest(self, at: float) -> Iterator[Payload]:
        if self._said:
            yield self._settle(at)

    # --- what happens at a moment

    def begin(self, word: Spoken) -> Iterator[Payload]:
        self._turn += 1
        if self._asked.vad_events:
            yield speech_started(word.start / 1000, **self._where)

    def say(self, word: Spoken) -> Iterator[Payload]:
        self._add(word)
        if self._asked.interim:
            yield self._result(word.end / 1000, is_final=False, speech_final=False)

    def finish(self, word: Spoken) -> Iterator[Payload]:
        self._add(word)
        yield self._settle(word.end / 1000)

    def fall_silent(self, word: Spoken) -> Iterator[Payload]:
        yield utterance_end(word.end / 1000, **self._where)

    def _add(self, word: Spoken) -> None:
        self._said.append(word_of(word, speaker_of(self._turn), self._asked.wanted))

    def _settle(self, at: float, *, from_finalize: bool = False) -> Payload:
        final = self._result(at, is_final=True, speech_final=self._asked.endpointing, from_finalize=from_finalize)
        self._said, self._since = [], at
        return final

    def _result(self, at: float, *, is_final: bool, speech_final: bool, from_finalize: bool = False) -> Payload:
        result = result_of(
            self._said,
            start=self._since,
            duration=round(at - self._since, 6),
            channel_index=list(self._where.values()),
            is_final=is_final,
            speech_final=speech_final,
            from_finalize=from_finalize,
            metadata=self._about,
        )
        return json_payload("LiveResult", result)


class _Moment(NamedTuple):
    """Something happens to a voice when so many milliseconds of audio have come."""

    at: float
    then: Callable[[_Voice, Spoken], Iterator[Payload]]
    word: Spoken


NEVER = _Moment(inf, _Voice.begin, Spoken("", 0, 0, 0.0))


def _moments(digest: bytes, gap: int | None) -> Iterator[_Moment]:
    for (is_first, word), (is_last, following) in pairwise(words(digest)):
        if is_first:
            yield _Moment(word.start, _Voice.begin, word)
        yield _Moment(word.end, _Voice.finish if is_last else _Voice.say, word)
        if is_last and gap is not None and word.end + gap <= following.start:
            yield _Moment(word.end + gap, _Voice.fall_silent, word)


def _asked(options: Options) -> _Asked:
    channels = whole(options, "channels") or 1
    one_of(options, "diarize_model", DIARIZERS)
    gap = number(options, "utterance_end_ms", 0)
    return _Asked(
        wanted=wanted_of(options),
        bytes_per_second=_bytes_per_second(options, channels),
        channels=channels,
        model=model_of(last(options, "model") or "base"),
        extra=extra(options),
        interim=is_on(options, "interim_results"),
        vad_events=is_on(options, "vad_events"),
        gap=int(gap) or None,
        endpointing=_endpoints(options),
    )


def _endpoints(options: Options) -> bool:
    """Whether a pause ends an utterance; the length of the pause is of no effect here."""
    if last(options, "endpointing") not in ("true", "false"):
        number(options, "endpointing", 10)
    return last(options, "endpointing") != "false"


def _bytes_per_second(options: Options, channels: int) -> int:
    """What is not raw is not looked into: it is taken for 128 kbit/s."""
    encoding, rate = one_of(options, "encoding", (*RAW, *PACKED)), whole(options, "sample_rate")
    if encoding not in RAW:
        return UNKNOWN_RATE
    if rate is None:
        raise Invalid(f"Bad Request: `sample_rate` is required where `encoding` is `{encoding}`.", code="Bad Request")
    return RAW[encoding] * rate * channels
