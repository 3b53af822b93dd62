"""How long a recording is, and how many channels it has."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from .options import Options, last, whole

PCM_LIKE = {1, 3, 6, 7, 0xFFFE}  # whole frames: integers, floats, A-law, mu-law, extensible
RAW = {"linear16": 2, "linear32": 4, "mulaw": 1, "alaw": 1}  # bytes a sample, as `encoding` says
UNKNOWN_RATE = 16_000  # bytes a second: 128 kbit/s, a usual MP3


@dataclass(frozen=True, slots=True)
class Recording:
    """What is known of the submitted audio. Units: `duration` in seconds."""

    digest: bytes
    duration: float
    channels: int


def recording(options: Options, audio: bytes) -> Recording:
    """Measure audio: a WAV by its header, raw audio by the options; anything else is guessed from its size."""
    measured = wav(audio) or _raw(options, audio) or (5.0 + len(audio) / UNKNOWN_RATE, 2)
    return Recording(sha256(audio).digest(), round(measured[0], 6), measured[1])


def linked(url: str) -> Recording:
    """What stands behind a URL is not looked at: 10 to 70 seconds of two channels, by the URL's digest."""
    digest = sha256(url.encode()).digest()
    return Recording(digest, round(10 + int.from_bytes(digest[:2]) / 2**16 * 60, 6), 2)


def wav(audio: bytes) -> tuple[float, int] | None:
    """Seconds and channels of a WAV, or None.

    A length that a stream could not know (placeholder, or 0 in a file of unknown length) means up to the end.
    """
    if len(audio) < 12 or audio[:4] != b"RIFF" or audio[8:12] != b"WAVE":
        return None
    chunks = dict(reversed(list(_chunks(audio))))  # of each name the first
    form = chunks.get(b"fmt ", (0, 0))
    if form[1] < 16 or b"data" not in chunks:
        return None
    return _measure(struct.unpack_from("<HHIIHH", audio, form[0]), chunks[b"data"][1])


def _chunks(audio: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Each chunk's name, beginning and length in what there is."""
    whole_file = 0 < int.from_bytes(audio[4:8], "little") <= len(audio) - 8
    at = 12
    while at + 8 <= len(audio):
        name, size = struct.unpack_from("<4sI", audio, at)
        rest = len(audio) - at - 8
        if name == b"data" and not size and not whole_file:
            size = rest
        yield name, (at + 8, min(size, rest))
        at += 8 + size + size % 2


def _measure(form: tuple[int, ...], size: int) -> tuple[float, int] | None:
    tag, channels, rate, byte_rate, align, bits = form
    frame = align or channels * bits // 8
    if tag in PCM_LIKE:
        return (size // frame / rate, channels) if frame and rate and channels else None
    return (size / byte_rate, channels) if byte_rate and channels else None


def _raw(options: Options, audio: bytes) -> tuple[float, int] | None:
    sample = RAW.get(last(options, "encoding") or "")
    rate, channels = whole(options, "sample_rate"), whole(options, "channels", 1)
    if not (sample and rate and channels):
        return None
    return len(audio) // (sample * channels) / rate, channels
