"""The receiver that a command is about: the user's, by module:attribute, or one as the settings have it."""

from __future__ import annotations

import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.auth import Auth, NoAuth
from ..errors import SetupError
from ..receiver import Receiver
from .settings import PREFIX, Settings


def receiver_of(app: str | None, given: Settings, *, auth: Auth | None = None, **own: Any) -> Receiver:
    """The receiver that an app names; without one, a receiver as the settings have it, and with `own` settings.

    What the app leaves open, the settings may say.

    Raises: SetupError if there is no such app, or if the settings contradict it.
    """
    if app is not None:
        return _agreeing(load(app), given)
    return Receiver(
        auth=auth or NoAuth(),  # nothing comes in here
        inbox=given.inbox or "sqlite:///dgreceiver.db",
        name=given.name or "default",
        public_url=given.public_url,
        **own,
    )


def _agreeing(receiver: Receiver, given: Settings) -> Receiver:
    pairs = {
        "inbox": (given.inbox, receiver.inbox_url),
        "name": (given.name, receiver.name),
        "public-url": (given.public_url, receiver.public_url),
    }
    for option, (said, its) in pairs.items():
        if None not in (said, its) and said != its:
            raise SetupError(
                f"--{option} (or {PREFIX}{option.upper().replace('-', '_')}) contradicts the app, which has its own; "
                "leave out one of both"
            )
    receiver.public_url = receiver.public_url or given.public_url
    return receiver


def load(app: str) -> Receiver:
    """Import the receiver that `app` names, from the current folder or from what is installed.

    Raises: SetupError that says what to write; what the user's own module raises, as it is.
    """
    name, colon, attribute = app.partition(":")
    if not (name and colon and attribute) or name.startswith("."):
        raise SetupError(f'{app!r} names no receiver; write module:attribute, such as "app:receiver" for app.py')
    module = _import(name)
    try:
        found = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise SetupError(f"{name} has no {attribute}; {_suggest(module)}") from None
    if not isinstance(found, Receiver):
        raise SetupError(f"{app} is of type {type(found).__name__}, not a Receiver; {_suggest(module)}")
    return found


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; it misses another
        raise SetupError(
            f"there is no module {error.name} in {folder}; write the name of a file there, without .py"
        ) from None


def _suggest(module: ModuleType) -> str:
    receivers = [name for name, value in vars(module).items() if isinstance(value, Receiver)]
    if receivers:
        return f"write {module.__name__}:{receivers[0]}"
    return f"make one there: receiver = Receiver(auth=…), and write {module.__name__}:receiver"
