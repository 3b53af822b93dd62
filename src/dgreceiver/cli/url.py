"""`dgreceiver url`: a callback URL to submit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from ..core.auth import Auth, BasicAuth, SignedAuth
from ..errors import SetupError
from .apps import receiver_of
from .durations import duration
from .settings import settings


def url(
    *,
    public_url: Annotated[
        str | None, typer.Option(help="What Deepgram calls, path included; DGRECEIVER_PUBLIC_URL.")
    ] = None,
    app: Annotated[str | None, typer.Option(help="Take the credentials of this app, such as app:receiver.")] = None,
    user: Annotated[str | None, typer.Option(help="The user of a BasicAuth.")] = None,
    password_env: Annotated[
        str | None, typer.Option(help="The variable that holds its password; asked for if not said.")
    ] = None,
    key_env: Annotated[str | None, typer.Option(help="The variable that holds the key of a SignedAuth.")] = None,
    context: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Signed, but readable.")] = None,
    expires: Annotated[str, typer.Option(help="How long a signed URL is good for, such as 12h.")] = "7d",
    websocket: Annotated[bool, typer.Option("--websocket", help="A ws or wss URL.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Allow an address that only this network knows.")] = False,
) -> None:
    """Print a callback URL, credentials included."""
    auth = _auth(app, user, password_env, key_env)
    receiver = receiver_of(app, settings(public_url=public_url), auth=auth)
    given = _context(context or ())
    typer.echo(receiver.callback_url(given, expires=duration("--expires", expires), websocket=websocket, local=local))


def _auth(app: str | None, user: str | None, password_env: str | None, key_env: str | None) -> Auth | None:
    if (app, user, key_env).count(None) != 2 or (password_env and not user):
        raise SetupError("say whose credentials to write: --app, or --user with --password-env, or --key-env")
    if user is not None:
        password = _secret(password_env) if password_env else typer.prompt("password", hide_input=True, err=True)
        return BasicAuth(user, password)
    return SignedAuth(_secret(key_env)) if key_env is not None else None


def _secret(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise SetupError(f"the variable {variable} is not set; it is to hold the secret")
    return value


def _context(pairs: Sequence[str]) -> dict[str, str] | None:
    context = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise SetupError(f"--context {pair!r} is no NAME=VALUE")
        context[name] = value
    return context or None
