"""`dgreceiver demo`: it runs, its sum is right, and it would say so if it were not."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from dgreceiver.cli.demo import AWKWARD, HOLD, KEY, LEDGER, MISSED, Books, _come_true
from dgreceiver.cli.main import app
from dgreceiver.testing import Attempt, Outgoing, Record, Submission
from dgreceiver.testing.payloads import BUILDERS, transcript

from ..support import calling, post, until

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def shown():
    ended = CliRunner().invoke(app, ["demo"])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_sum_is_right(shown):
    _, _, total = shown.partition("The sum\n")
    attempts = int(re.findall(r"attempts it took +(\d+)", total)[0])
    assert attempts >= 47  # more, if the machine was so busy that an answer came too late
    assert [line.rsplit(maxsplit=1) for line in total.splitlines()] == [
        ["  submitted", "24"],
        ["  called back", "40"],
        ["  attempts it took", str(attempts)],
        ["  callbacks acknowledged", "40"],
        ["  of these handled once", "40"],
        ["  handled twice", "0"],
        ["  lost", "0"],
    ]


def test_every_callback_is_shown_on_its_way_in_and_when_it_is_handled(shown):
    events = Counter(re.findall(r"^  (->|<-) (\w+) +(?:\d+ bytes  attempt \d: 200|handled)", shown, re.MULTILINE))
    events.pop(("<-", "LiveTranscript"), None)  # where the demo takes longer than five seconds
    assert {kind for _, kind in events} == set(BUILDERS) - {"LiveError"}
    assert [kind for _, kind in events if events["<-", kind] != events["->", kind]] == []
    assert "  <- Transcript      failed, attempt 1\n  <- Transcript      handled, attempt 2\n" in shown


def test_an_answer_that_is_lost_is_repeated_and_so_is_a_callback_that_found_nobody(shown):
    lost = r"  -> Transcript +\d+ bytes  attempt 1: the answer, 200, was lost \(fault\)\n"
    assert re.search(
        rf"{lost}  <- Transcript      handled, attempt 1\n  -> Transcript +\d+ bytes  attempt 2: 200\n", shown
    )
    _, _, after = shown.partition("  kill -9\n")
    assert len(re.findall("attempt 1: no connection", after)) == MISSED
    assert len(re.findall("attempt 3: 200", after)) >= MISSED


def test_the_demo_ends_the_processes_that_it_started(shown):
    first, second = map(int, re.findall(r"a receiver in process (\d+)", shown))
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_demo_shows_no_credentials(shown):
    assert "@" not in shown


def test_a_receiver_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path):
    (tmp_path / "typer.py").write_text("1 / 0")
    ended = CliRunner().invoke(app, ["demo"], env={"PYTHONPATH": str(tmp_path)})
    assert ended.exit_code == 2
    assert ended.stderr.startswith("dgreceiver: the demo's receiver did not start: ")
    assert "ZeroDivisionError" in ended.stderr


def test_what_never_comes_is_not_awaited_for_ever():
    begun = time.monotonic()
    _come_true(lambda: False, within=0.05)
    assert time.monotonic() - begun < 1


def submitted(*callbacks):
    """A record of one submission, of its callbacks by digest, with the statuses that they got."""
    calls = [
        Outgoing("Transcript", digest, 9, [Attempt(NOON, status) for status in statuses])
        for digest, statuses in callbacks
    ]
    return Record([Submission("r-1", "/v1/listen", NOON, "Transcript", "POST", "http://127.0.0.1/", None, calls)])


@pytest.mark.parametrize(
    ("record", "handled", "are_right"),
    [
        pytest.param(submitted(("a", [None, 200])), Counter(a=1), True, id="handled once, for all that was sent twice"),
        pytest.param(submitted(("a", [200])), Counter(a=2), False, id="handled twice"),
        pytest.param(submitted(("a", [200])), Counter(), False, id="lost"),
        pytest.param(submitted(("a", [200])), Counter(a=1, b=2), False, id="something else twice"),
        pytest.param(submitted(("a", [None])), Counter(a=1), False, id="not acknowledged"),
        pytest.param(submitted(("a", [200]), ("a", [200])), Counter(a=1), False, id="two that cannot be told apart"),
        pytest.param(submitted(), Counter(), False, id="not called back"),
        pytest.param(Record(), Counter(), False, id="nothing happened"),
    ],
)
def test_a_sum_is_right_if_all_that_was_acknowledged_was_handled_once(record, handled, are_right):
    assert Books(record, handled).are_right is are_right


async def test_the_receiver_of_the_demo_waits_fails_once_and_enters_what_it_has_handled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY, "fake key, fake key, fake key, fake key")
    receiver = importlib.import_module("dgreceiver.cli.demo_app").receiver
    receiver.public_url = "http://hooks.example.com/"
    ledger, hold = tmp_path / LEDGER, tmp_path / HOLD
    hold.touch()
    async with receiver.running(), calling(receiver, auth=None) as client:
        answer = await post(client, transcript(), receiver.callback_url(AWKWARD))
        await asyncio.sleep(0.1)
        assert (answer.status_code, ledger.exists()) == (200, False)
        hold.unlink()
        await until(lambda: ledger.exists() and len(ledger.read_text().splitlines()) == 2)
    del sys.modules["dgreceiver.cli.demo_app"]
    assert re.findall(r'"what": "(\w+)".*"attempt": (\d)', ledger.read_text()) == [("failed", "1"), ("handled", "2")]
