"""Named points on the way of a callback, at each of which a process can be made to kill itself.

A point is passed before each statement of SQL and after each COMMIT, at each message between a server and the receiver,
at each fact, and around identify(), parse() and the user's handler. None of it needs a line in the product: what SQLite,
the locks, ASGI and `hooks` show is enough, and a statement that is added later is a point by itself.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.pool import Pool

from dgreceiver import dispatch
from dgreceiver.facts import Fact
from dgreceiver.inbox import sql, store

from ..support import Ledger

LOOKED_AT = 2_000  # characters of a statement; behind them are the values
_VERB = re.compile(r"[A-Z]+")
_TABLE = re.compile(r"\bdgreceiver_(\w+)")
_STATE = re.compile(r"SET (?:.*?\b)?state='(\w+)'", re.DOTALL)
_COLUMN = re.compile(r"SET (\w+)")
_PRAGMA = re.compile(r"PRAGMA (?:\w+\.)?\w+")
_CREATE = re.compile(r"CREATE \w+")


class Point(NamedTuple):
    """A passage of a point: the n-th of its name, from 1."""

    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.name} ({self.nth})"


class Points:
    """The points that this process passes: each is noted, and at one of them the process kills itself."""

    def __init__(self, ledger: Ledger, kill_at: Point | None) -> None:
        self._ledger = ledger
        self._kill_at = kill_at
        self._passed = Counter[str]()
        self._counts = False

    def begin(self) -> None:
        """Count from here on."""
        self._ledger.note("begin", None)
        self._passed.clear()
        self._counts = True

    def __call__(self, name: str) -> None:
        self._passed[name] += 1
        self._ledger.note("point", name)
        if self._counts and (name, self._passed[name]) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, fact: Fact) -> None:
        """A hook of the receiver."""
        self(f"fact: {type(fact).__name__}")

    def watch(self, ledger: Ledger) -> None:
        """Pass a point wherever this process does something with an inbox file, or decides what a callback is."""
        transaction = Transaction(self, ledger)
        event.listen(Pool, "connect", transaction.trace)
        sys.addaudithook(transaction.audit)
        for place, step in ((sql, "identify"), (store, "identify"), (dispatch, "parse")):
            setattr(place, step, self._around(step, getattr(place, step)))

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            self(f"{name}: begins")
            result = function(*args, **options)
            self(f"{name}: ended")
            return result

        return called


class Transaction:
    """What stands in the transaction that runs, so that its COMMIT has a name."""

    def __init__(self, points: Points, ledger: Ledger) -> None:
        self._points = points
        self._ledger = ledger
        self._statements: list[str] = []
        self._ends = False  # an attempt of handlers ends in it
        self._committing = False

    def trace(self, connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(self.begins)

    def audit(self, name: str, args: tuple[Any, ...]) -> None:
        """The lock is let go of as soon as a COMMIT has returned."""
        if name == "fcntl.flock" and args[1] == fcntl.LOCK_UN and self._committing:
            self._committing = False
            if self._ends:
                self._ledger.note("settled", None)
            self._points(f"after COMMIT of {self._content}")

    def begins(self, statement: str) -> None:
        """SQLite is about to run a statement."""
        said = " ".join(statement[:LOOKED_AT].split())
        if said.startswith("BEGIN"):
            self._statements, self._ends = [], False
        elif said == "COMMIT":
            self._points(f"COMMIT of {self._content}")
            if self._ends:
                self._ledger.note("settling", None)
            self._committing = True
        else:
            self._statements.append(named(said))
            self._ends = self._ends or (said.startswith("UPDATE") and "marks='{\"" in said)
            self._points(self._statements[-1])

    @property
    def _content(self) -> str:
        """What it is for: the callback that it stores, or else the first that it changes."""
        changes = [each for each in self._statements if not each.startswith(("SELECT", "PRAGMA"))]
        stored = [each for each in changes if each == "INSERT callback"]
        return (stored or changes or self._statements or ["nothing"])[0]


def named(said: str) -> str:
    """A statement by what it does to which table; an UPDATE by the state it leads to, or the first that it sets."""
    if known := _PRAGMA.match(said) or _CREATE.match(said):
        return known[0]
    verb, table = _VERB.match(said), _TABLE.search(said)
    name = " ".join(found for found in (verb and verb[0], table and table[1]) if found)
    if name.startswith("UPDATE") and (to := _STATE.search(said) or _COLUMN.search(said)):
        name = f"{name}: {to[1]}"
    return name
