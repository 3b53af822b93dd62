"""The command line as a whole."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import DgreceiverError, SetupError
from .demo import demo
from .emulate import emulate
from .inbox import inbox
from .output import shown
from .send import send
from .serve import serve
from .url import url


class _Commands(TyperGroup):
    """Says in one line what went wrong, where it was a setting or the inbox; 2 is for what the user can mend."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DgreceiverError as error:
            typer.echo(f"dgreceiver: {shown(error)}", err=True)
            raise typer.Exit(2 if isinstance(error, SetupError) else 1) from None


app = typer.Typer(
    name="dgreceiver",
    cls=_Commands,
    help="Receives Deepgram's callbacks: stored before they are acknowledged, handled once, typed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # the user's own errors, as Python shows them: without values
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dgreceiver {version('dgreceiver')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take what stands before the command."""


app.command()(serve)
app.add_typer(inbox)
app.command()(send)
app.command()(url)
app.command()(emulate)
app.command()(demo)
