"""What a callback says: parse() turns stored bytes into one of the typed events below.

One rule for all of them: a field whose default is None is None if what came does not fit its type, and
what came stays in `model_extra`. A misfit in any other field makes the callback Unknown. So an odd corner
costs no transcript, an attribute is always what its annotation says, and
`event.model_dump(exclude_unset=True)` holds every field of the document at its own path.

Source: Deepgram's payloads as collected in docs/callback; numbers come as ints or floats at will, and
fields come without notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, cast, overload

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from .callbacks import find_request_id, load_json


class _Integral:
    """Takes 3 and 3.0 for the integer 3, and no text or truth value."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.float_schema(strict=True), core_schema.int_schema()])


Number = Annotated[float, Strict()]
Whole = Annotated[int, _Integral]
Flag = Annotated[bool, Strict()]


class Part(BaseModel):
    """An object of a payload. Unknown fields are kept and can be read as attributes."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        hide_input_in_errors=True,
        ser_json_inf_nan="constants",
        defer_build=True,  # until the first is parsed: a third of the time that `import dgreceiver` takes
    )

    @model_validator(mode="wrap")
    @classmethod
    def _forgive(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            odd = cls._odd(data, error)
            if not odd:
                raise
        made = handler({name: value for name, value in data.items() if name not in odd})
        cast("dict[str, Any]", made.model_extra).update(odd)
        return made

    @classmethod
    def _odd(cls, data: Any, error: ValidationError) -> dict[str, Any]:
        """The fields that do not fit and can be done without."""
        if not isinstance(data, dict):
            return {}
        misfits = {place["loc"][0] for place in _errors(error) if place["loc"]}
        return {name: data[name] for name in misfits if cls._spares(name, data.get(name))}

    @classmethod
    def _spares(cls, name: str, value: Any) -> bool:
        field = cls.model_fields[name]
        return not field.is_required() and (value is None or field.default is None)


def _errors(error: ValidationError) -> list[Any]:
    return cast("list[Any]", error.errors(include_url=False, include_context=False, include_input=False))


class Word(Part):
    """A word as it was heard.

    Units: seconds from the beginning of the audio; confidences from 0 to 1; sentiment_score from -1 to 1.
    """

    word: str
    start: Number
    end: Number
    confidence: Number
    punctuated_word: str | None = None
    speaker: Whole | None = None  # missing unless diarised; 0 is a speaker
    speaker_confidence: Number | None = None
    language: str | None = None
    sentiment: str | None = None
    sentiment_score: Number | None = None


class _Row(msgspec.Struct, gc=False):
    """What makes an object a Word, for a check at a fifth of the price of Words."""

    word: str
    start: float
    end: float
    confidence: float


class _Rows(msgspec.Struct):  # msgspec keeps what it knows of a class, not of list[_Row]: 5 µs less
    rows: list[_Row]


class Words(Sequence[Word]):
    """Words in order; each is made when it is looked at.

    An entry that is no word (no text, or no times) is left out here and kept in the dump.
    """

    __slots__ = ("_came", "_made", "_rows")

    def __init__(self, came: Sequence[Any] = ()) -> None:
        self._came = came
        self._rows = _fitting(came)
        self._made: dict[int, Word] = {}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.list_schema(strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(cls._as_they_came),
        )

    def _as_they_came(self) -> list[Any]:
        return list(self._came)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> Words: ...
    def __getitem__(self, index: int | slice) -> Word | Words:
        if isinstance(index, slice):
            return Words(self._rows[index])
        at = range(len(self._rows))[index]
        return self._made.get(at) or self._made.setdefault(at, Word.model_validate(self._rows[at]))

    def __iter__(self) -> Iterator[Word]:
        return map(self.__getitem__, range(len(self._rows)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Words):
            return self._came == other._came
        return list(self) == list(other) if isinstance(other, list | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Words) -> Words:
        return Words([*self._came, *other._came])

    def __repr__(self) -> str:
        return f"Words({list(self)!r})"

    def __reduce__(self) -> tuple[type[Words], tuple[Sequence[Any]]]:
        return Words, (self._came,)


def _fitting(came: Sequence[Any]) -> Sequence[dict[str, Any]]:
    try:
        msgspec.convert({"rows": came}, _Rows)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a surrogate pair
        return [row for row in came if _fits(row)]
    return came


def _fits(row: object) -> bool:
    try:
        Word.model_validate(row)
    except ValidationError:
        return False
    return True


class Sentence(Part):
    """Units: seconds."""

    text: str
    start: Number
    end: Number


class Paragraph(Part):
    """Sentences that belong together. Units: seconds."""

    sentences: list[Sentence]
    start: Number | None = None
    end: Number | None = None
    num_words: Whole | None = None
    speaker: Whole | None = None

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


class Paragraphs(Part):
    """`transcript` is Deepgram's own layout, with speaker labels if diarised."""

    transcript: str | None = None
    paragraphs: list[Paragraph] = []


class Entity(Part):
    """A name, number, date and so on. `start_word` and `end_word` count the words of the alternative from 0."""

    label: str
    value: str
    raw_value: str | None = None
    confidence: Number | None = None
    start_word: Whole | None = None
    end_word: Whole | None = None


class Topic(Part):
    topic: str
    confidence_score: Number | None = None


class Intent(Part):
    intent: str
    confidence_score: Number | None = None


class Segment(Part):
    """A stretch of text. `start_word` and `end_word` count words from 0."""

    text: str
    start_word: Whole | None = None
    end_word: Whole | None = None


class TopicSegment(Segment):
    topics: list[Topic] = []


class IntentSegment(Segment):
    intents: list[Intent] = []


class Sentiment(Part):
    """Units: sentiment_score from -1 (negative) to 1 (positive)."""

    sentiment: str
    sentiment_score: Number | None = None


class SentimentSegment(Sentiment, Segment):
    """A stretch of text of one sentiment."""


class TopicSegments(Part):
    segments: list[TopicSegment] | None = None


class NestedTopics(Part):
    topics: TopicSegments | None = None


class Topics(TopicSegments):
    """Segments, or nested once more. Source: Deepgram's OpenAPI nests them, its servers do not."""

    results: NestedTopics | None = None

    @property
    def found(self) -> list[TopicSegment]:
        nested = self.results.topics if self.results else None
        return self.segments or (nested.segments if nested else None) or []


class IntentSegments(Part):
    segments: list[IntentSegment] | None = None


class NestedIntents(Part):
    intents: IntentSegments | None = None


class Intents(IntentSegments):
    """Segments, or nested as Topics are."""

    results: NestedIntents | None = None

    @property
    def found(self) -> list[IntentSegment]:
        nested = self.results.intents if self.results else None
        return self.segments or (nested.segments if nested else None) or []


class SentimentSegments(Part):
    segments: list[SentimentSegment] | None = None
    average: Sentiment | None = None


class NestedSentiments(Part):
    sentiments: SentimentSegments | None = None


class Sentiments(SentimentSegments):
    """Segments and their average, or nested as Topics are."""

    results: NestedSentiments | None = None

    @property
    def found(self) -> SentimentSegments:
        nested = self.results.sentiments if self.results else None
        return nested if nested and not (self.segments or self.average) else self


class SummaryText(Part):
    text: str | None = None


class NestedSummary(Part):
    summary: SummaryText | None = None


class Summary(SummaryText):
    """`result` and `short` of recorded audio; `text` of read text, or nested as Topics are."""

    result: str | None = None  # "success", or "failure" with the reason in `short`
    short: str | None = None
    results: NestedSummary | None = None


class WordsSummary(Part):
    """A summary of a stretch of words, as older models gave it."""

    summary: str
    start_word: Whole | None = None
    end_word: Whole | None = None


class Alternative(Part):
    transcript: str = ""
    confidence: Number | None = None
    words: Words = Words()
    languages: list[str] | None = None
    languages_hinted: list[str] | None = None
    paragraphs: Paragraphs | None = None
    entities: list[Entity] | None = None
    summaries: list[WordsSummary] | None = None
    topics: list[TopicSegment] | None = None


class Hit(Part):
    """Where a searched term may have been said. Units: seconds."""

    confidence: Number | None = None
    start: Number | None = None
    end: Number | None = None
    snippet: str | None = None


class Search(Part):
    query: str
    hits: list[Hit] = []


class Channel(Part):
    alternatives: list[Alternative] = []
    search: list[Search] | None = None
    detected_language: str | None = None
    language_confidence: Number | None = None


class Utterance(Part):
    """What was said without a pause. Units: seconds."""

    start: Number
    end: Number
    transcript: str
    confidence: Number | None = None
    channel: Whole | None = None
    words: Words = Words()
    speaker: Whole | None = None
    languages: list[str] | None = None
    id: str | None = None


class ModelInfo(Part):
    name: str | None = None
    version: str | None = None
    arch: str | None = None


class Usage(Part):
    """What a text model used."""

    model_uuid: str | None = None
    input_tokens: Whole | None = None
    output_tokens: Whole | None = None


class Notice(Part):
    """Why a part of the result is missing."""

    parameter: str | None = None
    type: str | None = None
    message: str | None = None


class _Usages(Part):
    request_id: str | None = None
    created: str | None = None  # as sent: RFC 3339, in UTC
    summary_info: Usage | None = None
    sentiment_info: Usage | None = None
    topics_info: Usage | None = None
    intents_info: Usage | None = None


class Metadata(_Usages):
    """About a recorded transcript. Units: `duration` in seconds."""

    sha256: str | None = None
    duration: Number | None = None
    channels: Whole | None = None
    models: list[str] | None = None
    model_info: dict[str, ModelInfo] | None = None  # by model id
    tags: list[str] | None = None
    extra: dict[str, Any] | None = None
    warnings: list[Notice] | None = None


class LiveMetadata(Part):
    """About one live result."""

    request_id: str | None = None
    model_uuid: str | None = None
    model_info: ModelInfo | None = None
    extra: dict[str, Any] | None = None


class FlatAnalysisMetadata(_Usages):
    language: str | None = None


class AnalysisMetadata(FlatAnalysisMetadata):
    """About read text; or nested as Topics are."""

    metadata: FlatAnalysisMetadata | None = None


class Insights(Part):
    """What text models made of the words."""

    summary: Summary | None = None
    topics: Topics | None = None
    intents: Intents | None = None
    sentiments: Sentiments | None = None


class Results(Insights):
    channels: list[Channel]
    utterances: list[Utterance] | None = None

    @property
    def best(self) -> list[Alternative]:
        """The first alternative of each channel that has one."""
        return [channel.alternatives[0] for channel in self.channels if channel.alternatives]


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


class Transcript(_Insightful):
    """The transcript of recorded audio.

    Source: https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded
    """

    metadata: Metadata = Field(default_factory=Metadata)
    results: Results

    @property
    def text(self) -> str:
        """Everything said: paragraphs, else utterances, else channels, one a line, without speaker labels."""
        best = self.results.best
        if self.paragraphs and not any(each.transcript and not _paragraphs(each) for each in best):
            return _lines(paragraph.text for paragraph in self.paragraphs)
        if self.utterances:
            return _lines(utterance.transcript for utterance in self.utterances)
        return _lines(each.transcript for each in best)

    @cached_property
    def words(self) -> Words:
        """The words of each channel's first alternative, one channel after the other."""
        best = self.results.best
        return best[0].words if len(best) == 1 else sum((each.words for each in best), Words())

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
    channel_index: list[Whole]  # [this channel, number of channels]
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

    channel: list[Whole]  # [this channel, number of channels]
    timestamp: Number


class UtteranceEnd(LiveEvent):
    """A gap after words. Units: seconds from the beginning of the stream; -1 without a word before."""

    channel: list[Whole]  # [this channel, number of channels]
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
    models: list[str] | None = None
    model_info: dict[str, ModelInfo] | None = None  # by model id
    extra: dict[str, Any] | None = None


class LiveTranscript(_Identified):
    """A whole live stream, when it has ended. Units: `duration` in seconds."""

    text: str
    words: Words = Words()
    utterances: list[Utterance] = []
    duration: Number | None = None
    complete: Flag  # the stream's own end was seen
    revision: Whole = 0  # a straggler makes the next one


class Unknown(Event):
    """Anything else, and what does not parse as its kind."""

    why: str  # which field, and what is wrong with it; nothing of the content
    _json: Any = PrivateAttr(None)

    @property
    def json(self) -> Any:  # takes the name of a method that pydantic deprecated
        """The body, if it is JSON, else None."""
        return self._json


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
        document = load_json(body)
    except ValueError:
        return _unknown(body, None, "not JSON")
    if not isinstance(document, dict):
        return _unknown(body, document, "not a JSON object")
    return _event(kind, body, document)


def _event(kind: str, body: bytes, document: dict[str, Any]) -> Event:
    model = _MODELS.get(kind)
    request_id = find_request_id(document)
    if request_id is None and (issubclass(model, _Identified) if model else "results" in document):
        return _unknown(body, document, "a result without a usable request_id")
    if model is None:
        return _unknown(body, document, "of no kind that this release knows")
    try:
        return _stored(model.model_validate(document), body, request_id)
    except ValidationError as error:
        return _unknown(body, document, f"no {kind}: {_first_of(error)}")


def _first_of(error: ValidationError) -> str:
    first = _errors(error)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'a field name'}: {first['msg']}"


def _unknown(body: bytes, document: Any, why: str) -> Unknown:
    unknown = _stored(Unknown(why=why), body, find_request_id(document) if isinstance(document, dict) else None)
    unknown._json = document
    return unknown


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
