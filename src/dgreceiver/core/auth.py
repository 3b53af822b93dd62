"""Is it Deepgram, for us? What admits a request, and how a secret is taken out of a body."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from hmac import compare_digest
from math import isfinite
from typing import Any

import msgspec
from itsdangerous import URLSafeSerializer, want_bytes
from msgspec.structs import replace

from ..errors import SetupError
from .callbacks import LONGEST_ID, load_json
from .retry import seconds

Headers = Iterable[tuple[bytes, bytes]]  # as ASGI has them: lower-case names

SHORTEST_KEY = 32
LONGEST_TOKEN = 1024
_LONGEST_HEADER = 8192
_MASK = b"***"


class Admission(msgspec.Struct, frozen=True):
    """Who was let in, by what. `expired`: the signature is ours, its time is over."""

    by: int  # number of the candidate, from the left, from 1
    name: str
    job: str | None = None
    context: Mapping[str, Any] = {}
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

    def _admission(self) -> Admission:
        return Admission(1, type(self).__name__)


class NoAuth(Auth):
    """Lets everyone in, on purpose."""

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        return self._admission()

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
            return self._admission()
        return self._admission() if compare_digest(_decode_basic(header), self._credentials) else None

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
        return self._admission() if compare_digest(_only(headers, b"dg-token"), self._key_id) else None

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
        self._veil = _Veil([self])

    def admit_body(self, body: bytes) -> Admission | None:
        return self._admit_extras(_extras(body))

    def redact(self, body: bytes) -> bytes:
        return self._veil.over(body)

    def _admit_extras(self, extras: list[Mapping[str, Any]]) -> Admission | None:
        sent = [value for extra in extras if isinstance(value := extra.get(self.name), str)]
        found = [compare_digest(value.encode("utf-8", "surrogatepass"), self._expected) for value in sent]
        return self._admission() if any(found) else None

    def __repr__(self) -> str:
        return f"ExtraAuth(…, {self.name!r})"


class _AnyOf(Auth):
    """Lets in whom any of its candidates would; an admission that says more goes before one that says less."""

    def __init__(self, *candidates: Auth) -> None:
        self._candidates = candidates
        self._extra = [(by, auth) for by, auth in enumerate(candidates, 1) if isinstance(auth, ExtraAuth)]
        self.reads_body = bool(self._extra)
        self._veil = _Veil([auth for _, auth in self._extra]) if self._extra else None

    @property
    def candidates(self) -> tuple[Auth, ...]:
        return self._candidates

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        headers = tuple(headers)
        return _best((by, auth.admit(headers, now=now)) for by, auth in enumerate(self._candidates, 1))

    def admit_body(self, body: bytes) -> Admission | None:
        extras = _extras(body) if self._extra else []
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
    values = [value for name, value in headers if name == wanted]
    return values[0] if len(values) == 1 else b""


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


# --- the body of a request: what it carries


class _Places(msgspec.Struct):
    """The two places where Deepgram puts Extra Metadata, left undecoded."""

    metadata: msgspec.Raw = msgspec.Raw()
    extra: msgspec.Raw = msgspec.Raw()


_decode_places = msgspec.json.Decoder(_Places).decode


def _extras(body: bytes) -> list[Mapping[str, Any]]:
    """Every `extra` that a body carries where Deepgram puts it."""
    try:
        top = _glance(body)
    except ValueError:
        return []
    if not isinstance(top, dict):
        return []
    metadata = top.get("metadata")
    found = [top.get("extra"), metadata.get("extra") if isinstance(metadata, dict) else None]
    return [extra for extra in found if isinstance(extra, dict)]


def _glance(body: bytes) -> Any:
    """Decode the two places alone, a tenth of the whole's time; the whole where that is not possible.

    Raises: ValueError if the body is no JSON.
    """
    try:
        places = _decode_places(body)
    except (ValueError, RecursionError):
        return load_json(body)
    return {name: load_json(raw) for name in _Places.__struct_fields__ if (raw := getattr(places, name))}


# --- the body of a request: what must not stay in it


class _Veil:
    """Puts `***` in place of what some ExtraAuths hold, in a time that grows with the body alone.

    In JSON the values go that stand where Deepgram puts them, and nothing else is touched: a
    transcript may speak of the secret. What is no JSON cannot be told apart, so there the
    secrets go wherever they stand.
    """

    def __init__(self, auths: Iterable[ExtraAuth]) -> None:
        auths = list(auths)
        texts = [auth.secret for auth in auths]
        shared = "".join(texts)
        escapes = [b"u00" if shared.isascii() else b"u", *(_SHORT[one] for one in _SHORT if one in shared)]
        self._names = _pattern(b'"(?:%s)"', [_spelling(auth.name) for auth in auths])
        self._secrets = _pattern(b"%s", [way for text in texts for way in (_spelling(text, raw=True), _spelling(text))])
        self._plain = [text.encode() for text in texts]
        self._escapes = _pattern(rb"\\(?:%s)", [re.escape(escape) for escape in escapes])

    def over(self, body: bytes) -> bytes:
        covered = self._cover(body)
        if self._may_leak(covered) and not _is_json(body):
            return self._cover(self._secrets.sub(_MASK, body))
        return covered

    def _cover(self, body: bytes) -> bytes:
        pieces, at = [], 0
        for start, end in _values(body, self._names):
            pieces += [body[at:start], b'"%s"' % _MASK]
            at = end
        return b"".join((*pieces, body[at:])) if pieces else body

    def _may_leak(self, body: bytes) -> bool:
        """Whether a secret could stand in it in any spelling; quick, and too often yes."""
        if _is_wide(body) or any(secret in body for secret in self._plain):
            return True
        return self._escapes.search(body) is not None


def _is_json(body: bytes) -> bool:
    """Whether it is JSON as it goes between machines: in UTF-8 (RFC 8259, 8.1)."""
    try:
        load_json(body)
    except ValueError:
        return False
    return not _is_wide(body)


def _is_wide(body: bytes) -> bool:
    """Whether it may be UTF-16 or UTF-32, in which Python reads JSON too."""
    return b"\0" in body[:4]


_SHORT = {
    '"': b'"', "\\": b"\\", "/": b"/", "\b": b"b", "\f": b"f", "\n": b"n", "\r": b"r", "\t": b"t",
}  # fmt: skip


def _pattern(around: bytes, spellings: list[bytes]) -> re.Pattern[bytes]:
    return re.compile(around % b"|".join(spellings))


def _spelling(text: str, *, raw: bool = False) -> bytes:
    """A pattern for all the ways in which JSON may spell a text; `raw` for its plain bytes, as UTF-8 or wider."""
    if raw:
        return rb"\x00{0,3}".join(re.escape(bytes([byte])) for byte in text.encode())
    return b"".join(b"(?:%s)" % b"|".join(_ways(character)) for character in text)


def _ways(character: str) -> Iterator[bytes]:
    if character >= " " and character not in '"\\':
        yield re.escape(character.encode())
    if character in _SHORT:
        yield re.escape(b"\\" + _SHORT[character])
    units = character.encode("utf-16-be").hex()
    yield b"".join(rb"\\u(?i:%s)" % units[at : at + 4].encode() for at in range(0, len(units), 4))


# A string, or a mark, or the letters of another scalar. Strings end with the body at the latest.
_TOKEN = re.compile(rb'("[^"\\]*+(?:\\.?[^"\\]*+)*+"?)|([{}\[\],:])|[^\s"{}\[\],:]++', re.DOTALL)
_EXTRA_KEY = _pattern(b'"%s"', [_spelling("extra")])
# In JSON a quote behind a backslash is inside a string, and any other that opens "extra" opens a string: what
# stands behind the string tells that it is a key. So nothing before it need be read. A body without an escape
# of an ASCII character has the key in plain letters alone, which are found in a fifth of the time.
_ASCII_ESCAPE = re.compile(rb"\\u00")
_PLAIN_OPENING = re.compile(rb'"extra"(?<!\\"extra")\s*+:\s*+\{')
_ANY_OPENING = re.compile(rb'"(?<!\\")%s"\s*+:\s*+\{' % _spelling("extra"))


def _values(body: bytes, names: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
    """Where the values stand of every one of `names` in an object right below an `extra`."""
    opening = _ANY_OPENING if _ASCII_ESCAPE.search(body) else _PLAIN_OPENING
    at = 0
    while found := opening.search(body, at):
        at = yield from _values_within(body, found.end(), names)


def _values_within(body: bytes, at: int, names: re.Pattern[bytes]) -> Generator[tuple[int, int], None, int]:
    """The same within one such object, from behind its brace; returns where it ends.

    Takes no stack of Python's and no JSON for granted: brackets without end only fill a list.
    """
    is_below = [True]  # of every bracket that is open: is it such an object?
    string = key = None  # the token before this one, if it is a string; the key before it, if it is a colon
    tokens = _TOKEN.finditer(body, at)
    for token in tokens:
        last = token
        if token[2] == b":" and string and is_below[-1] and names.fullmatch(string):
            start, end, last = _skip_value(token, tokens)
            if start < end:
                yield start, end
        mark = last[2]
        if mark in (b"{", b"["):
            is_below.append(mark == b"{" and key is not None and _EXTRA_KEY.fullmatch(key) is not None)
        elif mark in (b"}", b"]"):
            is_below.pop()
        if not is_below:
            return last.end()
        key, string = (string if mark == b":" else None), token[1]
    return len(body)


def _skip_value(colon: re.Match[bytes], tokens: Iterator[re.Match[bytes]]) -> tuple[int, int, re.Match[bytes]]:
    """Pass over what stands between a colon and the next mark of its level, or the end of the body.

    Returns where it begins and ends, and the token that ended it.
    """
    start = end = depth = 0
    token = colon
    for token in tokens:
        mark = token[2]
        if depth == 0 and mark in (b",", b"}", b"]"):
            break
        depth += (mark in (b"{", b"[")) - (mark in (b"}", b"]"))
        start, end = start or token.start(), token.end()
    return start, end, token
