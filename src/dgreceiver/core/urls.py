"""The callback URL: what Deepgram will call, and how the credentials are written into it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from ..errors import SetupError
from .auth import Auth, BasicAuth, NoAuth, SignedAuth
from .retry import seconds

# Source: https://developers.deepgram.com/docs/callback
SCHEMES = ("http", "https", "ws", "wss")
PORTS = (80, 443, 8080, 8443)
LONGEST_SCHEME = 10  # characters of one that is shown

_SOCKET = {"http": "ws", "https": "wss"}
_LOCAL_NAMES = ("localhost", "local", "internal")  # themselves and all below them
_EXAMPLE = 'such as "https://hooks.example.com/deepgram"'
_TUNNEL = "use a public address (a tunnel's will do), or local=True if what calls it is local too"


def callback_url(
    auth: Auth,
    public_url: str | None,
    *,
    context: Mapping[str, Any] | None = None,
    expires: timedelta | float = timedelta(days=7),
    websocket: bool = False,
    local: bool = False,
    now: float,
    job: str,
) -> str:
    """The URL to submit as `callback=`, with credentials of the leftmost of `auth` that fits in a URL.

    Units: `expires` is a while from `now`, which is seconds since the epoch; a float is seconds.

    Raises: SetupError if nothing fits, or if Deepgram would not call it.
    """
    if public_url is None:
        raise SetupError(f"callback_url() needs public_url: the address Deepgram will call, path included, {_EXAMPLE}")
    seconds(expires, "expires")
    chosen = _fitting(auth, context)
    user, password = "", ""
    if isinstance(chosen, SignedAuth):
        user, password = chosen.sign(job=job, context=context, expires=expires, now=now)
    elif isinstance(chosen, BasicAuth):
        user, password = chosen.user, chosen.password
    return build(public_url, user=user, password=password, websocket=websocket, local=local)


def build(public_url: str, *, user: str = "", password: str = "", websocket: bool = False, local: bool = False) -> str:
    """Write user and password into a URL, percent-encoded; path and query stay byte for byte.

    Raises: SetupError if Deepgram would not call it.
    """
    scheme = check(public_url, local=local).scheme
    _, _, rest = public_url.partition("://")
    userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"{_SOCKET.get(scheme, scheme) if websocket else scheme}://{userinfo}{rest}"


def check(public_url: str, *, local: bool = False) -> SplitResult:
    """Refuse a URL that Deepgram refuses or never calls; return its parts.

    Where what calls is local too (the emulator, a self-hosted Deepgram), `local` lets local
    hosts pass, on any port. No message repeats the URL: it may hold a token.

    Raises: SetupError that says what to write instead.
    """
    parts = _split(public_url)
    if "@" in parts.netloc:
        raise SetupError("public_url holds user:password@; leave it out, callback_url() writes the credentials")
    if "#" in public_url:
        raise SetupError("public_url holds a fragment, which no request carries; leave out the # and all behind it")
    host = _host(parts)
    if "_" in host:
        raise SetupError(f"callback host {host} has a _, which Deepgram does not resolve; use a name without one")
    is_local = _is_local(host)
    if is_local and not local:
        raise SetupError(f"callback host {host} is not one Deepgram can reach; {_TUNNEL}")
    if not is_local:
        _check_port(parts)
    return parts


def _fitting(auth: Auth, context: Mapping[str, Any] | None) -> Auth:
    wanted = (SignedAuth,) if context else (SignedAuth, BasicAuth, NoAuth)
    found = next((candidate for candidate in auth.candidates if isinstance(candidate, wanted)), None)
    if found:
        return found
    if context:
        raise SetupError(
            f"context= has to be signed, and {auth!r} cannot sign; "
            'write auth=SignedAuth(os.environ["CALLBACK_KEY"]), alone or with | beside the others'
        )
    raise SetupError(
        f"nothing of {auth!r} fits in a URL; submit public_url as it is, or add one that does: "
        'auth=SignedAuth(os.environ["CALLBACK_KEY"]) | …'
    )


def _split(public_url: str) -> SplitResult:
    if not isinstance(public_url, str):
        raise SetupError(f"public_url is of type {type(public_url).__name__}; write text, {_EXAMPLE}")
    if any(character in " \\" or not character.isprintable() for character in public_url):
        raise SetupError("public_url holds a space, a backslash or a control character; percent-encode it")
    scheme, mark, _ = public_url.partition("://")
    if not mark or not _is_word(scheme):
        raise SetupError(f"public_url has no scheme; write all of it, {_EXAMPLE}")
    if scheme.lower() not in SCHEMES:
        raise SetupError(f"callback scheme {scheme} is not one Deepgram calls; use https, http, wss or ws")
    try:
        parts = urlsplit(public_url)
        _ = parts.port  # raises if it is none
    except ValueError:
        raise SetupError(f"public_url has a host or port that cannot be read; write it {_EXAMPLE}") from None
    return parts


def _is_word(scheme: str) -> bool:
    """Whether it may be shown: of `https:/user:password@…?to=https://…` all before the second one is no scheme."""
    return scheme.isalpha() and len(scheme) <= LONGEST_SCHEME


def _host(parts: SplitResult) -> str:
    """The host as a resolver would see it: lower case, ASCII, without the root's dot."""
    host = parts.hostname or ""
    try:
        plain = str(ip_address(host)) if ":" in host else host.encode("idna").decode().rstrip(".").lower()
    except ValueError:
        plain = ""
    if not plain or "%" in plain or _is_broken_address(plain):
        raise SetupError(f"public_url has no host that can be looked up; write it in full, {_EXAMPLE}")
    return plain


def _check_port(parts: SplitResult) -> None:
    if parts.port not in (None, *PORTS):
        *others, last = PORTS
        choice = f"{', '.join(map(str, others))} or {last}"
        raise SetupError(f"callback port {parts.port} is not one Deepgram calls; use {choice}")


def _is_local(host: str) -> bool:
    """Whether a host means something only where it is said: a name without a dot, a private address."""
    address = _address(host)
    if address is None:
        return "." not in host or host.rpartition(".")[2] in _LOCAL_NAMES
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = inner or address
    return not address.is_global or address.is_multicast


def _address(host: str) -> IPv4Address | IPv6Address | None:
    if ":" in host:
        return ip_address(host)
    try:
        return _ipv4([_number(part) for part in host.split(".")])
    except ValueError:
        return None


def _is_broken_address(host: str) -> bool:
    """Whether it ends in a number, as no name does, and is no address either."""
    return host.rpartition(".")[2].isdigit() and _address(host) is None


def _ipv4(numbers: list[int]) -> IPv4Address:
    """An address of one to four numbers, of which the last fills what is left: 127.1 is 127.0.0.1.

    Raises: ValueError if they do not fit.

    Source: inet_aton(3), and https://url.spec.whatwg.org/#ipv4-parser, which Rust's clients follow.
    """
    *first, last = numbers
    if len(first) > 3 or any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise ValueError("not an IPv4 address")
    return IPv4Address(sum(number << 8 * (3 - at) for at, number in enumerate(first)) + last)


def _number(text: str) -> int:
    """Read decimal, octal (017) or hexadecimal (0xf).

    Raises: ValueError if it is none of these.
    """
    if not text.isalnum():  # int() would take a sign
        raise ValueError("not a number")
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
