"""What a callback is, and when two callbacks are the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver.core.callbacks import Callback, Label, digest, identify, lane_of, load_json
from dgreceiver.core.events import parse

PUBLISHED = Path(__file__).parents[3] / "shared" / "payloads"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
JSON = {"content-type": "application/json"}
MP3 = {"content-type": "audio/mpeg"}
OCTETS = {"content-type": "application/octet-stream"}


def callback(body: object = b"", headers: Mapping[str, str] = JSON, **fields: Any) -> Callback:
    """A callback with these bytes, or this document as its body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Callback(**{"body": data, "headers": headers, "path": "/", "query": "", "received_at": NOON, **fields})


def label(came: Callback) -> Label:
    return identify(came, receiver="default")


def recorded(request_id: object = "r-1", text: str = "hello", **metadata: Any) -> dict[str, Any]:
    channel = {"alternatives": [{"transcript": text}]}
    return {"metadata": {"request_id": request_id, **metadata}, "results": {"channels": [channel]}}


def read(request_id: object = "r-1", text: str = "hello") -> dict[str, Any]:
    return {"metadata": {"request_id": request_id, "language": "en"}, "results": {"summary": {"text": text}}}


def failure(request_id: object = "r-1", text: str = "no") -> dict[str, Any]:
    return {"err_code": "BAD", "err_msg": text, "request_id": request_id}


def live(type_: str, request_id: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": type_, **({"metadata": {"request_id": request_id}} if request_id else {}), **fields}


@pytest.mark.parametrize(
    ("came", "kind", "request_id"),
    [
        pytest.param(callback(recorded()), "Transcript", "r-1", id="recorded"),
        pytest.param(
            callback({"request_id": "r-2", "results": {"channels": []}}), "Transcript", "r-2", id="no metadata"
        ),
        pytest.param(callback({"results": {"channels": []}}), "Unknown", None, id="recorded without an id"),
        pytest.param(callback(read()), "Analysis", "r-1", id="read"),
        pytest.param(
            callback({"metadata": {"metadata": {"request_id": "r-3"}}, "results": {}}),
            "Analysis",
            "r-3",
            id="read, nested",
        ),
        pytest.param(
            callback({"metadata": {"request_id": "r-1", "language": "en"}}),
            "Analysis",
            "r-1",
            id="read without results",
        ),
        pytest.param(callback({"results": {}}), "Unknown", None, id="read without an id"),
        pytest.param(callback(failure()), "Failure", "r-1", id="failure"),
        pytest.param(callback({"category": "X", "message": "no"}), "Failure", None, id="failure by category"),
        pytest.param(callback({"category": "X"}), "Unknown", None, id="a category alone"),
        pytest.param(callback({"error_code": 503}), "Failure", None, id="failure by error_code"),
        pytest.param(callback({"error": "no"}), "Failure", None, id="failure by error"),
        pytest.param(callback({"error": "no", "results": {"channels": None}}), "Unknown", None, id="channels of null"),
        pytest.param(callback({"results": []}), "Unknown", None, id="results of a list"),
        pytest.param(callback({"request_id": "r-1", "results": "x"}), "Unknown", "r-1", id="results of a text"),
        pytest.param(callback(live("Results")), "LiveResult", None, id="live results"),
        pytest.param(callback(live("Metadata", request_id="s-1")), "StreamMetadata", "s-1", id="live metadata"),
        pytest.param(callback(live("SpeechStarted")), "SpeechStarted", None, id="speech started"),
        pytest.param(callback(live("UtteranceEnd")), "UtteranceEnd", None, id="utterance end"),
        pytest.param(callback(live("Error")), "LiveError", None, id="live error"),
        pytest.param(callback(live("ConfigureSuccess")), "Unknown", None, id="a type nobody knows"),
        pytest.param(callback({"type": 7, **recorded()}), "Transcript", "r-1", id="a type that is no text"),
        pytest.param(callback(b"ID3", MP3), "Audio", None, id="audio"),
        pytest.param(callback(b"ID3", {**MP3, "dg-request-id": "a-1"}), "Audio", "a-1", id="audio with an id"),
        pytest.param(callback(b"{}", {"content-type": "Audio/L16;rate=8000"}), "Audio", None, id="audio in capitals"),
        pytest.param(callback(b"\x00\x01", OCTETS), "Audio", None, id="octets that are no JSON"),
        pytest.param(callback(recorded(), OCTETS), "Transcript", "r-1", id="octets that are JSON"),
        pytest.param(callback({"request_id": "r-1"}), "Unknown", "r-1", id="an object of nothing known"),
        pytest.param(callback(b"[]"), "Unknown", None, id="a list"),
        pytest.param(callback(b"hello", {}), "Unknown", None, id="no JSON"),
        pytest.param(callback(b""), "Unknown", None, id="no bytes"),
        pytest.param(callback(json.dumps(recorded()).encode("utf-16")), "Transcript", "r-1", id="UTF-16"),
        pytest.param(
            callback(b"\xef\xbb\xbf" + json.dumps(read()).encode()), "Analysis", "r-1", id="a byte order mark"
        ),
        pytest.param(
            callback(b'{"metadata":{"request_id":"r-1","x":NaN},"results":{"channels":[]}}'),
            "Transcript",
            "r-1",
            id="NaN",
        ),
        pytest.param(
            callback(b'{"request_id":"r-1","results":{"channels":[],"x":1e999}}'), "Transcript", "r-1", id="1e999"
        ),
        pytest.param(
            callback(b'{"request_id":"a","request_id":"b","error":1}'), "Failure", "b", id="a name given twice"
        ),
        pytest.param(callback(b'{"request_id":"r-1","error":"\\ud800"}'), "Failure", "r-1", id="half a surrogate pair"),
    ],
)
def test_a_callback_is_named_by_what_it_holds(came, kind, request_id):
    assert (label(came).kind, label(came).request_id) == (kind, request_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(callback(recorded()), callback(recorded(text="other")), id="recorded, one request"),
        pytest.param(callback(recorded()), callback(recorded(), job="j", query="x"), id="recorded, whatever its URL"),
        pytest.param(callback(read()), callback(read(text="other")), id="read, one request"),
        pytest.param(callback(failure()), callback(failure(text="other")), id="failure, one request"),
        pytest.param(
            callback(b"1", {**MP3, "dg-request-id": "a"}),
            callback(b"2", {**MP3, "dg-request-id": "a"}),
            id="audio, one header",
        ),
        pytest.param(
            callback(b"1", MP3, job="j"), callback(b"1", MP3, job="j", path="/x"), id="audio, one job, equal bytes"
        ),
        pytest.param(callback(live("Results", "s")), callback(live("Results", "s")), id="live results of one stream"),
        pytest.param(
            callback(live("Metadata"), job="j"), callback(live("Metadata"), job="j"), id="metadata of one job"
        ),
        pytest.param(
            callback({"request_id": "r"}), callback({"request_id": "r"}, path="/x"), id="unknown, equal bytes"
        ),
        pytest.param(callback(b"?", job="j"), callback(b"?", job="j", path="/x"), id="no id, one job, equal bytes"),
        pytest.param(callback(b"?"), callback(b"?", MP3 | JSON), id="nothing but equal bytes at one target"),
    ],
)
def test_the_same_thing_again_has_the_same_key(one, other):
    assert label(one).key == label(other).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(callback(recorded("r-1")), callback(recorded("r-2")), id="recorded, two requests"),
        pytest.param(callback(recorded()), callback(read()), id="recorded and read of one id"),
        pytest.param(callback(recorded()), callback(failure()), id="a result and a failure of one id"),
        pytest.param(
            callback(b"1", {**MP3, "dg-request-id": "a"}),
            callback(b"1", {**MP3, "dg-request-id": "b"}),
            id="audio, two headers",
        ),
        pytest.param(callback(b"1", MP3, job="j"), callback(b"2", MP3, job="j"), id="audio, one job, other bytes"),
        pytest.param(callback(b"1", MP3, job="j"), callback(b"1", MP3, job="k"), id="audio, equal bytes of two jobs"),
        pytest.param(
            callback(live("Results", "s")), callback(live("Results", "s", start=1)), id="two results of a stream"
        ),
        pytest.param(callback(live("Results", "s")), callback(live("Results", "t")), id="results of two streams"),
        pytest.param(callback(live("Results"), job="j"), callback(live("Results"), job="k"), id="results of two jobs"),
        pytest.param(callback(live("Results")), callback(live("Results")), id="live results without a scope"),
        *(
            pytest.param(callback(live(type_), job="j"), callback(live(type_), job="j"), id=f"{type_} twice")
            for type_ in ("SpeechStarted", "UtteranceEnd", "Error", "ConfigureSuccess", "NeverHeardOf", "")
        ),
        pytest.param(callback({"request_id": "r"}), callback({"request_id": "r", "x": 1}), id="unknown, other bytes"),
        pytest.param(callback({"request_id": "r"}), callback({"request_id": "s"}), id="unknown, other ids"),
        pytest.param(callback(b"?", job="j"), callback(b"?", job="k"), id="no id, two jobs"),
        pytest.param(callback(b"?", job="j"), callback(b"!", job="j"), id="no id, one job, other bytes"),
        pytest.param(callback(b"?"), callback(b"!"), id="nothing but other bytes"),
        pytest.param(callback(b"?", path="/a"), callback(b"?", path="/b"), id="nothing but bytes, at two paths"),
        pytest.param(callback(b"?", query="a"), callback(b"?", query="b"), id="nothing but bytes, with two queries"),
        pytest.param(callback(b"?"), callback(b"?", job="j"), id="with and without a job"),
    ],
)
def test_different_things_have_different_keys(one, other):
    assert label(one).key != label(other).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(callback(live("Results", "s")), callback(live("UtteranceEnd", "s")), id="by the id in the body"),
        pytest.param(
            callback(live("Results", "s"), job="j"), callback(live("SpeechStarted"), job="j"), id="by the job, always"
        ),
    ],
)
def test_the_messages_of_a_stream_share_a_lane(one, other):
    assert label(one).lane == label(other).lane is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(callback(live("Results", "s")), callback(live("Results", "t")), id="two streams"),
        pytest.param(callback(live("Results"), job="j"), callback(live("Results"), job="k"), id="two jobs"),
        pytest.param(
            callback(live("Results", "s")), callback(live("Results", "s"), job="s2"), id="with and without a job"
        ),
    ],
)
def test_streams_do_not_share_a_lane(one, other):
    assert label(one).lane != label(other).lane


@pytest.mark.parametrize(
    "came",
    [
        pytest.param(callback(recorded(), job="j"), id="recorded"),
        pytest.param(callback(read(), job="j"), id="read"),
        pytest.param(callback(failure(), job="j"), id="failure"),
        pytest.param(callback(b"1", MP3, job="j"), id="audio"),
        pytest.param(callback(b"?", job="j"), id="unknown"),
        pytest.param(callback(live("SpeechStarted")), id="live without a scope"),
    ],
)
def test_what_is_no_part_of_a_known_stream_has_no_lane(came):
    assert label(came).lane is None


@pytest.mark.parametrize(
    ("came", "weak"),
    [
        pytest.param(callback(b"?"), True, id="unknown"),
        pytest.param(callback(b"1", MP3), True, id="audio"),
        pytest.param(callback({"error": "no"}), True, id="failure"),
        pytest.param(callback({"results": {"channels": []}}), True, id="recorded"),
        pytest.param(callback(b"?", job="j"), False, id="with a job"),
        pytest.param(callback({"request_id": "r"}), False, id="with an id"),
        pytest.param(callback(live("Results")), False, id="live, never deduplicated"),
    ],
)
def test_a_key_is_weak_where_it_is_no_more_than_equal_bytes(came, weak):
    assert label(came).weak is weak


@pytest.mark.parametrize(
    "came",
    [
        pytest.param(callback(recorded()), id="recorded"),
        pytest.param(callback(b"1", MP3, job="j"), id="audio"),
        pytest.param(callback(live("Results", "s")), id="live"),
        pytest.param(callback(b"?"), id="weak"),
    ],
)
def test_two_receivers_never_meet(came):
    mine, theirs = identify(came, receiver="one"), identify(came, receiver="two")
    assert mine.key != theirs.key
    assert mine.lane is None or mine.lane != theirs.lane


@pytest.mark.parametrize(
    ("id_", "counts"),
    [
        pytest.param("0ecb3b45-2c1b-4b4c-9e5a-3d8f5c8e7a11", True, id="a UUID"),
        pytest.param("x" * 200, True, id="of 200 characters"),
        pytest.param("Zürich-東京", True, id="beyond ASCII"),
        pytest.param("x" * 201, False, id="of 201 characters"),
        pytest.param("x" * 3_000, False, id="of 3,000 characters"),
        pytest.param("", False, id="empty"),
        pytest.param("a\nb", False, id="with a line break"),
        pytest.param("a\x00b", False, id="with a NUL"),
        pytest.param("\ud800", False, id="half a surrogate pair"),
        pytest.param(["r-1"], False, id="a list"),
        pytest.param({"id": "r-1"}, False, id="an object"),
        pytest.param(17, False, id="a number"),
        pytest.param(None, False, id="null"),
    ],
)
def test_an_id_counts_if_it_is_a_short_printable_text(id_, counts):
    seen = label(callback(recorded(id_)))
    assert (seen.request_id, seen.kind, seen.weak) == (
        (id_, "Transcript", False) if counts else (None, "Unknown", True)
    )


def test_an_id_that_does_not_count_gives_way_to_one_that_does():
    assert label(callback({**recorded(["r-1"]), "request_id": "r-2"})).request_id == "r-2"


@pytest.mark.parametrize(
    ("came", "key"),
    [
        pytest.param(callback(recorded()), "fd65b2c011cb15cf0b5ae70dd33ff648", id="recorded"),
        pytest.param(
            callback(recorded("01996c61-5b5b-7b5b-8000-0123456789ab")),
            "01996c615b5b963d274ffa7daaef849bdf9497b24296",
            id="with a time",
        ),
        pytest.param(callback(read()), "5282590e4f68a1405ab1eb05df2d4010", id="read"),
        pytest.param(callback(failure()), "b72c4becc07e9a75ab4fb71c4975c151", id="failure"),
        pytest.param(callback(b"1", {**MP3, "dg-request-id": "a-1"}), "7073d51e78aebf2725047a28c825aa2c", id="audio"),
        pytest.param(callback(b"1", MP3, job="j-1"), "34647f00959a91c291021b773f292eeb", id="audio of a job"),
        pytest.param(callback(b'{"type":"Results"}', job="j-1"), "ff2c1fd00293b6e4ee29d63196930fe9", id="live"),
        pytest.param(callback(b'{"request_id":"r-1"}'), "3af6a27fa11fd2732de573d7bd4301fc", id="unknown"),
        pytest.param(callback(b"?", job="j-1"), "3e4dc3cd6b59818fb23cd6bfb92c5dd6", id="no id, but a job"),
        pytest.param(
            callback(b"?", path="/a", query="b=c"), "43cf5a08a01547ed1b3f093b7dea15e8", id="equal bytes alone"
        ),
    ],
)
def test_a_release_never_changes_a_key(came, key):
    assert label(came).key == key


@pytest.mark.parametrize(
    ("request_id", "time"),
    [
        pytest.param("01996c61-5b5b-7b5b-8000-0123456789ab", "01996c615b5b", id="version 7"),
        pytest.param("01996c61-5b5b-4b5b-8000-0123456789ab", "", id="version 4"),
        pytest.param("01996c61-5b5b-7b5b-8000-0123456789abc", "", id="too long"),
        pytest.param("01996c61-5b5b-7", "", id="too short"),
        pytest.param("01'; --/-../.-7b5b-8000-0123456789ab", "", id="signs"),
        pytest.param("ééééééé1-5b5b-7b5b-8000-0123456789ab", "", id="letters of others"),
    ],
)
def test_a_key_begins_with_the_time_of_an_id_that_has_one(request_id, time):
    keys = [label(callback(made(request_id))).key for made in (recorded, read, failure)]
    assert [key[: len(time)] for key in keys] == [time] * 3
    assert [len(key) for key in keys] == [len(time) + 32] * 3
    assert len(set(keys)) == 3


def test_a_release_never_changes_a_lane():
    assert label(callback(b'{"type":"SpeechStarted"}', job="j-1")).lane == "40267e951ca188295dd65e0c52ffcb4a"


@pytest.mark.parametrize("size", [0, 1, 2_047, 2_048, 5_000, 65_536, 65_537, 300_000])
def test_a_digest_is_the_beginning_of_a_sha256_whatever_the_size(size):
    body = b"dgreceiver" * (size // 10 + 1)
    assert digest(body[:size]) == sha256(body[:size]).hexdigest()[:32]


HOSTILE = {
    "100,000 brackets": b"[" * 100_000,
    "100,000 brackets in a type": b'{"type":' + b"[" * 100_000,
    "100,000 closed brackets in results": b'{"results":{"channels":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "100,000 closed brackets in metadata": b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects": b'{"metadata":' * 100_000,
    "NaN as a type": b'{"type":NaN}',
    "an endless number": b'{"request_id":' + b"9" * 10_000 + b"}",
    "a lone surrogate as a type": b'{"type":"\\udfff","metadata":{"request_id":"s"}}',
    "a lone surrogate in bytes": b'{"type":"\xed\xa0\x80"}',
    "invalid UTF-8": b'{"type":"\xff\xfe"}',
    "invalid UTF-8 in results": b'{"request_id":"r","results":{"channels":["\xff"]}}',
    "UTF-32": json.dumps(recorded()).encode("utf-32"),
    "half of UTF-16": json.dumps(recorded()).encode("utf-16")[:-1],
    "a byte order mark alone": b"\xef\xbb\xbf",
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "NUL bytes": b"\x00" * 1_000,
    "names twice": b'{"type":"Results","type":"Metadata","type":7}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("headers", [JSON, OCTETS, MP3, {}], ids=["JSON", "octets", "audio", "no type"])
def test_a_hostile_body_is_named_like_any_other(body, headers):
    assert label(callback(body, headers, job="j")).key


text = st.text(st.characters(), max_size=20)  # surrogates included
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "type",
    "metadata",
    "results",
    "request_id",
    "err_code",
    "err_msg",
    "error_code",
    "category",
    "message",
    "error",
)
nested = st.dictionaries(
    st.sampled_from(("request_id", "metadata", "language", "channels", "x")), json_values, max_size=3
)
documents = st.dictionaries(st.sampled_from((*FIELDS, "x")), nested | json_values, max_size=5)
headers = st.dictionaries(
    st.sampled_from(["content-type", "dg-request-id", "dg-x"]) | text,
    text | st.sampled_from([*JSON.values(), *MP3.values()]),
)


@given(
    body=st.binary() | documents.map(lambda document: json.dumps(document).encode()),
    headers=headers,
    job=st.none() | text,
    path=text,
    receiver=text,
)
def test_no_bytes_and_no_headers_make_it_raise(body, headers, job, path, receiver):
    seen = identify(callback(body, headers, job=job, path=path), receiver=receiver)
    assert len(seen.key) == 32
    assert seen.request_id is None or seen.request_id.isprintable()


@given(document=documents, spaces=st.sampled_from([None, 1]))
def test_a_glance_sees_what_reading_all_of_it_would(document, spaces):
    """NaN makes the fast way fail, so that the document is read as a whole."""
    fast, slow = json.dumps(document, indent=spaces).encode(), json.dumps({**document, "": float("nan")}).encode()
    assert _named(fast) == _named(slow)


def _named(body: bytes) -> tuple[str, str | None, bool, bool]:
    seen = label(callback(body))
    return seen.kind, seen.request_id, seen.lane is None, seen.weak


@given(document=json_values)
def test_json_reads_as_the_standard_library_reads_it(document):
    body = json.dumps(document).encode()
    assert repr(load_json(body)) == repr(json.loads(body))


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"{", b"", b"\xff", b"9" * 10_000], ids=["deep", "cut", "empty", "bytes", "long"]
)
def test_what_is_no_json_is_a_value_error(body):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the parser's
        load_json(body)


def published() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Each published message: where it stands, its bytes, its headers."""
    for file in sorted(PUBLISHED.glob("[!s]*/*.json*")):
        messages = file.read_bytes().splitlines() if file.suffix == ".jsonl" else [file.read_bytes()]
        yield from ((f"{file.parent.name}/{file.name}:{n}", message, JSON) for n, message in enumerate(messages))
    for file in sorted(PUBLISHED.glob("speak_headers/*.json")):
        yield str(file), b"RIFF", {"content-type": "audio/wav"}


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published payloads are not beside this checkout")
def test_identity_and_the_events_agree_on_the_kind_of_every_published_payload():
    kinds = {name: label(callback(body, headers)).kind for name, body, headers in published()}
    parsed = {name: type(parse(kinds[name], body, headers)).__name__ for name, body, headers in published()}
    assert len(kinds) > 100
    assert parsed == kinds


# --- over a WebSocket


def frame(number: int, body: object, *, connection: str = "c-1", **fields: Any) -> Callback:
    return callback(body, {}, connection=connection, frame=number, **fields)


@pytest.mark.parametrize(
    ("one", "other", "same_key", "same_lane"),
    [
        pytest.param(frame(1, b"x"), frame(1, b"x"), True, True, id="the same frame, put again"),
        pytest.param(frame(1, b"x"), frame(2, b"x"), False, True, id="equal bytes in two frames"),
        pytest.param(
            frame(1, live("Results", "r-1")), frame(2, live("Results", "r-1")), False, True, id="equal results"
        ),
        pytest.param(frame(1, b"x"), frame(1, b"x", connection="c-2"), False, False, id="two connections"),
        pytest.param(frame(1, live("Error"), job="j"), frame(2, live("Error"), job="k"), False, True, id="two jobs"),
        pytest.param(frame(1, live("Results", "r-1")), callback(live("Results", "r-1")), False, False, id="and HTTP"),
        pytest.param(frame(1, live("Error")), callback(live("Error"), job="c-1"), False, False, id="a job of its name"),
        pytest.param(frame(1, recorded()), frame(2, recorded()), False, True, id="what looks recorded"),
    ],
)
def test_over_a_websocket_a_frame_is_itself_and_its_connection_is_its_lane(one, other, same_key, same_lane):
    assert (label(one).key == label(other).key, label(one).lane == label(other).lane) == (same_key, same_lane)


def test_a_frame_is_of_the_kind_that_it_shows():
    shown = [label(frame(1, body)) for body in (live("Results", "r-1"), live("Error"), b"\xff", recorded(), b"")]
    assert [each.kind for each in shown] == ["LiveResult", "LiveError", "Unknown", "Transcript", "Unknown"]
    assert [each.request_id for each in shown] == ["r-1", None, None, "r-1", None]


def test_the_lane_of_a_connection_belongs_to_its_receiver():
    assert label(frame(1, b"")).lane == lane_of("c-1", receiver="default") != lane_of("c-1", receiver="other")
