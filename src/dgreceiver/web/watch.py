"""A watch over reads that must not take for ever: one look now and then for all, instead of a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from ..errors import TooSlow

T = TypeVar("T")
Task = asyncio.Task[Any]

LOOKS = 4  # within the shorter of the two limits
LONGEST_LOOK = 1.0  # seconds


class Watch:
    """Ends a read that stalls, or one of a whole that goes on for too long. Units: seconds."""

    def __init__(self, *, stall: float, whole: float) -> None:
        self._stall = stall
        self._whole = whole
        self._every = min(stall / LOOKS, whole / LOOKS, LONGEST_LOOK)
        self._due: dict[Task, float] = {}
        self._late: set[Task] = set()
        self._looking = False

    def deadline(self) -> float:
        """Until when a whole that begins now may go on."""
        return asyncio.get_running_loop().time() + self._whole

    async def over(self, read: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Read, for as long as it may take. Raises: TooSlow."""
        loop = asyncio.get_running_loop()
        task = cast("Task", asyncio.current_task(loop))
        others = task.cancelling()
        self._due[task] = min(loop.time() + self._stall, deadline)
        if not self._looking:
            self._looking = True
            loop.call_later(self._every, self._look, loop)
        try:
            return await read()
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel() > others:  # somebody else wants it to end
                raise
            raise TooSlow(
                "the body stalled, took too long in all, or was slow while others found no room; see Limits"
            ) from None
        finally:
            del self._due[task]
            self._late.discard(task)

    def end(self, task: Task) -> bool:
        """End the read that a task is in; whether it was in one."""
        if task not in self._due or task in self._late:
            return False
        self._late.add(task)
        task.cancel()
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, due in self._due.items():
            if due <= now:
                self.end(task)
        self._looking = bool(self._due)
        if self._looking:
            loop.call_later(self._every, self._look, loop)
