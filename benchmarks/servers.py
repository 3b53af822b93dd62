"""The servers that are compared, each run as a process of its own: `python servers.py NAME --port N …`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ends import Ends
from load import PASSWORD, USER
from starlette.types import ASGIApp, Receive, Scope, Send

HERE = Path(__file__).parent

Commands = Sequence[Sequence[str]]


def bare(folder: Path) -> ASGIApp:
    """Reads the body, keeps nothing, answers 200: as fast as uvicorn can be here."""
    answer = b'{"status":"stored","request_id":"00000000-0000-4000-8000-000000000000"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        b"".join(parts)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def storing(folder: Path) -> ASGIApp:
    """A Receiver without handlers: everything is stored, nothing is parsed."""
    from dgreceiver import BasicAuth, Receiver

    return Receiver(auth=BasicAuth(USER, PASSWORD), inbox=f"sqlite:///{folder / 'inbox.db'}")


def handling(folder: Path, *, in_threads: bool = False) -> ASGIApp:
    """A Receiver with one typed handler, `async def` or `def`, that reads what came and notes its end."""
    from dgreceiver import Audio, BasicAuth, LiveResult, Receiver, Transcript

    receiver = Receiver(auth=BasicAuth(USER, PASSWORD), inbox=f"sqlite:///{folder / 'inbox.db'}")
    ends, pause = Ends.in_folder(folder), float(os.environ["BENCH_HANDLER_SECONDS"])

    def read(event: Transcript | Audio | LiveResult) -> None:
        if event.content if isinstance(event, Audio) else event.text:
            ends.note(event.request_id, float(getattr(event, "sent", 0.0)))

    async def handle(event: Transcript | Audio | LiveResult) -> None:
        if pause:
            await asyncio.sleep(pause)
        read(event)

    def handle_in_thread(event: Transcript | Audio | LiveResult) -> None:
        time.sleep(pause)
        read(event)

    on = receiver.on(Transcript, Audio, LiveResult)
    on(handle_in_thread) if in_threads else on(handle)
    return receiver


def in_threads(folder: Path) -> ASGIApp:
    return handling(folder, in_threads=True)


def fastapi(folder: Path) -> ASGIApp:
    from handwritten.by_fastapi import app_in

    return app_in(folder, exclusive=True)


def unlocked(folder: Path) -> ASGIApp:
    """`fastapi` without its lock: requests share transactions by accident, and a ROLLBACK would lose others'."""
    from handwritten.by_fastapi import app_in

    return app_in(folder, exclusive=False)


def bolt(folder: Path) -> ASGIApp:
    from handwritten.by_bolt import app_in

    return app_in(folder)


def wrapped_for_bolt(body: bytes) -> bytes:
    """A callback as an event that Slack might send."""
    event = b'{"type":"event_callback","team_id":"T1","api_app_id":"A1","event":{"type":"deepgram","user":"U1"},'
    return event + b'"callback":' + body + b"}"


def run_uvicorn(app: ASGIApp, port: int) -> None:
    import uvicorn

    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="on",
        timeout_keep_alive=75,  # with uvicorn's 5 s, a loop that is busy for longer closes on requests it has not read
        access_log=False,
        log_level="warning",
    )


def run_ours(receiver: Any, port: int) -> None:
    """As `dgreceiver serve` does it, without the lines that it logs: none of the others logs a request either."""
    from dgreceiver.server import serve

    serve(receiver, host="127.0.0.1", port=port)


def gunicorn(app: str, folder: Path, port: int, *options: str) -> Sequence[str]:
    """The command that serves a WSGI app: by one process with threads, if the options do not say otherwise."""
    command = [sys.executable, "-m", "gunicorn", f"handwritten.{app}:app_in({str(folder)!r})", f"--chdir={HERE}"]
    command += [f"--bind=127.0.0.1:{port}", "--keep-alive=75", "--log-level=warning", "--no-control-socket"]
    return [*command, *(options or ("--threads=16",))]


def redis(folder: Path, *options: str) -> Sequence[str]:
    """The command that keeps a queue in a folder; without options as Redis does by itself: now and then."""
    return ["redis-server", "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--dir", str(folder), *options]


FSYNC_ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
FSYNC_EVERY_SECOND = ("--appendonly", "yes", "--appendfsync", "everysec")


def celery(folder: Path, port: int, *options: str) -> Commands:
    worker = [sys.executable, "-m", "celery", "--workdir", str(HERE), "-A", "handwritten.by_celery", "worker"]
    worker += ["--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [redis(folder, *options), worker, gunicorn("by_celery", folder, port)]


def kept_by_us(folder: Path) -> int:
    """What waits, runs or was done, by the package's own inbox; what is dead or a conflict was not to be."""

    async def count() -> int:
        from dgreceiver.inbox.sqlite import SqliteInbox

        inbox = SqliteInbox(folder / "inbox.db", receiver="default", emit=lambda fact: None)
        await inbox.open()
        try:
            counts = await inbox.counts()
        finally:
            await inbox.close()
        return sum(counts.get(state, 0) for state in ("waiting", "leased", "done"))

    return asyncio.run(count())


def kept_in_table(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "inbox.db")) as database:
        return int(database.execute("SELECT count(*) FROM callback").fetchone()[0])


def handled_only(folder: Path) -> int:
    """Nothing is kept: what its handlers have finished is all there is."""
    return Ends.in_folder(folder).count()


def handled_or_in_redis(*options: str) -> Callable[[Path], int]:
    """What a worker has finished, what is still in the queue, and what a worker had taken and may get again."""

    def count(folder: Path) -> int:
        from redis import Redis

        with _running(redis(folder, *options)), Redis(unix_socket_path=f"{folder}/redis.sock") as client:
            _await(folder / "redis.sock")
            return Ends.in_folder(folder).count() + int(client.llen("celery")) + int(client.hlen("unacked"))

    return count


@dataclass(frozen=True, slots=True)
class Server:
    """One of those that are compared: an ASGI app and how it is run, or commands that are run side by side."""

    made: Callable[[Path], ASGIApp] | None = None
    run: Callable[[ASGIApp, int], None] = run_uvicorn
    commands: Callable[[Path, int], Commands] | None = None
    kept: Callable[[Path], int] | None = None  # how many callbacks are in a folder that it left
    handles: bool = False
    wrapped: Callable[[bytes], bytes] = bytes  # a callback in the form that it takes
    needs: str | None = None  # a program

    @property
    def stores(self) -> bool:
        return self.kept not in (None, handled_only)


SERVERS = {
    "bare": Server(bare),
    "storing": Server(storing, run=run_ours, kept=kept_by_us),
    "plain": Server(storing, kept=kept_by_us),
    "handling": Server(handling, run=run_ours, kept=kept_by_us, handles=True),
    "in-threads": Server(in_threads, run=run_ours, kept=kept_by_us, handles=True),
    "fastapi": Server(fastapi, kept=kept_in_table),
    "unlocked": Server(unlocked, kept=kept_in_table),
    "flask": Server(commands=lambda folder, port: [gunicorn("by_flask", folder, port)], kept=kept_in_table),
    "flask-sync": Server(
        commands=lambda folder, port: [gunicorn("by_flask", folder, port, "--workers=4")], kept=kept_in_table
    ),
    "django": Server(commands=lambda folder, port: [gunicorn("by_django", folder, port)], kept=kept_in_table),
    "celery": Server(commands=celery, kept=handled_or_in_redis(), handles=True, needs="redis-server"),
    "celery-always": Server(
        commands=lambda folder, port: celery(folder, port, *FSYNC_ALWAYS),
        kept=handled_or_in_redis(*FSYNC_ALWAYS),
        handles=True,
        needs="redis-server",
    ),
    "bolt": Server(bolt, kept=handled_only, handles=True, wrapped=wrapped_for_bolt),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the inbox goes")
    parser.add_argument("--core", type=int, help="the only core it may use")
    parser.add_argument("--lifetime", type=int, default=300, help="seconds after which it ends whatever happens")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    os.environ["BENCH_FOLDER"] = str(options.folder)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))  # it leads a group of its own
    signal.alarm(options.lifetime)
    server = SERVERS[options.name]
    if server.made is not None:
        server.run(server.made(options.folder), options.port)
    elif server.commands is not None:
        _run_all(server.commands(options.folder, options.port))


def _run_all(commands: Commands) -> None:
    """Run commands side by side, until the whole group is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(subprocess.Popen(command)) for command in commands]
        running[-1].wait()


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _await(path: Path) -> None:
    import socket

    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.01)


if __name__ == "__main__":
    main()
