"""A whole live stream as payloads, and as the event that a receiver makes of it."""

from __future__ import annotations

import pytest

from dgreceiver import Delivery, LiveResult, LiveTranscript
from dgreceiver.testing import deliver, live_stream, live_transcript

from ..support import new_receiver

TEXT = "hello world\n\nhow are you"
KINDS = [*["SpeechStarted", "LiveResult", "UtteranceEnd"] * 2, "StreamMetadata"]


def test_a_stream_is_delivered_message_by_message():
    receiver = new_receiver()
    delivered = [deliver(receiver, message, job="call-7") for message in live_stream(TEXT, request_id="r")]
    assert [type(each.event).__name__ for each in delivered] == KINDS
    results = [each.event for each in delivered if isinstance(each.event, LiveResult)]
    assert [(result.text, result.start, result.request_id) for result in results] == [
        ("hello world", 0.0, "r"),
        ("how are you", 1.9, "r"),
    ]
    assert len({each.delivery.stream for each in delivered}) == 1


def test_a_handler_of_the_whole_stream_is_given_it():
    receiver, heard = new_receiver(), list[LiveTranscript]()

    @receiver.on(LiveTranscript)
    def note(said: LiveTranscript, delivery: Delivery) -> None:
        assert delivery.context == {"call_id": 7}
        heard.append(said)

    deliver(receiver, live_transcript(TEXT, request_id="r", extra={"a": "b"}, revision=1), context={"call_id": 7})
    [said] = heard
    assert (said.text, said.complete, said.revision, said.request_id) == ("hello world how are you", True, 1, "r")
    assert ([each.transcript for each in said.utterances], said.metadata.extra) == (
        ["hello world", "how are you"],
        {"a": "b"},
    )


def test_nobody_need_say_anything():
    event = deliver(new_receiver(), live_transcript("")).event
    assert isinstance(event, LiveTranscript)
    assert (event.text, event.complete) == ("", True)


@pytest.mark.parametrize("complete", [True, False])
def test_a_field_of_it_is_replaced(complete):
    event = deliver(new_receiver(), live_transcript(complete=complete)).event
    assert isinstance(event, LiveTranscript)
    assert event.complete is complete
