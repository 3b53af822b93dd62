"""What is said in a live stream: by the amount of audio and by the options."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver.core.callbacks import Callback, identify
from dgreceiver.core.transcript import assemble
from dgreceiver.testing.results import Invalid
from dgreceiver.testing.script import LONGEST
from dgreceiver.testing.talk import NEVER, Talk

RAW = {"encoding": "linear16", "sample_rate": "8000"}
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS_8 = bytes(8 * 16_000)


def talk(**options: str) -> Talk:
    return Talk({name: [said] for name, said in (RAW | options).items()}, request_id="r", created=CREATED)


def said(*audio: bytes, **options: str) -> list[Any]:
    """All messages of a stream."""
    stream = talk(**options)
    return [json.loads(payload.body) for each in audio for payload in stream.hear(each)] + [
        json.loads(payload.body) for payload in stream.end()
    ]


def results(messages: list[Any]) -> list[Any]:
    return [message for message in messages if message["type"] == "Results"]


def words(messages: list[Any]) -> list[Any]:
    return [word for result in results(messages) for word in result["channel"]["alternatives"][0]["words"]]


@given(st.lists(st.integers(1, 40_000), max_size=12))
def test_it_is_all_the_same_how_the_audio_is_cut_up(cuts):
    everything = {"interim_results": "true", "vad_events": "true", "utterance_end_ms": "1000", "multichannel": "true"}
    pieces = [bytes(cut) for cut in cuts]
    assert said(*pieces, **everything, channels="2") == said(b"".join(pieces), **everything, channels="2")


def test_each_message_is_of_the_kind_that_it_says():
    stream = talk(interim_results="true", vad_events="true", utterance_end_ms="1000")
    payloads = [*stream.hear(SECONDS_8 * 4), *stream.finalize(), *stream.end()]
    assert {payload.kind for payload in payloads} == {"SpeechStarted", "LiveResult", "UtteranceEnd", "StreamMetadata"}
    for payload in payloads:
        callback = Callback(payload.body, payload.headers, "/", "", CREATED.timestamp(), None, {})
        assert identify(callback, receiver="r").kind == payload.kind


def test_results_lie_one_after_the_other_and_interim_ones_lead_to_them():
    messages = results(said(SECONDS_8, interim_results="true"))
    finals = [each for each in messages if each["is_final"]]
    assert [each["start"] for each in finals[1:]] == pytest.approx(
        [each["start"] + each["duration"] for each in finals[:-1]]
    )
    assert Counter(each["start"] for each in messages if not each["is_final"]).keys() <= {
        each["start"] for each in finals
    }
    assert json.loads(assemble([json.dumps(each).encode() for each in messages]) or b"")["interim"] == []


def test_the_end_tells_of_the_whole_stream():
    end = said(SECONDS_8[:100], SECONDS_8[100:], extra="a:b")[-1]
    assert (end["duration"], end["channels"], end["extra"]) == (8.0, 1, {"a": "b"})
    assert (end["sha256"], end["created"]) == (sha256(SECONDS_8).hexdigest(), "2026-01-01T00:00:00.000Z")


def test_each_result_carries_the_extra_metadata():
    assert {json.dumps(each["metadata"]["extra"]) for each in results(said(SECONDS_8, extra="a:b"))} == {'{"a": "b"}'}


def test_each_channel_says_something_else():
    messages = results(said(SECONDS_8 * 2, channels="2", multichannel="true"))
    assert {tuple(each["channel_index"]) for each in messages} == {(0, 2), (1, 2)}
    assert len({json.dumps(words([each])) for each in messages}) == len(messages)


def test_speakers_take_turns_if_they_are_told_apart():
    assert {word["speaker"] for word in words(said(SECONDS_8 * 4, diarize="true"))} == {0, 1}
    assert not [word for word in words(said(SECONDS_8)) if "speaker" in word]


@pytest.mark.parametrize(("endpointing", "ends"), [("false", False), ("true", True), ("300", True)])
def test_an_utterance_ends_at_a_pause_unless_nobody_looks_for_one(endpointing, ends):
    assert {each["speech_final"] for each in results(said(SECONDS_8, endpointing=endpointing))} == {ends}


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        pytest.param({}, 8.0, id="16 bits"),
        pytest.param({"channels": "2"}, 4.0, id="two channels"),
        pytest.param({"encoding": "mulaw"}, 16.0, id="8 bits"),
        pytest.param({"encoding": "linear32"}, 4.0, id="32 bits"),
        pytest.param({"encoding": "opus"}, 8.0, id="what is not raw is taken for 16 000 bytes a second"),
    ],
)
def test_the_options_say_how_long_the_audio_is(options, seconds):
    assert said(SECONDS_8, **options)[-1]["duration"] == seconds


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"endpointing": "soon"}, id="endpointing"),
        pytest.param({"sample_rate": "0"}, id="sample_rate"),
        pytest.param({"encoding": "morse"}, id="encoding"),
        pytest.param({"utterance_end_ms": "-1"}, id="utterance_end_ms"),
        pytest.param({"extra": "no pair"}, id="extra"),
        pytest.param({"model": "none-such"}, id="model"),
    ],
)
def test_what_cannot_be_asked_for_is_invalid(options):
    with pytest.raises(Invalid):
        talk(**options)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        pytest.param({}, ["LiveResult"], id="of utterances nothing is said"),
        pytest.param({"utterance_end_ms": "1000"}, ["LiveResult", "UtteranceEnd"], id="it ends the utterance"),
    ],
)
def test_a_finalize_settles_what_was_heard(options, kinds):
    assert [payload.kind for payload in talk(**options).finalize()] == kinds


def test_nobody_speaks_for_longer_than_a_day():
    stream = Talk({}, request_id="r", created=CREATED)
    voice = stream._voices[0]
    assert sum(1 for _ in voice.hear(LONGEST + 1.0)) > 1000
    assert voice._next is NEVER
