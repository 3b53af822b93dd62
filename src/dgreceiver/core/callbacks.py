"""A callback as it came, and what it is: its kind, its `request_id`, its key and its lane.

The records are structs, made in a tenth of a frozen dataclass's time: there are several for each callback.
They can be part of no cycle, so the garbage collector need not look at them (`gc=False`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec

LONGEST_ID = 200
UUID7 = "tttttttt-tttt-7rrr-rrrr-rrrrrrrrrrrr"  # the time is what is t
IN_SLICES = 64 * 1024  # bytes up to which a body is hashed without letting go of the interpreter

# The words in a key. Frozen: a release that changed one would take every retry for news.
RECORDED, READ, FAILURE, AUDIO, LIVE, UNKNOWN = "recorded", "read", "failure", "audio", "live", "unknown"

LIVE_KINDS = {
    "Results": "LiveResult",
    "Metadata": "StreamMetadata",
    "SpeechStarted": "SpeechStarted",
    "UtteranceEnd": "UtteranceEnd",
    "Error": "LiveError",
}
# Equal bytes of these are the same message; of all other live messages they are not: streams
# repeat `{"type":"UtteranceEnd","channel":[0,1],"last_word_end":-1}` to the letter.
REPEATABLE = {"Results", "Metadata"}


class Callback(msgspec.Struct, frozen=True, gc=False):
    """A callback as it is stored. `headers` has lower-case names; `body` is what came, less a callback secret."""

    body: bytes
    headers: Mapping[str, str]
    path: str  # below where the receiver stands
    query: str
    received_at: float  # seconds since 1970, by the wall's clock
    job: str | None = None  # what was signed into the URL, if anything was
    context: Mapping[str, Any] | None = None
    connection: str | None = None  # the WebSocket that it came over, if it did
    frame: int = 0  # its number there, from 1

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}"


class Label(msgspec.Struct, frozen=True, gc=False):
    """What a callback is. Equal keys mean the same thing again; a lane is worked off in order."""

    kind: str  # the name of the event's class
    request_id: str | None
    key: str
    lane: str | None
    weak: bool = False  # the key is no more than equal bytes; it holds for ten minutes


class _Shape(msgspec.Struct, frozen=True, gc=False):
    """As much of a body as identity needs."""

    word: str
    kind: str
    request_id: str | None
    type: str | None = None


class _Metadata(msgspec.Struct):
    request_id: Any = None
    language: Any = msgspec.UNSET
    metadata: Any = None  # as the SDK types /v1/read


class _Results(msgspec.Struct):
    channels: msgspec.Raw = msgspec.Raw()


class _Seen(msgspec.Struct):
    """The fields that tell bodies apart, in the shapes that they usually have; all in one pass."""

    type: Any = None
    request_id: Any = None
    metadata: _Metadata | None = None
    results: _Results | None = None
    err_code: Any = msgspec.UNSET
    err_msg: Any = msgspec.UNSET
    error_code: Any = msgspec.UNSET
    category: Any = msgspec.UNSET
    message: Any = msgspec.UNSET
    error: Any = msgspec.UNSET


_NOTHING = _Metadata()
_LIST, _OTHER = msgspec.Raw(b"[]"), msgspec.Raw(b"0")
_decode = msgspec.json.Decoder().decode
_decode_seen = msgspec.json.Decoder(_Seen).decode


def load_json(body: bytes | memoryview | msgspec.Raw) -> Any:
    """Read JSON as tolerantly as it can be meant: NaN, infinities and lone surrogates are taken.

    Raises: ValueError, for whatever reason it is no JSON (nesting without end included).
    """
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(bytes(body))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def identify(callback: Callback, *, receiver: str) -> Label:
    """Name a callback and give it the key that makes a retry recognisable.

    Never raises: what cannot be read is Unknown and kept.

    Source: Deepgram resends an unanswered callback up to 10 times, 30 s apart, and
    sends no delivery id (docs/callback), so the key has to come from the content.
    """
    shape = _shape(callback)
    if callback.connection is not None:
        key = _key(receiver, LIVE, "frame", callback.connection, str(callback.frame))
        return Label(shape.kind, shape.request_id, key, lane_of(callback.connection, receiver=receiver))
    lane, parts, weak = _way(shape, callback, receiver)
    return Label(shape.kind, shape.request_id, _age(shape.request_id) + _key(receiver, *parts), lane, weak)


def lane_of(connection: str, *, receiver: str) -> str:
    """The lane of all that comes over one WebSocket: a socket is one stream, whatever its messages say."""
    return _key(receiver, LIVE, "lane", "connection", connection)


def _way(shape: _Shape, callback: Callback, receiver: str) -> tuple[str | None, tuple[str, ...], bool]:
    """The lane, what the key is made of, and whether that is no more than equal bytes."""
    if shape.word == LIVE:
        return *_live_way(shape, callback, receiver), False
    if shape.request_id is None:
        return None, *_nameless_way(shape, callback)
    if shape.word == UNKNOWN:
        return None, (UNKNOWN, shape.request_id, digest(callback.body)), False
    return None, (shape.word, shape.request_id), False


def _live_way(shape: _Shape, callback: Callback, receiver: str) -> tuple[str | None, tuple[str, ...]]:
    scope = callback.job or shape.request_id
    lane = _key(receiver, LIVE, "lane", scope) if scope else None
    if scope and shape.type in REPEATABLE:
        return lane, (LIVE, scope, shape.type, digest(callback.body))
    return lane, ("fresh", uuid4().hex)


def _nameless_way(shape: _Shape, callback: Callback) -> tuple[tuple[str, ...], bool]:
    if callback.job:
        return (shape.word, "job", callback.job, digest(callback.body)), False
    return (shape.word, "weak", digest(callback.body), callback.target), True


def is_audio_type(content_type: str) -> bool:
    return content_type[:6].lower() == "audio/"


def _shape(callback: Callback) -> _Shape:
    content_type = callback.headers.get("content-type", "")
    if is_audio_type(content_type):
        return _audio(callback)
    try:
        return _shape_of(_glance(callback.body))
    except ValueError:
        if content_type.lower().startswith("application/octet-stream"):
            return _audio(callback)
        return _Shape(UNKNOWN, "Unknown", None)


def _audio(callback: Callback) -> _Shape:
    return _Shape(AUDIO, "Audio", _usable(callback.headers.get("dg-request-id")))


def _shape_of(seen: _Seen) -> _Shape:
    """Tell the kinds apart by what is there; a kind whose event needs an id is Unknown without one.

    Source: there is no event-type field on recorded, read and speech callbacks (docs/callback).
    """
    metadata, results = seen.metadata or _NOTHING, seen.results
    request_id = _first_usable(metadata.request_id, seen.request_id, metadata.metadata)
    if isinstance(seen.type, str):
        return _Shape(LIVE, LIVE_KINDS.get(seen.type, "Unknown"), request_id, seen.type)
    if results and results.channels:
        if memoryview(results.channels)[0] == ord("["):
            return _Shape(RECORDED, "Transcript" if request_id else "Unknown", request_id)
    elif results or metadata.language is not msgspec.UNSET:
        return _Shape(READ, "Analysis" if request_id else "Unknown", request_id)
    elif _is_failure(seen):
        return _Shape(FAILURE, "Failure", request_id)
    return _Shape(UNKNOWN, "Unknown", request_id)


def _is_failure(seen: _Seen) -> bool:
    if msgspec.UNSET not in (seen.category, seen.message):
        return True
    return any(value is not msgspec.UNSET for value in (seen.err_code, seen.err_msg, seen.error_code, seen.error))


def find_request_id(document: Mapping[str, Any]) -> str | None:
    """The id that a body carries, wherever its kind keeps it, if it is one that counts."""
    metadata = document.get("metadata")
    inner = metadata if isinstance(metadata, dict) else {}
    return _first_usable(inner.get("request_id"), document.get("request_id"), inner.get("metadata"))


def _first_usable(in_metadata: object, on_top: object, nested: object) -> str | None:
    """`nested` is metadata within metadata, as the SDK types /v1/read."""
    if isinstance(nested, dict):
        return _usable(in_metadata) or _usable(on_top) or _usable(nested.get("request_id"))
    return _usable(in_metadata) or _usable(on_top)


def _usable(request_id: object) -> str | None:
    if isinstance(request_id, str) and 0 < len(request_id) <= LONGEST_ID and request_id.isprintable():
        return request_id
    return None


def _glance(body: bytes) -> _Seen:
    """Decode what identity needs and no more: at 150 KB in a sixteenth of the time that `json.loads` takes.

    Raises: ValueError if the body is no JSON object.
    """
    try:
        return _decode_seen(body)
    except (ValueError, RecursionError):  # odd, or no JSON
        document = load_json(body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    fields = {name: document[name] for name in _Seen.__struct_fields__ if name in document}
    fields["metadata"] = _seen_metadata(document.get("metadata"))
    fields["results"] = _seen_results(document.get("results"))
    return _Seen(**fields)


def _seen_metadata(metadata: object) -> _Metadata | None:
    if not isinstance(metadata, dict):
        return None
    return _Metadata(**{name: metadata[name] for name in _Metadata.__struct_fields__ if name in metadata})


def _seen_results(results: object) -> _Results | None:
    """What stands where results should, but is no object, is of no kind."""
    if results is None:
        return None
    if not isinstance(results, dict):
        return _Results(_OTHER)
    if "channels" not in results:
        return _Results()
    return _Results(_LIST if isinstance(results["channels"], list) else _OTHER)


def _age(request_id: str | None) -> str:
    """The time in a UUID of version 7, which a key begins with: keys of one time are neighbours in the index of keys.

    So a batch writes a few pages of it, and not one for each callback. It decides nothing.

    Source: RFC 9562, 5.7; Deepgram's ids are of this version since July 2026
    """
    if request_id is None or len(request_id) != len(UUID7) or request_id[14] != "7":
        return ""
    time = request_id[:8] + request_id[9:13]
    return time if time.isalnum() and time.isascii() else ""


def digest(body: bytes) -> str:
    """A short digest of a body.

    In slices: from 2,048 bytes on hashlib lets go of the interpreter, and while a batch is being written it
    costs more to have it back than to hash a few kilobytes.
    """
    if len(body) > IN_SLICES:
        return sha256(body).hexdigest()[:32]
    taken, view = sha256(), memoryview(body)
    for start in range(0, len(body), 2047):
        taken.update(view[start : start + 2047])
    return taken.hexdigest()[:32]


def _key(receiver: str, *parts: str) -> str:
    """A digest over length-prefixed parts, so that no body can make another's key."""
    text = f"{len(receiver)}:{receiver}"
    for part in parts:
        text += f"{len(part)}:{part}"
    return fingerprint(text)


def fingerprint(text: str) -> str:
    """The short digest that keys and lanes are."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
