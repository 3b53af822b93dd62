"""How a body lies on disk: packed by zstd, unless that gains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import local

from zstandard import BufferSegment, ZstdCompressor, ZstdError, decompress

SMALLEST = 64  # bytes below which there is nothing to gain
LARGE = 32 * 1024  # bytes from which packing better pays

# Levels. The quick one takes two fifths more of the disk, and of small bodies two thirds of the time, of large ones
# seven eighths (benchmarks/packing.py).
QUICK, BETTER = -3, 1

ZSTD = "zstd"

# How a body is coded, None if it lies as it came, and what lies on the disk. What was packed is a
# bytearray: sqlite3 binds that as it is, and asks of each `bytes` first how it is to be adapted.
Packed = tuple[str | None, bytes | bytearray]


class _Compressors(local):
    """One for each thread that writes: it is not made for two at once, and dear to make for each body."""

    def __init__(self) -> None:
        self.quick = ZstdCompressor(level=QUICK)
        self.better = ZstdCompressor(level=BETTER)


_compressors = _Compressors()


def pack(bodies: Sequence[bytes]) -> list[Packed]:
    """Pack bodies, those that shrink.

    The small ones in one call, which lets go of the interpreter once and not for each of them.
    """
    small: list[bytes | bytearray | memoryview] = [body for body in bodies if SMALLEST <= len(body) < LARGE]
    quick = iter(_compressors.quick.multi_compress_to_buffer(small)) if small else iter(())
    return [_packed(body, quick) for body in bodies]


def _packed(body: bytes, quick: Iterator[BufferSegment]) -> Packed:
    """A body as it is to lie on the disk; of a small one that is what comes next of those that were packed."""
    size = len(body)
    if size < SMALLEST:
        return None, body
    packed = bytearray(next(quick).tobytes() if size < LARGE else _compressors.better.compress(body))
    return (ZSTD, packed) if len(packed) < size else (None, body)


def unpack(coding: str | None, data: bytes | bytearray) -> bytes:
    """The bytes as they were before they were packed.

    Raises: ValueError if they have been damaged since.
    """
    try:
        return decompress(data) if coding == ZSTD else bytes(data)
    except ZstdError as error:
        raise ValueError(str(error)) from error
