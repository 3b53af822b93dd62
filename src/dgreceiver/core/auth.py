"""Is it Deepgram, for us? What admits a request."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from hmac import compare_digest
from math import isfinite
from typing import Any

import msgspec
from itsdangerous import URLSafeSerializer, want_bytes
from msgspec.structs import replace

from ..errors import SetupError
from .callbacks import LONGEST_ID
from .extras import Veil, read_extras
from .retry import seconds

Headers = Iterable[tuple[bytes, bytes]]  # as ASGI has them: lower-case names

SHORTEST_KEY = 32
LONGEST_TOKEN = 1024
_LONGEST_HEADER = 8192


class Admission(msgspec.Struct, frozen=True):
    """Who was let in, by what. `expired`: the signature is ours, its time is over."""

    by: int  # number of the candidate, from the left, from 1
    name: str
    job: str | None = None
    context: Mapping[str, Any] | None = None  # goes with a job
    expired: bool = False


class Auth:
    """What decides who is let in; `a | b` lets in whom either of them would.

    Every candidate is asked, whatever the others said, and compares bytes in constant time.
    Nothing that a stranger sends makes it raise.
    """

    reads_body: bool = False  # some of it can only be told from the body

    @property
    def candidates(self) -> tuple[Auth, ...]:
        return (self,)

    def __or__(self, other: Auth) -> Auth:
        if not isinstance(other, Auth):
            return NotImplemented
        return _AnyOf(*self.candidates, *other.candidates)

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        """Judge by the head of a request; None if that does not show enough.

        Units: `now` is seconds since the epoch.
        """
        return None

    def admit_body(self, body: bytes) -> Admission | None:
        """Judge by the body of a request; only what an ExtraAuth wants stands there."""
        return None

    def redact(self, body: bytes) -> bytes:
        """The body without the secrets that it carries for us; all else stays byte for byte."""
        return body

    def warnings(self) -> list[str]:
        """What the developer should hear once."""
        return []

    @cached_property
    def _admission(self) -> Admission:
        return Admission(1, type(self).__name__)


class NoAuth(Auth):
    """Lets everyone in, on purpose."""

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        return self._admission

    def __repr__(self) -> str:
        return "NoAuth()"


class BasicAuth(Auth):
    """Lets in who sends the user and the password that stand in the callback URL.

    Source: Deepgram recommends `https://user:password@host/…` (docs/callback) and sends it as RFC 7617 says.
    """

    def __init__(self, user: str, password: str) -> None:
        example = 'BasicAuth("deepgram", os.environ["CALLBACK_PASSWORD"])'
        self.user = _text(user, "BasicAuth", "user", example)
        self.password = _text(password, "BasicAuth", "password", example)
        if ":" in user:
            raise SetupError(f"BasicAuth's user holds a colon, which would end it; write {example}")
        self._credentials = f"{user}:{password}".encode()
        self._header = b"Basic " + b64encode(self._credentials)

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        header = _only(headers, b"authorization")
        if compare_digest(header, self._header):
            return self._admission
        return self._admission if compare_digest(_decode_basic(header), self._credentials) else None

    def __repr__(self) -> str:
        return f"BasicAuth({self.user!r}, …)"


class SignedAuth(Auth):
    """Lets in who calls a URL that `sign` made with the same key, and says for which job.

    Stateless: the user is the job's id, the password is a token over job, context and expiry.
    """

    def __init__(self, key: str) -> None:
        self._is_short = len(_text(key, "SignedAuth", "key", 'SignedAuth(os.environ["CALLBACK_KEY"])')) < SHORTEST_KEY
        self._tokens = URLSafeSerializer(
            key, salt="dgreceiver.callback-url.1", signer_kwargs={"digest_method": sha256, "key_derivation": "hmac"}
        )
        self._signer = self._tokens.make_signer(self._tokens.salt)  # it compares letters; loads() takes junk between

    def sign(
        self, *, job: str, context: Mapping[str, Any] | None = None, expires: timedelta | float, now: float
    ) -> tuple[str, str]:
        """Make the user and the password for one job; the context is signed but readable.

        Units: `expires` is a while from `now`; a float is seconds.

        Raises: SetupError for a context that is not a flat JSON object, or too long.
        """
        if not _is_job(job):
            raise SetupError("a job id is printable ASCII without a colon, at most 200 characters, such as uuid4().hex")
        if (lasts := seconds(expires, "expires")) == 0:
            raise SetupError("expires is 0, so the URL would never be good; write how long, such as timedelta(days=7)")
        try:
            token = want_bytes(self._tokens.dumps([job, now + lasts, _flat(context or {})])).decode()
        except ValueError:  # a lone surrogate, or an int without end
            raise SetupError(f"context holds what JSON cannot; {_CONTEXT_HOW}") from None
        if len(token) > LONGEST_TOKEN:
            raise SetupError(
                f"context makes a token of {len(token)} characters, over {LONGEST_TOKEN}; "
                "sign an id and look the rest up by it"
            )
        return job, token

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        user, _, token = _decode_basic(_only(headers, b"authorization")).partition(b":")
        payload, _, signature = token.rpartition(b".")
        if not compare_digest(signature, self._signer.get_signature(payload)):
            return None
        job, expires_at, context = self._tokens.load_payload(payload)
        if not compare_digest(user, job.encode()):
            return None
        return Admission(1, type(self).__name__, job, context, expired=now >= expires_at)

    def warnings(self) -> list[str]:
        if not self._is_short:
            return []
        return [f"SignedAuth's key is under {SHORTEST_KEY} characters; make one with secrets.token_urlsafe(32)"]

    def __repr__(self) -> str:
        return "SignedAuth(…)"


class DgTokenAuth(Auth):
    """Lets in who sends the identifier of the API key that submitted the job, as `dg-token`.

    Source: ended on 2026-10-27 (Deepgram's changelog); self-hosted Deepgram still sends it.
    """

    def __init__(self, key_id: str) -> None:
        self._key_id = _text(key_id, "DgTokenAuth", "key_id", 'DgTokenAuth(os.environ["DEEPGRAM_KEY_ID"])').encode()

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        return self._admission if compare_digest(_only(headers, b"dg-token"), self._key_id) else None

    def warnings(self) -> list[str]:
        ended = "DgTokenAuth may admit nothing: Deepgram ended support for dg-token on 2026-10-27"
        return [f"{ended}; add another, such as SignedAuth(key) | DgTokenAuth(key_id)"]

    def __repr__(self) -> str:
        return "DgTokenAuth(…)"


class ExtraAuth(Auth):
    """Lets in whose body carries the secret that was submitted as `extra=name:secret`.

    Source: Extra Metadata comes back in `metadata.extra` of transcripts and `Results`, and in
    `extra` of a stream's `Metadata` (docs/extra-metadata); nothing else carries it.
    """

    reads_body = True

    def __init__(self, secret: str, name: str = "callback_secret") -> None:
        example = 'ExtraAuth(os.environ["CALLBACK_SECRET"])'
        self.secret = _text(secret, "ExtraAuth", "secret", example)
        self.name = _text(name, "ExtraAuth", "name", example)
        if set(secret) & set('*"'):  # else a new secret could arise where one was taken out
            raise SetupError("ExtraAuth's secret holds a * or a \"; make one with secrets.token_urlsafe(32)")
        self._expected = secret.encode()
        self._veil = Veil([(name, secret)])

    def admit_body(self, body: bytes) -> Admission | None:
        return self._admit_extras(read_extras(body))

    def redact(self, body: bytes) -> bytes:
        return self._veil.over(body)

    def _admit_extras(self, extras: list[Mapping[str, Any]]) -> Admission | None:
        sent = [value for extra in extras if isinstance(value := extra.get(self.name), str)]
        found = [compare_digest(value.encode("utf-8", "surrogatepass"), self._expected) for value in sent]
        return self._admission if any(found) else None

    def __repr__(self) -> str:
        return f"ExtraAuth(…, {self.name!r})"


class _AnyOf(Auth):
    """Lets in whom any of its candidates would; an admission that says more goes before one that says less."""

    def __init__(self, *candidates: Auth) -> None:
        self._candidates = candidates
        self._extra = [(by, auth) for by, auth in enumerate(candidates, 1) if isinstance(auth, ExtraAuth)]
        self.reads_body = bool(self._extra)
        self._veil = Veil([(auth.name, auth.secret) for _, auth in self._extra]) if self._extra else None

    @property
    def candidates(self) -> tuple[Auth, ...]:
        return self._candidates

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        headers = tuple(headers)
        return _best((by, auth.admit(headers, now=now)) for by, auth in enumerate(self._candidates, 1))

    def admit_body(self, body: bytes) -> Admission | None:
        extras = read_extras(body) if self._extra else []
        return _best((by, auth._admit_extras(extras)) for by, auth in self._extra)

    def redact(self, body: bytes) -> bytes:
        return self._veil.over(body) if self._veil else body

    def warnings(self) -> list[str]:
        return [warning for auth in self._candidates for warning in auth.warnings()]

    def __repr__(self) -> str:
        return " | ".join(map(repr, self._candidates))


def _best(answers: Iterable[tuple[int, Admission | None]]) -> Admission | None:
    """The leftmost of those that say most: good before expired, with a job before without."""
    said = [(by, admission) for by, admission in answers if admission]
    if not said:
        return None
    by, admission = min(said, key=lambda one: (one[1].expired, one[1].job is None))
    return replace(admission, by=by) if by > 1 else admission


# --- the head of a request


def _only(headers: Headers, wanted: bytes) -> bytes:
    """The value of a header; nothing if it is missing, or said twice and so open to two readings."""
    found = None
    for name, value in headers:
        if name == wanted:
            if found is not None:
                return b""
            found = value
    return found or b""


def _decode_basic(header: bytes) -> bytes:
    """The `user:password` of an Authorization header, nothing if it holds none.

    Source: RFC 7617; padding is optional to some senders.
    """
    scheme, _, encoded = header.partition(b" ")
    if len(header) > _LONGEST_HEADER or scheme.lower() != b"basic":
        return b""
    encoded = encoded.strip(b" \t").rstrip(b"=")
    try:
        return b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return b""


# --- what the developer wrote


def _text(value: object, owner: str, name: str, example: str) -> str:
    if not isinstance(value, str):
        raise SetupError(f"{owner}'s {name} is of type {type(value).__name__}, not text; write {example}")
    if not value:
        raise SetupError(f"{owner}'s {name} is empty, so anyone could send it; write {example}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SetupError(f"{owner}'s {name} holds what UTF-8 cannot write; write {example}") from None
    return value


def _is_job(job: str) -> bool:
    return 0 < len(job) <= LONGEST_ID and job.isascii() and job.isprintable() and ":" not in job


_CONTEXT_HOW = 'context is a flat JSON object of text, numbers, true, false and null, such as {"call_id": 7}'


def _flat(context: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(context, Mapping):
        raise SetupError(f"context is of type {type(context).__name__}; {_CONTEXT_HOW}")
    for name, value in context.items():
        if not isinstance(name, str):
            raise SetupError(f"context has a name of type {type(name).__name__}; {_CONTEXT_HOW}")
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not isfinite(value)):
            raise SetupError(f"context[{name!r}] is {_unfit(value)}; {_CONTEXT_HOW}")
    return dict(context)


def _unfit(value: object) -> str:
    return str(value) if isinstance(value, float) else f"of type {type(value).__name__}"
