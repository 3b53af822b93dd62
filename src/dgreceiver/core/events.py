"""What a callback says: parse() turns stored bytes into one of the typed events below.

One rule for all of them: a field whose default is None is None if what came does not fit its type, and
what came stays in `model_extra`. A misfit in any other field makes the callback Unknown. So an odd corner
costs no transcript, an attribute is always what its annotation says, and
`event.model_dump(exclude_unset=True)` holds every field of the document at its own path.

Source: Deepgram's payloads as collected in docs/callback; numbers come as ints or floats at will, and
fields come without notice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import Field, PrivateAttr, ValidationError

from . import captions
from .callbacks import find_request_id, load_json
from .captions import WORDS_PER_LINE
from .parts import (
    Alternative,
    AnalysisMetadata,
    Channel,
    Flag,
    Insights,
    IntentSegment,
    LiveMetadata,
    Many,
    Metadata,
    ModelInfo,
    Number,
    Paragraph,
    Part,
    Results,
    Sentiment,
    SentimentSegment,
    TopicSegment,
    Utterance,
    Whole,
    Words,
    errors_of,
)
from .reading import load_transcript

MOST_PARTS = 250_000  # a day of speech has less, its words apart
SMALLEST_PART = 3  # bytes


class Event(Part):
    """Something that Deepgram called back with."""

    _raw: bytes = PrivateAttr(b"")
    _request_id: str | None = PrivateAttr(None)

    @property
    def raw(self) -> bytes:
        """The body as it is stored."""
        return self._raw

    @property
    def request_id(self) -> str | None:
        return self._request_id

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:  # short, and no transcript in a log
        yield "request_id", self._request_id


class _Identified(Event):
    """An event that is none without a `request_id`."""

    @property
    def request_id(self) -> str:
        return cast("str", self._request_id)


class _Spoken(_Identified):
    """An event that can be shown as captions."""

    @property
    @abstractmethod
    def _spoken(self) -> list[Utterance]:
        """What was said, as captions are made of it."""

    def srt(self, words_per_line: int = WORDS_PER_LINE) -> str:
        """The captions as an SRT file; an empty one if nothing was said.

        Raises: SetupError if a line is to have no words.
        """
        return captions.srt(self._spoken, words_per_line)

    def vtt(self, words_per_line: int = WORDS_PER_LINE) -> str:
        """The captions as a WebVTT file; one without cues if nothing was said.

        Raises: SetupError if a line is to have no words.
        """
        return captions.vtt(self._spoken, words_per_line)


class _Insightful(_Identified):
    results: Insights

    @property
    def topics(self) -> list[TopicSegment]:
        """The segments that have topics; empty unless asked for."""
        return self.results.topics.found if self.results.topics else []

    @property
    def intents(self) -> list[IntentSegment]:
        """The segments that have intents; empty unless asked for."""
        return self.results.intents.found if self.results.intents else []

    @property
    def sentiments(self) -> list[SentimentSegment]:
        """The segments with their sentiments; empty unless asked for."""
        sentiments = self.results.sentiments
        return (sentiments.found.segments if sentiments else None) or []

    @property
    def average_sentiment(self) -> Sentiment | None:
        return self.results.sentiments.found.average if self.results.sentiments else None


class Transcript(_Spoken, _Insightful):
    """The transcript of recorded audio.

    Source: https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded
    """

    metadata: Metadata = Field(default_factory=Metadata)
    results: Results

    @property
    def text(self) -> str:
        """Everything said: paragraphs, else utterances, else channels, one a line, without speaker labels."""
        best, paragraphs = self.results.best, self.paragraphs
        if paragraphs and not any(each.transcript and not _paragraphs(each) for each in best):
            return _lines(paragraph.text for paragraph in paragraphs)
        if self.utterances:
            return _lines(utterance.transcript for utterance in self.utterances)
        return _lines(each.transcript for each in best)

    @cached_property
    def words(self) -> Words:
        """The words of each channel's first alternative, one channel after the other."""
        best = self.results.best
        return best[0].words if len(best) == 1 else Words.joined(each.words for each in best)

    @property
    def utterances(self) -> list[Utterance]:
        """Empty unless asked for."""
        return self.results.utterances or []

    @property
    def paragraphs(self) -> list[Paragraph]:
        """The paragraphs of each channel's first alternative; empty unless asked for."""
        return [paragraph for each in self.results.best for paragraph in _paragraphs(each)]

    @property
    def channels(self) -> list[Channel]:
        return self.results.channels

    @property
    def duration(self) -> float | None:
        """Units: seconds."""
        return self.metadata.duration

    @property
    def summary(self) -> str | None:
        """None if there is none; if Deepgram could not make one, `results.summary` says why."""
        summary = self.results.summary
        if summary and summary.short is not None:
            return None if summary.result == "failure" else summary.short
        return _lines(part.summary for each in self.results.best for part in each.summaries or []) or None

    @property
    def topics(self) -> list[TopicSegment]:
        """The segments that have topics, wherever the model put them; empty unless asked for."""
        return super().topics or [segment for each in self.results.best for segment in each.topics or []]

    @property
    def _spoken(self) -> list[Utterance]:
        """The utterances; without any, each channel as one, whose words were checked when they came."""
        return self.utterances or [
            Utterance.model_construct(
                start=0.0, end=self.duration or 0.0, transcript=best.transcript, words=best.words, channel=at
            )
            for at, best in self.results.best_by_channel
        ]


def _paragraphs(alternative: Alternative) -> list[Paragraph]:
    return alternative.paragraphs.paragraphs if alternative.paragraphs else []


def _lines(texts: Iterator[str]) -> str:
    return "\n".join(text for text in texts if text)


class Analysis(_Insightful):
    """What was read out of a text.

    Source: https://developers.deepgram.com/reference/text-intelligence/analyze-text
    """

    metadata: AnalysisMetadata = Field(default_factory=AnalysisMetadata)
    results: Insights = Field(default_factory=Insights)

    @property
    def summary(self) -> str | None:
        summary = self.results.summary
        places = (summary, summary.results.summary if summary and summary.results else None)
        return next((place.text for place in places if place and place.text is not None), None)

    @property
    def language(self) -> str | None:
        places = (self.metadata, self.metadata.metadata)
        return next((place.language for place in places if place and place.language), None)


class Audio(Event):
    """Speech made of text. What it says about itself comes from the headers; a callback may lack them.

    Source: https://developers.deepgram.com/reference/text-to-speech/speak-request
    """

    content_type: str | None = None
    model: str | None = None
    characters: Whole | None = None

    @property
    def content(self) -> bytes:
        """The file. In a WAV the lengths are placeholders: its end is the end of these bytes."""
        return self._raw

    def save(self, path: str | PathLike[str]) -> None:
        Path(path).write_bytes(self._raw)


class Failure(Event):
    """An error in place of a result, in whichever of Deepgram's shapes.

    Source: https://developers.deepgram.com/docs/errors
    """

    @property
    def code(self) -> str | None:
        return self._first("err_code", "error_code", "category", "code")

    @property
    def message(self) -> str | None:
        return self._first("err_msg", "message", "description", "error")

    @property
    def details(self) -> str | None:
        return self._first("details", "reason")

    def _first(self, *names: str) -> str | None:
        """The first of these that is there, in the object or in an `error` object inside it."""
        fields = self.model_extra or {}
        inner = fields.get("error")
        places = (fields, inner) if isinstance(inner, dict) else (fields,)
        found = (place.get(name) for place in places for name in names)
        return next((str(value) for value in found if type(value) in (str, int)), None)


class LiveEvent(Event):
    """A message of a live stream.

    Source: https://developers.deepgram.com/reference/speech-to-text/listen-streaming
    """


class LiveResult(LiveEvent):
    """What was heard in a stretch of a live stream. The flags are None where Deepgram left them out.

    Units: seconds from the beginning of the stream.
    """

    channel: Channel
    channel_index: Many[Whole]  # [this channel, number of channels]
    start: Number
    duration: Number
    is_final: Flag | None = None  # no later result replaces this one
    speech_final: Flag | None = None  # the speaker paused
    from_finalize: Flag | None = None  # the client asked for it
    metadata: LiveMetadata = Field(default_factory=LiveMetadata)

    @property
    def text(self) -> str:
        return self.channel.alternatives[0].transcript if self.channel.alternatives else ""

    @property
    def words(self) -> Words:
        return self.channel.alternatives[0].words if self.channel.alternatives else Words()


class SpeechStarted(LiveEvent):
    """Somebody began to speak. Units: seconds from the beginning of the stream."""

    channel: Many[Whole]  # [this channel, number of channels]
    timestamp: Number


class UtteranceEnd(LiveEvent):
    """A gap after words. Units: seconds from the beginning of the stream; -1 without a word before."""

    channel: Many[Whole]  # [this channel, number of channels]
    last_word_end: Number


class LiveError(LiveEvent):
    """The stream went wrong."""

    variant: str | None = None
    description: str | None = None
    message: str | None = None
    code: str | None = None


class StreamMetadata(LiveEvent):
    """The last message of a live stream, stragglers apart. Units: `duration` in seconds."""

    duration: Number | None = None
    channels: Whole | None = None
    created: str | None = None  # as sent: RFC 3339, in UTC
    sha256: str | None = None  # may be "incomplete"
    models: Many[str] | None = None
    model_info: dict[str, ModelInfo] | None = None  # by model id
    extra: dict[str, Any] | None = None


class LiveTranscript(_Spoken):
    """A whole live stream, when it has ended. Units: `duration` in seconds.

    Made by dgreceiver; docs/live-transcripts says how.
    """

    text: str  # the final results in order of time, joined by a space; each channel a line
    words: Words = Words()  # one channel after the other
    utterances: Many[Utterance] = Field(default_factory=list)  # of all channels, in order of time
    interim: Many[Utterance] = Field(default_factory=list)  # heard, and never final; in none of the above
    duration: Number | None = None
    complete: Flag  # the stream's own end was seen
    revision: Whole = 0  # a straggler makes the next one
    metadata: Metadata = Field(default_factory=Metadata)

    @property
    def _spoken(self) -> list[Utterance]:
        return self.utterances


class Unknown(Event):
    """Anything else, and what does not parse as its kind."""

    why: str  # which field, and what is wrong with it; nothing of the content

    @cached_property
    def json(self) -> Any:  # takes the name of a method that pydantic deprecated
        """The body, if it is JSON, else None."""
        with suppress(ValueError):
            return load_json(self._raw)
        return None


_MODELS: Mapping[str, type[Event]] = {
    model.__name__: model
    for model in (
        *(Transcript, Analysis, Failure),
        *(LiveResult, SpeechStarted, UtteranceEnd, LiveError, StreamMetadata, LiveTranscript),
    )
}


def parse(kind: str, body: bytes, headers: Mapping[str, str]) -> Event:
    """Read a callback as the kind that identify() gave it; `headers` has lower-case names.

    Never raises: what does not parse is Unknown, and says why.
    """
    if kind == "Audio":
        return _audio(body, headers)
    try:
        document = load_transcript(body) if kind == "Transcript" else load_json(body)
    except ValueError:
        return _unknown(body, "not JSON")
    if not isinstance(document, dict):
        return _unknown(body, "not a JSON object")
    request_id = find_request_id(document)
    if _is_crowded(body, document):
        return _unknown(body, f"more than {MOST_PARTS} objects beside words", request_id)
    return _event(kind, body, document, request_id)


def _is_crowded(body: bytes, document: dict[str, Any]) -> bool:
    """Whether it holds more objects than any payload, words apart: three bytes can make one, a model is a kilobyte."""
    if len(body) <= MOST_PARTS * SMALLEST_PART or body.count(b"{") <= MOST_PARTS:
        return False
    seen, queue = 0, list[Any]([document])
    while queue and seen <= MOST_PARTS:
        seen += 1
        node = queue.pop()
        inside = [node[name] for name in node if name != "words"] if isinstance(node, dict) else node
        queue += (each for each in inside if isinstance(each, dict | list))
    return seen > MOST_PARTS


def _event(kind: str, body: bytes, document: dict[str, Any], request_id: str | None) -> Event:
    model = _MODELS.get(kind)
    if request_id is None and (issubclass(model, _Identified) if model else "results" in document):
        return _unknown(body, "a result without a usable request_id")
    if model is None:
        return _unknown(body, "of no kind that this release knows", request_id)
    try:
        return _stored(model.model_validate(document), body, request_id)
    except ValidationError as error:
        return _unknown(body, f"no {kind}: {_first_of(error)}", request_id)


def _first_of(error: ValidationError) -> str:
    first = errors_of(error)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'a field name'}: {first['msg']}"


def _unknown(body: bytes, why: str, request_id: str | None = None) -> Unknown:
    return _stored(Unknown(why=why), body, request_id)


def _audio(body: bytes, headers: Mapping[str, str]) -> Audio:
    count = headers.get("dg-char-count", "")
    audio = Audio(
        content_type=headers.get("content-type"),
        model=headers.get("dg-model-name"),
        characters=int(count) if count.isdecimal() and len(count) < 16 else None,
    )
    return _stored(audio, body, find_request_id({"request_id": headers.get("dg-request-id")}))


E = TypeVar("E", bound=Event)


def _stored(event: E, body: bytes, request_id: str | None) -> E:
    event._raw = body
    event._request_id = request_id
    return event
