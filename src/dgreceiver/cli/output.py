"""What the commands print, and in what form: for a terminal, and for whatever reads us through a pipe."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 500  # columns, where no terminal says how many there are: nothing is cut


def console() -> Console:
    """Where to print; it escapes nothing by itself: what a stranger may have written goes through `shown`."""
    return Console(
        width=None if sys.stdout.isatty() else WIDE, soft_wrap=True, markup=False, emoji=False, highlight=False
    )


def shown(text: object) -> str:
    """A text in which nothing moves a cursor, paints, or turns the direction of reading."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )
