"""What a WebSocket's peer may send that no honest one would. `mark` begins each message, to know it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LIMIT = 1000  # bytes of a message
MASK = bytes(4)  # which leaves the payload as it is


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """A frame, as RFC 6455 writes it."""
    return head(opcode, len(payload), fin=fin, masked=masked, rsv=rsv) + MASK * masked + payload


def head(opcode: int, length: int, *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    first, bit = fin << 7 | rsv << 4 | opcode, masked << 7
    if length < 126:
        return bytes([first, bit | length])
    if length < 65_536:
        return bytes([first, bit | 126]) + length.to_bytes(2)
    return bytes([first, bit | 127]) + length.to_bytes(8)


# By name: what comes behind a good message, and what else is stored of it.
FRAMES: Mapping[str, tuple[Callable[[bytes], bytes], tuple[bytes, ...]]] = {
    "nothing": (lambda mark: b"", ()),
    "another good one": (lambda mark: frame(TEXT, mark + b"2"), (b"2",)),
    "one without a mask": (lambda mark: frame(TEXT, mark + b"2", masked=False), ()),
    "a continuation of nothing": (lambda mark: frame(CONTINUED, mark + b"2"), ()),
    "a message within another": (lambda mark: frame(TEXT, mark, fin=False) + frame(TEXT, mark + b"2"), ()),
    "fragments": (lambda mark: frame(TEXT, mark, fin=False) + frame(CONTINUED, b"2"), (b"2",)),
    "fragments with a ping between": (
        lambda mark: frame(TEXT, mark, fin=False) + frame(PING) + frame(CONTINUED, b"2"),
        (b"2",),
    ),
    "fragments without end": (
        lambda mark: frame(TEXT, mark, fin=False) + 100 * frame(CONTINUED, b"x" * 100, fin=False),
        (),
    ),
    "empty fragments without end": (
        lambda mark: frame(TEXT, mark, fin=False) + 20_000 * frame(CONTINUED, fin=False),
        (),
    ),
    "fragments that never end": (lambda mark: frame(TEXT, mark + b"2", fin=False), ()),
    "a frame over the limit": (lambda mark: frame(TEXT, mark + b"x" * LIMIT), ()),
    "a frame that claims to be giant": (lambda mark: head(BINARY, 2**62) + MASK + mark, ()),
    "a length with a sign": (lambda mark: head(BINARY, 2**63) + MASK + mark, ()),
    "a length in more bytes than it needs": (
        lambda mark: b"\x82\xff" + (4).to_bytes(8) + MASK + mark + b"2",
        (b"2",),
    ),
    "a flood of pings": (lambda mark: 2000 * frame(PING, b"x" * 100) + frame(TEXT, mark + b"2"), (b"2",)),
    "a flood of pongs": (lambda mark: 2000 * frame(PONG, b"x" * 100) + frame(TEXT, mark + b"2"), (b"2",)),
    "a ping that is too long": (lambda mark: frame(PING, b"x" * 126), ()),
    "a ping in fragments": (lambda mark: frame(PING, b"x", fin=False), ()),
    "an opcode that is none": (lambda mark: frame(0x3, mark), ()),
    "a control opcode that is none": (lambda mark: frame(0xB, mark), ()),
    "one that says it is compressed": (lambda mark: frame(TEXT, mark + b"2", rsv=4), ()),
    "text that is no UTF-8": (lambda mark: frame(TEXT, mark + b"\xff\xfe"), ()),
    "text with half a surrogate pair": (lambda mark: frame(TEXT, mark + b"\xed\xa0\x80"), ()),
    "bytes that are no UTF-8": (lambda mark: frame(BINARY, mark + b"\xff\xfe"), (b"\xff\xfe",)),
    "a close with a byte": (lambda mark: frame(CLOSE, b"\x03"), ()),
    "a close with a code that is none": (lambda mark: frame(CLOSE, (999).to_bytes(2)), ()),
    "a close with a code that is not sent": (lambda mark: frame(CLOSE, (1005).to_bytes(2)), ()),
    "a close with junk for a reason": (lambda mark: frame(CLOSE, (1000).to_bytes(2) + b"\xff\xff"), ()),
    "more behind a close": (lambda mark: frame(CLOSE, (1000).to_bytes(2)) + frame(TEXT, mark + b"2"), ()),
    "HTTP": (lambda mark: b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", ()),
    "half a frame": (lambda mark: frame(TEXT, mark + b"2")[:-1], ()),
}
