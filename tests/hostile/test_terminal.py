"""What a stranger wrote moves no cursor, paints nothing, and looks like no line of ours."""

from __future__ import annotations

import httpx
import pytest

from dgreceiver import facts
from dgreceiver.telemetry import log
from dgreceiver.testing.payloads import transcript

from ..serving import a_process
from ..support import PASSWORD, USER

FORGED = "2026-01-01 00:00:00,000 INFO    all is well"
EVIL = f"\x1b[2J\x07\x9b31m\u202e\u2028\x7f\b\r\n{FORGED}\r{FORGED}"
QUOTES = f"""
from dgreceiver import BasicAuth, Event, Receiver, RetryPolicy
receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"), retry=RetryPolicy(attempts=1))
@receiver.on(Event)
async def quotes(event: Event) -> None:
    raise ValueError(event.text)
"""


@pytest.mark.parametrize(
    "fact",
    [
        pytest.param(facts.HandlerFailed("save", "Transcript", "r", "k", 1, EVIL, None), id="a handler's error"),
        pytest.param(facts.DeliveryBuried("Transcript", "r", "k", EVIL), id="why it was given up"),
        pytest.param(facts.CallbackRefused(405, EVIL, None), id="why it was refused"),
    ],
)
def test_a_log_line_is_one_line_that_can_be_printed(fact, caplog):
    log(fact)
    [line] = caplog.messages
    assert line.isprintable()


def test_a_log_that_quotes_what_was_said_passes_no_escape_on_and_no_line_is_forged(tmp_path):
    with a_process(tmp_path, QUOTES) as process:
        for path in ("/", "/%1B%5B31m", "/%0a" + FORGED.replace(" ", "%20"), "/?%1b"):
            payload = transcript(EVIL)
            httpx.post(process.url + path, content=payload.body, headers=dict(payload.headers), auth=(USER, PASSWORD))
        process.wait_for("gave up Transcript")
        lines = process.log.split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith(FORGED[:10])] == []
    assert any("ValueError" in line for line in lines)
