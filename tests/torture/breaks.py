"""Safeguards that can be taken out, one at a time, of a copy of the code: then torture has to fail."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .fleet import ROOT


@dataclass(frozen=True, slots=True)
class Change:
    """Some text of one file, which stands there once, and what is put in its place."""

    file: str  # below src/dgreceiver
    text: str
    instead: str


STORE = "inbox/store.py"
BREAKS: Mapping[str, Sequence[Change]] = {
    "fsync": [Change("inbox/sqlite.py", '"synchronous = FULL"', '"synchronous = OFF"')],
    "key": [
        Change("inbox/migrations/versions/0001_the_inbox.py", '        sa.UniqueConstraint("key"),\n', ""),
        Change("inbox/rows.py", 'f" ON CONFLICT ({unless_known}) DO NOTHING" if unless_known else ""', '""'),
    ],
    "owner": [Change("inbox/sqlite.py", "return self._owner.try_acquire()", "return True")],
    "incarnation": [
        Change(
            STORE,
            'text(_LEASED), _c.lease == bindparam("incarnation"))\n        .values(',
            "text(_LEASED))\n        .values(",
        )
    ],
    "order": [
        Change(
            STORE,
            'now if new.state == "waiting" and label.lane is None else None',
            'now if new.state == "waiting" else None',
        )
    ],
}


def broken(name: str, folder: Path) -> Path:
    """A copy of the code without a safeguard.

    Raises: ValueError if the code has changed, so that this is no longer what to take out.
    """
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    for change in BREAKS[name]:
        path = source / "dgreceiver" / change.file
        text = path.read_text()
        if text.count(change.text) != 1:
            raise ValueError(
                f"{change.file} holds {change.text!r} {text.count(change.text)} times; say anew how to break it"
            )
        path.write_text(text.replace(change.text, change.instead))
    return source
