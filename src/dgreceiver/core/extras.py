"""Extra Metadata in a body: reading it, and taking a secret out of it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .callbacks import load_json

MASK = b"***"


# --- what a body carries


class _Places(msgspec.Struct):
    """The two places where Deepgram puts Extra Metadata, left undecoded."""

    metadata: msgspec.Raw = msgspec.Raw()
    extra: msgspec.Raw = msgspec.Raw()


_decode_places = msgspec.json.Decoder(_Places).decode


def read_extras(body: bytes) -> list[Mapping[str, Any]]:
    """Every `extra` that a body carries where Deepgram puts it."""
    try:
        top = _glance(body)
    except ValueError:
        return []
    if not isinstance(top, dict):
        return []
    metadata = top.get("metadata")
    found = [top.get("extra"), metadata.get("extra") if isinstance(metadata, dict) else None]
    return [extra for extra in found if isinstance(extra, dict)]


def _glance(body: bytes) -> Any:
    """Decode the two places alone, a tenth of the whole's time; the whole where that is not possible.

    Raises: ValueError if the body is no JSON.
    """
    try:
        places = _decode_places(body)
    except (ValueError, RecursionError):
        return load_json(body)
    return {name: load_json(raw) for name in _Places.__struct_fields__ if (raw := getattr(places, name))}


# --- what must not stay in it


class Veil:
    """Puts `***` in place of secrets, each under its name in an `extra`, in a time that grows with the body alone.

    In JSON the values go that stand where Deepgram puts them, and nothing else is touched: a
    transcript may speak of the secret. What is no JSON cannot be told apart, so there the
    secrets go wherever they stand.
    """

    def __init__(self, secrets: Sequence[tuple[str, str]]) -> None:
        names, texts = zip(*secrets, strict=True)
        shared = "".join(texts)
        escapes = [b"u00" if shared.isascii() else b"u", *(_SHORT[one] for one in _SHORT if one in shared)]
        self._names = _pattern(b'"(?:%s)"', [_spelling(name) for name in names])
        self._secrets = _pattern(b"%s", [way for text in texts for way in (_spelling(text, raw=True), _spelling(text))])
        self._plain = [text.encode() for text in texts]
        self._escapes = _pattern(rb"\\(?:%s)", [re.escape(escape) for escape in escapes])

    def over(self, body: bytes) -> bytes:
        covered = self._cover(body)
        if self._may_leak(covered) and not _is_json(body):
            return self._cover(self._secrets.sub(MASK, body))
        return covered

    def _cover(self, body: bytes) -> bytes:
        pieces, at = [], 0
        for start, end in _values(body, self._names):
            pieces += [body[at:start], b'"%s"' % MASK]
            at = end
        return b"".join((*pieces, body[at:])) if pieces else body

    def _may_leak(self, body: bytes) -> bool:
        """Whether a secret could stand in it in any spelling; quick, and too often yes."""
        if _is_wide(body) or any(secret in body for secret in self._plain):
            return True
        return self._escapes.search(body) is not None


def _is_json(body: bytes) -> bool:
    """Whether it is JSON as it goes between machines: in UTF-8 (RFC 8259, 8.1)."""
    try:
        load_json(body)
    except ValueError:
        return False
    return not _is_wide(body)


def _is_wide(body: bytes) -> bool:
    """Whether it may be UTF-16 or UTF-32, in which Python reads JSON too."""
    return b"\0" in body[:4]


_SHORT = {
    '"': b'"', "\\": b"\\", "/": b"/", "\b": b"b", "\f": b"f", "\n": b"n", "\r": b"r", "\t": b"t",
}  # fmt: skip


def _pattern(around: bytes, spellings: list[bytes]) -> re.Pattern[bytes]:
    return re.compile(around % b"|".join(spellings))


def _spelling(text: str, *, raw: bool = False) -> bytes:
    """A pattern for all the ways in which JSON may spell a text; `raw` for its plain bytes, as UTF-8 or wider."""
    if raw:
        return rb"\x00{0,3}".join(re.escape(bytes([byte])) for byte in text.encode())
    return b"".join(b"(?:%s)" % b"|".join(_ways(character)) for character in text)


def _ways(character: str) -> Iterator[bytes]:
    if character >= " " and character not in '"\\':
        yield re.escape(character.encode())
    if character in _SHORT:
        yield re.escape(b"\\" + _SHORT[character])
    units = character.encode("utf-16-be").hex()
    yield b"".join(rb"\\u(?i:%s)" % units[at : at + 4].encode() for at in range(0, len(units), 4))


# A string, or a mark, or the letters of another scalar. Strings end with the body at the latest.
_TOKEN = re.compile(rb'("[^"\\]*+(?:\\.?[^"\\]*+)*+"?)|([{}\[\],:])|[^\s"{}\[\],:]++', re.DOTALL)
_EXTRA_KEY = _pattern(b'"%s"', [_spelling("extra")])
# In JSON a quote behind a backslash is inside a string, and any other that opens "extra" opens a string: what
# stands behind the string tells that it is a key. So nothing before it need be read. A body without an escape
# of an ASCII character has the key in plain letters alone, which are found in a fifth of the time.
_ASCII_ESCAPE = re.compile(rb"\\u00")
_PLAIN_OPENING = re.compile(rb'"extra"(?<!\\"extra")\s*+:\s*+\{')
_ANY_OPENING = re.compile(rb'"(?<!\\")%s"\s*+:\s*+\{' % _spelling("extra"))


def _values(body: bytes, names: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
    """Where the values stand of every one of `names` in an object right below an `extra`."""
    opening = _ANY_OPENING if _ASCII_ESCAPE.search(body) else _PLAIN_OPENING
    at = 0
    while found := opening.search(body, at):
        at = yield from _values_within(body, found.end(), names)


def _values_within(body: bytes, at: int, names: re.Pattern[bytes]) -> Generator[tuple[int, int], None, int]:
    """The same within one such object, from behind its brace; returns where it ends.

    Takes no stack of Python's and no JSON for granted: brackets without end only fill a list.
    """
    is_below = [True]  # of every bracket that is open: is it such an object?
    string = key = None  # the token before this one, if it is a string; the key before it, if it is a colon
    tokens = _TOKEN.finditer(body, at)
    for token in tokens:
        last = token
        if token[2] == b":" and string and is_below[-1] and names.fullmatch(string):
            start, end, last = _skip_value(token, tokens)
            if start < end:
                yield start, end
        mark = last[2]
        if mark in (b"{", b"["):
            is_below.append(mark == b"{" and key is not None and _EXTRA_KEY.fullmatch(key) is not None)
        elif mark in (b"}", b"]"):
            is_below.pop()
        if not is_below:
            return last.end()
        key, string = (string if mark == b":" else None), token[1]
    return len(body)


def _skip_value(colon: re.Match[bytes], tokens: Iterator[re.Match[bytes]]) -> tuple[int, int, re.Match[bytes]]:
    """Pass over what stands between a colon and the next mark of its level, or the end of the body.

    Returns where it begins and ends, and the token that ended it.
    """
    start = end = depth = 0
    token = colon
    for token in tokens:
        mark = token[2]
        if depth == 0 and mark in (b",", b"}", b"]"):
            break
        depth += (mark in (b"{", b"[")) - (mark in (b"}", b"]"))
        start, end = start or token.start(), token.end()
    return start, end, token
