"""Every builder makes what identify() and parse() know."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from dgreceiver.core.callbacks import Callback, Label, identify
from dgreceiver.core.events import Analysis, Audio, Event, Failure, LiveResult, Transcript, parse
from dgreceiver.testing import payloads
from dgreceiver.testing.payloads import BUILDERS, Payload

TAKES_NO_ID = {"SpeechStarted", "UtteranceEnd", "LiveError"}


def identified(payload: Payload) -> Label:
    return identify(
        Callback(payload.body, payload.headers, "/", "", datetime(2026, 1, 1, tzinfo=UTC).timestamp()),
        receiver="default",
    )


def parsed(payload: Payload) -> Any:
    event: Event = parse(payload.kind, payload.body, payload.headers)
    return event


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_payload_is_identified_and_parsed_as_its_kind(kind: str) -> None:
    payload = BUILDERS[kind]()
    assert payload.kind == identified(payload).kind == type(parsed(payload)).__name__ == kind


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in TAKES_NO_ID])
def test_a_payload_has_the_request_id_that_it_is_given(kind: str) -> None:
    given = BUILDERS[kind](request_id="r-1")
    assert identified(given).request_id == parsed(given).request_id == "r-1"
    assert given == BUILDERS[kind](request_id="r-1")


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in TAKES_NO_ID])
def test_a_payload_has_a_request_id_of_its_own(kind: str) -> None:
    assert identified(BUILDERS[kind]()).request_id != identified(BUILDERS[kind]()).request_id


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind != "Audio"])
def test_a_keyword_adds_or_replaces_a_field(kind: str) -> None:
    assert json.loads(BUILDERS[kind](brand_new=[1]).body)["brand_new"] == [1]
    assert json.loads(payloads.live_error(message="other").body)["message"] == "other"


def test_an_object_is_merged_into_the_one_that_is_there():
    said: Transcript = parsed(payloads.transcript(request_id="r", metadata={"tags": ["sales"], "duration": 3.0}))
    assert (said.request_id, said.metadata.tags, said.duration, said.metadata.channels) == ("r", ["sales"], 3.0, 1)


def test_a_transcript_says_what_it_is_told_to() -> None:
    said: Transcript = parsed(
        payloads.transcript("Hello, world.\n\nHi!", "Bye.", speakers=2, utterances=True, paragraphs=True)
    )
    assert said.text == "Hello, world.\nHi!\nBye."
    assert [(word.word, word.start, word.end, word.speaker) for word in said.words] == [
        ("hello", 0.0, 0.4, 0),
        ("world", 0.5, 0.9, 0),
        ("hi", 1.0, 1.4, 1),
        ("bye", 0.0, 0.4, 0),
    ]
    assert [(each.transcript, each.channel, each.start, each.end, each.speaker) for each in said.utterances] == [
        ("Hello, world.", 0, 0.0, 0.9, 0),
        ("Hi!", 0, 1.0, 1.4, 1),
        ("Bye.", 1, 0.0, 0.4, 0),
    ]
    assert (said.duration, said.metadata.channels, len(said.paragraphs)) == (1.4, 2, 3)


def test_a_transcript_is_plain_unless_more_is_asked_for() -> None:
    said: Transcript = parsed(payloads.transcript())
    assert (said.text, said.utterances, said.paragraphs, said.summary) == ("hello world", [], [], None)
    assert (said.metadata.extra, said.words[0].speaker) == (None, None)


def test_a_transcript_can_be_empty() -> None:
    said: Transcript = parsed(payloads.transcript("", utterances=True, paragraphs=True))
    assert (said.text, said.duration, list(said.words)) == ("", 0.0, [])


def test_a_transcript_can_have_a_summary_and_extra_metadata() -> None:
    said: Transcript = parsed(payloads.transcript(summary="Short.", extra={"job": "7"}))
    assert (said.summary, said.metadata.extra) == ("Short.", {"job": "7"})


def test_a_transcript_can_have_insights_and_a_language():
    said: Transcript = parsed(
        payloads.transcript("Hi.", topics=["a"], intents=["b"], sentiment="negative", language="de", confidence=0.5)
    )
    assert (said.topics[0].topics[0].topic, said.intents[0].intents[0].intent) == ("a", "b")
    assert (said.sentiments[0].sentiment, said.average_sentiment.sentiment_score) == ("negative", -0.5)
    assert (said.channels[0].detected_language, said.words[0].confidence) == ("de", 0.5)


def test_a_transcript_can_begin_late():
    said: Transcript = parsed(payloads.transcript("hi there", start=10.0))
    assert ([word.start for word in said.words], said.duration) == ([10.0, 10.5], 10.9)


def test_the_end_of_a_stream_can_carry_extra_metadata():
    assert parsed(payloads.stream_metadata(extra={"job": "7"})).extra == {"job": "7"}


def test_an_analysis_has_what_is_asked_for() -> None:
    read: Analysis = parsed(payloads.analysis(topics=["greeting"], intents=["greet"], sentiment="positive"))
    assert (read.summary, read.language) == ("A greeting.", "en")
    assert [topic.topic for topic in read.topics[0].topics] == ["greeting"]
    assert [intent.intent for intent in read.intents[0].intents] == ["greet"]
    assert read.sentiments[0].sentiment_score == 0.5
    assert read.metadata.sentiment_info is not None


def test_an_analysis_can_be_without_a_summary() -> None:
    assert parsed(payloads.analysis(None, sentiment="neutral")).summary is None


def test_audio_is_a_wav_with_placeholder_lengths() -> None:
    payload = payloads.audio(0.5, sample_rate=8_000, headers={"dg-project-id": "p"})
    riff, riff_length, wave = struct.unpack_from("<4sI4s", payload.body)
    data, data_length = struct.unpack_from("<4sI", payload.body, 36)
    assert (riff, riff_length, wave, data, data_length) == (b"RIFF", 0x7FFF0024, b"WAVE", b"data", 0x7FFF0000)
    assert struct.unpack_from("<4sIHHIIHH", payload.body, 12) == (b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16)
    assert len(payload.body) == 44 + 8_000
    assert payload.headers["dg-project-id"] == "p"


def test_audio_names_its_model_and_length() -> None:
    spoken: Audio = parsed(payloads.audio(model="aura-2-luna-en", characters=5))
    assert (spoken.model, spoken.characters, spoken.content_type) == ("aura-2-luna-en", 5, "audio/wav")


def test_a_live_result_stands_where_it_is_put() -> None:
    heard: LiveResult = parsed(payloads.live_result("Hi there.", start=3.0, channel=1, channels=2, extra={"a": "b"}))
    assert (heard.text, heard.start, heard.duration, heard.channel_index) == ("Hi there.", 3.0, 0.9, [1, 2])
    assert (heard.words[0].start, heard.metadata.extra) == (3.0, {"a": "b"})


def test_a_live_result_can_be_silence() -> None:
    heard: LiveResult = parsed(payloads.live_result("", start=3.0))
    assert (heard.text, heard.duration, list(heard.words)) == ("", 0.0, [])


def test_a_failure_says_what_it_is_told_to() -> None:
    failed: Failure = parsed(payloads.failure("no credits", code="ASR_PAYMENT_REQUIRED", details="pay"))
    assert (failed.code, failed.message, failed.details) == ("ASR_PAYMENT_REQUIRED", "no credits", "pay")
