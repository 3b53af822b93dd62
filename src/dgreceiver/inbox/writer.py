"""Group commit: one thread takes all that waits, writes it in one transaction, wakes the waiters, begins again.

There is no timer: while one batch is on its way to the disk, the next one gathers by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from ..errors import InboxError

MOST_JOBS = 256
MOST_BYTES = 8 * 1024 * 1024
POLL = 0.1  # seconds between looks for what other processes have stored
LONGEST_WAIT = 1.0  # seconds after which an idle writer looks whether its loop still lives


@dataclass(slots=True, eq=False)
class Job:
    """Something to be done by the writer; `result` or `error` is set before its waiter wakes."""

    future: asyncio.Future[Any] = field(init=False)
    release: Callable[[], None] | None = field(init=False, default=None)
    result: Any = field(init=False, default=None)
    error: InboxError | None = field(init=False, default=None)

    @property
    def weight(self) -> int:
        """Bytes that it holds."""
        return 0


class Work(Protocol):
    """What the writer's thread does; it is called on no other thread."""

    def transact(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Do the jobs; return those that are finished, durably, with a result or an error. Never raises."""

    def pause(self) -> float | None:
        """Seconds after which to look again though no job came; None if there is nothing to look for."""

    def shut(self) -> Sequence[Job]:
        """Let go of everything; the jobs that were still held."""


class Writer:
    """Hands jobs to the thread that writes, and wakes those who wait for them, on the loop that it was made on."""

    def __init__(self, work: Work, *, name: str) -> None:
        self._work = work
        self._name = name
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()

    def start(self) -> None:
        Thread(target=self._run, name=self._name, daemon=True).start()

    def do(self, job: Job, release: Callable[[], None] | None = None) -> asyncio.Future[Any]:
        """Have a job done; its result to wait for. Whoever is cancelled there leaves it to be done all the same.

        `release` is called when the job is done, whether or not somebody still waits for it.

        Raises, when awaited: InboxError if it could not be done, or the writer has stopped.
        """
        job.future, job.release = self._loop.create_future(), release
        self._queue.put(job)
        return job.future

    def tell(self, job: Job) -> None:
        """Have something done that nobody waits for."""
        self._queue.put(job)

    async def stop(self) -> None:
        """Do what waits, then end the thread."""
        self._queue.put(None)
        await self._ended

    def _run(self) -> None:
        going = True
        while going and not self._loop.is_closed():  # what nobody can be told of is not begun
            jobs, going = self._gather()
            self._tell(_wake, self._work.transact(jobs))
        self._tell(_wake, self._work.shut())
        self._tell(self._ended.set_result, None)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)

    def _gather(self) -> tuple[list[Job], bool]:
        """All that waits, up to a limit, and whether there is to be more after it."""
        jobs: list[Job] = []
        weight = 0
        try:
            pause = self._work.pause()
            job = self._queue.get(timeout=LONGEST_WAIT if pause is None else min(pause, LONGEST_WAIT))
            while job is not None:
                jobs.append(job)
                weight += job.weight
                if len(jobs) >= MOST_JOBS or weight >= MOST_BYTES:
                    return jobs, True
                job = self._queue.get_nowait()
        except Empty:
            return jobs, True
        return jobs, False


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue  # its waiter was cancelled; the job is done all the same
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
    for job in jobs:  # after all have been told: what goes wrong here keeps nobody waiting
        if job.release is not None:
            job.release()
