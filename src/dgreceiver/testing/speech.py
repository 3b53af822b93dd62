"""Speech of the right length and format, and silent: no voice."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

from . import payloads
from .options import Invalid, Options, is_on, last, one_of, unreadable, whole
from .payloads import Payload

LONGEST = 2000  # characters, on v1
PACE = 0.06  # seconds a character
BREATH = 0.2  # seconds before and after, together
CONTAINERS = ("wav", "ogg", "none")


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be made. Units: `seconds`, `rate` in Hz, `bits` a second (0 where that follows from the rest)."""

    encoding: str
    container: str | None
    rate: int
    bits: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Format:
    """What an encoding can be ordered as; of each the first is the default.

    Source: https://developers.deepgram.com/docs/tts-media-output-settings
    """

    content_type: str
    make: Callable[[_Order], bytes]
    rates: tuple[int, ...]
    containers: tuple[str, ...] = ()
    bits: range | tuple[int, ...] = ()
    usual_bits: int = 0
    fixed_rate: bool = False


def speak(options: Options, *, text: str, version: Literal["v1", "v2"] = "v1", request_id: str) -> Payload:
    """Silence as long as `text` takes to say, in the format that is asked for.

    MP3 is whole frames of silence; FLAC, AAC and Ogg begin as such a file does and have its size, but do not decode.

    Raises: Invalid

    Source: https://developers.deepgram.com/reference/text-to-speech/speak-request
    """
    model = _model(options, version)
    _check_length(text, version)
    is_on(options, "mip_opt_out")
    form, order = _order(options, text)
    headers = {
        "content-type": form.content_type
        if order.container != "none"
        else f"audio/{RAW[order.encoding][0]};rate={order.rate}",
        "dg-model-uuid": str(uuid5(NAMESPACE_URL, model)),
        **({"dg-breaks-applied": "0", "dg-pronunciations-applied": "0"} if version == "v2" else {}),
    }
    told = payloads.audio(0, request_id=request_id, model=model, characters=len(text), headers=headers)
    return Payload(form.make(order), told.headers, told.kind)


def _model(options: Options, version: str) -> str:
    model = last(options, "model") or ("aura-asteria-en" if version == "v1" else None)
    if model is None:
        raise unreadable("missing field `model`")
    if version == "v2" and model.startswith("aura"):
        raise Invalid(
            "Only flux models are supported on the `/v2/speak` endpoint. "
            "Please use the `/v1/speak` endpoint for Aura text-to-speech requests.",
            code="V1_MODEL_ON_V2_SPEAK_ENDPOINT",
        )
    if not model.startswith("aura-" if version == "v1" else "flux-"):
        raise Invalid("Bad Request: No such model/version combination found.", code="Bad Request")
    return model


def _check_length(text: str, version: str) -> None:
    if not text.strip():
        raise Invalid("Input text contains no characters.", code="Bad Request")
    if version == "v1" and len(text) > LONGEST:
        message = f"Input text exceeds maximum character limit of {LONGEST}."
        raise Invalid(message, code="PAYLOAD_TOO_LARGE", status=413)


def _order(options: Options, text: str) -> tuple[_Format, _Order]:
    encoding = one_of(options, "encoding", tuple(FORMATS)) or "mp3"
    form = FORMATS[encoding]
    return form, _Order(
        encoding=encoding,
        container=_container(options, encoding, form),
        rate=_rate(options, encoding, form),
        bits=_bits(options, encoding, form),
        seconds=round(BREATH + PACE * len(text), 3),
    )


def _unsupported(message: str, encoding: str) -> Invalid:
    return Invalid(f"Unsupported audio format: {message} when `encoding={encoding}`.", code="UNSUPPORTED_AUDIO_FORMAT")


def _container(options: Options, encoding: str, form: _Format) -> str | None:
    said = one_of(options, "container", CONTAINERS)
    if said and not form.containers:
        raise _unsupported("`container` is not applicable", encoding)
    if said and said not in form.containers:
        raise _unsupported(f"`container={said}` is invalid", encoding)
    return said or next(iter(form.containers), None)


def _rate(options: Options, encoding: str, form: _Format) -> int:
    said = whole(options, "sample_rate")
    if said and form.fixed_rate:
        raise _unsupported("`sample_rate` is not applicable", encoding)
    if said and said not in form.rates:
        raise _unsupported(f"`sample_rate` must be {', '.join(map(str, sorted(form.rates)))}", encoding)
    return said or form.rates[0]


def _bits(options: Options, encoding: str, form: _Format) -> int:
    said = whole(options, "bit_rate")
    if said and not form.bits:
        raise _unsupported("`bit_rate` is not applicable", encoding)
    if said and said not in form.bits:
        choice = (
            ", ".join(map(str, form.bits)) if isinstance(form.bits, tuple) else f"{form.bits[0]} to {form.bits[-1]}"
        )
        raise _unsupported(f"`bit_rate` must be {choice}", encoding)
    return said or form.usual_bits


def _samples(order: _Order) -> bytes:
    """Silence, after the header of a WAV if it is to be one, whose lengths are placeholders as in Deepgram's."""
    _, tag, silence = RAW[order.encoding]
    width = len(silence)
    samples = silence * round(order.seconds * order.rate)
    if order.container == "none":
        return samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, order.rate, width * order.rate, width, 8 * width)
    head = struct.pack("<4sI4s", b"RIFF", 0x7FFF0024, b"WAVE") + form + struct.pack("<4sI", b"data", 0x7FFF0000)
    return head + samples


def _mp3(order: _Order) -> bytes:
    """Frames of MPEG 2, layer III, mono, 576 samples each."""
    at = MP3_BITS.index(order.bits) + 1
    frame = bytes([0xFF, 0xF3, at << 4, 0xC0]).ljust(72 * order.bits // order.rate, b"\0")
    return frame * -(-round(order.seconds * order.rate) // 576)


def _aac(order: _Order) -> bytes:
    """ADTS frames of low complexity, mono, 22.05 kHz, 1024 samples each."""
    length = max(7, 1024 * order.bits // 8 // order.rate)
    head = 0xFFF1 << 40 | 1 << 38 | 7 << 34 | 1 << 30 | length << 13 | 0x7FF << 2
    return head.to_bytes(7).ljust(length, b"\0") * -(-round(order.seconds * order.rate) // 1024)


def _flac(order: _Order) -> bytes:
    """The marker and the block that describes 16 bits mono, and half the size of the samples."""
    samples = round(order.seconds * order.rate)
    about = (order.rate << 44 | 15 << 36 | samples).to_bytes(8)
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + about + bytes(16)
    return b"fLaC" + bytes([0x80, 0, 0, len(info)]) + info + bytes(samples)


def _ogg(order: _Order) -> bytes:
    """The first page, which says that Opus follows."""
    head = struct.pack("<8sBBHIHB", b"OpusHead", 1, 1, 312, order.rate, 0, 0)
    page = struct.pack("<4sBBQIIIBB", b"OggS", 0, 2, 0, 0, 0, 0, 1, len(head))
    return page + head + bytes(round(order.seconds * order.bits / 8))


MP3_BITS = (8_000, 16_000, 24_000, 32_000, 40_000, 48_000)
RAW: Mapping[str, tuple[str, int, bytes]] = {  # the name of its media type, its number in a WAV, a silent sample
    "linear16": ("l16", 1, b"\0\0"),
    "mulaw": ("mulaw", 7, b"\xff"),
    "alaw": ("alaw", 6, b"\xd5"),
}
FORMATS: Mapping[str, _Format] = {
    "linear16": _Format("audio/wav", _samples, (24_000, 8_000, 16_000, 32_000, 48_000), ("wav", "none")),
    "mulaw": _Format("audio/wav", _samples, (8_000, 16_000), ("wav", "none")),
    "alaw": _Format("audio/wav", _samples, (8_000, 16_000), ("wav", "none")),
    "mp3": _Format("audio/mpeg", _mp3, (22_050,), (), MP3_BITS, 48_000, fixed_rate=True),
    "opus": _Format("audio/ogg;codecs=opus", _ogg, (48_000,), ("ogg",), range(4_000, 650_001), 12_000, fixed_rate=True),
    "flac": _Format("audio/flac", _flac, (48_000, 8_000, 16_000, 22_050, 32_000)),
    "aac": _Format("audio/aac", _aac, (22_050,), (), range(4_000, 192_001), 48_000, fixed_rate=True),
}
