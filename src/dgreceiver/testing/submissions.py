"""What Deepgram asks of a request before it takes it, and how it says no.

Source: https://developers.deepgram.com/docs/errors
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request

from ..core import urls
from ..errors import SetupError
from .faults import fault_named
from .results import Invalid
from .target import WEB, Target, read_target

FAULT_HEADER, FAULT_OPTION = "x-emulator-fault", "fault"
METHODS = ("POST", "PUT")
OURS = ("callback", "callback_method", FAULT_OPTION)  # the rest is for those who make the results
QUERY, JSON = "INVALID_QUERY_PARAMETER", "INVALID_JSON"


class Denied(Exception):
    """A request that is not taken: what to answer, and a reason for the record that says more."""

    def __init__(self, status: int, content: Mapping[str, str], reason: str = "") -> None:
        super().__init__(reason or content.get("err_msg") or content.get("details"))
        self.status = status
        self.content = content


@dataclass(frozen=True, slots=True)
class Wish:
    """How a result is to come."""

    options: Mapping[str, Sequence[str]]
    callback: Target | None
    method: str
    fault: str | None


def denied(status: int, code: str, message: str, reason: str = "") -> Denied:
    """Deny in the shape of most errors."""
    return Denied(status, {"err_code": code, "err_msg": message}, reason)


def check_key(request: HTTPConnection, keys: Mapping[str, str] | None, key_id: str) -> str:
    """The identifier of the API key; `keys` knows it, or else any key has `key_id`.

    Raises: Denied with 401.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    found = keys.get(key.strip()) if keys is not None else key.strip() and key_id
    if scheme.lower() not in ("token", "bearer") or not found:
        raise denied(401, "INVALID_AUTH", "Invalid credentials.")
    return found


def read_wish(request: HTTPConnection, *, strict: bool, schemes: Sequence[str] = WEB) -> Wish:
    """Read the query; `schemes` are those of callback URLs that can be called.

    Raises: Denied with 400.
    """
    query = request.query_params
    options = {name: query.getlist(name) for name in query if name not in OURS}
    method = query.get("callback_method", "POST").upper()
    if method not in METHODS:
        raise denied(400, QUERY, f"Failed to deserialize query parameters: unknown callback_method `{method}`")
    fault = request.headers.get(FAULT_HEADER) or query.get(FAULT_OPTION)
    callback = query.get("callback")
    target = None if callback is None else _read_callback(callback, schemes, strict=strict)
    return Wish(options, target, method, _known(fault))


def _known(fault: str | None) -> str | None:
    try:
        fault_named(fault)
    except SetupError as error:
        raise denied(400, QUERY, f"The emulator: {error}") from None
    return fault


def _read_callback(url: str, schemes: Sequence[str], *, strict: bool) -> Target:
    """Take a callback URL; unless `strict`, hosts that only this network knows are good too, on any port."""
    try:
        target = read_target(url, schemes=schemes)
        if "_" in (urlsplit(target.url).hostname or ""):
            raise denied(400, QUERY, "Failed to resolve callback.", "the host has a _")
        urls.check(target.url, local=not strict)
    except SetupError as error:
        raise denied(400, QUERY, "Invalid callback url.", str(error)) from None
    return target


async def read_json(request: Request, *names: str) -> dict[str, str]:
    """The one of these fields that the body has.

    Raises: Denied with 400.
    """
    try:
        content: Any = json.loads(await request.body())
    except ValueError as error:
        raise _invalid_json(str(error)) from None
    found = {name: content[name] for name in names if name in content} if isinstance(content, dict) else {}
    if len(found) != 1 or not all(isinstance(value, str) and value for value in found.values()):
        raise _invalid_json(f"expected {' or '.join(f'`{name}`' for name in names)}, as text")
    return found


async def read_audio(request: Request) -> dict[str, Any]:
    """The recording, or where it is: what `results.listen` is called with.

    Raises: Denied with 400.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        return dict(await read_json(request, "url"))
    audio = await request.body()
    if not audio:
        raise denied(400, "Bad Request", "Bad Request: no audio was sent.")
    return {"audio": audio}


def _invalid_json(details: str) -> Denied:
    content = {"category": JSON, "message": "Invalid JSON submitted.", "details": f"Json deserialize error: {details}"}
    return Denied(400, content)


def invalid(error: Invalid) -> Denied:
    """What a maker of results does not take."""
    return denied(error.status, error.code, error.message)
