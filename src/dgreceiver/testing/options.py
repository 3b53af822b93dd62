"""The query's parameters, and what Deepgram refuses of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Options = Mapping[str, Sequence[str]]  # each may be said several times


class Invalid(Exception):
    """What Deepgram refuses, in its own words; `status` is what it answers."""

    def __init__(self, message: str, *, code: str = "INVALID_QUERY_PARAMETER", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status


def unreadable(message: str) -> Invalid:
    return Invalid(f"Failed to deserialize query parameters: {message}")


def last(options: Options, name: str) -> str | None:
    """The last of what was said; None if nothing was."""
    said = options.get(name)
    return said[-1] if said else None


def is_on(options: Options, name: str) -> bool:
    """Raises: Invalid if it is neither `true` nor `false`."""
    said = last(options, name)
    if said not in (None, "true", "false"):
        raise unreadable(f"provided string was not `true` or `false`, but `{said}` for `{name}`")
    return said == "true"


def number(options: Options, name: str, default: float) -> float:
    """Raises: Invalid if it is no number, or a negative one."""
    said = last(options, name)
    try:
        value = float(default if said is None else said)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise unreadable(f"`{name}` must be a number from 0 on, not `{said}`")
    return value


def whole(options: Options, name: str, default: int | None = None) -> int | None:
    """Raises: Invalid if it is no whole number from 1 on."""
    said = last(options, name)
    if said is None:
        return default
    if not (said.isascii() and said.isdigit() and len(said) < 10 and int(said)):
        raise unreadable(f"`{name}` must be a whole number from 1 on, not `{said}`")
    return int(said)


def one_of(options: Options, name: str, variants: Sequence[str]) -> str | None:
    """Raises: Invalid if it is none of the variants."""
    said = last(options, name)
    if said is not None and said not in variants:
        expected = ", ".join(f"`{variant}`" for variant in variants)
        raise unreadable(f"{name}: unknown variant `{said}`, expected one of {expected}")
    return said


def extra(options: Options) -> dict[str, str]:
    """The pairs that come back in the metadata; of the same key the last.

    Raises: Invalid if one is too long or has no key.

    Source: https://developers.deepgram.com/docs/extra-metadata
    """
    for pair in options.get("extra", ()):
        if len(pair) > 2048:
            raise Invalid("Extra metadata must not be longer than 2048 characters.")
        if pair.find(":") < 1:
            raise Invalid("Extra metadata must be given as `extra=key:value`.")
    return {key: value for key, _, value in (pair.partition(":") for pair in options.get("extra", ()))}
