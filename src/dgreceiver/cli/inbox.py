"""`dgreceiver inbox`: what is in an inbox, and having it handled again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import SetupError
from ..inbox.contract import STATES, Entry, State
from ..receiver import Receiver
from ..streams import whole
from .apps import receiver_of
from .output import console, shown
from .settings import settings

inbox = typer.Typer(name="inbox", help="See what an inbox holds, and have it handled again.", no_args_is_help=True)

InboxURL = Annotated[
    str | None, typer.Option("--inbox", metavar="URL", help="DGRECEIVER_INBOX; sqlite:///dgreceiver.db if not said.")
]
Name = Annotated[str | None, typer.Option(help="The receiver's; DGRECEIVER_NAME; default if not said.")]
App = Annotated[str | None, typer.Option(help="Take inbox and name from this app, such as app:receiver.")]
Dead = Annotated[bool, typer.Option("--dead", help="Those that were given up.")]
Unhandled = Annotated[bool, typer.Option("--unhandled", help="Those that nobody wanted.")]
Conflict = Annotated[bool, typer.Option("--conflict", help="Other bodies under a known key.")]


@inbox.command("list")
def list_(
    *,
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")] = None,
    dead: Dead = False,
    unhandled: Unhandled = False,
    conflict: Conflict = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many to show.")] = 50,
    before: Annotated[int | None, typer.Option(help="Go on behind this one, as the page before says.")] = None,
    inbox_url: InboxURL = None,
    name: Name = None,
    app: App = None,
) -> None:
    """List callbacks, newest first."""
    wanted = _state(state, dead=dead, unhandled=unhandled, conflict=conflict)
    entries = asyncio.run(_page(_existing(app, inbox_url, name), wanted, before, limit))
    console().print(_table(entries))
    if len(entries) == limit:
        typer.echo(f"what came before: --before {entries[-1].id}", err=True)


@inbox.command()
def show(
    *,
    key: Annotated[str, typer.Argument(help="As the list shows it.")],
    body: Annotated[bool, typer.Option("--body", help="Write the body instead, byte for byte.")] = False,
    inbox_url: InboxURL = None,
    name: Name = None,
    app: App = None,
) -> None:
    """Show what is known of a callback, or its body."""
    entry, content = asyncio.run(_find(_existing(app, inbox_url, name), key))
    if body:
        typer.echo(_kept(entry, content), nl=False)
        return
    for title, value in _facts(entry):
        console().print(f"{title:<12} {shown(value)}")


@inbox.command()
def replay(
    *,
    key: Annotated[str | None, typer.Argument(help="As the list shows it.")] = None,
    dead: Dead = False,
    unhandled: Unhandled = False,
    conflict: Conflict = False,
    inbox_url: InboxURL = None,
    name: Name = None,
    app: App = None,
) -> None:
    """Have callbacks handled again, by the server that runs or by the next one."""
    state = _state(None, dead=dead, unhandled=unhandled, conflict=conflict)
    if (key is None) == (state is None):
        raise SetupError("say what to replay: a KEY, or one of --dead, --unhandled and --conflict")
    replayed = asyncio.run(_existing(app, inbox_url, name).replay(key=key, state=state))
    if key is not None and not replayed:
        raise SetupError(f"{key} cannot be replayed: there is none, it has not ended, or its body is no longer kept")
    typer.echo(f"replayed: {replayed}")


def _existing(app: str | None, inbox_url: str | None, name: str | None) -> Receiver:
    """The receiver whose inbox it is.

    Raises: SetupError if there is no such inbox; to look does not make one.
    """
    receiver = receiver_of(app, settings(inbox=inbox_url, name=name))
    if receiver.inbox_url == "memory://":
        raise SetupError("an inbox in memory ends with its process; there is nothing to look at")
    path = Path(receiver.inbox_url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise SetupError(f"there is no inbox {path.absolute()}; name one: --inbox sqlite:///…, or --app app:receiver")
    return receiver


def _state(state: str | None, **flags: bool) -> State | None:
    said = [name for name, is_set in flags.items() if is_set] + ([state] if state else [])
    if len(said) > 1:
        raise SetupError(f"one state at a time; leave out all but one of {', '.join(said)}")
    for known in STATES:
        if said == [known]:
            return known
    if said:
        raise SetupError(f"{said[0]!r} is no state; write one of {', '.join(STATES)}")
    return None


async def _page(receiver: Receiver, state: State | None, before: int | None, limit: int) -> Sequence[Entry]:
    async with receiver.opened() as opened:
        return await opened.page(state=state, before=before, limit=limit)


async def _find(receiver: Receiver, key: str) -> tuple[Entry, bytes]:
    async with receiver.opened() as opened:
        found = await opened.get(key)
        if found is None:
            raise SetupError(f"no callback of receiver {receiver.name} has the key {key}; see: dgreceiver inbox list")
        entry, body = found
        return entry, await whole(opened, entry, body) or b""


def _kept(entry: Entry, body: bytes) -> bytes:
    if entry.size and not body:
        raise SetupError(f"the body of {entry.key} is no longer kept")
    return body


def _table(entries: Sequence[Entry]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("key", "kind", "request_id", "state", "received", "size", "attempts", "error"):
        made.add_column(title, no_wrap=True)
    for entry in entries:
        made.add_row(*_row(entry))
    return made


def _row(entry: Entry) -> list[str]:
    return [
        shown(value)
        for value in (
            entry.key,
            entry.kind,
            entry.request_id or "-",
            entry.state,
            _time(entry.received_at),
            entry.size,
            _attempts(entry),
            entry.error or "",
        )
    ]


def _facts(entry: Entry) -> Iterator[tuple[str, object]]:
    """What is known of a callback. Of the query only the names: its values may be credentials."""
    yield "key", entry.key
    yield "kind", entry.kind
    yield "state", entry.state
    yield "request_id", entry.request_id or "-"
    yield "job", entry.job or "-"
    yield "stream", entry.lane or "-"
    yield "received", _time(entry.received_at)
    yield "size", f"{entry.size} bytes"
    yield "path", entry.path or "-"
    yield "query", " ".join(map(_without_value, filter(None, entry.query.split("&")))) or "-"
    yield "context", json.dumps(dict(entry.context), ensure_ascii=False)
    yield "error", entry.error or "-"
    yield "crashes", entry.crashes
    yield "replayed", "yes" if entry.replayed else "no"
    for name, value in entry.headers.items():
        yield "header", f"{name}: {value}"
    for name, mark in entry.marks.items():
        fate = "done" if mark.done else f"given up: {mark.buried}" if mark.buried else "to run again"
        yield "handler", f"{name}: {mark.attempts} attempts, {fate}"


def _without_value(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}=…" if equals else "…"


def _attempts(entry: Entry) -> int:
    """Of the handler that has had the most."""
    return max((mark.attempts for mark in entry.marks.values()), default=0)


def _time(moment: datetime) -> str:
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")
