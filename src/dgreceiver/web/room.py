"""Memory for bodies on their way in, handed out in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import Busy

PATIENCE = 5.0  # seconds that a request waits unread for room


class Room:
    """So many bytes, shared by all requests."""

    def __init__(self, size: int, *, patience: float = PATIENCE) -> None:
        self.size = size
        self._free = size
        self._patience = patience
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> Lease:
        """Take room for a body, waiting behind those who came before; more than all there is takes all.

        Raises: Busy if there was none for as long as it has patience.
        """
        size = min(size, self.size)
        if self._waiting or size > self._free:
            await self._wait(size)
        else:
            self._free -= size
        return Lease(self, size)

    async def _wait(self, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        place = (size, turn)
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            self._leave(place)
            if isinstance(error, TimeoutError):
                raise Busy(f"no room for {size} bytes beside the bodies that are in flight") from None
            raise

    def _leave(self, place: tuple[int, asyncio.Future[None]]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
            self.give(0)  # who stood behind may fit
        elif not place[1].cancelled():  # it came in the same moment
            self.give(place[0])

    def give(self, size: int) -> None:
        self._free += size
        while self._waiting and self._waiting[0][0] <= self._free:
            taken, turn = self._waiting.popleft()
            if not turn.done():  # else it has just stopped waiting
                self._free -= taken
                turn.set_result(None)


class Lease:
    """Room that was taken; it may grow, and is given back once."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self.size = size

    async def grow(self, size: int) -> None:
        """Take more, up to all there is; whoever has that may go on. Raises: Busy if there is none."""
        missing = min(size, self._room.size - self.size)
        if missing:
            self.size += (await self._room.take(missing)).size

    def give_back(self) -> None:
        size, self.size = self.size, 0
        self._room.give(size)
