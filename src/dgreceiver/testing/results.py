"""A stand-in for the results: the same for whatever comes in. To be replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from . import payloads
from .payloads import Payload

Options = Mapping[str, Sequence[str]]


class Invalid(Exception):
    """A request that no result can be made for."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def listen(
    options: Options, *, audio: bytes | None = None, url: str | None = None, request_id: str, created: datetime
) -> Payload:
    _check(options)
    extra: Any = dict(pair.split(":", 1) for pair in options.get("extra", ()))
    return payloads.transcript(request_id=request_id, extra=extra)


def read(
    options: Options, *, text: str | None = None, url: str | None = None, request_id: str, created: datetime
) -> Payload:
    _check(options)
    return payloads.analysis(request_id=request_id)


def speak(options: Options, *, text: str, version: Literal["v1", "v2"] = "v1", request_id: str) -> Payload:
    _check(options)
    return payloads.audio(request_id=request_id, seconds=0.1)


def _check(options: Options) -> None:
    if "no-such-model" in options.get("model", ()):
        raise Invalid("Bad Request", "Bad Request: No such model/version combination found.")
