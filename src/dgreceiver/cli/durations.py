"""How long something is, as one writes it on the command line."""

from __future__ import annotations

import re
from datetime import timedelta

from ..errors import SetupError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(option: str, text: str) -> timedelta:
    """Read `7d` or `12h`.

    Raises: SetupError that names the option.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise SetupError(f"{option} {text!r} is no duration; write a number and one of {', '.join(_UNITS)}, such as 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
