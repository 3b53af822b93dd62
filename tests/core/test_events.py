"""What parse() makes of a body, and what the events say."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver.core.callbacks import Callback, identify, load_json
from dgreceiver.core.events import (
    Analysis,
    Audio,
    Event,
    Failure,
    LiveError,
    LiveResult,
    LiveTranscript,
    SpeechStarted,
    StreamMetadata,
    Transcript,
    Unknown,
    UtteranceEnd,
    parse,
)
from dgreceiver.core.parts import Word
from dgreceiver.testing.payloads import (
    BUILDERS,
    analysis,
    audio,
    failure,
    live_result,
    stream_metadata,
    transcript,
    unknown,
)

PUBLISHED = Path(__file__).parents[3] / "shared" / "payloads"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published payloads are not here")
KINDS = [*BUILDERS, "LiveTranscript", "NeverHeardOf"]
JSON_KINDS = [kind for kind in BUILDERS if kind not in ("Audio", "Unknown")]
HELLO = {"word": "hello", "start": 0, "end": 0.5, "confidence": 1}


def as_event(kind: str, document: object, **headers: str) -> Any:
    return parse(kind, json.dumps(document).encode(), headers)


def recorded(*channels: dict[str, Any], **results: Any) -> Any:
    """The event of a transcript whose channels have these first alternatives."""
    inside = {"channels": [{"alternatives": [channel]} for channel in channels], **results}
    return as_event("Transcript", {"metadata": {"request_id": "r"}, "results": inside})


def read(**results: Any) -> Any:
    return as_event("Analysis", {"metadata": {"request_id": "r", "language": "en"}, "results": results})


def built(kind: str, **fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(BUILDERS[kind](**fields).body)
    return document


def leaves(value: Any, *path: Any) -> Iterator[tuple[Any, str]]:
    """Every leaf with its path; equal numbers look equal."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, *path, name)
    elif isinstance(value, list) and value:
        for at, inner in enumerate(value):
            yield from leaves(inner, *path, at)
    else:
        yield path, repr(float(value) if type(value) is int and value == float(value) else value)


def dumped(event: Event) -> Any:
    return event.model_dump(exclude_unset=True)


# --- Whatever comes -----------------------------------------------------------------------------

full = {"Transcript": {"utterances": True, "paragraphs": True, "speakers": 2, "summary": "Short."}}
known = {str(name) for kind in JSON_KINDS for path, _ in leaves(built(kind, **full.get(kind, {}))) for name in path}
names = st.sampled_from(
    sorted({*known, "text", "segments", "average", "entities", "raw", "_raw", "_json", "why", "error"})
)
# The last bit of a float is the JSON reader's affair; integers beyond 2**53 are no field of Deepgram's.
texts = st.text(st.characters(exclude_categories=()), max_size=3)  # halves of surrogate pairs as well
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=5)
)


@st.composite
def odd_documents(draw: st.DrawFn, kind: str) -> Any:
    """A document of a kind with a few of its values replaced, or taken away, or joined by others."""
    document = built(kind, **full.get(kind, {}))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(place[key], dict | list) or draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        if isinstance(place, dict):
            place[draw(names) if key is None or draw(st.booleans()) else key] = draw(values)
        elif key is not None:
            place[key] = draw(values)
    return document


odd = st.sampled_from(JSON_KINDS).flatmap(lambda kind: st.tuples(st.just(kind), odd_documents(kind)))


@given(st.sampled_from(KINDS), st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_parse_never_raises(kind: str, body: bytes) -> None:
    event = parse(kind, body, {})
    assert event.raw is body
    assert type(event).__name__ in (kind, "Unknown")


@given(odd)
def test_no_leaf_is_lost(case: tuple[str, Any]) -> None:
    kind, document = case
    event = as_event(kind, document)
    kept = event.json if isinstance(event, Unknown) else dumped(event)
    assert sorted(leaves(kept), key=repr) == sorted(leaves(document), key=repr)


@given(odd)
def test_an_event_can_be_read_whatever_was_odd_about_it(case: tuple[str, Any]) -> None:
    event = as_event(*case)
    said = {name: getattr(event, name) for name in dir(type(event)) if not name.startswith(("_", "model_"))}
    assert all(isinstance(word, Word) for word in said.get("words", ()))
    assert isinstance(said.get("text", ""), str)


@given(odd)
def test_an_event_survives_pickling(case: tuple[str, Any]) -> None:
    event = as_event(*case)
    assert repr(dumped(pickle.loads(pickle.dumps(event)))) == repr(dumped(event))


@given(odd)
def test_an_unknown_says_nothing_of_the_content(case: tuple[str, Any]) -> None:
    kind, document = case
    unlike = as_event(kind, {**document, "channel": "s3cret", "metadata": {"request_id": "r"}, "results": "s3cret"})
    assert not isinstance(unlike, Unknown) or "s3cret" not in unlike.why


@published
def test_every_published_payload_is_parsed_as_its_kind_and_no_leaf_is_lost() -> None:
    seen = set()
    for path in sorted(PUBLISHED.glob("*/*.json")):
        body, now = path.read_bytes(), datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        kind = identify(Callback(body, {"content-type": "application/json"}, "/", "", now), receiver="default").kind
        event = parse(kind, body, {})
        kept = event.json if isinstance(event, Unknown) else event.model_dump(mode="json", exclude_unset=True)
        assert (type(event).__name__, sorted(leaves(kept))) == (kind, sorted(leaves(json.loads(body)))), path.name
        seen.add(kind)
    assert seen == set(BUILDERS) - {"Audio"}


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        pytest.param("Transcript", b"plain text", "not JSON", id="text"),
        pytest.param("Transcript", b"[" * 100_000, "not JSON", id="nested without end"),
        pytest.param("Transcript", b"[]", "not a JSON object", id="a list"),
        pytest.param("Unknown", b'{"type":"New"}', "of no kind that this release knows", id="a new type"),
        pytest.param("NoKind", b"{}", "of no kind that this release knows", id="a kind of a later release"),
        pytest.param("Unknown", b'{"results":{}}', "a result without a usable request_id", id="no id"),
        pytest.param("Analysis", b"{}", "a result without a usable request_id", id="no id for its kind"),
        pytest.param(
            "Transcript",
            b'{"request_id":"r","results":{"channels":[{},{"alternatives":[{"transcript":5}]}]}}',
            "no Transcript: results.channels.1.alternatives.0.transcript: Input should be a valid string",
            id="a skeleton of another type",
        ),
        pytest.param(
            "SpeechStarted", b'{"channel":[0,1]}', "no SpeechStarted: timestamp: Field required", id="missing"
        ),
        pytest.param(
            "Failure",
            b'{"\\ud800":1}',
            "no Failure: a field name: Input should be a valid string, unable to parse raw data as a unicode string",
            id="half a surrogate pair for a name",
        ),
    ],
)
def test_what_does_not_parse_is_unknown_and_says_why(kind: str, body: bytes, why: str) -> None:
    event = parse(kind, body, {})
    assert isinstance(event, Unknown)
    assert (event.why, event.raw) == (why, body)


def test_an_unknown_keeps_its_json_and_its_request_id() -> None:
    event = parse("Unknown", unknown("New", request_id="r", more=[1]).body, {})
    assert isinstance(event, Unknown)
    assert (event.json, event.request_id) == ({"type": "New", "request_id": "r", "more": [1]}, "r")


def test_an_unknown_without_json_has_none() -> None:
    event = parse("Unknown", b"\xff", {})
    assert isinstance(event, Unknown)
    assert (event.json, event.request_id) == (None, None)


# --- Odd corners --------------------------------------------------------------------------------


def test_an_unknown_field_is_kept_and_can_be_read() -> None:
    event: Any = recorded({"transcript": "a", "brand_new": {"x": [1]}})
    assert event.results.channels[0].alternatives[0].brand_new == {"x": [1]}


def test_a_field_of_another_type_is_none_and_kept_as_it_came() -> None:
    event = recorded({"transcript": "a", "confidence": "high"}, utterances=[{"start": None}])
    best = event.channels[0].alternatives[0]
    assert (best.confidence, best.model_extra, event.utterances) == (None, {"confidence": "high"}, [])
    assert dumped(event)["results"]["utterances"] == [{"start": None}]


def test_no_field_is_made_up() -> None:
    event = recorded({"transcript": "a", "words": [HELLO]})
    assert (event.words[0].speaker, event.words[0].punctuated_word, event.duration) == (None, None, None)
    assert dumped(event)["metadata"] == {"request_id": "r"}


def test_an_explicit_null_is_as_good_as_nothing_and_is_kept() -> None:
    event = recorded({"transcript": None, "words": None, "paragraphs": None}, utterances=None, summary=None)
    assert (event.text, list(event.words), event.summary, event.utterances) == ("", [], None, [])
    assert dumped(event)["results"]["channels"][0]["alternatives"][0]["words"] is None


@pytest.mark.parametrize(
    ("came", "taken"),
    [
        pytest.param(34, 34, id="an integer"),
        pytest.param(34.0, 34, id="an integral float"),
        pytest.param(34.5, None, id="a float"),
        pytest.param("34", None, id="text"),
        pytest.param(True, None, id="a truth value"),
        pytest.param(float("nan"), None, id="no number"),
    ],
)
def test_an_integer_may_come_as_an_integral_float(came: object, taken: int | None) -> None:
    entity = {"label": "NAME", "value": "Ann", "start_word": came}
    entities = recorded({"transcript": "a", "entities": [entity]}).channels[0].alternatives[0].entities
    assert [(each.start_word, type(each.start_word)) for each in entities] == [(taken, type(taken))]


def test_numbers_that_json_lacks_are_taken() -> None:
    body = b'{"type":"Metadata","duration":1e999,"channels":1,"odd":NaN,"extra":{"name":"\\ud800"}}'
    event = parse("StreamMetadata", body, {})
    assert isinstance(event, StreamMetadata)
    assert (event.duration, event.extra) == (float("inf"), {"name": "\ud800"})


def test_an_event_is_frozen_and_shows_no_transcript_in_a_log() -> None:
    event = recorded({"transcript": "very private"})
    with pytest.raises(ValueError, match="frozen"):
        event.results = None
    assert (repr(event), str(event)) == ("Transcript(request_id='r')", "request_id='r'")


def test_events_are_equal_by_content() -> None:
    assert recorded({"transcript": "a"}) == recorded({"transcript": "a"}) != recorded({"transcript": "b"})


def test_a_schema_can_be_made_of_an_event() -> None:
    assert set(Transcript.model_json_schema(mode="serialization")["properties"]) == {"metadata", "results"}


# --- Transcripts --------------------------------------------------------------------------------


def paragraph(*sentences: str) -> dict[str, Any]:
    return {"sentences": [{"text": text, "start": 0, "end": 1} for text in sentences], "start": 0, "end": 1}


def utterance(text: str, **more: Any) -> dict[str, Any]:
    return {"start": 0, "end": 1.5, "confidence": 1, "channel": 0, "transcript": text, "words": [], **more}


SAID: dict[str, Any] = {"transcript": "A b. C.", "words": [HELLO]}
LAID_OUT = {**SAID, "paragraphs": {"transcript": "\nSpeaker 0: A b. C.", "paragraphs": [paragraph("A b.", "C.")]}}


@pytest.mark.parametrize(
    ("channels", "results", "text"),
    [
        pytest.param([SAID], {}, "A b. C.", id="a channel"),
        pytest.param([SAID, {"transcript": ""}, SAID], {}, "A b. C.\nA b. C.", id="channels"),
        pytest.param([LAID_OUT, LAID_OUT], {"utterances": [utterance("x")]}, "A b. C.\nA b. C.", id="paragraphs"),
        pytest.param([SAID], {"utterances": [utterance("A b."), utterance("C.")]}, "A b.\nC.", id="utterances"),
        pytest.param([LAID_OUT, SAID], {}, "A b. C.\nA b. C.", id="paragraphs of one channel only"),
        pytest.param([], {}, "", id="nothing"),
    ],
)
def test_the_text_has_paragraphs_else_utterances_else_channels_as_lines(
    channels: list[dict[str, Any]], results: dict[str, Any], text: str
) -> None:
    assert recorded(*channels, **results).text == text


def test_each_paragraph_is_a_line() -> None:
    laid_out = {"transcript": "a b c", "paragraphs": {"paragraphs": [paragraph("a", "b"), paragraph("c")]}}
    assert recorded(laid_out).text == "a b\nc"


def test_a_channel_may_lack_alternatives() -> None:
    event = as_event("Transcript", {"request_id": "r", "results": {"channels": [{"alternatives": []}, {}]}})
    assert (event.text, list(event.words), event.paragraphs, event.request_id) == ("", [], [], "r")
    assert len(event.channels) == 2


def test_the_words_are_those_of_all_channels() -> None:
    event = recorded(SAID, {"transcript": "b", "words": [{**HELLO, "word": "other"}]})
    assert [word.word for word in event.words] == ["hello", "other"]
    assert event.words is event.words


def test_a_transcript_has_the_fields_that_deepgram_documents() -> None:
    event = parse(
        "Transcript", transcript("Hi.\nYo.", speakers=2, utterances=True, paragraphs=True, request_id="r").body, {}
    )
    assert isinstance(event, Transcript)
    assert (event.request_id, event.duration, event.metadata.channels) == ("r", 0.9, 1)
    assert [(each.transcript, each.speaker, each.words[0].word) for each in event.utterances] == [
        ("Hi.", 0, "hi"),
        ("Yo.", 1, "yo"),
    ]
    assert [each.text for each in event.paragraphs] == ["Hi.", "Yo."]


@pytest.mark.parametrize(
    ("results", "summary"),
    [
        pytest.param({"summary": {"result": "success", "short": "Short."}}, "Short.", id="short"),
        pytest.param({"summary": {"result": "failure", "short": "Only in English."}}, None, id="a failure"),
        pytest.param({"summary": {}}, None, id="an empty one"),
        pytest.param({}, None, id="none"),
    ],
)
def test_a_transcript_may_have_a_summary(results: dict[str, Any], summary: str | None) -> None:
    assert recorded(SAID, **results).summary == summary


def test_the_summary_and_topics_of_older_models_are_found() -> None:
    segment = {"text": "a", "start_word": 0, "end_word": 3, "topics": [{"topic": "Space", "confidence": 0.5}]}
    event = recorded({**SAID, "summaries": [{"summary": "One."}, {"summary": "Two."}], "topics": [segment]})
    assert event.summary == "One.\nTwo."
    assert event.topics[0].topics[0].topic == "Space"


TOPICS = {"segments": [{"text": "a", "start_word": 1.0, "topics": [{"topic": "Space", "confidence_score": 1}]}]}
INTENTS = {"segments": [{"text": "a", "intents": [{"intent": "Fly"}]}]}
FELT = {"sentiment": "positive", "sentiment_score": 0.5}
SENTIMENTS = {"segments": [{"text": "a", **FELT}], "average": FELT}
FLAT: dict[str, Any] = {"topics": TOPICS, "intents": INTENTS, "sentiments": SENTIMENTS}
NESTED = {name: {"results": {name: found}} for name, found in FLAT.items()}


@pytest.mark.parametrize(
    "event",
    [recorded(SAID, **FLAT), recorded(SAID, **NESTED), read(**FLAT), read(**NESTED)],
    ids=["recorded, flat", "recorded, nested", "read, flat", "read, nested"],
)
def test_insights_are_found_flat_and_nested(event: Transcript | Analysis) -> None:
    assert [(each.start_word, each.topics[0].topic) for each in event.topics] == [(1, "Space")]
    assert [each.intents[0].intent for each in event.intents] == ["Fly"]
    assert [(each.text, each.sentiment) for each in event.sentiments] == [("a", "positive")]
    assert event.average_sentiment is not None
    assert event.average_sentiment.sentiment_score == 0.5


@pytest.mark.parametrize("event", [recorded(SAID), read()], ids=["a transcript", "an analysis"])
def test_insights_that_nobody_asked_for_are_empty(event: Transcript | Analysis) -> None:
    assert (event.topics, event.intents, event.sentiments, event.average_sentiment) == ([], [], [], None)
    assert event.summary is None


# --- Analyses, audio, failures ------------------------------------------------------------------


def test_an_analysis_is_read_flat() -> None:
    event = parse("Analysis", analysis("Short.", request_id="r").body, {})
    assert isinstance(event, Analysis)
    assert (event.summary, event.language, event.request_id) == ("Short.", "en", "r")


def test_an_analysis_is_read_nested() -> None:
    summary = {"results": {"summary": {"text": "Short."}}}
    inner = {"request_id": "r", "language": "en"}
    event = as_event("Analysis", {"metadata": {"metadata": inner}, "results": {"summary": summary}})
    assert (event.summary, event.language, event.request_id) == ("Short.", "en", "r")


def test_an_analysis_may_lack_results_and_language() -> None:
    event = as_event("Analysis", {"request_id": "r"})
    assert (event.summary, event.language) == (None, None)


def test_audio_is_what_came_and_what_the_headers_say(tmp_path: Path) -> None:
    payload = audio(request_id="r", model="aura-2-thalia-en", characters=11)
    event = parse("Audio", payload.body, payload.headers)
    assert isinstance(event, Audio)
    assert event.content is event.raw is payload.body
    assert (event.request_id, event.model, event.characters) == ("r", "aura-2-thalia-en", 11)
    event.save(tmp_path / "speech.wav")
    assert (tmp_path / "speech.wav").read_bytes() == payload.body


@pytest.mark.parametrize("count", ["many", "-1", "1" * 5000, ""])
def test_audio_may_come_without_usable_headers(count: str) -> None:
    event = parse("Audio", b"", {"dg-char-count": count})
    assert isinstance(event, Audio)
    assert (event.request_id, event.content_type, event.model, event.characters) == (None, None, None, None)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        pytest.param({"err_code": "C", "err_msg": "m", "request_id": "r"}, ("C", "m", None, "r"), id="err_code"),
        pytest.param({"error_code": "C", "err_msg": "m"}, ("C", "m", None, None), id="error_code"),
        pytest.param({"category": "C", "message": "m", "details": "d"}, ("C", "m", "d", None), id="category"),
        pytest.param({"error": "m"}, (None, "m", None, None), id="a bare error"),
        pytest.param({"error": {"code": 500, "message": "m"}}, ("500", "m", None, None), id="an error object"),
        pytest.param({"err_code": True, "err_msg": [1], "details": {}}, (None, None, None, None), id="no text"),
    ],
)
def test_a_failure_is_read_in_every_shape(document: dict[str, Any], said: tuple[str | None, ...]) -> None:
    event = as_event("Failure", document)
    assert (event.code, event.message, event.details, event.request_id) == said
    assert dumped(event) == document


def test_a_failure_made_by_hand_says_nothing() -> None:
    event = parse("Failure", failure("m").body, {})
    assert isinstance(event, Failure)
    assert (event.message, Failure().message, Failure().raw) == ("m", None, b"")


# --- Live ---------------------------------------------------------------------------------------


def test_a_live_result_says_what_was_heard() -> None:
    event = parse("LiveResult", live_result("Hi there.", start=2, channel=1, channels=2, request_id="r").body, {})
    assert isinstance(event, LiveResult)
    assert (event.text, [word.word for word in event.words]) == ("Hi there.", ["hi", "there"])
    assert (event.start, event.duration, event.channel_index, event.request_id) == (2.0, 0.9, [1, 2], "r")
    assert (event.is_final, event.speech_final, event.from_finalize) == (True, True, False)
    assert event.metadata.model_info is not None
    assert event.metadata.model_info.arch == "nova-3"


def test_a_live_result_may_lack_flags_metadata_and_alternatives() -> None:
    event = as_event("LiveResult", {"channel": {}, "channel_index": [0, 1], "start": 0, "duration": 1})
    assert (event.text, list(event.words), event.request_id) == ("", [], None)
    assert (event.is_final, event.speech_final, event.from_finalize) == (None, None, None)
    assert event.metadata.model_info is None


def test_the_other_live_messages_have_their_documented_fields() -> None:
    started: SpeechStarted = as_event("SpeechStarted", {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 9.5})
    ended: UtteranceEnd = as_event("UtteranceEnd", {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": -1})
    broken: LiveError = as_event("LiveError", {"type": "Error", "variant": "V", "description": "d"})
    assert (started.channel, started.timestamp) == ([0, 1], 9.5)
    assert (ended.channel, ended.last_word_end) == ([0, 1], -1.0)
    assert (broken.variant, broken.description, broken.message, broken.code) == ("V", "d", None, None)


def test_stream_metadata_says_what_the_stream_was() -> None:
    event = parse("StreamMetadata", stream_metadata(12.5, request_id="r", extra={"a": "b"}).body, {})
    assert isinstance(event, StreamMetadata)
    assert (event.duration, event.channels, event.extra, event.request_id) == (12.5, 1, {"a": "b"}, "r")
    assert event.models is not None
    assert event.model_info is not None
    assert event.model_info[event.models[0]].arch == "nova-3"


def test_a_live_transcript_is_read_from_its_own_json() -> None:
    body = {"request_id": "r", "text": "hello", "words": [HELLO], "duration": 1, "complete": True}
    event: LiveTranscript = as_event("LiveTranscript", body)
    assert (event.text, event.words[0].word, event.utterances, event.duration) == ("hello", "hello", [], 1.0)
    assert (event.complete, event.revision, event.request_id) == (True, 0, "r")


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_what_is_dumped_is_what_came(kind: str) -> None:
    body = BUILDERS[kind]().body
    assert parse(kind, body, {}).model_dump(mode="json", exclude_unset=True) == load_json(body)
