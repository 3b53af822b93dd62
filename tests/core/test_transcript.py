"""What assemble() makes of the messages of a live stream, and how the LiveTranscript reads."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgreceiver.core.callbacks import find_request_id, load_json
from dgreceiver.core.events import LiveTranscript, parse
from dgreceiver.core.transcript import TRANSITIONS, Transition, assemble
from dgreceiver.testing.payloads import (
    live_error,
    live_result,
    speech_started,
    stream_metadata,
    unknown,
    utterance_end,
)

ROOT = Path(__file__).parents[2]
RECORDED = ROOT.parent / "shared" / "payloads" / "listen_stream"
WORD = {"word": "hi", "start": 0, "end": 1, "confidence": 1}
END = stream_metadata(60.0, request_id="r", channels=2).body


def said(text: str, start: float = 0.0, **more: Any) -> bytes:
    """A final result of stream `r` that ends no utterance, unless said otherwise."""
    return live_result(text, **{"request_id": "r", "start": start, "speech_final": False, **more}).body


def guessed(text: str, start: float = 0.0, **more: Any) -> bytes:
    return said(text, start, is_final=False, **more)


def raw(**fields: Any) -> bytes:
    """A message with these fields only."""
    return json.dumps(fields).encode()


def but(body: bytes, **fields: Any) -> bytes:
    """The message with other fields."""
    return raw(**json.loads(body) | fields)


def read(*bodies: bytes, revision: int = 0) -> LiveTranscript:
    body = assemble(bodies, revision=revision)
    assert body is not None
    event = parse("LiveTranscript", body, {})
    assert isinstance(event, LiveTranscript), getattr(event, "why", "")
    assert event.raw == body
    return event


def utterances(event: LiveTranscript) -> list[str]:
    return [utterance.transcript for utterance in event.utterances]


# --- Whatever the order of arrival ---------------------------------------------------------------

TEXTS = st.sampled_from(["Yes.", "so it is", "and then\nno", ""])


@st.composite
def sessions(draw: st.DrawFn) -> tuple[list[bytes], str]:
    """The messages of a stream of two channels, and what was said in it."""
    bodies, lines = [], []
    for channel in (0, 1):
        start, heard = 0.0, []
        for _ in range(draw(st.integers(0, 6))):
            text, where = draw(TEXTS), {"channel": channel, "channels": 2, "speakers": draw(st.sampled_from([None, 2]))}
            bodies += [guessed(text[:size], start, duration=0.5, **where) for size in range(draw(st.integers(0, 2)))]
            final = said(text, start, duration=2.0, speech_final=draw(st.booleans()), **where)
            bodies += [final] * draw(st.integers(1, 2))
            heard.append(json.loads(final)["channel"]["alternatives"][0]["transcript"])
            start = round(start + 2.0, 3)
        lines.append(" ".join(filter(None, heard)))
    others = [
        utterance_end(-1).body,
        utterance_end(2.0, channel=1).body,
        speech_started().body,
        unknown(request_id="r").body,
        b"{",
    ]
    return [*bodies, *draw(st.lists(st.sampled_from(others), max_size=4)), END], "\n".join(filter(None, lines))


@given(st.data())
def test_the_text_is_the_final_results_in_order_of_time_whatever_their_order_of_arrival(data: st.DataObject) -> None:
    bodies, text = data.draw(sessions())
    event = read(*data.draw(st.permutations(bodies)))
    assert (event.text, event.complete, event.interim) == (text, True, [])
    by_channel = ["\n".join(filter(None, [_join(event, channel) for channel in (0, 1)]))]
    assert by_channel == [text]
    assert sorted(event.utterances, key=lambda each: each.start) == event.utterances
    assert len(event.words) == sum(len(utterance.words) for utterance in event.utterances) == len(text.split())


def _join(event: LiveTranscript, channel: int) -> str:
    return " ".join(each.transcript for each in event.utterances if each.channel == channel)


@given(st.data())
def test_of_several_finals_of_one_place_the_same_one_wins_in_any_order(data: st.DataObject) -> None:
    durations, flags = st.sampled_from([0.0, 1.0, 2.0]), st.booleans()
    finals = [
        said(text, speech_final=flag, duration=duration)
        for text, duration, flag in data.draw(st.lists(st.tuples(TEXTS, durations, flags), min_size=1, max_size=5))
    ]
    outcomes = {assemble([*data.draw(st.permutations(finals)), END]) for _ in range(4)}
    assert len(outcomes) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
odd_words = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys([*WORD, "speaker"], anything)) | anything, max_size=3
)
odd_channels = st.fixed_dictionaries(
    {
        "alternatives": st.lists(st.fixed_dictionaries({}, optional={"transcript": anything, "words": odd_words}))
        | anything
    }
)
odd_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["Results", "UtteranceEnd", "Metadata", "Error", "SpeechStarted", "New", None, 7])},
    optional={
        "channel": odd_channels | anything,
        "request_id": st.just("r") | anything,
        "metadata": st.just({"request_id": "r"}) | anything,
        **dict.fromkeys(["start", "duration"], st.integers(0, 9) | anything),
        **dict.fromkeys(["channel_index", "is_final", "speech_final", "last_word_end", "extra"], anything),
    },
)
odd_bodies = st.lists(
    st.binary(max_size=20) | odd_messages.map(lambda message: json.dumps(message).encode()), max_size=6
)


@given(odd_bodies)
def test_no_message_is_too_odd(bodies: list[bytes]) -> None:
    named = any(find_request_id(message) for body in bodies if isinstance(message := loaded(body), dict))
    assert (assemble(bodies) is not None) == named
    event = read(*bodies, END)
    assert event.srt().isascii() or event.vtt()


def loaded(body: bytes) -> Any:
    try:
        return load_json(body)
    except ValueError:
        return None


def test_no_nesting_is_too_deep() -> None:
    read_of = {(event.text, len(event.words)) for event in (read(nested(depth), END) for depth in range(500, 1000))}
    everything, without_words, unreadable = ("hi", 1), ("hi", 0), ("", 0)
    assert {everything, unreadable} <= read_of <= {everything, without_words, unreadable}


def nested(depth: int) -> bytes:
    deep = b'"confidence":0.99,"deep":' + b"[" * depth + b"]" * depth
    return said("hi").replace(b'"confidence":0.99', deep)


# --- What each message does ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bodies", "text", "interim"),
    [
        pytest.param([guessed("a"), guessed("a b"), said("a b c")], "a b c", [], id="covered by a final"),
        pytest.param([said("a b c"), guessed("a b")], "a b c", [], id="that came late"),
        pytest.param([guessed("a b c"), said("a")], "a", [], id="longer than its final"),
        pytest.param([guessed("um"), said("", duration=1.0)], "", [], id="covered by silence"),
        pytest.param([said("a b"), guessed("c", 9), guessed("c d", 9)], "a b", ["c d"], id="never covered"),
        pytest.param([guessed("c d", 9), guessed("c", 9), said("a")], "a", ["c d"], id="never covered, in disorder"),
        pytest.param([guessed("b", 1.0), said("a b", duration=5.0)], "a b", [], id="within a final"),
        pytest.param([guessed("b", 2.0, duration=1.0), said("a", duration=2.0)], "a", ["b"], id="behind a final"),
        pytest.param([guessed("b", 2.0, duration=1.0), said("a", duration=2.000001)], "a", ["b"], id="a digit behind"),
        pytest.param(
            [guessed("b", 1.999999, duration=1.0), said("b", 2.0, duration=1.0)], "b", [], id="a digit before its final"
        ),
        pytest.param([guessed("b", channel=1), said("a", duration=9.0)], "a", ["b"], id="of another channel"),
    ],
)
def test_an_interim_result_is_replaced_by_what_covers_it(bodies: list[bytes], text: str, interim: list[str]) -> None:
    event = read(*bodies)
    assert (event.text, [each.transcript for each in event.interim]) == (text, interim)


@pytest.mark.parametrize(
    ("bodies", "text"),
    [
        pytest.param([said("b", 1), said("a", 0)], "a b", id="a late one finds its place"),
        pytest.param([said("a"), said("a")], "a", id="a duplicate"),
        pytest.param([said("a"), but(said("a"), start=0)], "a", id="an integer for a float"),
        pytest.param([said("a b"), said("a")], "a b", id="the longer of one place"),
        pytest.param([said("", duration=5.0), said("a")], "a", id="that with a text"),
        pytest.param([said("a", is_final=None)], "a", id="one that does not say whether it is final"),
        pytest.param([said("b", channel=1), said("a", channel=0)], "a\nb", id="each channel a line"),
        pytest.param([said("a"), said("", 1, channel=1)], "a", id="a silent channel is no line"),
        pytest.param([said("a"), said("z", 1, request_id="another")], "a", id="another stream's"),
        pytest.param([said("a"), but(said("b"), start=None)], "a", id="one without a place"),
        pytest.param(
            [said("a"), but(said("b"), start=1, channel={"alternatives": []})], "a", id="one without alternatives"
        ),
        pytest.param([said("a"), live_error().body, b"\xff", b"[]"], "a", id="what says nothing"),
    ],
)
def test_final_results_find_their_place(bodies: list[bytes], text: str) -> None:
    assert read(*bodies).text == text


@pytest.mark.parametrize(
    ("bodies", "said_apart"),
    [
        pytest.param([said("a"), said("b", 1)], ["a b"], id="no end"),
        pytest.param([said("a", speech_final=True), said("b", 1)], ["a", "b"], id="speech_final"),
        pytest.param(
            [said("a"), said("", 0.5, speech_final=True), said("b", 1)], ["a", "b"], id="an empty speech_final"
        ),
        pytest.param([said("a"), utterance_end(0.4).body, said("b", 1)], ["a", "b"], id="UtteranceEnd"),
        pytest.param([said("b", 1), said("a"), utterance_end(0.4).body], ["a", "b"], id="a late UtteranceEnd"),
        pytest.param([said("a"), utterance_end(0.400001).body, said("b", 0.4)], ["a", "b"], id="other last digits"),
        pytest.param([said("a"), utterance_end(-1).body, said("b", 1)], ["a", "b"], id="the sentinel"),
        pytest.param([guessed("a"), utterance_end(-1).body, said("a"), said("b", 1)], ["a", "b"], id="after a guess"),
        pytest.param([utterance_end(-1).body, said("a"), said("b", 1)], ["a b"], id="the sentinel before all"),
        pytest.param([said("a"), utterance_end(-1, channel=1).body, said("b", 1)], ["a b"], id="another channel's"),
        pytest.param([said("a"), utterance_end(0.9).body, said("b", 0.5)], ["a b"], id="an end behind both"),
        pytest.param([said("a", channel=1), said("b", 1)], ["a", "b"], id="channels"),
        pytest.param([said("hi there", words=[]), said("you", 5)], ["hi there you"], id="results of many words"),
    ],
)
def test_utterances_end_where_deepgram_says_so(bodies: list[bytes], said_apart: list[str]) -> None:
    assert utterances(read(*bodies)) == said_apart


def test_an_utterance_has_its_times_its_channel_and_its_words() -> None:
    (utterance,) = read(said("hi there", 3, channel=1), said("you", 9, channel=1)).utterances
    assert (utterance.start, utterance.end, utterance.channel) == (3.0, 9.4, 1)
    assert [word.word for word in utterance.words] == ["hi", "there", "you"]


def test_an_utterance_without_words_has_the_times_of_its_results() -> None:
    wordless = {"alternatives": [{"transcript": "hi", "words": []}]}
    (utterance,) = read(but(said("", 3), channel=wordless, duration=2)).utterances
    assert (utterance.start, utterance.end, utterance.transcript) == (3.0, 5.0, "hi")


@pytest.mark.parametrize(
    ("text", "speakers", "speaker"),
    [
        pytest.param("hi there", None, None, id="not diarised"),
        pytest.param("hi there", 1, 0, id="the first speaker is 0"),
        pytest.param("hi\nthere", 2, None, id="two speakers"),
    ],
)
def test_a_speaker_who_was_not_named_stays_absent(text: str, speakers: int | None, speaker: int | None) -> None:
    event = read(said(text, speakers=speakers))
    (utterance,) = event.utterances
    assert utterance.speaker == speaker
    assert ("speaker" in utterance.model_fields_set) == (speaker is not None)
    assert all(("speaker" in word.model_fields_set) == (speakers is not None) for word in event.words)


@pytest.mark.parametrize(
    ("bodies", "complete", "duration"),
    [
        pytest.param([said("a b")], False, 0.9, id="no Metadata"),
        pytest.param([said("a b"), guessed("c", 9)], False, 9.4, id="an interim result last"),
        pytest.param([said("a b"), END], True, 60.0, id="Metadata"),
        pytest.param([END, said("a b")], True, 60.0, id="a straggler"),
        pytest.param([END, stream_metadata(70, request_id="r").body], True, 70.0, id="the last Metadata counts"),
        pytest.param([said("a b"), raw(type="Metadata", duration="long")], True, 0.9, id="no usable duration"),
        pytest.param([raw(type="Error", request_id="r")], False, None, id="nothing heard"),
    ],
)
def test_a_stream_is_complete_with_its_metadata(bodies: list[bytes], complete: bool, duration: float | None) -> None:
    event = read(*bodies)
    assert (event.complete, event.duration, event.request_id) == (complete, duration, "r")


def test_the_metadata_is_that_of_the_streams_end() -> None:
    event = read(
        said("a", extra={"call": "1"}), stream_metadata(5, request_id="r", extra={"call": "2"}).body, revision=3
    )
    assert (event.metadata.channels, event.metadata.extra, event.metadata.request_id) == (1, {"call": "2"}, "r")
    assert event.revision == 3


def test_a_stream_that_broke_off_keeps_its_extra_metadata() -> None:
    assert read(said("a", extra={"call": "1"}), said("b", 1)).metadata.extra == {"call": "1"}


@pytest.mark.parametrize("bodies", [[], [b"{"], [utterance_end().body, raw(type="Results", channel={}, start=0)]])
def test_a_stream_that_never_named_itself_has_no_transcript(bodies: Sequence[bytes]) -> None:
    assert assemble(bodies) is None


def test_half_a_surrogate_pair_costs_no_transcript() -> None:
    halved = {"alternatives": [{"transcript": "\ud800 b", "words": [WORD | {"\ud800": "\ud800"}]}]}
    event = read(said("a"), but(said("", 2), channel=halved, metadata={"request_id": "r", "extra": {"\ud800": 1}}))
    assert (event.text, event.metadata.extra) == ("a ? b", {"?": 1})


def test_numbers_that_json_lacks_cost_no_transcript() -> None:
    body = said("a b").replace(b'"end":0.4', b'"end":1e999').replace(b'"confidence":0.99', b'"confidence":NaN')
    assert read(body).text == "a b"


# --- As a whole ----------------------------------------------------------------------------------


def hour() -> Iterable[bytes]:
    """A call of an hour with interim results."""
    for at in range(1200):
        yield from (guessed("and so on " * size, at * 3.0) for size in (1, 2))
        yield said("and so on " * 3, at * 3.0, speech_final=at % 3 == 0, speakers=2)
        yield utterance_end(-1).body
    yield END


def test_an_hour_is_assembled_in_well_under_a_second() -> None:
    bodies = list(hour())
    began = process_time()
    body = assemble(bodies)
    assert process_time() - began < 1.5  # measured: 0.2, on a machine with nothing else to do
    assert len(json.loads(body or b"")["text"].split()) == 1200 * 9


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the published payloads are not here")
def test_every_recorded_result_is_the_text_of_its_stream() -> None:
    seen = 0
    for path in sorted(RECORDED.glob("*.json")):
        message = json.loads(path.read_bytes())
        if message.get("type") == "Results":
            event = read(raw(**message | {"metadata": {"request_id": "r"}}))
            said_here = message["channel"]["alternatives"][0]
            assert (event.text, len(event.words)) == (said_here["transcript"], len(said_here["words"])), path.name
            seen += 1
    assert seen > 5


def row(transition: Transition) -> str:
    when, then = (inspect.getdoc(part) for part in (transition.when, transition.then))
    return f"| {f'`{transition.type}`' if transition.type else 'any other'} | {when} | {then} |"


def test_the_page_shows_the_table_of_transitions() -> None:
    shown = (ROOT / "docs" / "live-transcripts.md").read_text(encoding="utf-8")
    assert "\n".join(["|---|---|---|", *map(row, TRANSITIONS), "\n"]) in shown.partition("## What each message does")[2]
