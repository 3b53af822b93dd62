"""What payloads are made of: words."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import TypeAdapter

from dgreceiver.core.parts import Word, Words

HELLO = {"word": "hello", "start": 0, "end": 0.5, "confidence": 1}


def test_words_are_a_sequence() -> None:
    words = Words([{**HELLO, "word": each} for each in "abc"])
    assert (len(words), words[0].word, words[-1].word) == (3, "a", "c")
    assert [word.word for word in words[1:]] == ["b", "c"]
    assert [word.word for word in reversed(words)] == ["c", "b", "a"]
    assert words[1] in words
    assert words[1] is words[1]
    with pytest.raises(IndexError):
        words[3]


def test_words_are_equal_by_content() -> None:
    words = Words([HELLO])
    assert words == Words([HELLO]) == [Word(word="hello", start=0.0, end=0.5, confidence=1.0)]
    assert words != Words([])
    assert words != "hello"
    assert copy.deepcopy(words) == words
    assert words + words == Words([HELLO, HELLO])
    assert repr(words).startswith("Words([Word(word='hello', start=0.0")


def test_a_word_has_what_came_with_it() -> None:
    (word,) = Words([{**HELLO, "speaker": 1.0, "language": 7, "stress": "first"}])
    assert (word.start, word.speaker, word.language) == (0.0, 1, None)
    assert word.model_extra == {"stress": "first", "language": 7}


@pytest.mark.parametrize(
    "odd_one",
    [
        pytest.param("hello", id="text"),
        pytest.param({}, id="nothing"),
        pytest.param({**HELLO, "start": None}, id="no time"),
        pytest.param({**HELLO, "end": 10**400}, id="a time beyond floats"),
        pytest.param({**HELLO, "\ud800": 1}, id="half a surrogate pair"),
        pytest.param({"start": "\ud800"}, id="half a surrogate pair in place of a time"),
        pytest.param({**HELLO, "word": "\ud800", "start": None}, id="half a surrogate pair at no time"),
    ],
)
def test_what_is_no_word_is_left_out_of_the_words_and_kept(odd_one: Any) -> None:
    words = Words([odd_one, HELLO])
    assert [word.word for word in words] == ["hello"]
    assert TypeAdapter(Words).dump_python(pickle.loads(pickle.dumps(words))) == [odd_one, HELLO]
