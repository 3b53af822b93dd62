"""The path that every callback takes into the inbox, whatever door it came to: admit, read, identify, store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import uuid4

import msgspec
from starlette.types import Message, Receive

from ..core.auth import Admission, Auth
from ..core.callbacks import Callback, is_audio_type
from ..core.retry import seconds
from ..errors import Disconnected, Empty, Encoded, SetupError, TooLarge, TooSlow, Unauthorized, Unfinished
from ..facts import CallbackStored, Hook, URLReused, WeakIdentity
from ..inbox.contract import Inbox, Stored, Upload
from .room import PATIENCE, PIECE, Lease, Room
from .spool import Frame

MIB = 1024 * 1024
PART = MIB  # bytes from which a body is stored in parts as it comes
KEPT_HEADERS = 16 * 1024  # bytes of headers that are kept
STRANGERS = 8  # they share an eighth of the room
REMEMBERED_JOBS = 10_000
HANDLED_WITHIN = 8.0  # seconds that a sender waits for the handlers; Deepgram's own patience is 10 or more

# What a refusal leads to.
RETRIES = "a retry comes in 30 s, the last about 5 minutes after the first"
NO_RETRY = "nothing comes of this stream any more: Deepgram ends one whose callback it cannot reach"

REPORTED = ""  # in place of the id of a job whose second request has been reported

Ack = Literal["stored", "handled"]
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken at the most. Units: bytes; a float is seconds.

    Raises: SetupError for what is no size or no duration.
    """

    body: int = 64 * MIB
    audio: int = 256 * MIB
    in_flight: int = 512 * MIB  # of all bodies together
    message: int = 16 * MIB  # one frame of a WebSocket
    body_seconds: timedelta | float = 60.0  # for a whole body
    stall_seconds: timedelta | float = 15.0  # for the next piece of one

    def __post_init__(self) -> None:
        for name in ("body", "audio", "in_flight", "message"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise SetupError(f"Limits({name}={value!r}) is no number of bytes; write a whole number above 0")
        for name in ("body_seconds", "stall_seconds"):
            seconds(getattr(self, name), name)


class Connection(msgspec.Struct, frozen=True):
    """A WebSocket that was admitted: what all that comes over it shares."""

    id: str
    admission: Admission
    headers: Mapping[str, str]  # of the handshake, as far as they are kept
    path: str
    query: str

    def callback(self, frame: Frame) -> Callback:
        return Callback(
            body=frame.data,
            headers=self.headers,
            path=self.path,
            query=self.query,
            received_at=frame.received_at,
            job=self.admission.job,
            context=self.admission.context,
            connection=self.id,
            frame=frame.number,
        )


class Head(msgspec.Struct, frozen=True, gc=False):
    """What the headers say of the body, and which of them are stored."""

    kept: Mapping[str, str]
    is_audio: bool
    encoding: str
    length: int | None


class Intake:
    """Takes callbacks for one receiver."""

    def __init__(
        self,
        inbox: Inbox,
        auth: Auth,
        limits: Limits,
        *,
        ack: Ack = "stored",
        emit: Hook,
        now: Callable[[], float],
        patience: float = PATIENCE,
        handled_within: float = HANDLED_WITHIN,
    ) -> None:
        self._inbox = inbox
        self._ack = ack
        self._handled_within = handled_within
        self._auth = auth
        self._limits = limits
        self._emit = emit
        self._now = now
        stall, whole = seconds(limits.stall_seconds, "stall_seconds"), seconds(limits.body_seconds, "body_seconds")
        self._room = Room(limits.in_flight, stall=stall, whole=whole, patience=patience)
        self._strangers_room = Room(limits.in_flight // STRANGERS, stall=stall, whole=whole, patience=patience)
        self._jobs: OrderedDict[str, str] = OrderedDict()

    async def take(self, headers: Headers, path: str, query: str, receive: Receive) -> Stored:
        """Take a callback and store it durably, or see it handled; only then may it be acknowledged.

        `path` is below where the receiver stands; the body comes as ASGI has it.

        Raises: Refused if it is not taken, or is not handled in time; InboxError if it could not be stored.
        """
        received_at = self._now()
        admission = self._auth.admit(headers, now=received_at)
        if admission is None and not self._auth.reads_body:
            raise Unauthorized(_why_unauthorized(headers, RETRIES))
        head = read_head(headers)
        limit = self._limit(head)
        lease = (self._room if admission else self._strangers_room).lease()
        try:
            body, upload = await self._read(receive, head, limit, lease)
            admission = admission or self._admit_body(body)
            callback = Callback(
                body=self._auth.redact(body) if self._auth.reads_body else body,
                headers=head.kept,
                path=path,
                query=query,
                received_at=received_at,
                job=admission.job,
                context=admission.context,
            )
        except BaseException:
            lease.give_back()
            raise
        stored = await self._inbox.put(callback, upload=upload, buried=_late(admission), release=lease.give_back)
        self._report(stored, admission)
        if self._ack == "handled" and stored.outcome != "conflict":
            await self._see_handled(stored)
        return stored

    def connect(self, headers: Headers, path: str, query: str) -> Connection:
        """Admit a WebSocket by its handshake, which an ExtraAuth has nothing to say to.

        Raises: Unauthorized if nothing else admits it.
        """
        admission = self._auth.admit(headers, now=self._now())
        if admission is None:
            raise Unauthorized(_why_unauthorized(headers, NO_RETRY))
        kept = {name: value for name, value in read_head(headers).kept.items() if name != "content-type"}
        return Connection(uuid4().hex, admission, kept, path, query)

    def frame(self, number: int, data: bytes) -> Frame:
        """What has just come over a WebSocket; a callback secret ends here."""
        return Frame(number, self._now(), self._auth.redact(data) if self._auth.reads_body else data)

    async def keep(self, connection: Connection, frames: Sequence[Frame]) -> None:
        """Store frames durably and in order.

        Raises: InboxError if none of them could be stored.
        """
        callbacks = [connection.callback(frame) for frame in frames]
        for stored in await self._inbox.put_frames(callbacks, buried=_late(connection.admission)):
            self._report(stored, connection.admission)

    async def hang_up(self, lane: str) -> None:
        """Have the end of a WebSocket noted.

        Raises: InboxError if it could not be.
        """
        await self._inbox.hang_up(lane)

    def _limit(self, head: Head) -> int:
        if head.encoding not in ("", "identity"):
            raise Encoded("the body is compressed; Deepgram sends it plain, so something in between has packed it")
        limit = self._limits.audio if head.is_audio else self._limits.body
        if head.length is not None and head.length > limit:
            raise TooLarge(f"the body is declared as {head.length} bytes, the limit is {limit}; see Limits")
        return limit

    async def _read(self, receive: Receive, head: Head, limit: int, lease: Lease) -> tuple[bytes, Upload | None]:
        """Read a body, bounded in bytes and seconds; what is long goes into the inbox as it comes."""
        try:
            piece, more = _piece(await lease.read(receive, _ahead(head, 0)))
        except (TooSlow, Disconnected) as error:
            raise _with_cause(error, head) from None
        lease.came(len(piece))
        if not more and 0 < len(piece) <= PART and len(piece) <= limit:
            return piece, None  # the usual body, whole at once
        body = _Body(None if self._auth.reads_body else self._inbox, lease, audio=head.is_audio)
        try:
            await body.add(piece, limit)
            while more:
                piece, more = _piece(await lease.read(receive, _ahead(head, body.size)))
                lease.came(len(piece))
                await body.add(piece, limit)
            if body.size == 0 and (head.length or not _may_be_empty(head)):
                raise Empty(
                    "empty body; something before us read or redirected it: a body parser, a 301/307, or a proxy limit"
                )
            return await body.end()
        except BaseException:
            await body.discard()
            raise

    def _admit_body(self, body: bytes) -> Admission:
        admission = self._auth.admit_body(body)
        if admission is None:
            raise Unauthorized("neither the headers nor the body carry what admits a callback")
        return admission

    def _report(self, stored: Stored, admission: Admission) -> None:
        self._emit(
            CallbackStored(stored.outcome, stored.kind, stored.request_id, stored.key, stored.size, admission.by)
        )
        if stored.late:
            self._emit(WeakIdentity(stored.kind, stored.key))
        if admission.job and stored.request_id:
            self._watch_job(admission.job, stored.request_id)

    async def _see_handled(self, stored: Stored) -> None:
        again = stored.outcome == "duplicate"
        state = await self._inbox.outcome(stored.key, again=again, within=self._handled_within)
        if state == "leased":
            raise Unfinished(f"stored, and its handlers run on after {self._handled_within:g} s; a retry asks again")
        if state == "waiting":
            raise Unfinished("stored, and waits for another attempt of its handlers; a retry is one")

    def _watch_job(self, job: str, request_id: str) -> None:
        """Notice a signed URL that serves two requests, as far back as this process remembers."""
        first = self._jobs.setdefault(job, request_id)
        if first not in (request_id, REPORTED):
            self._jobs[job] = REPORTED
            self._emit(URLReused(job))
        if len(self._jobs) > REMEMBERED_JOBS:
            self._jobs.popitem(last=False)


class _Body:
    """A body as it grows; from `PART` on it goes into the inbox in parts, if it may."""

    def __init__(self, inbox: Inbox | None, lease: Lease, *, audio: bool) -> None:
        self._inbox = inbox
        self._lease = lease
        self._audio = audio
        self._pieces: list[bytes] = []
        self._held = 0
        self._upload: Upload | None = None
        self.size = 0

    async def add(self, piece: bytes, limit: int) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        self.size += len(piece)
        if self.size > limit:
            raise TooLarge(f"the body is over the limit of {limit} bytes; see Limits")
        if self._held > PART and self._inbox is not None:
            self._upload = self._upload or self._inbox.upload(audio=self._audio)
            await self._store_part(self._upload)

    async def end(self) -> tuple[bytes, Upload | None]:
        if self._upload is None:
            return self._taken(), None
        if self._held:
            await self._store_part(self._upload)
        return b"", self._upload

    async def discard(self) -> None:
        if self._upload is not None:
            await self._upload.discard()

    async def _store_part(self, upload: Upload) -> None:
        size = self._held
        await upload.write(self._taken())
        self._lease.let_go(size)

    def _taken(self) -> bytes:
        pieces, self._pieces, self._held = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_head(headers: Headers) -> Head:
    """What the head of a request says; names are lower case, as ASGI has them."""
    kept: dict[str, str] = {}
    encoding, length, room = "", None, KEPT_HEADERS
    for raw_name, raw_value in headers:
        if raw_name == b"content-type" or (raw_name[:3] == b"dg-" and raw_name != b"dg-token"):
            room -= len(raw_name) + len(raw_value)
            if room >= 0:
                kept[raw_name.decode("latin-1")] = raw_value.decode("latin-1")
        elif raw_name == b"content-length":
            length = declared_length(raw_value)
        elif raw_name == b"content-encoding":
            encoding = raw_value.decode("latin-1").strip().lower()
    return Head(kept, is_audio_type(kept.get("content-type", "")), encoding, length)


def declared_length(raw_value: bytes) -> int | None:
    """The bytes that a Content-Length says; None if it is no number."""
    return int(raw_value[:20]) if raw_value.isdigit() else None  # int() refuses digits without end


def _piece(message: Message) -> tuple[bytes, bool]:
    """The next piece of a body, and whether there are more. Raises: Disconnected if the sender left."""
    if message["type"] == "http.disconnect":
        raise Disconnected(
            "the connection ended before the body was whole: the sender or a proxy left, or this server stopped; "
            "a retry comes in 30 s"
        )
    return message.get("body", b""), message.get("more_body", False)


def _ahead(head: Head, size: int) -> int:
    """The bytes to expect of the next read, when so many have come."""
    left = PIECE if head.length is None else head.length - size
    return left if 0 <= left <= PIECE else min(PIECE, max(0, left))


def _may_be_empty(head: Head) -> bool:
    return head.is_audio or any(name.startswith("dg-") for name in head.kept)


def _late(admission: Admission) -> str | None:
    """Why a callback is dead on arrival, if it is: to refuse it would destroy the only copy."""
    return "URL expired" if admission.expired else None


def _with_cause(error: TooSlow | Disconnected, head: Head) -> TooSlow | Disconnected:
    """The error with the usual cause, if a body was declared: nothing of it came."""
    if not head.length:
        return error
    return type(error)(
        f"{error}; no byte of the body came: something before us may have read it, such as a body parser or a "
        "middleware outside of the receiver"
    )


def _why_unauthorized(headers: Headers, then: str) -> str:
    if any(name == b"authorization" for name, _ in headers):
        found = "the credentials are not ours; put those of the receiver into callback= as user:password@"
    else:
        found = "no credentials; put user:password@ into callback=, or your proxy drops Authorization"
    return f"{found}; {then}"
