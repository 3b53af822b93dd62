"""`dgreceiver send`: a callback as Deepgram would send it, retries included."""

from __future__ import annotations

import inspect
import logging
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer

from ..errors import SetupError
from ..testing.payloads import BUILDERS, Payload
from ..testing.target import REDIRECTED, RESPONSE_TIMEOUT, RETRIES, RETRY_WAIT, read_target
from .output import shown

TIMEOUT = httpx.Timeout(RESPONSE_TIMEOUT)

_KINDS = {kind.lower(): build for kind, build in BUILDERS.items()}


def send(
    *,
    to: Annotated[str, typer.Option(metavar="URL", help="The callback URL, user:password@ included.")],
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(BUILDERS)}; case and dashes are free.")] = None,
    file: Annotated[Path | None, typer.Option(help="Send this file instead of a kind.")] = None,
    content_type: Annotated[str, typer.Option(help="Of the file.")] = "application/json",
    request_id: Annotated[str | None, typer.Option(help="Instead of a random one.")] = None,
    put: Annotated[bool, typer.Option("--put", help="As with callback_method=put.")] = False,
    dg_token: Annotated[str | None, typer.Option(help="Send this as dg-token.")] = None,
    times: Annotated[int, typer.Option(min=1, help="Send the same so many times, as a retry would.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="How often to try again on anything but 2xx.")] = RETRIES,
    retry_wait: Annotated[float, typer.Option(min=0, help="Seconds from try to try.")] = RETRY_WAIT,
) -> None:
    """Send a callback as Deepgram would; exits with 0 if it was acknowledged."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes URLs, and a query may hold a token
    target = read_target(to, "--to")
    payload = _payload(kind, file, content_type, request_id)
    headers = {**payload.headers, **target.headers, **({"dg-token": dg_token} if dg_token else {})}
    request = httpx.Request("PUT" if put else "POST", target.url, headers=headers, content=payload.body)
    typer.echo(f"{request.method} {shown(target.shown)}: {payload.kind}, {len(payload.body)} bytes")
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        acknowledged = [_deliver(client, request, retries, retry_wait) for _ in range(times)]
    if not all(acknowledged):
        raise typer.Exit(1)


def _payload(kind: str | None, file: Path | None, content_type: str, request_id: str | None) -> Payload:
    if (kind is None) == (file is None):
        raise SetupError("say what to send: a kind, such as transcript, or --file PATH")
    if file is not None:
        return _read(file, content_type)
    build = _KINDS.get((kind or "").replace("-", "").replace("_", "").lower())
    if build is None:
        raise SetupError(f"{kind!r} is no kind of callback; write one of {', '.join(BUILDERS)}")
    if request_id is None:
        return build()
    if "request_id" not in inspect.signature(build).parameters:
        raise SetupError(f"a callback of kind {kind} names no request; leave out --request-id")
    return build(request_id=request_id)


def _read(file: Path, content_type: str) -> Payload:
    try:
        return Payload(file.read_bytes(), {"content-type": content_type}, file.name)
    except OSError as error:
        raise SetupError(f"cannot read {file}: {error.strerror}") from None


def _deliver(client: httpx.Client, request: httpx.Request, retries: int, wait: float) -> bool:
    """Send until it is acknowledged, or given up."""
    for attempt in range(1, retries + 2):
        if attempt > 1:
            time.sleep(wait)
        if _attempt(client, request, attempt):
            return True
    return False


def _attempt(client: httpx.Client, request: httpx.Request, attempt: int) -> bool:
    begun = time.perf_counter()
    try:
        response = client.send(request)
    except httpx.TransportError as error:
        said, good = f"{type(error).__name__}: {error}", False
    else:
        said, good = f"{response.status_code} {_hint(response)}", response.is_success
    typer.echo(f"  attempt {attempt}: {shown(said)}, {(time.perf_counter() - begun) * 1000:.0f} ms")
    return good


def _hint(response: httpx.Response) -> str:
    """What the receiver said, or what a redirect asks for, as Deepgram follows none."""
    if response.is_redirect:
        return f"({REDIRECTED})"
    return response.text[:200]
