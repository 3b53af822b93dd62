"""Memory and time for bodies on their way in.

Memory is handed out by the piece as they come, whatever they announce. Who brings nothing holds no more than a piece.
Where there is no more, who came first goes on first; who is slow gives way, and if all wait for each other, who came
last. Time is watched by one look now and then for all, instead of a timer for each read.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any, TypeVar

from ..errors import Busy, TooSlow

PIECE = 64 * 1024  # bytes that are taken ahead of a read: about what servers hand over at once
PATIENCE = 5.0  # seconds that a request waits unread for room
HURRY = 0.5  # seconds that a body may take to bring a piece while others find no room
LOOK = 0.1  # seconds between looks for who is slow, while somebody waits
LOOKS = 4  # for who is late, within the shorter of the two limits
LONGEST_LOOK = 1.0  # seconds
NEVER = inf

Read = TypeVar("Read")


@dataclass(slots=True, eq=False)
class _Place:
    """Somebody waiting for room."""

    lease: Lease
    size: int
    turn: asyncio.Future[None]
    since: float
    served: bool = False

    @property
    def number(self) -> int:
        return self.lease.number

    @property
    def error(self) -> Busy:
        return Busy(f"no room for {self.size} bytes beside the bodies that are in flight")


class Room:
    """So many bytes, shared by all requests, and so many seconds for the next piece of each body, and for a whole."""

    def __init__(
        self, size: int, *, stall: float, whole: float, patience: float = PATIENCE, hurry: float = HURRY
    ) -> None:
        self.size = size
        self.stall = stall
        self.whole = whole
        self._free = size  # below 0 if a server hands over more than a piece at once
        self._patience = patience
        self._hurry = hurry
        self._numbers = count()
        self._leases: set[Lease] = set()
        self._waiting: list[_Place] = []  # in order of arrival of their bodies
        self._giving_way: Lease | None = None  # was told to
        self._looking = False
        self._watching = False
        self._watch_every = min(stall / LOOKS, whole / LOOKS, LONGEST_LOOK)

    def lease(self) -> Lease:
        """What the current task's body will hold; nothing yet."""
        lease = Lease(self, next(self._numbers))
        self._leases.add(lease)
        if not self._watching:
            self._watching = True
            lease.loop.call_later(self._watch_every, self._watch, lease.loop)
        return lease

    def take(self, lease: Lease, size: int) -> bool:
        """Take room if it is there and nobody waits for any; whoever has all there is may go on."""
        if size <= 0 or lease.size >= self.size:
            return True
        if self._waiting or size > self._free:
            return False
        self._free -= size
        lease.size += size
        return True

    async def wait(self, lease: Lease, size: int) -> None:
        """Take room as soon as it is there, behind older bodies.

        Raises: Busy if there was none for as long as it has patience, or if it has to give way.
        """
        size = min(size, self.size - lease.size)
        place = _Place(lease, size, lease.loop.create_future(), lease.loop.time())
        insort(self._waiting, place, key=lambda place: place.number)
        self._serve()
        try:
            async with asyncio.timeout(self._patience):
                await place.turn
        except BaseException as error:
            self._leave(place)
            if isinstance(error, TimeoutError):
                raise place.error from None
            raise

    def give(self, lease: Lease, size: int) -> None:
        """Note that a lease holds so much less; or more, which is there already."""
        self._free += size
        lease.size -= size
        if self._waiting:
            self._serve()
        if not lease.size and self._giving_way is lease:
            self._make_way()

    def end(self, lease: Lease) -> None:
        """Note that a lease is over."""
        self._leases.discard(lease)
        self.give(lease, lease.size)

    def _leave(self, place: _Place) -> None:
        if place.served:  # in the same moment
            self.give(place.lease, place.size)
        elif place in self._waiting:
            self._waiting.remove(place)
            self._serve()  # who stood behind may fit

    def _serve(self) -> None:
        """Let in whom there is room for."""
        while self._waiting and self._waiting[0].size <= self._free:
            place = self._waiting.pop(0)
            if not place.turn.done():  # else it has just stopped waiting
                place.served = True
                self._free -= place.size
                place.lease.size += place.size
                place.lease.delay(place.lease.loop.time() - place.since)
                place.turn.set_result(None)
        if self._waiting and not self._looking:
            self._looking = True
            self._waiting[0].lease.loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        self._serve()
        if self._giving_way is None:
            self._make_way()

    def _make_way(self) -> None:
        """Have one give way, if somebody waits; when it has, the next, until nobody waits."""
        self._giving_way = (self._last_of_all_who_wait() or self._slowest()) if self._waiting else None

    def _last_of_all_who_wait(self) -> Lease | None:
        """If nobody who holds any can go on, the one who came last, who is told so."""
        stuck = [place for place in self._waiting if place.lease.size and not place.turn.done()]
        if not stuck or len(stuck) < len([lease for lease in self._leases if lease.size]):
            return None
        stuck[-1].turn.set_exception(stuck[-1].error)
        return stuck[-1].lease

    def _slowest(self) -> Lease | None:
        """Whoever has brought no piece for longest, if that is too long; its read is ended."""
        for lease in sorted(self._leases, key=lambda lease: lease.moved_at):
            if lease.loop.time() - lease.moved_at < self._hurry:
                break
            if lease.size and lease.end_read():
                return lease
        return None

    # --- who is late

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for lease in self._leases:
            if now >= lease.due or now >= lease.until:
                lease.end_read()
        self._watching = bool(self._leases)
        if self._watching:
            loop.call_later(self._watch_every, self._watch, loop)


class Lease:
    """What one body may have: room, which it takes ahead of each read and gives back once, and time."""

    def __init__(self, room: Room, number: int) -> None:
        self._room = room
        self._held = 0  # bytes that have come and are there
        self._brought = 0  # since it moved
        self.number = number
        self.size = 0
        self._task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # it is called in one
        self.loop = self._task.get_loop()
        self.moved_at = self.loop.time()  # when it had last brought a piece
        self.due = NEVER  # of the read that it is in
        self.until = self.moved_at + room.whole
        self._late = False
        self._others = self._task.cancelling()

    async def read(self, read: Callable[[], Awaitable[Read]], most: int) -> Read:
        """Read, with room for `most` bytes more than have come.

        Raises: Busy if there is no room; TooSlow if it takes too long, or if others need the room meanwhile.
        """
        if not self._room.take(self, most):
            await self._room.wait(self, most)
        self.due = self.loop.time() + self._room.stall
        try:
            return await read()
        except asyncio.CancelledError:
            if not self._late or self._task.uncancel() > self._others:  # somebody else wants it to end
                raise
            raise TooSlow(
                "the body stalled, took too long in all, or was slow while others found no room; see Limits"
            ) from None
        finally:
            self.due = NEVER

    def end_read(self) -> bool:
        """End the read that it is in; whether it was in one, and that was not done already."""
        if self.due == NEVER or self._late:
            return False
        self._late = True
        return self._task.cancel()

    def delay(self, seconds: float) -> None:
        """Note that it waited for room: it was not its sender who was slow."""
        self.moved_at += seconds
        self.until += seconds

    def came(self, size: int) -> None:
        """Note what a read has brought, be it less than was taken for it or more."""
        self._held += size
        if self._held != self.size:
            self._room.give(self, self.size - self._held)
        self._brought += size
        if self._brought >= PIECE:
            self._brought, self.moved_at = 0, self.loop.time()

    def let_go(self, size: int) -> None:
        """Give some back: it has been put elsewhere."""
        self._held -= size
        self._room.give(self, size)
        self.moved_at = self.loop.time()

    def give_back(self) -> None:
        self._room.end(self)
