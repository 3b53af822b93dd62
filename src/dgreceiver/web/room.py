"""Memory for bodies on their way in, handed out by the piece as they come, whatever they announce.

Who brings nothing holds no more than a piece. Where there is no more, who came first goes on first; who is slow gives
way, and if all wait for each other, who came last.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from ..errors import Busy

PIECE = 64 * 1024  # bytes that are taken ahead of a read: about what servers hand over at once
PATIENCE = 5.0  # seconds that a request waits unread for room
HURRY = 0.5  # seconds that a body may take to bring a piece while others find no room
LOOK = 0.1  # seconds between looks for who is slow, while somebody waits

Task = asyncio.Task[Any]


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
    """So many bytes, shared by all requests. `end` ends a task's read if it is in one, and says whether."""

    def __init__(
        self, size: int, *, end: Callable[[Task], bool], patience: float = PATIENCE, hurry: float = HURRY
    ) -> None:
        self.size = size
        self._free = size  # below 0 if a server hands over more than a piece at once
        self._end = end
        self._patience = patience
        self._hurry = hurry
        self._numbers = count()
        self._leases: set[Lease] = set()  # who holds any
        self._waiting: list[_Place] = []  # in order of arrival of their bodies
        self._giving_way: Lease | None = None  # was told to
        self._looking = False

    def lease(self) -> Lease:
        """What the current task's body will hold; nothing yet."""
        return Lease(self, next(self._numbers))

    async def take(self, lease: Lease, size: int) -> None:
        """Take room, waiting behind older bodies; whoever has all there is may go on.

        Raises: Busy if there was none for as long as it has patience, or if it has to give way.
        """
        size = min(size, self.size - lease.size)
        if size > 0 and (self._waiting or size > self._free):
            await self._wait(_Place(lease, size, lease.loop.create_future(), lease.loop.time()))
        elif size > 0:
            self._hand(lease, size)

    def give(self, lease: Lease, size: int) -> None:
        """Note that a lease holds so much less; or more, which is there already."""
        self._hand(lease, -size)
        if not lease.size:
            self._leases.discard(lease)
        if self._waiting:
            self._serve()
        if not lease.size and self._giving_way is lease:
            self._make_way()

    def _hand(self, lease: Lease, size: int) -> None:
        self._free -= size
        lease.size += size
        self._leases.add(lease)

    async def _wait(self, place: _Place) -> None:
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
                self._hand(place.lease, place.size)
                place.lease.moved_at += place.lease.loop.time() - place.since  # it was not its sender who was slow
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
        if not stuck or len(stuck) < len(self._leases):
            return None
        stuck[-1].turn.set_exception(stuck[-1].error)
        return stuck[-1].lease

    def _slowest(self) -> Lease | None:
        """Whoever has brought no piece for longest, if that is too long; its read is ended."""
        for lease in sorted(self._leases, key=lambda lease: lease.moved_at):
            if lease.loop.time() - lease.moved_at < self._hurry:
                break
            if self._end(lease.task):
                return lease
        return None


class Lease:
    """Room that one body holds, given back once; it is taken ahead of each read."""

    def __init__(self, room: Room, number: int) -> None:
        self._room = room
        self._ahead = 0
        self._brought = 0  # since it moved
        self.number = number
        self.size = 0
        self.loop = asyncio.get_running_loop()
        self.task = cast("Task", asyncio.current_task(self.loop))
        self.moved_at = self.loop.time()  # when it had last brought a piece

    async def ahead(self, size: int) -> None:
        """Have room for so many bytes more than have come. Raises: Busy if there is none."""
        before = self.size
        await self._room.take(self, size)
        self._ahead += self.size - before

    def came(self, size: int) -> None:
        """Note what a read has brought, be it less than was taken for it or more."""
        self._room.give(self, self._ahead - size)
        self._ahead = 0
        self._brought += size
        if self._brought >= PIECE:
            self._brought, self.moved_at = 0, self.loop.time()

    def let_go(self, size: int) -> None:
        """Give some back: it has been put elsewhere."""
        self._room.give(self, size)
        self.moved_at = self.loop.time()

    def give_back(self) -> None:
        self._room.give(self, self.size)
