"""An event loop in a thread of its own, for receivers inside apps that have none."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Collection, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from threading import Lock, Thread
from typing import Any, TypeVar

from ..receiver import Receiver
from ..telemetry import logger

T = TypeVar("T")

LONGEST_STOP = 40.0  # seconds; requests, handlers and settling have less than that in all


class Loop:
    """The loop of one process and the receivers on it, which run until they are stopped or the process ends.

    The thread is a daemon and its loop is never closed: nothing on it can keep the process from ending.
    """

    def __init__(self, *, patience: float = LONGEST_STOP) -> None:
        self._patience = patience
        self._pid = os.getpid()
        self._starting = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beginning = asyncio.Lock()
        self._begun: dict[Receiver, AsyncExitStack] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have something done on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._started())

    async def begin(self, receiver: Receiver) -> None:
        """Start a receiver unless that was done before: one that was stopped stays so.

        Raises: SetupError if it cannot start; then it may be tried again.
        """
        async with self._beginning:
            if receiver in self._begun:
                return
            running = AsyncExitStack()
            await running.enter_async_context(receiver.running())
            self._begun[receiver] = running

    def stop(self, *receivers: Receiver) -> None:
        """Stop these receivers, or all, and wait until they have: also one that is about to start."""
        if self._loop is None:
            return
        try:
            self.run(self._leave(receivers)).result(self._patience)
        except TimeoutError:
            logger.error("did not stop within %g s; what was being handled runs again elsewhere", self._patience)

    async def _leave(self, receivers: Collection[Receiver]) -> None:
        async with self._beginning:
            left = [running for receiver, running in self._begun.items() if not receivers or receiver in receivers]
        await asyncio.gather(*(running.aclose() for running in left))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                Thread(target=self._loop.run_forever, name="dgreceiver loop", daemon=True).start()
                atexit.register(self._end)
            return self._loop

    def _end(self) -> None:
        if self._pid == os.getpid():  # a fork inherits what was to be done at the end of its parent
            self.stop()


_loops: dict[int, Loop] = {}


def loop_of_this_process() -> Loop:
    """The one loop here; those of the processes that this was forked from are kept, so nothing of theirs is closed."""
    pid = os.getpid()
    return _loops.get(pid) or _loops.setdefault(pid, Loop())
