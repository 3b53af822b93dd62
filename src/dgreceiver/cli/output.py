"""What the commands print, and in what form."""

from __future__ import annotations

from rich.console import Console

WIDE = 500  # columns: a terminal wraps what it has no room for, where a table would leave out the key


def console() -> Console:
    """Where to print; it escapes nothing by itself: what a stranger may have written goes through `shown`."""
    return Console(width=WIDE, soft_wrap=True, markup=False, emoji=False, highlight=False)


def shown(text: object) -> str:
    """A text in which nothing moves a cursor, paints, or turns the direction of reading."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )
