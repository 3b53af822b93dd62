"""Request ids as Deepgram makes them."""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID


def new_request_id(at: datetime) -> str:
    """A UUID of version 7: the milliseconds since the epoch, then dice.

    Source: RFC 9562, section 5.7.
    """
    milliseconds = int(at.timestamp() * 1000)
    dice = secrets.randbits(74)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | (dice >> 62) << 64 | 0b10 << 62 | dice & (1 << 62) - 1))
