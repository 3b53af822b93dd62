"""A callback as it came, and what it is: its kind, its `request_id`, its key and its lane.

The records are structs, made in a tenth of a frozen dataclass's time: there are several for each callback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec

LONGEST_ID = 200
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


class Callback(msgspec.Struct, frozen=True):
    """A callback as it is stored. `headers` has lower-case names; `body` is what came, less a callback secret."""

    body: bytes
    headers: Mapping[str, str]
    path: str  # below where the receiver stands
    query: str
    received_at: datetime  # aware, UTC
    job: str | None = None  # what was signed into the URL, if anything was
    context: Mapping[str, Any] | None = None

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}"


class Label(msgspec.Struct, frozen=True):
    """What a callback is. Equal keys mean the same thing again; a lane is worked off in order."""

    kind: str  # the name of the event's class
    request_id: str | None
    key: str
    lane: str | None
    digest: bytes  # of the body: tells a duplicate from a conflict
    weak: bool = False  # the key is no more than equal bytes; it holds for ten minutes


class _Shape(msgspec.Struct, frozen=True):
    """As much of a body as identity needs."""

    word: str
    kind: str
    request_id: str | None
    type: str | None = None


_decode = msgspec.json.Decoder().decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def load_json(body: bytes | msgspec.Raw) -> Any:
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
    digest = _digest(callback.body)

    def label(*parts: str | bytes, lane: str | None = None, weak: bool = False) -> Label:
        return Label(shape.kind, shape.request_id, _key(receiver, *parts), lane, digest, weak)

    if shape.word == LIVE:
        scope = callback.job or shape.request_id
        if scope is None:
            return label(*_fresh())
        lane = _key(receiver, LIVE, "lane", scope)
        if shape.type in REPEATABLE:
            return label(LIVE, scope, shape.type, digest, lane=lane)
        return label(*_fresh(), lane=lane)
    if shape.word == AUDIO and shape.request_id is None and callback.job:
        return label(AUDIO, callback.job, digest)
    if shape.request_id is None and callback.job:
        return label(shape.word, "job", callback.job, digest)
    if shape.request_id is None:
        return label(shape.word, "weak", digest, callback.target, weak=True)
    if shape.word == UNKNOWN:
        return label(UNKNOWN, shape.request_id, digest)
    return label(shape.word, shape.request_id)


def is_audio_type(content_type: str) -> bool:
    return content_type.lower().startswith("audio/")


def _shape(callback: Callback) -> _Shape:
    content_type = callback.headers.get("content-type", "")
    if is_audio_type(content_type):
        return _audio(callback)
    try:
        seen = _glance(callback.body)
    except ValueError:
        if content_type.lower().startswith("application/octet-stream"):
            return _audio(callback)
        return _Shape(UNKNOWN, "Unknown", None)
    return _shape_of(seen)


def _audio(callback: Callback) -> _Shape:
    return _Shape(AUDIO, "Audio", _usable(callback.headers.get("dg-request-id")))


def _shape_of(seen: Mapping[str, Any]) -> _Shape:
    """Tell the kinds apart by what is there; a kind whose event needs an id is Unknown without one.

    Source: there is no event-type field on recorded, read and speech callbacks (docs/callback).
    """
    request_id = find_request_id(seen)
    results, type_ = seen.get("results"), seen.get("type")
    if isinstance(type_, str):
        return _Shape(LIVE, LIVE_KINDS.get(type_, "Unknown"), request_id, type_)
    if isinstance(results, dict) and isinstance(results.get("channels"), list):
        return _Shape(RECORDED, "Transcript" if request_id else "Unknown", request_id)
    if _is_analysis(results, seen.get("metadata")):
        return _Shape(READ, "Analysis" if request_id else "Unknown", request_id)
    if results is None and _is_failure(seen):
        return _Shape(FAILURE, "Failure", request_id)
    return _Shape(UNKNOWN, "Unknown", request_id)


def _is_analysis(results: Any, metadata: Any) -> bool:
    if isinstance(results, dict):
        return "channels" not in results
    return results is None and isinstance(metadata, dict) and "language" in metadata


def _is_failure(seen: Mapping[str, Any]) -> bool:
    if "category" in seen and "message" in seen:
        return True
    return any(name in seen for name in ("err_code", "err_msg", "error_code", "error"))


def find_request_id(seen: Mapping[str, Any]) -> str | None:
    """The id that a body carries, wherever its kind keeps it, if it is one that counts."""
    metadata = seen.get("metadata")
    inner: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    nested = inner.get("metadata")  # as the SDK types /v1/read
    return (
        _usable(inner.get("request_id"))
        or _usable(seen.get("request_id"))
        or _usable(nested.get("request_id") if isinstance(nested, dict) else None)
    )


def _usable(request_id: object) -> str | None:
    if isinstance(request_id, str) and 0 < len(request_id) <= LONGEST_ID and request_id.isprintable():
        return request_id
    return None


def _glance(body: bytes) -> Mapping[str, Any]:
    """Decode what identity needs and no more (83 µs of a millisecond at 140 KB); of the rest only the names are told.

    Raises: ValueError if the body is no JSON object.
    """
    try:
        seen = _decoded(body, "type", "request_id")
    except (ValueError, RecursionError):
        whole = load_json(body)
        if not isinstance(whole, dict):
            raise ValueError("not a JSON object") from None
        return whole
    if "metadata" in seen:
        seen["metadata"] = _glance_into(seen["metadata"], "request_id", "metadata")
    if "results" in seen:
        seen["results"] = _glance_into(seen["results"])
    return seen


def _glance_into(raw: msgspec.Raw, *names: str) -> Any:
    try:
        seen = _decoded(raw, *names)
    except (ValueError, RecursionError):
        return load_json(raw)
    if "channels" in seen:
        seen["channels"] = [] if memoryview(seen["channels"])[0] == ord("[") else None
    return seen


def _decoded(raw: bytes | msgspec.Raw, *names: str) -> dict[str, Any]:
    """The fields of an object, those of these names decoded."""
    fields: dict[str, Any] = _fields(raw)
    for name in names:
        if name in fields:
            fields[name] = load_json(fields[name])
    return fields


def _digest(body: bytes) -> bytes:
    """A short digest of a body.

    In slices: from 2,048 bytes on hashlib lets go of the interpreter, and while a batch is being written it
    costs more to have it back than to hash a few kilobytes.
    """
    if len(body) > IN_SLICES:
        return sha256(body).digest()[:16]
    taken, view = sha256(), memoryview(body)
    for start in range(0, len(body), 2047):
        taken.update(view[start : start + 2047])
    return taken.digest()[:16]


def _key(receiver: str, *parts: str | bytes) -> str:
    """A digest over length-prefixed parts, so that no body can make another's key."""
    data = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in (receiver, *parts)]
    return sha256(b"".join([len(part).to_bytes(8, "big") + part for part in data])).hexdigest()[:32]


def _fresh() -> tuple[str, bytes]:
    return "fresh", uuid4().bytes
