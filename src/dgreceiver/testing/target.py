"""Where Deepgram sends to, and how often: what `dgreceiver send` and the emulator share."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..errors import SetupError

# Source: docs/callback: ten more times, 30 s apart, on anything but 2xx.
RETRIES, RETRY_WAIT = 10, 30.0
# Seconds for a connection, and for the answer: the defaults of a self-hosted Deepgram; the hosted one tells none.
CONNECT_TIMEOUT, RESPONSE_TIMEOUT = 1.0, 10.0

REDIRECTED = "a redirect, which is not followed: add a slash to the path, or take one away"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send to. The credentials are out of the URL before an HTTP client sees it: those write URLs to logs."""

    url: str
    credentials: str | None  # user:password
    shown: str  # without query

    @property
    def is_socket(self) -> bool:
        return self.url.startswith(("ws:", "wss:"))

    @property
    def headers(self) -> Mapping[str, str]:
        if self.credentials is None:
            return {}
        return {"authorization": f"Basic {b64encode(self.credentials.encode()).decode()}"}


WEB, LIVE = ("http", "https"), ("http", "https", "ws", "wss")  # schemes


def read_target(url: str, called: str = "the callback URL", schemes: Sequence[str] = WEB) -> Target:
    """Take a callback URL apart; `called` is what it is to the user.

    Raises: SetupError if nothing can be sent to it; the message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # raises if it is none
    except ValueError:
        host = None
    if not host or parts.scheme not in schemes:
        raise SetupError(
            f"{called} is no {' or '.join(schemes)} URL; write it in full, such as http://user:password@localhost:8080/"
        )
    userinfo, at, place = parts.netloc.rpartition("@")
    bare = parts._replace(netloc=place)
    return Target(bare.geturl(), unquote(userinfo) if at else None, bare._replace(query="", fragment="").geturl())
