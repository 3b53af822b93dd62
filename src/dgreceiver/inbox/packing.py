"""How a body lies on disk: zstd level 1, unless that gains nothing."""

from __future__ import annotations

import sys
from functools import partial

if sys.version_info >= (3, 14):
    from compression.zstd import compress, decompress

    _compress = partial(compress, level=1)
else:
    from zstandard import compress, decompress

    _compress = partial(compress, level=1)


def pack(body: bytes, *, audio: bool) -> tuple[bool, bytes]:
    """Say whether the bytes are packed, and give them. Audio hardly shrinks and stays as it is."""
    if audio or len(body) < 64:
        return False, body
    packed = _compress(body)
    return (True, packed) if len(packed) < len(body) else (False, body)


def unpack(packed: bool, data: bytes) -> bytes:
    return decompress(data) if packed else data
