"""Captions, read back by another library and compared with those of Deepgram's own."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import deepgram_captions
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver import LiveTranscript, SetupError, Transcript
from dgreceiver.core.events import parse
from dgreceiver.core.transcript import assemble
from dgreceiver.testing.payloads import live_result, transcript

CLOCK = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})")


def recorded(*channels: Any, **options: Any) -> Transcript:
    event = parse("Transcript", transcript(*channels, **options).body, {})
    assert isinstance(event, Transcript)
    return event


def spoken(*words: tuple[str, float, float], **results: Any) -> Transcript:
    """A transcript of these words, with their times."""
    rows = [{"word": word, "start": start, "end": end, "confidence": 1} for word, start, end in words]
    return recorded(results={"channels": [{"alternatives": [{"transcript": "…", "words": rows}]}], **results})


def live(*results: bytes) -> LiveTranscript:
    event = parse("LiveTranscript", assemble(results) or b"", {})
    assert isinstance(event, LiveTranscript)
    return event


def seconds(clock: str) -> float:
    matched = CLOCK.fullmatch(clock)
    assert matched, clock
    hours, minutes, whole, rest = map(int, matched.groups())
    return hours * 3600 + minutes * 60 + whole + rest / 1000


def cues(event: Transcript | LiveTranscript, kind: str, **options: Any) -> list[tuple[float, float, str]]:
    """What another library reads."""
    text = getattr(event, kind)(**options)
    if not text:  # an empty SRT file, which the library takes for none
        return []
    return [
        (seconds(cue.start), seconds(cue.end), cue.text)
        for cue in webvtt.from_buffer(StringIO(text), kind, strict=True).captions
    ]


def test_srt_looks_like_this() -> None:
    assert recorded("Hi there.\nYo.", speakers=2, utterances=True).srt() == (
        "1\n00:00:00,000 --> 00:00:00,900\n[speaker 0]\nHi there.\n\n"
        "2\n00:00:01,000 --> 00:00:01,400\n[speaker 1]\nYo.\n"
    )


def test_vtt_looks_like_this() -> None:
    assert recorded("Hi there.\nYo.", speakers=2, utterances=True).vtt() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.900\n<v Speaker 0>Hi there.\n\n"
        "00:00:01.000 --> 00:00:01.400\n<v Speaker 1>Yo.\n"
    )


SPOKEN = [
    pytest.param({}, id="words"),
    pytest.param({"utterances": True}, id="utterances"),
    pytest.param({"speakers": 2}, id="speakers"),
    pytest.param({"speakers": 2, "utterances": True}, id="speakers and utterances"),
]


@pytest.mark.parametrize("length", [1, 3, 8])
@pytest.mark.parametrize("options", SPOKEN)
def test_ordinary_captions_are_those_of_deepgrams_own_library(options: dict[str, Any], length: int) -> None:
    payload = transcript("one two, three four five six seven eight nine ten.\nEleven?\nTwelve.", **options)
    event, theirs = parse("Transcript", payload.body, {}), deepgram_captions.DeepgramConverter(json.loads(payload.body))
    assert isinstance(event, Transcript)
    assert event.srt(length) == deepgram_captions.srt(theirs, length)
    _, _, *blocks = deepgram_captions.webvtt(theirs, length).split("\n\n")  # less WEBVTT and the note
    assert event.vtt(length) == "\n\n".join(["WEBVTT", *blocks])


times = st.floats(0, 200_000)
odd_times = times | st.sampled_from([59.9996, 3599.9999, 86_400.0, 360_000.0, -1.0, 1e300, float("inf"), float("nan")])
odd_texts = st.text(max_size=8) | st.sampled_from(
    ["<i>", "a-->b", "00:00 --> 00:01", "1", "a\n\nb", "&amp;", " ", "\u2028"]
)
odd_words = st.lists(st.tuples(odd_texts, odd_times, odd_times), max_size=20)


@pytest.mark.parametrize("kind", ["srt", "vtt"])
@given(words=odd_words, length=st.integers(1, 9))
def test_captions_can_be_read_back_whatever_was_said(
    kind: str, words: list[tuple[str, float, float]], length: int
) -> None:
    event = spoken(*words)
    shown = cues(event, kind, words_per_line=length)
    assert all(start < end for start, end, _ in shown)
    assert [start for start, _, _ in shown] == sorted(start for start, _, _ in shown)
    file = getattr(event, kind)(words_per_line=length)
    assert file.count("-->") == len(shown)
    assert kind == "srt" or "<" not in file


@pytest.mark.parametrize("kind", ["srt", "vtt"])
@given(words=st.lists(st.text("abcé", min_size=1, max_size=5), min_size=1, max_size=30), length=st.integers(1, 9))
def test_captions_hold_every_word_in_lines_of_some(kind: str, words: list[str], length: int) -> None:
    event = spoken(*((word, at / 2, at / 2 + 0.4) for at, word in enumerate(words)))
    lines = [text.split() for _, _, text in cues(event, kind, words_per_line=length)]
    assert [word for line in lines for word in line] == words
    assert {len(line) for line in lines[:-1]} <= {length}


@pytest.mark.parametrize(
    ("at", "clock"),
    [
        pytest.param(0.0004, "00:00:00.000", id="nothing"),
        pytest.param(59.9996, "00:01:00.000", id="rounded to a minute"),
        pytest.param(3599.9999, "01:00:00.000", id="rounded to an hour"),
        pytest.param(86_399.5, "23:59:59.500", id="almost a day"),
        pytest.param(90_000, "25:00:00.000", id="more than a day"),
        pytest.param(360_000 + 1.5, "100:00:01.500", id="more than 99 hours"),
        pytest.param(-5.0, "00:00:00.000", id="before the beginning"),
        pytest.param(float("nan"), "00:00:00.000", id="no number"),
    ],
)
def test_hours_go_on_and_nothing_is_rounded_to_sixty(at: float, clock: str) -> None:
    assert f"\n{clock} --> " in spoken(("hi", at, at + 1)).vtt()
    assert f"\n{clock.replace('.', ',')} --> " in spoken(("hi", at, at + 1)).srt()


def test_vtt_is_escaped() -> None:
    assert "\na &amp; b &lt;c&gt; --&gt;\n" in spoken(("a & b", 0, 1), ("<c> -->", 1, 2)).vtt()


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(recorded(""), id="an empty channel"),
        pytest.param(recorded(results={"channels": []}), id="no channel"),
        pytest.param(live(live_result("", request_id="r").body), id="a silent stream"),
    ],
)
def test_captions_of_nothing_are_an_empty_file(event: Transcript | LiveTranscript) -> None:
    assert (event.srt(), event.vtt()) == ("", "WEBVTT\n")


def test_all_channels_are_shown_in_order_of_time_and_named() -> None:
    lines = [
        live_result(text, start=start, channel=channel, channels=2, request_id="r", speakers=speakers).body
        for text, start, channel, speakers in [("one", 0, 0, None), ("three", 4, 0, None), ("two", 2, 1, 1)]
    ]
    assert [text for _, _, text in cues(live(*lines), "srt")] == [
        "[channel 0]\none",
        "[channel 1 speaker 0]\ntwo",
        "[channel 0]\nthree",
    ]
    assert "\n<v Channel 1 Speaker 0>two\n" in live(*lines).vtt()


def test_a_recording_of_two_channels_shows_both() -> None:
    assert [text for _, _, text in cues(recorded("hello you", "yes"), "srt")] == [
        "[channel 0]\nhello you",
        "[channel 1]\nyes",
    ]


@pytest.mark.parametrize("first", [0, 3])
def test_the_first_speaker_may_have_any_number_and_some_words_none(first: int) -> None:
    said = {"word": "hi", "start": 0, "end": 1, "confidence": 1}
    words = [said | {"speaker": first}, said | {"start": 1, "end": 2}]
    event = recorded(results={"channels": [{"alternatives": [{"transcript": "hi hi", "words": words}]}]})
    assert [text for _, _, text in cues(event, "srt")] == [f"[speaker {first}]\nhi", "hi"]


def test_what_has_no_words_is_shown_as_a_whole() -> None:
    event = recorded(results={"channels": [{"alternatives": [{"transcript": "hello\nthere"}]}]})
    assert [text for _, _, text in cues(event, "vtt")] == ["hello there"]


def test_a_line_has_words() -> None:
    with pytest.raises(SetupError, match="a line of 0 words shows nothing"):
        recorded("hi").srt(0)
    with pytest.raises(SetupError, match="words_per_line=1 or more"):
        recorded("hi").vtt(words_per_line=-1)
