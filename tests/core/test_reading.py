"""A transcript is read around its words, and nobody can tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dgreceiver.core.callbacks import load_json
from dgreceiver.core.events import Transcript, Unknown, parse
from dgreceiver.core.parts import Words
from dgreceiver.core.reading import load_transcript

REQUEST_ID = "7c1f2a7e-66f6-4a0b-9d0c-2f6f3c1f0a11"

Document = dict[str, Any]


def words(count: int, *, about: str = "word") -> list[Document]:
    return [
        {"word": f"{about}{n}", "start": n, "end": n + 0.5, "confidence": 0.9, "later": {"a": [n]}}
        for n in range(count)
    ]


def alternative(count: int, **more: Any) -> Document:
    return {"transcript": "said", "confidence": 0.9, "words": words(count), **more}


def document(*channels: list[Document], **results: Any) -> Document:
    return {
        "metadata": {"request_id": REQUEST_ID, "words": 3},
        "results": {"channels": [{"alternatives": each} for each in channels], **results},
    }


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def spaced(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()


def read(value: Any) -> Any:
    """With all words read."""
    if isinstance(value, dict):
        return {name: read(each) for name, each in value.items()}
    if isinstance(value, list):
        return [read(each) for each in value]
    return value._as_they_came() if isinstance(value, Words) else value


def unread(value: Any) -> int:
    """How many lists of words wait to be read."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Words) + sum(map(unread, inside))


def transcript(body: bytes) -> Transcript:
    event = parse("Transcript", body, {})
    assert isinstance(event, Transcript)
    return event


APART = {
    "one channel": (document([alternative(5)]), 1),
    "two channels": (document([alternative(5)], [alternative(7)]), 2),
    "two alternatives": (document([alternative(5), alternative(4)]), 2),
    "utterances": (document([alternative(9)], utterances=[{"words": words(4)}, {"words": words(5, about="other")}]), 3),
    "an utterance like its channel": (document([alternative(4)], utterances=[{"words": words(4)}]), 2),
    "text that is not ASCII": (document([{"transcript": "Ç", "words": words(4, about="süß")}]), 1),
    "an empty list": (document([{"transcript": "", "words": []}]), 0),
    "no words": (document([{"transcript": ""}], utterances=None), 0),
    "an empty channel": (document([], [alternative(4)]), 1),
}  # fmt: skip


@pytest.mark.parametrize("write", [compact, spaced])
@pytest.mark.parametrize(("came", "apart"), APART.values(), ids=APART)
def test_long_lists_of_words_are_left_until_somebody_looks(
    came: Document, apart: int, write: Callable[[object], bytes]
) -> None:
    loaded = load_transcript(write(came))
    assert unread(loaded) == apart
    assert read(loaded) == came


ODD = {
    "words that are text": document([{"transcript": "said", "words": "[" * 100}]),
    "words that are an object": document([{"transcript": "said", "words": {"word": "said" * 30}}]),
    "an utterance that begins like its channel": document([alternative(9)], utterances=[{"words": words(4)}, {"words": words(9)}]),
    "the same words before": {"first": words(5), **document([alternative(5)])},
    "other words before that begin alike": {"first": words(6), **document([alternative(5)])},
    "utterances before channels": {"metadata": {}, "results": {"utterances": [{"words": words(4)}], "channels": [{"alternatives": [alternative(4)]}]}},
    "channels that are none": {"results": {"channels": 5}},
    "no results": {"metadata": {}},
    "a list": words(5),
    "not a number": document([{"words": [{**word, "start": float("nan")} for word in words(2)]}]),
    "half a surrogate pair": document([{"words": words(3, about="\ud800")}]),
}  # fmt: skip


@pytest.mark.parametrize("came", ODD.values(), ids=ODD)
def test_what_is_odd_is_read_as_it_would_be_at_once(came: object) -> None:
    body = json.dumps(came).encode()
    assert str(read(load_transcript(body))) == str(load_json(body))  # as text: not-a-number is never equal


ONES = b"1," * 32
REPEATED = {
    "words": b'{"results":{"channels":[{"alternatives":[{"words":%(a)s,"words":%(b)s}]}]}}',
    "words, the same": b'{"results":{"channels":[{"alternatives":[{"words":%(a)s,"words":%(a)s}]}]}}',
    "words, empty at last": b'{"results":{"channels":[{"alternatives":[{"words":%(a)s,"words":[]}]}]}}',
    "alternatives": b'{"results":{"channels":[{"alternatives":[{"words":%(a)s}],"alternatives":[{"words":%(b)s}]}]}}',
    "results": b'{"results":{"channels":[{"alternatives":[{"words":%(a)s}]}]},"results":{"channels":[]}}',
    "words that begin alike, with brackets in a text": (
        b'{"results":{"channels":[{"alternatives":[{"words":%(o)s,"}],"],"words":5},{"words":[1]}]}],'
        b'"utterances":[{"words":%(o)s,{"words":%(o)s]}]}]},"t":"%(o)s"}'
    ),
    "in a text": b'{"text":"\\"words\\":%(t)s","results":{"channels":[{"alternatives":[{"words":%(t)s}]}]}}',
}


@pytest.mark.parametrize("template", REPEATED.values(), ids=REPEATED)
def test_of_two_keys_that_are_equal_the_last_counts(template: bytes) -> None:
    body = template % {b"a": compact(words(4)), b"b": compact(words(5)), b"t": b"[%s1]" % ONES, b"o": b"[%s1" % ONES}
    assert read(load_transcript(body)) == load_json(body)


BROKEN = {
    "cut off": lambda body: body[:-30],
    "a word without an end": lambda body: body.replace(b'"word1"', b'"word1', 1),
    "a number that is none": lambda body: body.replace(b'"start":1', b'"start":01', 1),
    "no UTF-8": lambda body: body.replace(b"word1", b"word\xff", 1),
    "nested without end": lambda body: body.replace(b'"a":[1]', b'"a":' + b"[" * 100_000 + b"]" * 100_000, 1),
}


@pytest.mark.parametrize("break_", BROKEN.values(), ids=BROKEN)
def test_words_that_are_no_json_make_it_unknown_at_once(break_: Callable[[bytes], bytes]) -> None:
    whole = compact(document([alternative(5)]))
    body = break_(whole)
    assert body != whole
    event = parse("Transcript", body, {})
    assert isinstance(event, Unknown)
    assert event.why == "not JSON"
    assert event.json is None


def test_unknown_has_the_words_of_its_json() -> None:
    came = document([alternative(5)])
    came["results"]["channels"][0]["alternatives"][0]["transcript"] = 5
    event = parse("Transcript", compact(came), {})
    assert isinstance(event, Unknown)
    assert event.json == came


def test_what_was_not_looked_at_is_in_the_dump_and_in_a_copy() -> None:
    came = document([alternative(5)], utterances=[{"start": 0, "end": 1, "transcript": "said", "words": words(5)}])
    assert transcript(compact(came)).model_dump(exclude_unset=True) == came
    assert json.loads(transcript(compact(came)).model_dump_json(exclude_unset=True)) == came
    assert transcript(compact(came)).model_copy(deep=True).model_dump(exclude_unset=True) == came
    assert [word.word for word in transcript(compact(came)).words] == [f"word{n}" for n in range(5)]


SOUND = compact(document([alternative(3)], [alternative(4)], utterances=[{"words": words(3)}, {"words": words(4)}]))


@given(
    st.integers(0, len(SOUND)),
    st.integers(0, 40),
    st.binary(max_size=40) | st.sampled_from([b"[", b"]", b'"', b",", b"1e999", SOUND[200:400]]),
)
@example(SOUND.index(b'"word2"'), 7, b"NaN")
def test_whatever_stands_there_it_reads_alike(at: int, out: int, put: bytes) -> None:
    body = SOUND[:at] + put + SOUND[at + out :]
    try:
        expected = str(load_json(body))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - whichever it is
            load_transcript(body)
    else:
        assert str(read(load_transcript(body))) == expected
