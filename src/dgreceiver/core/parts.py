"""The objects that payloads are made of: words, channels, utterances, what text models made of them.

A field whose default is None is None if what came does not fit its type, and what came stays in `model_extra`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, Self, TypeVar, cast, overload

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from .callbacks import load_json

T = TypeVar("T")


class _Integral:
    """Takes 3 and 3.0 for the integer 3, and no text or truth value."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.float_schema(strict=True), core_schema.int_schema()])


class _FirstMisfit:
    """Looks no further in a list than to the first entry that does not fit: of a million, that would take minutes.

    pydantic's own FailFast cannot be hashed, so it is good for nothing that may be None.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast("CoreSchema", {**handler(source), "fail_fast": True})


Number = Annotated[float, Strict()]
Whole = Annotated[int, _Integral]
Flag = Annotated[bool, Strict()]
Many = Annotated[list[T], _FirstMisfit]
LATEST = 1e9  # seconds; what claims to be later is no time


class Exact(BaseModel):
    """An object of a payload that has all of its fields. Unknown ones are kept and can be read as attributes."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        hide_input_in_errors=True,
        ser_json_inf_nan="constants",
        defer_build=True,  # until the first is parsed: a third of the time that `import dgreceiver` takes
    )


class Part(Exact):
    """An object of a payload that can do without some of its fields."""

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
        misfits = {place["loc"][0] for place in errors_of(error) if place["loc"]}
        return {name: data[name] for name in misfits if cls._spares(name, data.get(name))}

    @classmethod
    def _spares(cls, name: str, value: Any) -> bool:
        field = cls.model_fields[name]
        return not field.is_required() and (value is None or field.default is None)


def errors_of(error: ValidationError) -> list[Any]:
    """What did not fit, without the content."""
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


_MISFIT = (msgspec.ValidationError, UnicodeEncodeError)  # the latter for half a surrogate pair


class _Rows(msgspec.Struct):  # msgspec keeps what it knows of a class, not of list[_Row]: 5 µs less
    rows: list[_Row]


class Words(Sequence[Word]):
    """Words in order; read and looked through when they are first looked at, and each is made when it is.

    An entry that is no word (no text, or no times) is left out here and kept in the dump.
    """

    def __init__(self, came: Sequence[Any] | memoryview = ()) -> None:
        """Of entries, or of the JSON of a list."""
        self._given = came
        self._made: dict[int, Word] = {}

    @cached_property
    def _came(self) -> Sequence[Any]:
        return cast("list[Any]", load_json(self._given)) if isinstance(self._given, memoryview) else self._given

    @cached_property
    def _rows(self) -> Sequence[dict[str, Any]]:
        return fitting(self._came)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            lambda came, check: came if isinstance(came, cls) else cls(check(came)),
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
        return Words.joined([self, other])

    @classmethod
    def joined(cls, several: Iterable[Words]) -> Words:
        """All of these, one after the other."""
        return cls([came for words in several for came in words._came])

    def __repr__(self) -> str:
        return f"Words({list(self)!r})"

    def __reduce__(self) -> tuple[type[Words], tuple[Sequence[Any]]]:
        return Words, (self._came,)


def fitting(came: Sequence[Any]) -> Sequence[dict[str, Any]]:
    """The entries that are words."""
    try:
        msgspec.convert({"rows": came}, _Rows)
    except _MISFIT:
        return [row for row in came if _fits(row)]
    return came


def _fits(row: object) -> bool:
    try:
        msgspec.convert(row, _Row)
    except _MISFIT:
        return False
    return True


class Sentence(Exact):
    """Units: seconds."""

    text: str
    start: Number
    end: Number


class Paragraph(Part):
    """Sentences that belong together. Units: seconds."""

    sentences: Many[Sentence]
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
    paragraphs: Many[Paragraph] = []


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
    topics: Many[Topic] = []


class IntentSegment(Segment):
    intents: Many[Intent] = []


class Sentiment(Part):
    """Units: sentiment_score from -1 (negative) to 1 (positive)."""

    sentiment: str
    sentiment_score: Number | None = None


class SentimentSegment(Sentiment, Segment):
    """A stretch of text of one sentiment."""


class TopicSegments(Part):
    segments: Many[TopicSegment] | None = None


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
    segments: Many[IntentSegment] | None = None


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
    segments: Many[SentimentSegment] | None = None
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
    languages: Many[str] | None = None
    languages_hinted: Many[str] | None = None
    paragraphs: Paragraphs | None = None
    entities: Many[Entity] | None = None
    summaries: Many[WordsSummary] | None = None
    topics: Many[TopicSegment] | None = None


class Hit(Part):
    """Where a searched term may have been said. Units: seconds."""

    confidence: Number | None = None
    start: Number | None = None
    end: Number | None = None
    snippet: str | None = None


class Search(Part):
    query: str
    hits: Many[Hit] = []


class Channel(Part):
    alternatives: Many[Alternative] = []
    search: Many[Search] | None = None
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
    languages: Many[str] | None = None
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
    models: Many[str] | None = None
    model_info: dict[str, ModelInfo] | None = None  # by model id
    tags: Many[str] | None = None
    extra: dict[str, Any] | None = None
    warnings: Many[Notice] | None = None


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
    channels: Many[Channel]
    utterances: Many[Utterance] | None = None

    @property
    def best(self) -> list[Alternative]:
        """The first alternative of each channel that has one."""
        return [alternative for _, alternative in self.best_by_channel]

    @property
    def best_by_channel(self) -> list[tuple[int, Alternative]]:
        return [(at, channel.alternatives[0]) for at, channel in enumerate(self.channels) if channel.alternatives]
