"""Bodies that are made to hurt: each is named, kept and read in the time that its length accounts for."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from dgreceiver import Event, Transcript, Unknown
from dgreceiver.core.auth import BasicAuth, ExtraAuth
from dgreceiver.core.callbacks import Callback, identify
from dgreceiver.core.events import MOST_PARTS, LiveTranscript, parse
from dgreceiver.core.parts import Results
from dgreceiver.core.transcript import assemble

from .bodies import BOMBS, WORD, recorded, spoken

AUTH = BasicAuth("a", "fake-password") | ExtraAuth("fake-callback-secret")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
SIZE = 100_000  # bytes


def go_through(body: bytes) -> Event:
    """All that is done with a body on its way to a handler, and what a handler may ask of the event."""
    AUTH.admit_body(body)
    body = AUTH.redact(body)
    callback = Callback(body=body, headers={}, path="", query="", received_at=NOON)
    event = parse(identify(callback, receiver="default").kind, body, {})
    assert event.raw == body
    if isinstance(event, Transcript | LiveTranscript):
        assert event.srt().isprintable() or event.text is not None
        assert event.vtt().startswith("WEBVTT")
        assert len(event.words) >= 0
    assemble([body, body])
    repr(event)
    return event


@pytest.mark.parametrize("name", BOMBS)
def test_a_body_that_is_made_to_hurt_is_gone_through_in_a_moment(name):
    body = BOMBS[name](SIZE)
    begun = time.process_time()
    go_through(body)
    assert time.process_time() - begun < 6  # the worst took five times as long; machines differ


def test_of_more_objects_than_any_payload_has_none_is_made():
    event = parse("Transcript", recorded('{"alternatives":[' + "{}," * MOST_PARTS + "{}]}"), {})
    assert isinstance(event, Unknown)
    assert (event.why, event.request_id) == ("more than 250000 objects beside words", "r")


def test_of_words_there_may_be_any_number():
    body = spoken('"words":[' + f"{WORD}," * MOST_PARTS + f"{WORD}]")
    event = parse("Transcript", body, {})
    assert isinstance(event, Transcript)
    assert len(event.words) == MOST_PARTS + 1


def test_of_a_list_that_does_not_fit_the_first_entry_says_why():
    with pytest.raises(ValidationError) as raised:
        Results.model_validate({"channels": [{}, *[0] * 1000]})
    assert [error["loc"] for error in raised.value.errors()] == [("channels", 1)]
