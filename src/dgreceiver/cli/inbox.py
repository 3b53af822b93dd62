"""`dgreceiver inbox`: what is in an inbox, having it handled again, giving it up, erasing it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import SetupError
from ..inbox.contract import STATES, Entry, Purged, State
from ..receiver import Receiver
from ..streams import whole
from .apps import receiver_of
from .durations import duration
from .output import console, shown
from .settings import settings

inbox = typer.Typer(
    name="inbox", help="See what an inbox holds, have it handled again, or erase it.", no_args_is_help=True
)

InboxURL = Annotated[
    str | None, typer.Option("--inbox", metavar="URL", help="DGRECEIVER_INBOX; sqlite:///dgreceiver.db if not said.")
]
Name = Annotated[str | None, typer.Option(help="The receiver's; DGRECEIVER_NAME; default if not said.")]
Key = Annotated[str, typer.Argument(help="As the list shows it.")]
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
    key: Key,
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


@inbox.command()
def bury(
    *,
    key: Key,
    reason: Annotated[str, typer.Option(help="Kept with it.")] = "buried by hand",
    inbox_url: InboxURL = None,
    name: Name = None,
    app: App = None,
) -> None:
    """Give up a callback that waits, so that its stream goes on without it; it can be replayed."""
    if not asyncio.run(_bury(_existing(app, inbox_url, name), key, reason)):
        raise SetupError(f"{key} cannot be buried: there is none, it is being handled, or it has ended")
    typer.echo("buried: 1")


@inbox.command()
def erase(
    *,
    request_id: Annotated[str | None, typer.Option(metavar="ID", help="Deepgram's.")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="The user name in a signed URL.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    inbox_url: InboxURL = None,
    name: Name = None,
    app: App = None,
) -> None:
    """Erase all that is kept of a request or a job, and say what was not reached."""
    if (request_id is None) == (job is None):
        raise SetupError("say what to erase: --request-id or --job")
    receiver = _existing(app, inbox_url, name)
    what = f"request {request_id}" if job is None else f"job {job}"
    if not yes:
        typer.confirm(f"erase all that receiver {receiver.name} keeps of {shown(what)}?", abort=True, err=True)
    erased = asyncio.run(receiver.erase(request_id=request_id, job=job))
    typer.echo(f"erased: {erased.rows}")
    if not erased.rows:
        typer.echo(f"receiver {receiver.name} keeps nothing of it", err=True)
    for left in erased.unreached:
        typer.echo(f"not reached: {left}")


@inbox.command()
def purge(
    *,
    keep: Annotated[str | None, typer.Option(metavar="DURATION", help="For bodies, such as 7d.")] = None,
    dedupe_for: Annotated[str | None, typer.Option(metavar="DURATION", help="For keys, such as 3d.")] = None,
    inbox_url: InboxURL = None,
    name: Name = None,
    app: App = None,
) -> None:
    """Drop now what has ended and is old enough, as a server does once an hour."""
    own = {option: said for option, said in (("keep", keep), ("dedupe_for", dedupe_for)) if said is not None}
    if len(own) != (0 if app else 2):
        raise SetupError("say how long to keep: --app, whose settings hold, or both --keep and --dedupe-for")
    durations = {option: duration(f"--{option.replace('_', '-')}", said) for option, said in own.items()}
    purged = asyncio.run(_purge(_existing(app, inbox_url, name, **durations)))
    typer.echo(f"purged: {purged.bodies} bodies, {purged.rows} rows")


@inbox.command()
def stats(*, inbox_url: InboxURL = None, name: Name = None, app: App = None) -> None:
    """Show how many callbacks are in each state, since when the oldest waits, and how large the files are."""
    receiver = _existing(app, inbox_url, name)
    counts, oldest = asyncio.run(_stats(receiver))
    for state in STATES:
        typer.echo(f"{state:<12} {counts.get(state, 0)}")
    typer.echo(f"{'oldest':<12} {_time(oldest) if oldest else '-'}")
    for title, path in (("file", _path(receiver)), ("log", Path(f"{_path(receiver)}-wal"))):
        typer.echo(f"{title:<12} {path.stat().st_size if path.exists() else 0} bytes")


def _existing(app: str | None, inbox_url: str | None, name: str | None, **own: Any) -> Receiver:
    """The receiver whose inbox it is.

    Raises: SetupError if there is no such inbox; to look does not make one.
    """
    receiver = receiver_of(app, settings(inbox=inbox_url, name=name), **own)
    if receiver.inbox_url == "memory://":
        raise SetupError("an inbox in memory ends with its process; there is nothing to look at")
    path = _path(receiver)
    if not path.is_file():
        raise SetupError(f"there is no inbox {path.absolute()}; name one: --inbox sqlite:///…, or --app app:receiver")
    return receiver


def _path(receiver: Receiver) -> Path:
    return Path(receiver.inbox_url.removeprefix("sqlite:///"))


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


async def _bury(receiver: Receiver, key: str, reason: str) -> bool:
    async with receiver.opened() as opened:
        return await opened.bury_waiting(key, error=reason)


async def _purge(receiver: Receiver) -> Purged:
    async with receiver.opened() as opened:
        return await opened.purge(keep=receiver.keep, dedupe_for=receiver.dedupe_for)


async def _stats(receiver: Receiver) -> tuple[Mapping[State, int], datetime | None]:
    async with receiver.opened() as opened:
        return await opened.counts(), await opened.oldest()


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
