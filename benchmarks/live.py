"""Live streams over WebSocket: how many frames a second are stored, how long one takes to its handler, what one costs.

The client is bare sockets on a schedule: a frame is made beforehand but for the instant at which it was due.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sqlite3
import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import load
from bodies import request_id
from ends import Ends
from load import AUTHORIZATION
from running import Bench, Failed, serving, wait_until

from dgreceiver.testing.payloads import live_result

INSTANT = "0" * 20  # where the instant stands in a frame
TEXT = "a live message of Deepgram holds a sentence or less with a word object for each of its words"


@dataclass(frozen=True, slots=True)
class Lived:
    """What came of so many sockets. Units: bytes, seconds, frames a second."""

    sockets: int
    each: float | None  # frames a second that each was to send; None: as many as it could
    server: str
    size: int  # of a frame
    frames: int
    rate: float  # sent and stored
    p50: float | None  # from the instant at which a frame was due until its handler had it
    p99: float | None
    most: float | None
    idle_memory: int  # before the sockets were open
    open_memory: int  # when they were, silent
    peak_memory: int


def measure(bench: Bench, sockets: int, each: float | None, seconds: float) -> Lived:
    """Open the sockets, send on all of them, wait until all was stored, and if at a measured pace, handled."""
    server = "handling" if each else "storing"
    with bench.room() as folder, serving(server, bench, folder, seconds=3 * seconds + load.GRACE) as running:
        idle = running.memory()
        peers = [Peer(running.port, n) for n in range(sockets)]
        time.sleep(0.5)  # for the memory of what has been opened; a server says nowhere that it is at rest
        opened, began = running.memory(), time.monotonic()
        frames = _send(peers, each, began + seconds) if each else _send_all(peers, began + seconds)
        _await_stored(folder, frames)
        rate = frames / (time.monotonic() - began)
        took = _await_handled(folder, frames) if each else []
        peak = running.peak_memory()
        for peer in peers:
            peer.close()
        return Lived(
            sockets=sockets,
            each=each,
            server=server,
            size=len(peers[0].body),
            frames=frames,
            rate=rate,
            p50=quantiles(took, n=100, method="inclusive")[49] if took else None,
            p99=quantiles(took, n=100, method="inclusive")[98] if took else None,
            most=max(took, default=None),
            idle_memory=idle,
            open_memory=opened,
            peak_memory=peak,
        )


def _await_stored(folder: Path, frames: int) -> None:
    """Wait until the lanes have given out as many places as there are frames."""
    with contextlib.closing(sqlite3.connect(folder / "inbox.db")) as database:

        def stored() -> int:
            return int(database.execute("SELECT ifnull(sum(n), 0) FROM dgreceiver_lane").fetchone()[0])

        if not wait_until(lambda: stored() >= frames, load.GRACE):
            raise Failed(f"{stored()} of {frames} frames were stored")


def _await_handled(folder: Path, frames: int) -> list[float]:
    """Wait until each frame was handled; how long each took."""
    ends = Ends.in_folder(folder)
    if not wait_until(lambda: ends.count() >= frames, load.GRACE):
        raise Failed(f"{ends.count()} of {frames} frames were handled")
    took = {end.since: end.at - end.since for end in ends.read()}
    if len(took) != ends.count():
        raise Failed(f"{frames} frames were handled {ends.count()} times")
    return list(took.values())


class Peer:
    """One socket and the frame that it sends. The mask of a frame is zero, so that the payload goes as it is."""

    def __init__(self, port: int, n: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: {AUTHORIZATION}\r\n\r\n".encode()
        )
        if not (answer := self.socket.recv(4096)).startswith(b"HTTP/1.1 101"):
            raise Failed(f"a WebSocket was answered {answer[:200]!r}")
        self.body = live_result(TEXT, request_id=request_id(n, 0), sent=INSTANT).body
        head = bytes([0x81, 0x80 | 126]) + len(self.body).to_bytes(2, "big") + bytes(4)
        self._start, _, self._rest = (head + self.body).partition(INSTANT.encode())

    def send(self, due: float) -> None:
        """Send one frame; wait where the server does not read."""
        self.socket.sendall(self._start + b"%020.9f" % due + self._rest)

    def close(self) -> None:
        self.socket.sendall(bytes([0x88, 0x80, 0, 0, 0, 0]))
        self.socket.close()


def _send(peers: list[Peer], each: float, until: float) -> int:
    """Send on all by a schedule, evenly spread; how many frames."""
    began, sent = time.monotonic(), 0
    pause = 1 / (each * len(peers))
    while (due := began + sent * pause) < until:
        time.sleep(max(0.0, due - time.monotonic()))
        peers[sent % len(peers)].send(due)
        sent += 1
    return sent


def _send_all(peers: list[Peer], until: float) -> int:
    """Send wherever a socket takes more; how many frames."""
    sent = 0
    with select.epoll() as epoll:
        by_fd = {peer.socket.fileno(): peer for peer in peers}
        for fd in by_fd:
            epoll.register(fd, select.EPOLLOUT)
        while time.monotonic() < until:
            for fd, _ in epoll.poll(0.1):
                by_fd[fd].send(time.monotonic())
                sent += 1
    return sent
