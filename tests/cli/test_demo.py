"""`dgreceiver demo`: it runs, its sum is right, and it would say so if it were not."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
import time
from collections import Counter

import pytest
from typer.testing import CliRunner

from dgreceiver.cli.demo import AWKWARD, HOLD, KEY, LEDGER, Books, _come_true
from dgreceiver.cli.main import app
from dgreceiver.testing.payloads import BUILDERS, transcript

from ..support import calling, post, until


@pytest.fixture(scope="module")
def shown():
    ended = CliRunner().invoke(app, ["demo"])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_sum_is_right(shown):
    _, _, total = shown.partition("The sum\n")
    assert [line.rsplit(maxsplit=1) for line in total.splitlines()] == [
        ["  sent", "24"],
        ["  acknowledged", "23"],
        ["  broken off before the answer", "1"],
        ["  duplicates recognised", "1"],
        ["  callbacks acknowledged", "23"],
        ["  of these handled once", "23"],
        ["  handled twice", "0"],
        ["  lost", "0"],
    ]


def test_every_callback_is_shown_on_its_way_in_and_when_it_is_handled(shown):
    events = Counter(re.findall(r"^  (->|<-) (\w+) +(?:\d+ bytes  200 stored|handled)", shown, re.MULTILINE))
    assert {kind for _, kind in events} == set(BUILDERS) - {"LiveError"}
    assert [kind for _, kind in events if events["<-", kind] != events["->", kind] + (kind == "Transcript")] == []
    assert "  <- Transcript      failed, attempt 1\n  <- Transcript      handled, attempt 2\n" in shown


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


@pytest.mark.parametrize(
    ("books", "are_right"),
    [
        pytest.param(Books(2, 1, 1, 1, {"a"}, Counter(a=1)), True, id="handled once, for all that it was sent twice"),
        pytest.param(Books(2, 1, 1, 1, {"a"}, Counter(a=2)), False, id="handled twice"),
        pytest.param(Books(2, 1, 1, 1, {"a"}, Counter()), False, id="lost"),
        pytest.param(Books(2, 1, 1, 1, {"a"}, Counter(a=1, b=2)), False, id="something else twice"),
        pytest.param(Books(2, 1, 0, 0, {"a"}, Counter(a=1)), False, id="not acknowledged"),
        pytest.param(Books(2, 1, 1, 0, {"a"}, Counter(a=1)), False, id="a duplicate not recognised"),
        pytest.param(Books(), False, id="nothing happened"),
    ],
)
def test_a_sum_is_right_if_all_that_was_acknowledged_was_handled_once(books, are_right):
    assert books.are_right is are_right


async def test_the_receiver_of_the_demo_waits_fails_once_and_enters_what_it_has_handled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY, "fake key, fake key, fake key, fake key")
    receiver = importlib.import_module("dgreceiver.cli.demo_app").receiver
    receiver.public_url = "http://hooks.example.com/"
    ledger, hold = tmp_path / LEDGER, tmp_path / HOLD
    hold.touch()
    async with receiver.running(), calling(receiver, auth=None) as client:
        answer = await post(client, transcript(AWKWARD), receiver.callback_url())
        await asyncio.sleep(0.1)
        assert (answer.status_code, ledger.exists()) == (200, False)
        hold.unlink()
        await until(lambda: ledger.exists() and len(ledger.read_text().splitlines()) == 2)
    del sys.modules["dgreceiver.cli.demo_app"]
    assert re.findall(r'"what": "(\w+)".*"attempt": (\d)', ledger.read_text()) == [("failed", "1"), ("handled", "2")]
