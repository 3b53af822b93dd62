"""Live streams: which messages are one, when it has ended, and what it comes to as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import msgspec
from msgspec.structs import replace

from .core.callbacks import fingerprint
from .core.transcript import assemble
from .inbox.contract import Entry, Inbox

WHOLE = "LiveTranscript"
LAST = "StreamMetadata"  # the kind of the message with which Deepgram ends a stream
MESSAGES = ("LiveResult", "SpeechStarted", "UtteranceEnd", LAST)  # whoever handles the whole has heard of them


class Stream(msgspec.Struct, frozen=True, gc=False):
    """What is known of a live stream beside its messages: it is what one lane holds of one request."""

    lane: str
    request_id: str
    begun: int  # the place of its first message in the lane
    changed: float
    ends: float | None = None  # unless more comes; empty from its LiveTranscript to the next straggler
    closed: bool = False  # its own end was seen
    holder: str | None = None  # the incarnation that holds the socket by which it comes
    revision: int = 0  # of the next LiveTranscript
    told: float | None = None  # when the last LiveTranscript was made


class Endings(msgspec.Struct, frozen=True):
    """When streams end. Units: seconds."""

    idle: float = 600.0  # after the last message
    settling: float = 5.0  # after the terminal Metadata, over HTTP: what was sent before it may still be on its way
    apart: float = 30.0  # from one LiveTranscript of a stream to the next
    look: float = 5.0  # after which it is asked whether the process that holds a silent socket still lives

    def heard(self, stream: Stream, now: float, *, closes: bool, holder: str | None) -> Stream:
        """A stream of which more has come; what comes by a socket ends with the socket."""
        closed, ends = stream.closed or closes, stream.ends
        if holder is not None:
            ends = now + self.look
        elif not stream.closed or ends is None:
            ends = self._apart(stream, now + (self.settling if closed else self.idle))
        return replace(stream, changed=now, ends=ends, closed=closed, holder=holder)

    def hung_up(self, stream: Stream, now: float) -> Stream:
        """A stream whose socket has closed."""
        return replace(stream, changed=now, ends=self._apart(stream, now), closed=True, holder=None)

    def held(self, stream: Stream, now: float) -> Stream:
        """A stream whose socket is silent, in a process that lives."""
        return replace(stream, ends=now + self.look)

    def ended(self, stream: Stream, now: float) -> Stream:
        """A stream whose LiveTranscript has been made."""
        return replace(stream, changed=now, ends=None, holder=None, revision=stream.revision + 1, told=now)

    def _apart(self, stream: Stream, at: float) -> float:
        return at if stream.told is None else max(at, stream.told + self.apart)


def streams_of(names: Sequence[str | None], *, latest: str | None, known: Collection[str]) -> list[str | None]:
    """The stream of each message that came into a lane, by the `request_id`s that they name.

    What names none belongs to the stream that began last; before the first, to the one that begins.
    """
    seen, found = set(known), list[str | None]()
    for name in names:
        if name is not None and name not in seen:
            seen.add(name)
            latest = name
        found.append(name or latest)
    first = next(filter(None, found), None)
    return [stream or first for stream in found]


def key_of(stream: Stream) -> str:
    """The key of a stream's next LiveTranscript: the same in every process, another for each revision."""
    return fingerprint(f"{stream.lane}:{WHOLE}:{stream.revision}:{stream.request_id}")


def seed(stream: Stream) -> bytes:
    """What is stored of a LiveTranscript: the rest is in the messages, from which it is made when it is looked at."""
    return msgspec.json.encode({"request_id": stream.request_id, "revision": stream.revision})


async def whole(inbox: Inbox, entry: Entry, body: bytes) -> bytes | None:
    """The body of an entry; of a LiveTranscript, what its stream came to; None if that is no longer kept."""
    if entry.kind != WHOLE or not body:
        return body
    messages = await inbox.messages(entry)
    revision = msgspec.json.decode(body)["revision"]
    return await asyncio.to_thread(assemble, messages, revision=revision)
