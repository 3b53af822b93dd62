"""Group commit: one thread takes all that waits, writes it in one transaction, wakes the waiters, begins again.

There is no timer: while one batch is on its way to the disk, the next one gathers by itself; and while each turn of
the loop brings more, it goes on gathering, for some milliseconds at most. So many senders share a sync, and a lone one
does not wait. Only where nothing is written for seconds on end, because another process that was stopped holds the
lock, or the disk hangs, are those told who can come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, ClassVar, Protocol, Self

import msgspec
from msgspec.structs import replace

from ..errors import InboxError

MOST_JOBS = 256
MOST_BYTES = 8 * 1024 * 1024
LONGEST_GATHERING = 0.02  # seconds for which jobs are held back while each turn of the loop brings more
POLL = 0.1  # seconds between looks for what other processes have stored
LONGEST_WAIT = 1.0  # seconds after which an idle writer looks whether its loop still lives
PATIENCE = 5.0  # seconds in which nothing may be written: more than a sound disk needs, less than Deepgram waits
LOOKS = 10  # in that time, whether the writer gets on

_handing = Lock()  # held while it is decided who has a job: the writer, or nobody any more


class Job(msgspec.Struct, eq=False, kw_only=True):
    """Something to be done by the writer; `result` or `error` is set before its waiter wakes."""

    patient: ClassVar[bool] = False  # it is waited for however long that takes

    future: asyncio.Future[Any] = None  # type: ignore[assignment]  # until somebody waits for it
    release: Callable[[], None] | None = None
    result: Any = None
    error: InboxError | None = None
    begun: bool = False

    def again(self) -> Self:
        """The same, to be done once more."""
        return replace(self, result=None, error=None, begun=False)

    def let_go(self) -> None:
        """Hold nothing large any more: it will not be done."""

    @property
    def weight(self) -> int:
        """Bytes that it holds."""
        return 0


def begin(jobs: Sequence[Job]) -> Sequence[Job]:
    """Those of the jobs that are still to be done; from here on nobody gives them up."""
    with _handing:
        left = [job for job in jobs if job.error is None]
        for job in left:
            job.begun = True
    return left


def drop(job: Job, why: str) -> bool:
    """Decide that a job will not be done, unless it has been begun."""
    with _handing:
        if not job.begun:
            job.error = InboxError(why)
            job.let_go()
        return not job.begun


class Work(Protocol):
    """What the writer's thread does; it is called on no other thread."""

    def transact(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Do the jobs; return those that are finished, durably, with a result or an error. Never raises."""

    def follow_up(self) -> Sequence[Job]:
        """Do what those who have just been told need not wait for; the jobs that it finished. Never raises."""

    def pause(self) -> float | None:
        """Seconds after which to look again though no job came; None if there is nothing to look for."""

    def shut(self) -> Sequence[Job]:
        """Let go of everything; the jobs that were still held."""


class Writer:
    """Hands jobs to the thread that writes, and wakes those who wait for them, on the loop that it was made on.

    `stuck` is told when nothing has been written for so long that those who wait are sent away, and how many they are.
    """

    def __init__(
        self, work: Work, *, name: str, stuck: Callable[[InboxError, int], None], patience: float = PATIENCE
    ) -> None:
        self._work = work
        self._name = name
        self._stuck = stuck
        self._patience = patience
        self._gathered: list[Job] = []  # that the thread has not been given yet
        self._gather_until = 0.0  # by the loop's clock
        self._waiting: set[Job] = set()  # less those that are patient
        self._turns = 0  # of the thread
        self._looks = 0  # since it has taken one
        self._why: str | None = None  # it does not get on
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()

    def start(self) -> None:
        Thread(target=self._run, name=self._name, daemon=True).start()
        self._look_again()

    def do(self, job: Job, release: Callable[[], None] | None = None) -> asyncio.Future[Any]:
        """Have a job done; its result to wait for. Whoever is cancelled there leaves it to be done all the same.

        `release` is called when the job is done, whether or not somebody still waits for it.

        Raises, when awaited: InboxError if it could not be done, or the writer has stopped.
        """
        job.future, job.release = self._loop.create_future(), release
        if job.patient:
            self.tell(job)
        elif self._why is None:
            self._waiting.add(job)
            self.tell(job)
        else:
            self._send_away([job], self._why)
        return job.future

    def tell(self, job: Job) -> None:
        """Have a job done as `do` does, but with nothing to wait for."""
        self._gathered.append(job)
        if len(self._gathered) == 1:
            self._gather_until = self._loop.time() + LONGEST_GATHERING
            self._loop.call_soon(self._gather, 1)

    async def stop(self) -> None:
        """Do what waits, then end the thread."""
        self._hand_over()
        self._queue.put(None)
        await self._ended
        self._looking.cancel()

    def _gather(self, before: int) -> None:
        """Hand over what has come, unless this turn of the loop has brought more than there was before."""
        if before < len(self._gathered) < MOST_JOBS and self._loop.time() < self._gather_until:
            self._loop.call_soon(self._gather, len(self._gathered))
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        for job in gathered:
            self._queue.put(job)

    def _run(self) -> None:
        going = True
        while going and not self._loop.is_closed():  # what nobody can be told of is not begun
            jobs, going = self._take()
            self._tell_of(self._work.transact(jobs))
            self._tell_of(self._work.follow_up())
            self._turns += 1
        self._tell_of(self._work.shut())
        self._tell(self._ended.set_result, None)

    def _tell_of(self, finished: Sequence[Job]) -> None:
        if finished:  # else the loop would be woken for nothing
            self._tell(self._wake, finished)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)

    def _take(self) -> tuple[list[Job], bool]:
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

    def _wake(self, jobs: Sequence[Job]) -> None:
        self._waiting.difference_update(jobs)
        for job in jobs:
            if job.future.done():
                continue  # its waiter was cancelled or sent away; the former's job is done all the same
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
        for job in jobs:  # after all have been told: what goes wrong here keeps nobody waiting
            release, job.release = job.release, None
            if release is not None:
                release()

    # --- when it does not get on

    def _look_again(self) -> None:
        self._looking = self._loop.call_later(self._patience / LOOKS, self._look, self._turns)

    def _look(self, turns: int) -> None:
        """Look whether the thread has taken a turn since the last time, or nobody waits for it to."""
        if turns != self._turns or not (self._waiting or self._why):
            self._looks, self._why = 0, None
        else:
            self._looks += 1
        if self._looks >= LOOKS:
            self._give_up()
        self._look_again()

    def _give_up(self) -> None:
        """Send away who can come again, and all who come until it gets on."""
        why = (
            f"nothing could be written for {self._patience:g} s: the disk hangs, or a stopped process holds the lock "
            "of the inbox; find it (state T in ps), and end it or let it go on"
        )
        left = self._send_away(self._waiting, why)
        if self._why is None:
            self._why = why
            self._stuck(InboxError(why), left)

    def _send_away(self, jobs: Collection[Job], why: str) -> int:
        """Tell those of whose jobs nothing has been begun; how many."""
        dropped = [job for job in jobs if drop(job, why)]
        self._wake(dropped)
        return len(dropped)
