"""Deepgram's results as the kit makes them: shaped by the options, and the same for the same input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from deepgram.core.unchecked_base_model import construct_type
from deepgram.types.listen_v1response import ListenV1Response
from deepgram.types.read_v1response import ReadV1Response
from hypothesis import given, settings
from hypothesis import strategies as st

from dgreceiver.core.callbacks import Callback, identify
from dgreceiver.core.events import Analysis, Transcript, parse
from dgreceiver.testing import results
from dgreceiver.testing.payloads import Payload
from dgreceiver.testing.results import Invalid
from tests.testing.test_recordings import wav

PUBLISHED = Path(__file__).parents[3] / "shared" / "payloads"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published payloads are not here")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
STEREO = wav(frames=1_000 * 30, rate=1_000, channels=2)
URL = "https://example.com/call.mp3"
TEXT = "Thank you for calling. I want a refund, the box is broken! Is that wonderful?"

LISTEN_FLAGS = [
    *("diarize", "utterances", "paragraphs", "multichannel", "topics", "intents", "sentiment", "detect_language"),
    *("smart_format", "punctuate", "numerals", "detect_entities", "profanity_filter"),
]
LISTEN = [
    *((flag, "true") for flag in LISTEN_FLAGS),
    *[("summarize", "v2"), ("search", "hello"), ("search", "no such words"), ("alternatives", "3"), ("tag", "a")],
    *[("extra", "job:7"), ("language", "multi"), ("language", "fr"), ("model", "nova-3"), ("diarize_model", "v2")],
    *[("utt_split", "1.5"), ("keyterm", "Deepgram"), ("language_hint", "es"), ("never_heard_of", "x")],
]
READ = [
    *[("summarize", "true"), ("topics", "true"), ("intents", "true"), ("sentiment", "true")],
    *[("custom_topic", "refund"), ("custom_topic_mode", "strict"), ("custom_intent", "Return"), ("tag", "a")],
]
# What wire section 6 knows of recorded results beyond what was published here; `[]` is an item, `*` any name.
GRAMMAR = {
    "metadata.warnings[]": ("parameter", "type", "message"),
    "metadata.diarize_info": ("model_uuid", "arch"),
    "metadata.extra": ("*",),
    "results.channels[].search[]": ("query",),
    "results.channels[].search[].hits[]": ("confidence", "start", "end", "snippet"),
    "results.channels[].alternatives[]": ("languages[]", "languages_hinted[]"),
    "results.channels[].alternatives[].entities[]": (
        *("label", "value", "raw_value", "confidence", "start_word", "end_word"),
    ),
    "results.channels[].alternatives[].words[]": ("language",),
    "results.utterances[].words[]": ("language", "sentiment", "sentiment_score"),
}
NUMBERS = {"confidence", "start", "end", "start_word", "end_word", "sentiment_score"}


def asked(*said: tuple[str, str]) -> Mapping[str, Sequence[str]]:
    options: dict[str, list[str]] = {}
    for name, value in said:
        options.setdefault(name, []).append(value)
    return options


def listen(*said: tuple[str, str], audio: bytes | None = STEREO, url: str | None = None) -> Payload:
    return results.listen(asked(*said), audio=audio, url=url, request_id="r-1", created=NOON)


def read(*said: tuple[str, str], text: str | None = TEXT, url: str | None = None) -> Payload:
    options = asked(("language", "en"), *said)
    return results.read(options, text=text, url=url, request_id="r-1", created=NOON)


def parsed(payload: Payload) -> Any:
    label = identify(Callback(payload.body, payload.headers, "/", "", NOON.timestamp()), receiver="default")
    assert (label.kind, label.request_id) == (payload.kind, "r-1")
    return parse(payload.kind, payload.body, payload.headers)


def document(payload: Payload) -> Any:
    return json.loads(payload.body)


def place(word: float | None) -> int:
    assert word is not None
    return int(word)


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every path with its type; ids and keys of the user's own are `*`, all numbers are one type."""
    if isinstance(value, dict):
        for name, inner in value.items():
            own = path.endswith((".model_info", ".extra"))
            yield from shape(inner, f"{path}.{'*' if own else name}")
    elif isinstance(value, list):
        yield path, "list"
        for inner in value:
            yield from shape(inner, f"{path}[]")
    else:
        yield path, "number" if isinstance(value, int | float) else type(value).__name__


@cache
def known(folder: str) -> set[tuple[str, str]]:
    return {each for path in (PUBLISHED / folder).glob("*.json") for each in shape(json.loads(path.read_text()))}


def from_grammar() -> Iterator[tuple[str, str]]:
    for path, names in GRAMMAR.items():
        yield f".{path}".removesuffix("[]"), "list"
        for name in names:
            yield f".{path}.{name}", "number" if name in NUMBERS else "str"
            yield f".{path}.{name}".removesuffix("[]"), "list"


subsets_of_listen = st.lists(st.sampled_from(LISTEN), unique=True)
subsets_of_read = st.lists(st.sampled_from(READ), unique=True)


@published
@settings(deadline=None)
@given(subsets_of_listen)
def test_a_transcript_has_no_field_that_was_never_published(said):
    allowed = known("listen_batch") | set(from_grammar())
    assert set(shape(document(listen(*said)))) - allowed == set()


@published
@settings(deadline=None)
@given(subsets_of_read)
def test_an_analysis_has_no_field_that_was_never_published(said):
    assert set(shape(document(read(*said)))) - known("read") == set()


@published
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("captions_plain", [("punctuate", "true")]),
        ("captions_whisper_no_punctuated_word", []),
        ("captions_js_paragraphs", [("paragraphs", "true")]),
        ("captions_utterances", [("smart_format", "true"), ("utterances", "true")]),
        ("captions_diarize_utterances_big", [("smart_format", "true"), ("diarize", "true"), ("utterances", "true")]),
        ("pysdk_2025-08-11_preamble_wav_nova-3", [("smart_format", "true")]),
        ("pysdk_2025-08-11_preamble_wav_nova-3_summary_v2", [("smart_format", "true"), ("summarize", "v2")]),
        ("docs_repaired_topics", [("topics", "true"), ("punctuate", "true")]),
        ("docs_repaired_intents", [("intents", "true"), ("punctuate", "true")]),
        ("docs_repaired_sentiment", [("sentiment", "true"), ("punctuate", "true")]),
        ("docs_repaired_summary_v2", [("summarize", "v2")]),
        ("docs_repaired_detect_language", [("detect_language", "true")]),
    ],
)
def test_a_transcript_has_every_field_that_deepgram_published_for_these_options(name, said):
    recorded = json.loads((PUBLISHED / "listen_batch" / f"{name}.json").read_text())
    assert set(shape(recorded)) - set(shape(document(listen(*said)))) == set()


@published
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("docs_summary", ("summarize", "true")),
        ("docs_topics2", ("topics", "true")),
        ("docs_intents", ("intents", "true")),
        ("docs_sentiment", ("sentiment", "true")),
    ],
)
def test_an_analysis_has_the_very_fields_that_deepgram_published(name, said):
    recorded = json.loads((PUBLISHED / "read" / f"{name}.json").read_text())
    assert set(shape(document(read(said)))) == set(shape(recorded))


@settings(deadline=None)
@given(subsets_of_listen, st.sampled_from([STEREO, b"", b"no audio"]))
def test_the_sdk_takes_every_transcript(said, audio):
    body = document(listen(*said, audio=audio))
    ListenV1Response.model_validate(body)
    made: Any = construct_type(type_=ListenV1Response, object_=body)  # as its client does
    assert made.metadata.request_id == "r-1"
    assert made.results.channels[0].alternatives[0].words is not None


@settings(deadline=None)
@given(subsets_of_read)
def test_the_sdk_takes_every_analysis_though_it_knows_another_shape(said):
    body = document(read(*said))
    ReadV1Response.model_validate(body)
    made: Any = construct_type(type_=ReadV1Response, object_=body)
    assert made.metadata.request_id == "r-1"
    assert ("summarize", "true") not in said or made.results.summary.text == "Thank you for calling."


@settings(deadline=None)
@given(subsets_of_listen, st.sampled_from([STEREO, wav(frames=4_000), wav(frames=100), b"", b"no audio"]))
def test_words_lie_one_after_the_other_within_the_recording(said, audio):
    heard: Transcript = parsed(listen(*said, audio=audio))
    assert heard.metadata.sha256 == sha256(audio).hexdigest()
    duration = heard.duration or 0.0
    for channel in heard.channels:
        words = channel.alternatives[0].words
        assert all(one.end <= other.start for one, other in pairwise(words))
        assert all(0 <= word.start < word.end <= duration for word in words)
        assert channel.alternatives[0].transcript == " ".join(word.punctuated_word or word.word for word in words)
    ends = [*(each.end for each in heard.utterances), *(each.end for each in heard.paragraphs)]
    assert all(end is not None and end <= duration for end in ends)


@settings(deadline=None)
@given(subsets_of_listen)
def test_utterances_and_paragraphs_hold_every_word_once(said):
    heard: Transcript = parsed(listen(*said))
    count = sum(len(channel.alternatives[0].words) for channel in heard.channels)
    assert sum(len(each.words) for each in heard.utterances) == (count if ("utterances", "true") in said else 0)
    assert sum(int(each.num_words or 0) for each in heard.paragraphs) in (0, count)
    assert [each.start for each in heard.utterances] == sorted(each.start for each in heard.utterances)


@settings(deadline=None)
@given(subsets_of_listen)
def test_the_same_input_and_options_give_the_same_result(said):
    assert listen(*said) == listen(*said)
    assert listen(*said, audio=None, url=URL) == listen(*said, audio=None, url=URL)


def test_other_input_gives_other_words():
    texts = {parsed(listen(audio=None, url=f"{URL}?{n}")).text for n in range(10)}
    assert len(texts) == 10


def test_a_plain_transcript_has_neither_punctuation_nor_anything_else():
    heard: Transcript = parsed(listen())
    assert (heard.utterances, heard.paragraphs, heard.summary, heard.topics, heard.sentiments) == ([], [], None, [], [])
    assert heard.text == " ".join(word.word for word in heard.words) != ""
    assert (heard.words[0].punctuated_word, heard.words[0].speaker, len(heard.channels)) == (None, None, 1)
    assert (heard.metadata.channels, heard.duration, heard.metadata.created) == (1, 30.0, "2026-11-01T12:00:00.000Z")


@pytest.mark.parametrize("option", ["punctuate", "smart_format", "paragraphs"])
def test_punctuation_is_there_when_it_is_asked_for(option):
    heard: Transcript = parsed(listen((option, "true")))
    assert heard.text[0].isupper()
    assert "." in heard.text


def test_speakers_take_turns():
    heard: Transcript = parsed(listen(("diarize", "true"), ("utterances", "true"), ("paragraphs", "true")))
    assert {word.speaker for word in heard.words} == {0, 1}
    for each in heard.utterances:
        assert {word.speaker for word in each.words} == {each.speaker}
    assert [each.speaker for each in heard.paragraphs[:2]] == [0, 1]
    body = document(listen(("diarize", "true"), ("paragraphs", "true")))
    assert body["results"]["channels"][0]["alternatives"][0]["paragraphs"]["transcript"].startswith("\nSpeaker 0: ")


def test_every_channel_says_something_else():
    heard: Transcript = parsed(listen(("multichannel", "true"), ("utterances", "true")))
    assert heard.metadata.channels == len({channel.alternatives[0].transcript for channel in heard.channels}) == 2
    assert {each.channel for each in heard.utterances} == {0, 1}
    assert len({each.id for each in heard.utterances}) == len(heard.utterances)


def test_a_longer_split_makes_fewer_utterances():
    few, many = ([("utterances", "true"), ("utt_split", split)] for split in ("100", "0.1"))
    assert len(parsed(listen(*few)).utterances) == 1 < len(parsed(listen(*many)).utterances)


def test_a_search_finds_what_was_said_and_guesses_what_was_not():
    first = parsed(listen()).words[:2]
    term = " ".join(word.word for word in first).upper()
    found = parsed(listen(("search", term), ("search", "zebra"))).channels[0].search
    assert [(each.query, each.hits[0].confidence) for each in found] == [(term, 1.0), ("zebra", 0.25)]
    assert (found[0].hits[0].start, found[0].hits[0].end) == (first[0].start, first[1].end)
    assert parsed(listen(("search", "zebra"), audio=wav(frames=0))).channels[0].search[0].hits == []


def test_segments_are_the_sentences_of_the_transcript():
    heard: Transcript = parsed(listen(*((name, "true") for name in ("topics", "intents", "sentiment", "punctuate"))))
    for segments in (heard.topics, heard.intents, heard.sentiments):
        for segment in segments:
            words = heard.words[place(segment.start_word) : place(segment.end_word) + 1]
            assert segment.text == " ".join(str(word.punctuated_word) for word in words)
    assert heard.average_sentiment is not None
    assert heard.metadata.topics_info.input_tokens == len(heard.words)


def test_entities_and_numbers_are_found():
    found = [
        parsed(listen(("detect_entities", "true"), ("numerals", "true"), audio=None, url=f"{n}")) for n in range(9)
    ]
    entities = [each for heard in found for each in heard.channels[0].alternatives[0].entities]
    assert {"PERSON", "DATE", "QUANTITY"} <= {each.label for each in entities}
    assert {("2", "two"), ("7", "seven")} <= {(each.value, each.raw_value) for each in entities}


def test_further_alternatives_are_less_sure():
    best = parsed(listen(("alternatives", "3"))).channels[0].alternatives
    assert len(best) == 3
    assert best[0].confidence > best[1].confidence > best[2].confidence


def test_extra_metadata_and_tags_come_back():
    said = [("extra", "job:1"), ("extra", "url:a:b"), ("extra", "job:2"), ("tag", "x"), ("tag", "y")]
    heard: Transcript = parsed(listen(*said))
    assert (heard.metadata.extra, heard.metadata.tags) == ({"job": "2", "url": "a:b"}, ["x", "y"])


@pytest.mark.parametrize(
    ("said", "language"),
    [(["true"], "en"), (["fr", "en-GB"], "fr"), (["false"], None), ([], None)],
    ids=["any", "of some", "not asked", "not said"],
)
def test_a_language_is_detected_if_asked_for(said, language):
    channel = parsed(listen(*(("detect_language", each) for each in said))).channels[0]
    assert channel.detected_language == language


@pytest.mark.parametrize(
    ("model", "name", "arch"),
    [
        ("nova-3", "general-nova-3", "nova-3"),
        ("nova-2-medical", "medical-nova-2", "nova-2"),
        ("enhanced", "general-enhanced", "enhanced"),
        ("phonecall", "phonecall-base", "base"),
        ("whisper-large", "large-whisper", "whisper"),
        ("6f0c2b34-3a29-4d0b-8a6c-6d6f1c1b2a3d", "6f0c2b34-3a29-4d0b-8a6c-6d6f1c1b2a3d-base", "base"),
    ],
)
def test_a_model_is_named(model, name, arch):
    infos = parsed(listen(("model", model))).metadata.model_info
    assert [(info.name, info.arch) for info in infos.values()] == [(name, arch)]


def test_only_english_is_summarised():
    heard: Transcript = parsed(listen(("summarize", "v2"), ("language", "fr")))
    assert (heard.summary, heard.results.summary.result) == (None, "failure")
    assert [(each.parameter, each.type) for each in heard.metadata.warnings] == [("summarize", "unsupported_language")]
    assert parsed(listen(("summarize", "true"), ("punctuate", "true"))).summary.endswith((".", "?"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        *(((flag, "yes"), "not `true` or `false`") for flag in LISTEN_FLAGS),
        (("mip_opt_out", ""), "not `true` or `false`"),
        (("summarize", "v9"), "unknown variant `v9`"),
        (("diarize_model", "v3"), "unknown variant `v3`, expected one of `latest`, `v1`, `v2`"),
        (("custom_topic_mode", "loose"), "unknown variant `loose`"),
        (("utt_split", "soon"), "number from 0 on"),
        (("utt_split", "-1"), "number from 0 on"),
        (("utt_split", "nan"), "number from 0 on"),
        (("alternatives", "0"), "whole number from 1 on"),
        (("alternatives", "1.5"), "whole number from 1 on"),
        (("extra", "k:" + "v" * 2047), "2048 characters"),
        (("extra", "no pair"), "key:value"),
        (("model", "gpt-5"), "No such model"),
    ],
)
def test_deepgram_refuses_an_option_it_cannot_read(said, message):
    with pytest.raises(Invalid, match=message) as refused:
        listen(said)
    assert (refused.value.status, refused.value.message) == (400, str(refused.value))
    assert refused.value.code == ("Bad Request" if said[0] == "model" else "INVALID_QUERY_PARAMETER")


def test_deepgram_refuses_what_is_no_submission():
    with pytest.raises(Invalid, match="corrupt or unsupported data"):
        listen(audio=None)
    with pytest.raises(Invalid, match="exactly one of `text` or `url`"):
        read(text=None)
    with pytest.raises(Invalid, match="exactly one of `text` or `url`"):
        read(url=URL)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "missing field `language`"),
        ([("language", "fr")], "unsupported language: fr. Only English is supported."),
        ([("language", "en"), ("summarize", "maybe")], "unknown variant `maybe`"),
        ([("language", "en"), ("topics", "1")], "not `true` or `false`"),
    ],
    ids=["no language", "another language", "no boolean", "no boolean either"],
)
def test_deepgram_refuses_to_read(said, message):
    with pytest.raises(Invalid, match=message) as refused:
        results.read(asked(*said), text=TEXT, request_id="r-1", created=NOON)
    assert refused.value.code == "INVALID_QUERY_PARAMETER"


def test_an_analysis_is_of_the_text_itself():
    found: Analysis = parsed(read(*((name, "true") for name in ("summarize", "topics", "intents", "sentiment"))))
    assert (found.summary, found.language) == ("Thank you for calling.", "en")
    said = [(each.text, each.start_word, each.end_word, each.sentiment) for each in found.sentiments]
    assert said == [
        ("Thank you for calling.", 0, 3, "positive"),
        ("I want a refund, the box is broken!", 4, 11, "negative"),
        ("Is that wonderful?", 12, 14, "positive"),
    ]
    assert [each.topics[0].topic for each in found.topics] == ["Calling", "Refund", "Wonderful"]
    assert found.intents[1].intents[0].intent == "Discuss refund"


@settings(deadline=None)
@given(st.text(max_size=300))
def test_the_segments_of_any_text_are_its_words(text):
    found: Analysis = parsed(read(("sentiment", "true"), text=text))
    words = text.split()
    parts = [words[place(each.start_word) : place(each.end_word) + 1] for each in found.sentiments]
    assert [part for part in parts if part] == [each.text.split() for each in found.sentiments if each.text.split()]
    assert [word for part in parts for word in part] == words


def test_topics_of_ones_own_stand_before_deepgrams_or_alone():
    own = [("topics", "true"), ("custom_topic", "the box")]
    assert [each.topic for each in parsed(read(*own)).topics[1].topics] == ["the box", "Refund"]
    strict = parsed(read(*own, ("custom_topic_mode", "strict"))).topics
    assert [[each.topic for each in segment.topics] for segment in strict] == [["the box"]]


def test_nothing_asked_is_nothing_found():
    found: Analysis = parsed(read(text=None, url=URL))
    assert (found.summary, found.topics, found.intents, found.sentiments) == (None, [], [], [])
    assert parsed(read(("summarize", "true"), text=None, url=URL)).summary
    assert parsed(read(("summarize", "true"), ("sentiment", "true"), text=" ")).average_sentiment.sentiment == "neutral"
