"""How a body lies on disk: zstd level 1, unless that gains nothing."""

from __future__ import annotations

import sys
from threading import local

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdCompressor, decompress
else:
    from zstandard import ZstdCompressor, decompress

SMALLEST = 64  # bytes below which there is nothing to gain


class _Compressors(local):
    """One for each thread that writes: it is not made for two at once, and dear to make for each body."""

    def __init__(self) -> None:
        self.one = ZstdCompressor(level=1)


_compressors = _Compressors()


def pack(body: bytes, *, audio: bool) -> tuple[bool, bytes]:
    """Say whether the bytes are packed, and give them. Audio hardly shrinks and stays as it is."""
    if audio or len(body) < SMALLEST:
        return False, body
    packed = _compress(body)
    return (True, packed) if len(packed) < len(body) else (False, body)


def unpack(packed: bool, data: bytes) -> bytes:
    return decompress(data) if packed else data


def _compress(body: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        return _compressors.one.compress(body, ZstdCompressor.FLUSH_FRAME)
    return _compressors.one.compress(body)
