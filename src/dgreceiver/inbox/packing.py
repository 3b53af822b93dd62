"""How a body lies on disk: packed by zstd, unless that gains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import local

from zstandard import BufferSegment, ZstdCompressor, ZstdDecompressor, ZstdError, decompress

SMALLEST = 64  # bytes below which there is nothing to gain
LEVEL = -3  # two thirds of the time that level 1 takes for 5 KB, for two fifths more on the disk: benchmarks/packing.py

ZSTD = "zstd"

_DAMAGE = (ZstdError, MemoryError)  # the latter for a length that nothing has

# How a body is coded, None if it lies as it came, and what lies on the disk. What was packed is a
# bytearray: sqlite3 binds that as it is, and asks of each `bytes` first how it is to be adapted.
Packed = tuple[str | None, bytes | bytearray]


class _Mine(local):
    """Of each thread that writes: neither is made for two at once, and both are dear to make for each body."""

    def __init__(self) -> None:
        self.compressor = ZstdCompressor(level=LEVEL)
        self.decompressor = ZstdDecompressor()


_mine = _Mine()


def pack(bodies: Sequence[tuple[bytes, bool]]) -> list[Packed]:
    """Pack bodies, those that shrink; audio, of which each says whether it is that, hardly does.

    All in one call, which lets go of the interpreter once and not for each of them.
    """
    large: list[bytes | bytearray | memoryview] = [
        body for body, is_audio in bodies if not is_audio and len(body) >= SMALLEST
    ]
    packed = iter(_mine.compressor.multi_compress_to_buffer(large)) if large else iter(())
    return [
        (None, body) if is_audio or len(body) < SMALLEST else _smaller(body, next(packed)) for body, is_audio in bodies
    ]


def unpack(coding: str | None, data: bytes | bytearray) -> bytes:
    """The bytes as they were before they were packed.

    Raises: ValueError if they have been damaged since.
    """
    try:
        return decompress(data) if coding == ZSTD else bytes(data)
    except _DAMAGE as error:
        raise ValueError(str(error)) from error


def unpack_all(packed: Mapping[int, Packed]) -> dict[int, bytes]:
    """The bytes of several, all in one call, as `pack` does it.

    Raises: ValueError if one of them has been damaged since.
    """
    frames = {id_: data for id_, (coding, data) in packed.items() if coding == ZSTD}
    whole = {id_: bytes(data) for id_, (coding, data) in packed.items() if coding != ZSTD}
    if frames:  # of none it would divide by their number
        try:
            unpacked = _mine.decompressor.multi_decompress_to_buffer(list(frames.values()))
        except _DAMAGE as error:
            raise ValueError(str(error)) from error
        whole |= {id_: unpacked[at].tobytes() for at, id_ in enumerate(frames)}
    return whole


def _smaller(body: bytes, packed: BufferSegment) -> Packed:
    return (ZSTD, bytearray(packed.tobytes())) if len(packed) < len(body) else (None, body)
