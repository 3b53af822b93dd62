"""What the middleware costs the app's own routes.

    python benchmarks/overhead.py --apps starlette,fastapi --rounds 100

One process on one core serves an app at two addresses, with CallbackMiddleware and without, and is asked at both in
turns; prints what an answer costs in processor time, the median of each, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import load
import uvicorn
import uvloop
from bodies import body_of
from load import Load
from starlette.types import ASGIApp

from dgreceiver import BasicAuth, CallbackMiddleware, Receiver

SIZE = 500  # bytes of a body, which nobody reads
WARM = 1.0  # seconds
CONNECTIONS = 16


def starlette() -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("own")

    return Starlette(routes=[Route("/", own, methods=["POST"])])


def fastapi() -> ASGIApp:
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/")
    async def own() -> str:
        return "own"

    return app


APPS: dict[str, Callable[[], ASGIApp]] = {"starlette": starlette, "fastapi": fastapi}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", default=",".join(APPS))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.1, help="of load in a round, at each address")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    for app in options.apps.split(","):
        with tempfile.TemporaryDirectory(prefix="dgreceiver-bench-") as folder:
            doors = [socket.create_server(("127.0.0.1", 0), backlog=2048) for _ in range(2)]
            server = multiprocessing.Process(target=serve, args=(APPS[app], doors, folder, cores[0]), daemon=True)
            server.start()
            os.sched_setaffinity(0, {cores[-1]})
            alone, beside = costs(server.pid or 0, doors, options.rounds, options.seconds)
            server.kill()
            server.join()
        print(
            f"{app}: {alone:.1f} µs alone, {beside:.1f} µs with the middleware, ratio {beside / alone:.3f}", flush=True
        )


def serve(make: Callable[[], ASGIApp], doors: list[socket.socket], folder: str, core: int) -> None:
    """Serve an app at two doors, alone and with a receiver beside it."""
    os.sched_setaffinity(0, {core})
    receiver = Receiver(auth=BasicAuth(load.USER, load.PASSWORD), inbox=f"sqlite:///{folder}/inbox.db")
    uvloop.run(serve_all([make(), CallbackMiddleware(make(), receiver=receiver, path="/deepgram")], doors))


async def serve_all(apps: list[ASGIApp], doors: list[socket.socket]) -> None:
    configs = [uvicorn.Config(app, http="httptools", access_log=False, log_level="warning") for app in apps]
    servers = [uvicorn.Server(config) for config in configs]
    await asyncio.gather(*(server.serve([door]) for server, door in zip(servers, doors, strict=True)))


def costs(pid: int, doors: list[socket.socket], rounds: int, seconds: float) -> list[float]:
    """What an answer costs at each door, as medians; who is asked first alternates. Units: microseconds."""
    ports = [door.getsockname()[1] for door in doors]
    found: dict[int, list[float]] = {port: [] for port in ports}
    for port in ports:
        cost(pid, port, WARM)
    for turn in range(rounds):
        for port in ports[:: -1 if turn % 2 else 1]:
            found[port].append(cost(pid, port, seconds))
    return [median(found[port]) for port in ports]


def cost(pid: int, port: int, seconds: float) -> float:
    """The processor time of the server's loop for one answer. Units: microseconds."""
    before = on_processor(pid)
    answers = load.run(Load(port, body_of(SIZE), CONNECTIONS, seconds, run=1), "own").acknowledged
    return (on_processor(pid) - before) / answers / 1000


def on_processor(pid: int) -> int:
    """How long a process's first thread has run. Units: nanoseconds. Source: Linux, proc(5), schedstat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


if __name__ == "__main__":
    main()
