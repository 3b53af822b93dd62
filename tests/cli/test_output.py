"""What the command writes to a terminal."""

from __future__ import annotations

import logging
import sys

from dgreceiver.cli.output import LogFormatter


def test_a_traceback_is_set_in_and_does_nothing_to_the_terminal():
    try:
        raise ValueError("\x1b[2J\nINFO forged")
    except ValueError:
        record = logging.LogRecord("dgreceiver", logging.ERROR, "", 0, "failed", None, sys.exc_info())
    first, *rest = LogFormatter("%(message)s").format(record).split("\n")
    assert first == "failed"
    assert all(line.startswith("  ") and "\x1b" not in line for line in rest)
