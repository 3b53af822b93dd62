"""Threads for handlers: kept for the next one, left behind by one that hangs."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from dgreceiver.threads import Threads

from .support import until

MINE: ContextVar[str] = ContextVar("MINE")


def ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "dgreceiver handler"}


async def test_a_function_runs_in_a_thread_with_its_arguments_and_the_callers_context():
    threads = Threads()
    MINE.set("the caller's")
    seen = await threads.run(lambda *args: (*args, MINE.get(), threading.current_thread()), 1, 2)
    assert seen[:3] == (1, 2, "the caller's")
    assert seen[3] is not threading.current_thread()
    assert seen[3].daemon
    threads.close()


async def test_a_thread_is_used_again_and_ended_at_the_end():
    threads = Threads()
    [first, second] = [await threads.run(threading.current_thread) for _ in range(2)]
    threads.close()
    assert first is second
    await until(lambda: not first.is_alive())


async def test_an_error_comes_out_and_its_thread_is_used_again():
    threads, seen = Threads(), list[threading.Thread]()

    def fails() -> None:
        seen.append(threading.current_thread())
        raise KeyError("no")

    for _ in range(2):
        with pytest.raises(KeyError, match="no"):
            await threads.run(fails)
    threads.close()
    assert seen[0] is seen[1]


@pytest.mark.parametrize("error", [StopIteration(1), GeneratorExit(), asyncio.CancelledError()])
async def test_an_error_that_would_end_its_caller_comes_out_as_another(error):
    def fails() -> None:
        raise error

    threads = Threads()
    with pytest.raises(RuntimeError, match=f"the handler raised {type(error).__name__}") as raised:
        await threads.run(fails)
    threads.close()
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("fails", [False, True])
async def test_a_thread_that_nobody_waits_for_ends_when_its_function_does(fails):
    threads, begun, go = Threads(), threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        go.wait(10)
        if fails:
            raise ValueError("too late")

    before = ours()
    running = asyncio.create_task(threads.run(hangs))
    await until(begun.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await threads.run(int)  # in another
    assert len(ours() - before) == 2
    go.set()
    threads.close()
    await until(lambda: not ours() - before)


def test_a_thread_outlives_its_loop_without_harm():
    go, ended = threading.Event(), threading.Event()

    def hangs() -> None:
        go.wait(10)
        ended.set()

    async def leave() -> None:
        running = asyncio.create_task(Threads().run(hangs))
        await asyncio.sleep(0)
        running.cancel()

    asyncio.run(leave())
    go.set()
    assert ended.wait(10)
