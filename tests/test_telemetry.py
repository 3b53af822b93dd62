"""Facts as log lines."""

from __future__ import annotations

import logging
import subprocess
import sys
from inspect import isclass

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from dgreceiver import facts
from dgreceiver.facts import Fact
from dgreceiver.telemetry import LINES, log

PLAIN = "dgreceiver"
ERROR, WARNING, INFO, DEBUG = logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG

SAID = [
    (facts.InboxOpened("/data/inbox.db"), INFO, "inbox: /data/inbox.db"),
    (facts.InboxOpened("/tmp/inbox.db", "it is lost"), WARNING, "inbox: /tmp/inbox.db; it is lost"),
    (
        facts.InboxFailed("disk full", 3),
        ERROR,
        "the inbox could not store: disk full; 3 waited and were told to come again",
    ),
    (
        facts.DispatchTaken("default", 2),
        INFO,
        "this process runs the handlers of receiver default; 2 came back from a process that ended",
    ),
    (
        facts.StartedLate(),
        WARNING,
        (
            "started on the first request: this app never ran our lifespan; write FastAPI(lifespan=receiver.running), "
            "or put CallbackMiddleware around the app"
        ),
    ),
    (facts.SetupDoubtful("write it longer"), WARNING, "write it longer"),
    (
        facts.CallbackStored("stored", "Transcript", "r", "k", 7, 2),
        INFO,
        "stored Transcript r (7 bytes, admitted by credential 2)",
    ),
    (
        facts.CallbackStored("duplicate", "Audio", None, "k", 7, 1),
        INFO,
        "duplicate Audio k (7 bytes, admitted by credential 1)",
    ),
    (
        facts.CallbackStored("conflict", "Transcript", "r", "k", 7, 1),
        WARNING,
        (
            "conflict Transcript r (7 bytes, admitted by credential 1); its key has another body already; "
            "see: dgreceiver inbox list --conflict"
        ),
    ),
    (facts.CallbackRefused(413, "too long", "192.0.2.1"), WARNING, "refused 413: too long"),
    (
        facts.WeakIdentity("Unknown", "k"),
        WARNING,
        (
            "Unknown k came over ten minutes after the same bytes, without an id: taken as new; "
            "with SignedAuth every job has an id"
        ),
    ),
    (
        facts.URLReused("j"),
        WARNING,
        "the URL signed for job j serves a second request; call callback_url() for each submission",
    ),
    (
        facts.HandlerSucceeded("save", "Transcript", "r", "k", 2, 0.0123),
        INFO,
        "save handled Transcript r, attempt 2, in 0.012 s",
    ),
    (
        facts.HandlerFailed("save", "Transcript", "r", "k", 2, "ValueError: no", 1.25),
        ERROR,
        "save failed on Transcript r, attempt 2; again in 1.2 s: ValueError: no",
    ),
    (
        facts.HandlerFailed("save", "UtteranceEnd", None, "k", 20, "ValueError: no", None),
        ERROR,
        "save failed on UtteranceEnd k, attempt 20; given up: ValueError: no",
    ),
    (
        facts.HandlerAbandoned("save", "k", 600.0),
        WARNING,
        "save still runs in its thread after 600 s; the thread is left to itself",
    ),
    (
        facts.DeliveryBuried("Transcript", "r", "k", "save: no"),
        ERROR,
        "gave up Transcript r: save: no; it is kept; replay with: dgreceiver inbox replay k",
    ),
    (
        facts.DeliveryUnhandled("Audio", None, "k", "@receiver.on(Audio)", True),
        WARNING,
        (
            "nothing handles Audio (kept; replay with: dgreceiver inbox replay --unhandled); "
            "to handle it:\n@receiver.on(Audio)"
        ),
    ),
    (
        facts.LiveStreamBegun("s", "192.0.2.1", 1),
        INFO,
        "live stream s began, from 192.0.2.1 (admitted by credential 1)",
    ),
    (
        facts.LiveStreamSpooling("s"),
        WARNING,
        (
            "the inbox cannot keep up with live stream s: what comes is put aside on disk and stored later; "
            "nothing is lost while this process lives"
        ),
    ),
    (facts.LiveStreamCut("s", "no room"), ERROR, "cut live stream s: no room"),
    (
        facts.LiveStreamEnded("s", 3, 3, 61.04, 1000),
        INFO,
        "live stream s ended after 61.0 s, code 1000: 3 frames stored",
    ),
    (
        facts.LiveStreamEnded("s", 3, 1, 61.04, 1012),
        ERROR,
        (
            "live stream s ended after 61.0 s, code 1012: 1 frames stored, 2 LOST: "
            "the inbox could not store them before this process ended"
        ),
    ),
]


@pytest.mark.parametrize(("fact", "level", "line"), SAID, ids=[repr(fact) for fact, _, _ in SAID])
def test_a_fact_is_one_line_at_the_level_of_who_should_look(fact, level, line, caplog):
    caplog.set_level(DEBUG)
    log(fact)
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [(PLAIN, level, line)]


def test_every_fact_has_a_line():
    kinds = {kind for kind in vars(facts).values() if isclass(kind) and issubclass(kind, Fact) and kind is not Fact}
    assert set(LINES) == kinds
    assert {type(fact) for fact, _, _ in SAID} == kinds


def test_only_the_first_of_a_kind_that_nobody_handles_is_a_warning(caplog):
    caplog.set_level(DEBUG)
    log(facts.DeliveryUnhandled("Audio", None, "k", "", False))
    assert [record.levelno for record in caplog.records] == [DEBUG]


def test_the_traceback_of_a_handler_is_in_the_log(caplog):
    error = ValueError("no")
    log(facts.HandlerFailed("save", "Transcript", "r", "k", 1, "ValueError: no", None, error))
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_what_nobody_listens_to_is_not_put_into_words(caplog):
    caplog.set_level(ERROR, logger=PLAIN)
    log(facts.SetupDoubtful("unheard"))
    assert caplog.records == []


def test_a_warning_is_seen_without_any_setup_of_logging():
    said = (
        "from dgreceiver import facts, telemetry\n"
        "telemetry.log(facts.SetupDoubtful('heard'))\n"
        "telemetry.log(facts.DispatchTaken('default', 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stderr == "heard\n"


def test_what_django_refuses_on_a_loop_comes_with_the_way(caplog):
    error = SynchronousOnlyOperation("You cannot call this from an async context")
    log(facts.HandlerFailed("save", "Transcript", "r", "k", 1, "SynchronousOnlyOperation: no", 1.0, error))
    assert caplog.messages[0].endswith(
        ": SynchronousOnlyOperation: no "
        "(write the handler with def instead of async def: it then runs in a thread, where Django's ORM works)"
    )
