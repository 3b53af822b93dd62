"""What the commands print, and in what form."""

from __future__ import annotations

import logging
from textwrap import indent
from typing import Any

from rich.console import Console

from ..telemetry import shown

__all__ = ["WIDE", "LogFormatter", "console", "shown"]

WIDE = 500  # columns: a terminal wraps what it has no room for, where a table would leave out the key


def console() -> Console:
    """Where to print; it escapes nothing by itself: what a stranger may have written goes through `shown`."""
    return Console(width=WIDE, soft_wrap=True, markup=False, emoji=False, highlight=False)


class LogFormatter(logging.Formatter):
    """Log lines for a terminal. A traceback may quote what a stranger wrote: set in, it looks like no line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(shown, super().format(record).split("\n")))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return indent(super().formatException(ei), "  ")
