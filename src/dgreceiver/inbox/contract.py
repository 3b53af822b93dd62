"""The inbox: what stands between "Deepgram was answered" and "a handler has finished".

A callback is *waiting* from the moment it is stored, *leased* while its handlers run, and ends as
*done*, *unhandled* (nobody wanted it) or *dead* (given up, with a reason). A second, different body
under one key is a *conflict*; what was *erased* leaves its key behind. Times go in as durations, so
that each store may measure them by the clock it trusts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, get_args

import msgspec

from ..core.callbacks import Callback

State = Literal["waiting", "leased", "done", "unhandled", "dead", "conflict", "erased"]
STATES: tuple[State, ...] = get_args(State)
Outcome = Literal["stored", "duplicate", "conflict"]


class Delivery(msgspec.Struct, frozen=True):
    """What a handler may know about an event beyond the event itself."""

    key: str  # equal for every attempt: an idempotency key
    attempt: int  # of this handler, from 1
    received_at: datetime  # aware, UTC
    stream: str | None  # the lane, equal for all of one live stream
    context: Mapping[str, Any]  # what was signed into the URL
    path: str  # of the request, below where the receiver stands
    query: str
    headers: Mapping[str, str]  # lower-case names: `dg-*` without `dg-token`, and content-type
    replayed: bool


class Mark(msgspec.Struct, frozen=True, gc=False):
    """How far one handler has come with one callback."""

    attempts: int = 0  # that ended
    done: bool = False
    buried: str | None = None  # why it was given up


class Entry(msgspec.Struct, frozen=True):
    """A callback in the inbox, less its body."""

    id: int
    key: str
    kind: str
    request_id: str | None
    job: str | None
    lane: str | None
    state: State
    received_at: datetime
    size: int  # bytes of the body as stored
    path: str
    query: str
    headers: Mapping[str, str]
    context: Mapping[str, Any]
    marks: Mapping[str, Mark] = {}  # by handler
    crashes: int = 0  # leases lost with their process since a run last ended
    error: str | None = None
    replayed: bool = False


class Stored(msgspec.Struct, frozen=True, gc=False):
    """What became of a callback that was put."""

    outcome: Outcome
    key: str
    kind: str
    request_id: str | None
    size: int
    late: bool = False  # equal bytes came before, but over ten minutes ago: taken as new


class Erased(msgspec.Struct, frozen=True):
    """What an erasure reached, and what it could not."""

    rows: int
    unreached: Sequence[str] = ()


class Purged(msgspec.Struct, frozen=True):
    """What a purge has dropped."""

    bodies: int
    rows: int


class Upload(Protocol):
    """A body too large to hold, stored in parts as it comes; nothing of it counts before `put`."""

    name: str  # by which the parts are found

    async def write(self, data: bytes) -> None:
        """Store the next part.

        Raises: InboxError if it could not be stored.
        """

    async def discard(self) -> None:
        """Forget the parts; the sender left. Never raises."""


class Inbox(Protocol):
    """Keeps callbacks from acknowledgement to the end of their handling.

    Behind the messages of each stream that has ended, the owner puts one entry more into their lane, of the kind
    LiveTranscript, once for each revision. Its body holds the revision alone: what it says is in the `messages`.
    """

    async def open(self) -> None:
        """Make the store ready, bringing an older schema up to date.

        Raises: SetupError if the store is newer than this release, is no inbox, or cannot be reached.
        """

    async def close(self) -> None:
        """Finish what was put, settled, postponed and buried; then let go of the store and its locks."""

    def upload(self, *, audio: bool) -> Upload:
        """Begin a body that will come in parts; audio is stored as it is."""

    async def put(
        self,
        callback: Callback,
        *,
        upload: Upload | None = None,
        buried: str | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> Stored:
        """Store a callback durably; say whether it is new, a duplicate or a conflict.

        With `upload`, the body is what was uploaded; with `buried`, the callback is kept as dead for
        that reason. On return it survives a crash, so the sender may be answered. Whoever is cancelled
        here withdraws nothing; `release` is called when the body is no longer held.

        Raises: InboxError if it could not be stored.
        """

    async def put_frames(self, frames: Sequence[Callback], *, buried: str | None = None) -> Sequence[Stored]:
        """Store what came over one WebSocket, in order: all of it durably, or nothing.

        So a frame is never there before the one in front of it. What may have been stored already, because an
        earlier try ended in doubt, is put again and found to be a duplicate. With `buried`, as for `put`.
        Their streams go on until `hang_up`, or until this process ends, however long they are silent.

        Raises: InboxError if it could not be stored.
        """

    async def hang_up(self, lane: str) -> None:
        """End the streams of a lane whose socket has closed: nothing more will come on it. As durable as `settle`."""

    async def messages(self, entry: Entry) -> Sequence[bytes]:
        """The bodies of the stream that a LiveTranscript is the whole of, in order of arrival, as far as they are kept.

        What came after it is not among them: it belongs to the next revision.
        """

    async def claim(self, limit: int, *, room: int, skip: Collection[str] = ()) -> Sequence[tuple[Entry, bytes]]:
        """Lease up to `limit` due callbacks with their bodies, oldest first; wait until there is one.

        After the first, no more than fit into `room` bytes. Nothing of the kinds in `skip`; of a lane only its
        first unfinished callback. One process at a time is given any (the owner); when it ends, another takes
        over and its leases count as crashes. Empty when the inbox closes. Whoever is cancelled here leaves
        nothing leased.
        """

    async def step_aside(self) -> None:
        """Let another process be the owner if one waits for it; the next claim here stands behind it.

        What is leased here and has not ended waits again, without a crash.
        """

    async def settle(self, entry: Entry, state: Literal["done", "unhandled"], marks: Mapping[str, Mark]) -> None:
        """End a leased callback. Returns when that is durable; tries until it is."""

    async def postpone(self, entry: Entry, marks: Mapping[str, Mark], *, wait: float, error: str | None) -> None:
        """Make a leased callback wait again, for `wait` seconds. As durable as `settle`."""

    async def bury(self, entry: Entry, marks: Mapping[str, Mark], *, error: str) -> None:
        """End a leased callback as dead. As durable as `settle`."""

    async def bury_waiting(self, key: str, *, error: str) -> bool:
        """End a callback that waits as dead, so that its lane goes on without it; whether it waited."""

    async def outcome(self, key: str, *, again: bool, within: float) -> State:
        """Wait until a callback has ended or its present attempt has failed; its state by then.

        With `again` it came once more, so it is made due now if it waits for its time. What is neither ended
        nor failed `within` seconds is still `waiting` or `leased`. Handlers of other processes count too.

        Raises: InboxError if it cannot be told.
        """

    async def get(self, key: str) -> tuple[Entry, bytes] | None:
        """The callback of that key, with its body as long as it is kept."""

    async def page(self, *, state: State | None = None, before: int | None = None, limit: int = 50) -> Sequence[Entry]:
        """Callbacks, newest first; `before` is the last id of the page before."""

    async def counts(self) -> Mapping[State, int]:
        """How many callbacks are in each state."""

    async def oldest(self) -> datetime | None:
        """When the oldest callback came that waits or is leased; None if there is none."""

    async def busy(self) -> bool:
        """Whether any callback is leased, due, or on its way in."""

    async def replay(self, *, key: str | None = None, state: State | None = None) -> int:
        """Make ended callbacks wait again, with their attempts forgotten; how many.

        Of a dead callback, the handlers that were done stay done; of a done one, all run again.
        """

    async def erase(self, *, request_id: str | None = None, job: str | None = None) -> Erased:
        """Remove every trace of a request or a job, but for the key that recognises its retries."""

    async def purge(self, *, keep: timedelta, dedupe_for: timedelta) -> Purged:
        """Drop the bodies of done and unhandled callbacks after `keep`, rows and keys when both are over.

        What is waiting, leased, dead or a conflict stays, and so do the messages of a stream until its LiveTranscript
        is done or unhandled: they go together.
        """
