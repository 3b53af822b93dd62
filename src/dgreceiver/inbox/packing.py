"""How a body lies on disk: packed by zstd, unless that gains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from threading import local

from zstandard import BufferSegment, ZstdCompressor, ZstdError, decompress

SMALLEST = 64  # bytes below which there is nothing to gain
LEVEL = -3  # two thirds of the time that level 1 takes for 5 KB, for two fifths more on the disk: benchmarks/packing.py

ZSTD = "zstd"

# How a body is coded, None if it lies as it came, and what lies on the disk. What was packed is a
# bytearray: sqlite3 binds that as it is, and asks of each `bytes` first how it is to be adapted.
Packed = tuple[str | None, bytes | bytearray]


class _Compressors(local):
    """One for each thread that writes: it is not made for two at once, and dear to make for each body."""

    def __init__(self) -> None:
        self.one = ZstdCompressor(level=LEVEL)


_compressors = _Compressors()


def pack(bodies: Sequence[tuple[bytes, bool]]) -> list[Packed]:
    """Pack bodies, those that shrink; audio, of which each says whether it is that, hardly does.

    All in one call, which lets go of the interpreter once and not for each of them.
    """
    large: list[bytes | bytearray | memoryview] = [
        body for body, is_audio in bodies if not is_audio and len(body) >= SMALLEST
    ]
    packed = iter(_compressors.one.multi_compress_to_buffer(large)) if large else iter(())
    return [
        (None, body) if is_audio or len(body) < SMALLEST else _smaller(body, next(packed)) for body, is_audio in bodies
    ]


def unpack(coding: str | None, data: bytes | bytearray) -> bytes:
    """The bytes as they were before they were packed.

    Raises: ValueError if they have been damaged since.
    """
    try:
        return decompress(data) if coding == ZSTD else bytes(data)
    except ZstdError as error:
        raise ValueError(str(error)) from error


def _smaller(body: bytes, packed: BufferSegment) -> Packed:
    return (ZSTD, bytearray(packed.tobytes())) if len(packed) < len(body) else (None, body)
