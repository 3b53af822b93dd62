"""Speech as the kit makes it: silent, and of the right length and format."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgreceiver.core.callbacks import Callback, identify
from dgreceiver.core.events import Audio, parse
from dgreceiver.testing import results
from dgreceiver.testing.payloads import Payload
from dgreceiver.testing.recordings import wav
from dgreceiver.testing.results import Invalid

TEXT = "Hello, how can I help you today?"
SECONDS = 2.12  # to say it


def speak(text: str = TEXT, version: Any = "v1", **said: str) -> Payload:
    options: dict[str, Sequence[str]] = {name: [value] for name, value in said.items()}
    return results.speak(options, text=text, version=version, request_id="r-1")


@pytest.mark.parametrize(
    ("said", "content_type", "magic", "size"),
    [
        ({}, "audio/mpeg", b"\xff\xf3\x60\xc0", SECONDS * 6_000),
        ({"encoding": "mp3", "bit_rate": "32000"}, "audio/mpeg", b"\xff\xf3\x40\xc0", SECONDS * 4_000),
        ({"encoding": "linear16"}, "audio/wav", b"RIFF\x24\x00\xff\x7fWAVE", 44 + SECONDS * 48_000),
        ({"encoding": "linear16", "sample_rate": "8000"}, "audio/wav", b"RIFF", 44 + SECONDS * 16_000),
        ({"encoding": "linear16", "container": "none"}, "audio/l16;rate=24000", b"\0\0", SECONDS * 48_000),
        ({"encoding": "mulaw"}, "audio/wav", b"RIFF", 44 + SECONDS * 8_000),
        ({"encoding": "mulaw", "container": "none"}, "audio/mulaw;rate=8000", b"\xff\xff", SECONDS * 8_000),
        (
            {"encoding": "alaw", "container": "none", "sample_rate": "16000"},
            *("audio/alaw;rate=16000", b"\xd5\xd5", SECONDS * 16_000),
        ),
        ({"encoding": "opus"}, "audio/ogg;codecs=opus", b"OggS\0\2", SECONDS * 1_500),
        (
            {"encoding": "opus", "container": "ogg", "bit_rate": "64000"},
            *("audio/ogg;codecs=opus", b"OggS", SECONDS * 8_000),
        ),
        ({"encoding": "flac"}, "audio/flac", b"fLaC\x80\0\0\x22", SECONDS * 48_000),
        ({"encoding": "aac"}, "audio/aac", b"\xff\xf1\x5c", SECONDS * 6_000),
    ],
)
def test_speech_is_of_the_format_and_about_the_size_that_was_asked_for(said, content_type, magic, size):
    spoken = speak(**said)
    assert spoken.headers["content-type"] == content_type
    assert spoken.body.startswith(magic)
    assert len(spoken.body) == pytest.approx(size, rel=0.05, abs=200)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=2000).filter(str.strip), st.sampled_from(["linear16", "mulaw", "alaw"]))
def test_a_wav_is_as_long_as_the_text_takes_and_its_lengths_are_placeholders(text, encoding):
    body = speak(text, encoding=encoding).body
    seconds, channels = wav(body) or (0.0, 0)
    assert seconds == pytest.approx(0.2 + 0.06 * len(text), abs=0.001)
    assert channels == 1
    assert struct.unpack_from("<4sI", body, 36) == (b"data", 0x7FFF0000)


def test_frames_follow_each_other_at_the_length_they_name():
    mp3 = speak(encoding="mp3").body
    assert {mp3[at : at + 4] for at in range(0, len(mp3), 156)} == {b"\xff\xf3\x60\xc0"}
    aac = speak(encoding="aac").body
    length = int.from_bytes(aac[3:6]) >> 5 & 0x1FFF
    assert {aac[at : at + 2] for at in range(0, len(aac), length)} == {b"\xff\xf1"}


def test_the_headers_say_what_deepgram_would():
    said = speak(model="aura-2-thalia-en")
    audio = parse(said.kind, said.body, said.headers)
    assert isinstance(audio, Audio)
    assert (audio.model, audio.characters, audio.request_id) == ("aura-2-thalia-en", len(TEXT), "r-1")
    assert (audio.content, audio.content_type) == (said.body, "audio/mpeg")
    assert said.headers["dg-model-uuid"] != speak().headers["dg-model-uuid"]
    assert "dg-breaks-applied" not in said.headers


@pytest.mark.parametrize("encoding", ["linear16", "mulaw", "alaw", "mp3", "opus", "flac", "aac"])
def test_speech_is_identified_and_the_same_each_time(encoding):
    said = speak(encoding=encoding)
    callback = Callback(said.body, said.headers, "/", "", datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    assert identify(callback, receiver="default").kind == said.kind == "Audio"
    assert said == speak(encoding=encoding)


def test_the_second_version_says_more_and_takes_longer_texts():
    said = speak("word " * 500, version="v2", model="flux-haley-en").headers
    assert (said["dg-breaks-applied"], said["dg-pronunciations-applied"]) == ("0", "0")
    assert (said["dg-char-count"], said["dg-model-name"]) == ("2500", "flux-haley-en")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"container": "wav"}, "`container` is not applicable when `encoding=mp3`."),
        ({"encoding": "opus", "container": "none"}, "`container=none` is invalid when `encoding=opus`."),
        ({"sample_rate": "24000"}, "`sample_rate` is not applicable when `encoding=mp3`."),
        ({"encoding": "mulaw", "sample_rate": "24000"}, "`sample_rate` must be 8000, 16000 when `encoding=mulaw`."),
        ({"encoding": "flac", "bit_rate": "9000"}, "`bit_rate` is not applicable when `encoding=flac`."),
        ({"bit_rate": "9"}, "`bit_rate` must be 8000, 16000, 24000, 32000, 40000, 48000 when `encoding=mp3`."),
        ({"encoding": "aac", "bit_rate": "9"}, "`bit_rate` must be 4000 to 192000 when `encoding=aac`."),
    ],
)
def test_deepgram_refuses_what_does_not_go_together(said, message):
    with pytest.raises(Invalid) as refused:
        speak(**said)
    assert refused.value.message == f"Unsupported audio format: {message}"
    assert refused.value.code == "UNSUPPORTED_AUDIO_FORMAT"


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ({"encoding": "flac16"}, "INVALID_QUERY_PARAMETER", "unknown variant `flac16`"),
        ({"container": "mp4"}, "INVALID_QUERY_PARAMETER", "expected one of `wav`, `ogg`, `none`"),
        ({"sample_rate": "fast"}, "INVALID_QUERY_PARAMETER", "whole number"),
        ({"mip_opt_out": "yes"}, "INVALID_QUERY_PARAMETER", "not `true` or `false`"),
        ({"model": "nobody"}, "Bad Request", "No such model"),
        ({"model": "flux-haley-en"}, "Bad Request", "No such model"),
        ({"version": "v2", "model": "nobody"}, "Bad Request", "No such model"),
        ({"version": "v2", "model": "aura-2-thalia-en"}, "V1_MODEL_ON_V2_SPEAK_ENDPOINT", "Only flux models"),
        ({"version": "v2"}, "INVALID_QUERY_PARAMETER", "missing field `model`"),
        ({"text": " "}, "Bad Request", "no characters"),
    ],
)
def test_deepgram_refuses_what_it_does_not_know(said, code, message):
    with pytest.raises(Invalid, match=message) as refused:
        speak(**said)
    assert (refused.value.code, refused.value.status) == (code, 400)


def test_a_text_can_be_too_long():
    assert speak("x" * 2000)
    with pytest.raises(Invalid, match="character limit of 2000") as refused:
        speak("x" * 2001)
    assert (refused.value.code, refused.value.status) == ("PAYLOAD_TOO_LARGE", 413)
