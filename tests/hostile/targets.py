"""What is fuzzed: each target takes any bytes and states what must hold of them, beyond that nothing breaks.

Without atheris a target is an ordinary function; the test beside this file calls each with the seeds and all findings.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from starlette.types import Message

from dgreceiver import (
    Audio,
    BasicAuth,
    DgTokenAuth,
    LiveTranscript,
    Receiver,
    SetupError,
    SignedAuth,
    Transcript,
    Unknown,
)
from dgreceiver.core import urls
from dgreceiver.core.auth import Auth, ExtraAuth
from dgreceiver.core.callbacks import LIVE_KINDS, REPEATABLE, Callback, Label, identify, load_json
from dgreceiver.core.events import Event, parse
from dgreceiver.core.parts import Words
from dgreceiver.core.reading import load_transcript
from dgreceiver.core.transcript import assemble
from dgreceiver.testing.payloads import BUILDERS

from .bodies import BOMBS

PUBLISHED = Path(__file__).parents[3] / "shared" / "payloads"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
KINDS = {*LIVE_KINDS.values(), "Transcript", "Analysis", "Failure", "Audio", "Unknown"}
TYPES = ("application/json", "audio/wav", "application/octet-stream", "", "text/plain", "AUDIO/l16;rate=24000")
USER, PASSWORD, KEY, SECRET, TOKEN = "deepgram", "fake-password", "fake-key-" * 4, "fake-callback-secret", "fake-key-id"
SIGNED = SignedAuth(KEY)
AUTHS: tuple[Auth, ...] = (
    BasicAuth(USER, PASSWORD),
    SIGNED,
    DgTokenAuth(TOKEN),
    ExtraAuth(SECRET),
    BasicAuth(USER, PASSWORD)
    | SIGNED
    | DgTokenAuth(TOKEN)
    | ExtraAuth(SECRET)
    | ExtraAuth("fake-second", name="s\u00e9"),
)
Target = Callable[[bytes], None]


def callback_of(data: bytes) -> Callback:
    """The first byte chooses how it came."""
    how, body = data[:1] or b"\0", data[1:]
    return Callback(
        body=body,
        headers={"content-type": TYPES[how[0] % len(TYPES)], "dg-request-id": body[:9].decode("latin-1")},
        path="/" + body[:5].decode("latin-1"),
        query="",
        received_at=NOON,
        job=[None, "job"][how[0] >> 4 & 1],
        connection=[None, "connection"][how[0] >> 5 & 1],
        frame=how[0],
    )


def fuzz_identify(data: bytes) -> None:
    callback = callback_of(data)
    label, again = (identify(callback, receiver="default") for _ in range(2))
    assert label.kind in KINDS
    assert (label.kind, label.request_id, label.lane, label.weak) == (
        again.kind,
        again.request_id,
        again.lane,
        again.weak,
    )
    assert (label.key == again.key) in may_be_known_again(callback, label)
    assert len(label.key) in (32, 44)  # the latter with the time of its id
    assert len(label.lane or "") in (0, 32)
    assert label.request_id is None or (label.request_id.isprintable() and 0 < len(label.request_id) <= 200)
    assert identify(callback, receiver="another").key != label.key
    event = parse(label.kind, callback.body, callback.headers)
    assert isinstance(event, Unknown) or (type(event).__name__, event.request_id) == (label.kind, label.request_id)


def may_be_known_again(callback: Callback, label: Label) -> set[bool]:
    """Whether equal bytes are promised an equal key: all but what live streams repeat to the letter."""
    if callback.connection or label.kind == "Audio":
        return {True}
    document = read(callback.body)
    if document is None:
        return {
            True,
            False,
        }  # a glance may take for a message what is broken where it does not look; that loses nothing
    type_ = document.get("type") if isinstance(document, dict) else None
    return {not isinstance(type_, str) or (type_ in REPEATABLE and bool(callback.job or label.request_id))}


def read(body: bytes) -> object:
    try:
        return load_json(body)
    except ValueError:
        return None


def fuzz_parse(data: bytes) -> None:
    kinds = sorted({*KINDS, "LiveTranscript", "NeverHeardOf"})
    body = data[1:]
    event = parse(kinds[(data[0] if data else 0) % len(kinds)], body, {"dg-char-count": body[:20].decode("latin-1")})
    assert isinstance(event, Event)
    assert event.raw is body
    look_at(event)
    around, at_once = (as_text(load, body) for load in (load_transcript, load_json))
    assert around == at_once or "nested" in (around, at_once)


def as_text(load: Callable[[bytes], object], body: bytes) -> str:
    """What a body says, read in one way or another."""
    try:
        return json.dumps(load(body), default=Words._as_they_came)
    except ValueError:
        return "no JSON"
    except RecursionError:
        return "nested"


def look_at(event: Event) -> None:
    """All that a handler may ask of an event."""
    event.model_dump(exclude_unset=True)
    assert "word" not in repr(event) or isinstance(event, Unknown | Audio) or event.request_id
    for name in dir(type(event)):
        if not name.startswith(("_", "model_", "parse_")) and isinstance(getattr(type(event), name, None), property):
            getattr(event, name)
    if isinstance(event, Transcript | LiveTranscript):
        blocks = event.vtt().split("\n\n")
        assert all("-->" in block for block in blocks[1:] if block.strip())
        assert event.srt().count("-->") == len([block for block in blocks[1:] if block.strip()])


def fuzz_auth(data: bytes) -> None:
    """Lines are headers, an empty one ends them; what is behind is the body."""
    head, _, body = data.partition(b"\n\n")
    headers = [
        (name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in head.split(b"\n"))
    ]
    for auth in AUTHS:
        admission = auth.admit(headers, now=NOON)
        assert admission is None or shows_a_credential(headers)
        admitted = auth.admit_body(body) if auth.reads_body else None
        redacted = auth.redact(body)
        assert auth.redact(redacted) == redacted
        assert admitted is None or (auth.admit_body(redacted) is None and redacted != body)
        assert auth.reads_body or redacted is body


def shows_a_credential(headers: list[tuple[bytes, bytes]]) -> bool:
    """Read with less care than the product has: no other than these may be let in."""
    shown = b""
    for _, value in headers:
        try:
            shown += value + b64decode(value.partition(b" ")[2] + b"==")
        except ValueError:
            shown += value
    return any(secret in shown for secret in (PASSWORD.encode(), TOKEN.encode(), signed_token()))


@cache
def signed_token() -> bytes:
    return SIGNED.sign(job="job", context={"call": 7}, expires=60.0, now=NOON)[1].encode()


def fuzz_urls(data: bytes) -> None:
    url = data.decode("utf-8", "surrogateescape")
    for local in (False, True):
        built = said = ""
        try:
            built = urls.build(url, user=USER, password=f"{PASSWORD}/@:?#", local=local)
        except SetupError as error:
            said = str(error)
        assert is_silent(url, said)
        if built:
            assert built.endswith(url.partition("://")[2])
            assert (urls._split(built).hostname, urls._split(built).username) == (urls._split(url).hostname, USER)


def is_silent(url: str, message: str) -> bool:
    """Whether a message keeps what stands between the slashes and the @, where a password is."""
    userinfo = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return len(userinfo) <= urls.LONGEST_SCHEME or userinfo not in message


def fuzz_frames(data: bytes) -> None:
    """Each line is a message of the server; what came before the last is stored, in order, and nothing else is."""
    came = list(messages(data))
    bodies = [bytes_of(message) for message in came]
    loop, receiver = running()
    assert loop.run_until_complete(streamed(receiver, came)) == bodies


def messages(data: bytes) -> Iterator[Message]:
    """The first letter of a line says in which of ASGI's shapes it comes; text may hold half a surrogate pair."""
    for line in data.split(b"\n")[:20]:
        shapes: dict[bytes, Message] = {
            b"b": {"bytes": line[1:]},
            b"n": {"bytes": None, "text": None},
            b"e": {},
            b"s": {"text": line[1:].decode("latin-1") + "\ud800"},
        }
        yield {"type": "websocket.receive", **shapes.get(line[:1], {"text": line.decode("utf-8", "replace")})}


def bytes_of(message: Message) -> bytes:
    data = message.get("bytes")
    return (message.get("text") or "").encode("utf-8", "surrogatepass") if data is None else bytes(data)


@cache
def running() -> tuple[asyncio.AbstractEventLoop, Receiver]:
    """One receiver for all that is fuzzed, on a loop of its own; both end with the process."""
    return asyncio.new_event_loop(), Receiver(auth=BasicAuth(USER, PASSWORD), inbox="memory://", name="fuzzed")


async def streamed(receiver: Receiver, came: list[Message]) -> list[bytes]:
    """Send a stream, and read back what is stored of it."""
    from ..support import BASIC

    left: list[Message] = [{"type": "websocket.connect"}, *came, {"type": "websocket.disconnect", "code": 1000}]
    sent = list[Message]()

    async def receive() -> Message:
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Message = {
        "type": "websocket", "path": "/", "query_string": b"", "headers": [(b"authorization", BASIC.encode())],
        "client": None, "extensions": {},
    }  # fmt: skip
    await receiver(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept"]
    async with receiver.opened() as inbox:
        entries = await inbox.page(limit=len(came))
        return [found[1] for entry in entries[::-1] if (found := await inbox.get(entry.key))]


def fuzz_transcript(data: bytes) -> None:
    """Lines are messages of a stream."""
    bodies = data.split(b"\n")
    made = assemble(bodies)
    assert assemble(iter(bodies)) == made
    if made is None:
        return
    json.loads(made.decode())
    event = parse("LiveTranscript", made, {})
    assert isinstance(event, LiveTranscript)
    look_at(event)


TARGETS: Mapping[str, Target] = {
    "identify": fuzz_identify,
    "parse": fuzz_parse,
    "auth": fuzz_auth,
    "urls": fuzz_urls,
    "frames": fuzz_frames,
    "transcript": fuzz_transcript,
}


def seeds(target: str) -> Iterator[bytes]:
    """What the fuzzer begins with: all that comes in earnest, and what is known to hurt."""
    bodies = [build().body for build in BUILDERS.values()] + [bomb(300) for bomb in BOMBS.values()]
    if PUBLISHED.is_dir():
        bodies += [path.read_bytes() for path in sorted(PUBLISHED.rglob("*.json")) if path.stat().st_size < 20_000]
    if target == "auth":
        yield from _heads()
        yield from (b"\n\n" + body for body in bodies)
        yield b'\n\n{"metadata":{"extra":{"callback_secret":"%s"}}}' % SECRET.encode()
    elif target == "urls":
        yield from (
            b"https://hooks.example.com/a?b=c",
            b"wss://[2001:db8::1]:8443",
            b"http://127.1:80",
            b"https://a:b@c.d",
        )
    elif target == "transcript":
        yield from (body + b"\n" + body for body in bodies)
        yield b"\n".join(bodies[: len(BUILDERS)])
    elif target == "frames":
        yield from (b"t" + body.replace(b"\n", b" ") + b"\nbx\ne\nn\ns\xed\xa0\x80" for body in bodies)
    else:
        yield from (bytes([number]) + body for number, body in enumerate(bodies))


def _heads() -> Iterator[bytes]:
    from base64 import b64encode

    for pair in (f"{USER}:{PASSWORD}".encode(), b"job:" + signed_token(), b"a:b"):
        yield b"authorization: Basic " + b64encode(pair)
    yield b"dg-token: " + TOKEN.encode()
