"""`dgreceiver emulate`: Deepgram's side of the wire, to develop against without an account."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from itertools import cycle
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from ..testing.clock import Clock
from ..testing.emulator import KEY_ID, Emulator
from ..testing.faults import FAULTS, Plan, fault_named, mix
from ..testing.record import Record, Submission
from .output import console, shown

SHOWN = 20  # submissions and refusals that are in the table: the last
LOOKS = 4.0  # a second


def emulate(
    *,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")] = 8090,
    speed: Annotated[float, typer.Option(help="How many of Deepgram's seconds pass in one of ours.")] = 1.0,
    fault: Annotated[list[str] | None, typer.Option(help=f"In turn, if several: {', '.join(FAULTS)}.")] = None,
    seed: Annotated[int | None, typer.Option(help="Mix faults into half of the submissions, by these dice.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="An API key that is taken; any, if none is said.")] = None,
    dg_token: Annotated[str | None, typer.Option(help="The keys' identifier; sent as dg-token.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse callbacks to this network, as Deepgram.")] = False,
    json: Annotated[bool, typer.Option("--json", help="No table; the record as JSON, at the end.")] = False,
) -> None:
    """Emulate Deepgram until SIGINT or SIGTERM: what is submitted is called back. It is no recogniser."""
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # the record tells
    identifier = dg_token or KEY_ID
    emulator = Emulator(
        keys=dict.fromkeys(key, identifier) if key else None,
        key_id=identifier,
        dg_token=dg_token is not None,
        faults=_plan(fault, seed),
        clock=Clock(speed),
        strict=strict,
    )
    asyncio.run(_emulate(emulator, host, port, as_json=json))


def _plan(faults: list[str] | None, seed: int | None) -> Plan:
    for name in faults or ():
        fault_named(name)
    if seed is not None:
        return mix(seed)
    return cycle(faults) if faults else None


async def _emulate(emulator: Emulator, host: str, port: int, *, as_json: bool) -> None:
    ended = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    async with emulator.serve(host=host, port=port) as url:
        typer.echo(f"Deepgram, emulated, on {url}; end with Ctrl-C", err=True)
        if as_json:
            await ended.wait()
        else:
            await _show(emulator.record, ended)
    if as_json:
        typer.echo(emulator.record.json())


async def _show(record: Record, ended: asyncio.Event) -> None:
    with Live(get_renderable=lambda: table(record), console=console(), refresh_per_second=LOOKS):
        await ended.wait()


def table(record: Record) -> Table:
    """The last of what is recorded, as rows."""
    rows = Table("time", "request", "fault", "callback", "attempts")
    for submission in record.submissions[-SHOWN:]:
        for row in _rows(submission):
            rows.add_row(*map(shown, row))
    for refusal in record.refusals[-SHOWN:]:
        rows.add_row(
            f"{refusal.at:%H:%M:%S}", shown(refusal.path), "", f"refused {refusal.status}", shown(refusal.reason)
        )
    return rows


def _rows(submission: Submission) -> Iterator[tuple[str, ...]]:
    """A row for each callback; one for a submission that has none, or none yet."""
    asked = (f"{submission.created:%H:%M:%S}", f"{submission.path} {submission.request_id}", submission.fault or "")
    if not submission.callbacks:
        yield *asked, submission.callback or "answered at once", ""
    for outgoing in submission.callbacks:
        attempts = ", ".join(str(attempt.status or attempt.note) for attempt in outgoing.attempts)
        yield *asked, f"{outgoing.kind} to {submission.callback}", attempts
