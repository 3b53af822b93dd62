"""How long the kit takes a recording to be."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgreceiver.testing.options import Invalid
from dgreceiver.testing.recordings import linked, recording

PLACEHOLDER = 0x7FFF0000
JUNK = struct.pack("<4sI", b"LIST", 5) + b"INFOx\0"


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    padding = b"\0" * (len(content) % 2 if size is None else 0)
    return struct.pack("<4sI", name, len(content) if size is None else size) + content + padding


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return struct.pack("<4sI", b"RIFF", len(body) if size is None else size) + body


def form(rate: int = 8_000, channels: int = 1, width: int = 2, tag: int = 1, more: bytes = b"") -> bytes:
    frame = channels * width
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, 8 * width) + more)


def wav(frames: int, rate: int = 8_000, channels: int = 1, width: int = 2) -> bytes:
    return riff(form(rate, channels, width), chunk(b"data", bytes(frames * channels * width)))


def measured(audio: bytes, **options: str) -> tuple[float, int]:
    found = recording({name: [value] for name, value in options.items()}, audio)
    return found.duration, found.channels


frames, rates = st.integers(0, 5_000), st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000])
channels, widths = st.integers(1, 6), st.integers(1, 4)


@settings(deadline=None)
@given(frames, rates, channels, widths)
def test_a_wav_is_as_long_as_its_frames(count, rate, channels, width):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(bytes(count * channels * width))
    assert measured(file.getvalue()) == (round(count / rate, 6), channels)


@settings(deadline=None)
@given(st.integers(1, 5_000), rates, channels, widths, st.sampled_from([PLACEHOLDER, 0xFFFFFFFF, 0]))
def test_a_streamed_wav_reaches_to_its_end(count, rate, channels, width, size):
    data = chunk(b"data", bytes(count * channels * width), size)
    streamed = riff(JUNK, form(rate, channels, width), data, size=min(size + 36, 0xFFFFFFFF) if size else 0)
    assert measured(streamed) == (round(count / rate, 6), channels)


@settings(deadline=None)
@given(frames, rates, channels, st.lists(st.sampled_from([JUNK, chunk(b"bext", b"abc")]), max_size=3))
def test_other_chunks_do_not_count(count, rate, channels, junk):
    extensible = form(rate, channels, tag=0xFFFE, more=struct.pack("<HHI", 22, 16, 3) + bytes(16))
    audio = riff(*junk, extensible, *junk, chunk(b"data", bytes(count * channels * 2)), *junk)
    assert measured(audio) == (round(count / rate, 6), channels)


def test_a_wav_that_was_cut_off_is_as_long_as_what_is_left():
    assert measured(wav(frames=8_000)[: 44 + 8_000]) == (0.5, 1)


@pytest.mark.parametrize(
    ("form", "seconds"),
    [
        (struct.pack("<HHIIHH", 2, 1, 8_000, 4_000, 256, 4), 2.0),  # ADPCM: by its byte rate
        (struct.pack("<HHIIHH", 1, 1, 8_000, 0, 0, 16), 0.5),
    ],
    ids=["compressed", "without an alignment"],
)
def test_a_wav_of_another_kind_is_measured_by_what_it_says(form, seconds):
    assert measured(riff(chunk(b"fmt ", form), chunk(b"data", bytes(8_000)))) == (seconds, 1)


@pytest.mark.parametrize(
    "audio",
    [
        *(b"", b"RIFF", b"RIFF\0\0\0\0AVI LIST", riff(), riff(form()), riff(chunk(b"data", bytes(100)))),
        riff(chunk(b"fmt ", b"short"), chunk(b"data", bytes(100))),
        riff(form(rate=0), chunk(b"data", bytes(100))),
        riff(form(channels=0, tag=2), chunk(b"data", bytes(100))),
        b"ID3\x04" + bytes(16_000),
    ],
    ids=["empty", "cut", "AVI", "bare", "no data", "no format", "short format", "no rate", "no channels", "MP3"],
)
def test_what_cannot_be_measured_is_guessed_from_its_size(audio):
    assert measured(audio) == (round(5 + len(audio) / 16_000, 6), 2)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_have_a_duration(audio):
    for submitted in (audio, b"RIFF\xff\xff\xff\xffWAVE" + audio, wav(frames=3)[:36] + audio):
        seconds, channels = measured(submitted)
        assert seconds >= 0
        assert channels >= 1


@pytest.mark.parametrize(
    ("encoding", "seconds"), [("linear16", 1.0), ("mulaw", 2.0), ("linear32", 0.5), ("amr-nb", 7.0)]
)
def test_raw_audio_is_measured_by_the_options(encoding, seconds):
    said = {"encoding": encoding, "sample_rate": "8000", "channels": "2"}
    assert measured(bytes(32_000), **said)[0] == seconds


def test_a_sample_rate_that_is_no_number_is_refused():
    with pytest.raises(Invalid, match="`sample_rate` must be a whole number"):
        measured(b"", sample_rate="fast")


@settings(deadline=None)
@given(st.text())
def test_a_url_has_a_duration_of_its_own(url):
    assert 10 <= linked(url).duration <= 70
    assert linked(url) == linked(url)
