"""Threads for handlers that are plain functions: kept for the next one, left behind by one that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

Task = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Threads:
    """Runs functions in threads. How many at a time is the caller's to bound.

    The threads are daemons: one that never comes back must not keep its process from ending, which
    is why this is not an executor.
    """

    def __init__(self) -> None:
        self._idle: list[_Worker] = []

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a thread. Cancelled, the thread is left to itself and not used again."""
        loop = asyncio.get_running_loop()
        worker = self._idle.pop() if self._idle else _Worker(loop)
        future = loop.create_future()
        worker.tasks.put((partial(copy_context().run, function, *args), future))
        try:
            result = await future
        except asyncio.CancelledError:
            worker.tasks.put(None)
            raise
        except BaseException:
            self._idle.append(worker)
            raise
        self._idle.append(worker)
        return result

    def close(self) -> None:
        """End the idle threads."""
        while self._idle:
            self._idle.pop().tasks.put(None)


class _Worker:
    """One thread and its tasks; None ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tasks: SimpleQueue[Task | None] = SimpleQueue()
        Thread(target=_work, args=(loop, self.tasks), name="dgreceiver handler", daemon=True).start()


def _work(loop: asyncio.AbstractEventLoop, tasks: SimpleQueue[Task | None]) -> None:
    while (task := tasks.get()) is not None:
        function, future = task
        try:
            settle = partial(_settle, future.set_result, future, function())
        except BaseException as error:  # a handler may raise anything; its caller must hear of it
            settle = partial(_settle, future.set_exception, future, _carried(error))
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle)
        del task, function, future, settle  # nothing of it is held while waiting for the next


def _settle(how: Callable[[Any], None], future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        how(outcome)


def _carried(error: BaseException) -> BaseException:
    """An error that a future will take, and that whoever awaits it can catch: these three end what awaits."""
    if isinstance(error, StopIteration | GeneratorExit | asyncio.CancelledError):
        carried = RuntimeError(f"the handler raised {type(error).__name__}")
        carried.__cause__ = error
        return carried
    return error
