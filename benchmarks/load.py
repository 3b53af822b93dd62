"""The load: a closed loop of keep-alive connections, or an open one by a schedule, by a client of our own.

`wrk` may run the closed loop instead, to check our client against.
"""

from __future__ import annotations

import gc
import json
import resource
import select
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from bodies import PLACEHOLDER, request_id

USER, PASSWORD = "deepgram", "a long secret of the benchmark"
AUTHORIZATION = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
GRACE = 60.0  # seconds that answers may take after the load has ended

Client = Literal["wrk", "own"]


class LoadError(Exception):
    """The server gave an answer other than 200, or none."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send where. Units: seconds."""

    port: int
    body: bytes
    connections: int  # at the beginning; an open loop takes more if none of them is free
    seconds: float
    run: int  # makes its request_ids differ from those of any other load
    rate: float | None = None  # requests a second, in an open loop
    refusable: bool = False  # other answers than 200 are counted, else they end the run


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a load. Units: seconds."""

    acknowledged: int  # every 200, those after the end included
    rate: float  # answers a second
    p50: float
    p99: float
    least: float
    busy: float  # share of its core that the client used
    ended: float  # when the last answer came, by the monotonic clock
    refused: int = 0
    most: float = 0.0


def run(load: Load, client: Client) -> Measured:
    """Load a server that is up.

    Raises: LoadError if anything but 200 came.
    """
    return _run_wrk(load) if client == "wrk" else _run_own(load)


def _run_wrk(load: Load) -> Measured:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(load.body)
        file.flush()
        first = request_id(load.run, 0)
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(load.seconds))}s", "--timeout", "60s"]
        command += ["-s", str(Path(__file__).with_name("wrk.lua")), f"http://127.0.0.1:{load.port}/"]
        command += ["--", file.name, PLACEHOLDER, first, AUTHORIZATION]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, timeout=load.seconds + GRACE, check=False)
        ended = time.monotonic()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout.partition("RESULT ")[2]
    if done.returncode or not said:
        raise LoadError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    result = json.loads(said)
    if result["refused"] or result["broken"]:
        raise LoadError(f"wrk saw {result['refused']} answers over 399 and {result['broken']} broken connections")
    if not result["requests"]:
        raise LoadError(f"wrk had no answer within {load.seconds:g} s; use --client own")
    wall = result["microseconds"] / 1e6
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(
        acknowledged=result["requests"],
        rate=result["requests"] / wall,
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        least=result["least"] / 1e6,
        busy=used / wall,
        ended=ended,
    )


@dataclass(slots=True)
class _Connection:
    """One of the loop's connections and what it has still to send."""

    socket: socket.socket
    fd: int
    unsent: deque[memoryview] = field(default_factory=deque)
    began: float = 0.0
    answer: bytes = b""


class _Loop:
    """Bare sockets on one epoll: a request costs a `sendmsg`, a `recv` and three small objects, whatever its size."""

    def __init__(self, load: Load) -> None:
        head = (
            f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nAuthorization: {AUTHORIZATION}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(load.body)}\r\n\r\n"
        )
        start, _, rest = load.body.partition(PLACEHOLDER.encode())
        self.load = load
        self.start, self.rest = head.encode() + start, rest
        self.length = len(self.start) + len(PLACEHOLDER) + len(rest)
        self.sent = 0
        self.refused = 0
        self.took: list[float] = []
        self.epoll = select.epoll()
        self.open: dict[int, _Connection] = {}

    def __enter__(self) -> Self:
        for _ in range(self.load.connections):
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.open.values():
            connection.socket.close()
        self.epoll.close()

    def _connect(self) -> _Connection:
        sock = socket.create_connection(("127.0.0.1", self.load.port), timeout=10)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self.open[sock.fileno()] = _Connection(sock, sock.fileno())
        self.epoll.register(sock, select.EPOLLIN)
        return connection

    def as_answered(self, until: float) -> float:
        """Send the next as soon as there is an answer, until `until`, then wait for what is out; when the last came."""
        for connection in list(self.open.values()):
            self._begin(connection, time.monotonic())
        busy, now = len(self.open), time.monotonic()
        while busy:
            self._check_patience(busy, until)
            for connection in self._answered(1.0):
                now = time.monotonic()
                if now < until:
                    self._begin(connection, now)
                else:
                    busy -= 1
        return now

    def by_schedule(self, rate: float, until: float) -> float:
        """Send `rate` a second by a schedule, whatever comes back; when the last answer came.

        Each is timed from the instant at which it was due, so one that had to wait to be sent is not told too fast.
        """
        began = now = time.monotonic()
        total, idle = round(rate * (until - began)), deque(self.open.values())
        while len(self.took) + self.refused < total:
            self._check_patience(self.sent - len(self.took) - self.refused, until)
            while self.sent < total and (due := began + self.sent / rate) <= time.monotonic():
                self._begin(idle.popleft() if idle else self._connect(), due)
            wait = began + self.sent / rate - time.monotonic() if self.sent < total else 1.0
            for connection in self._answered(max(0.0, wait - 0.001)):  # epoll is a millisecond late
                now = time.monotonic()
                idle.append(connection)
        return now

    def _check_patience(self, out: int, until: float) -> None:
        if time.monotonic() > until + GRACE:
            raise LoadError(f"{out} requests had no answer {GRACE:.0f} s after the load ended")

    def _answered(self, wait: float) -> Iterator[_Connection]:
        """Send what can be sent, read what came; the connections that are free for another request."""
        for fd, event in self.epoll.poll(wait):
            connection = self.open[fd]
            try:
                if event & select.EPOLLOUT:
                    self._send(connection)
                head = self._receive(connection) if event & ~select.EPOLLOUT else b""
            except ConnectionError:
                if not self.load.refusable:
                    raise
                head = b"connection: close"  # it refused and did not wait until all was sent
            if head:
                self._count(head, connection)
                yield (
                    self._again(connection) if b"connection: close" in head.lower() or connection.unsent else connection
                )

    def _count(self, head: bytes, connection: _Connection) -> None:
        if head.startswith(b"HTTP/1.1 200"):
            self.took.append(time.monotonic() - connection.began)
        else:
            self.refused += 1

    def _again(self, connection: _Connection) -> _Connection:
        del self.open[connection.fd]
        connection.socket.close()
        return self._connect()

    def _begin(self, connection: _Connection, due: float) -> None:
        self.sent += 1
        connection.began = due
        parts = (self.start, request_id(self.load.run, self.sent).encode(), self.rest)
        try:
            sent = connection.socket.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        if sent < self.length:
            for part in parts:
                if sent < len(part):
                    connection.unsent.append(memoryview(part)[sent:])
                sent = max(0, sent - len(part))
            self.epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _send(self, connection: _Connection) -> None:
        unsent = connection.unsent
        try:
            sent = connection.socket.send(unsent[0])
        except BlockingIOError:
            return
        unsent[0] = unsent[0][sent:]
        if not unsent[0]:
            unsent.popleft()
        if not unsent:
            self.epoll.modify(connection.socket, select.EPOLLIN)

    def _receive(self, connection: _Connection) -> bytes:
        """Take what came; the head of the answer once that is whole."""
        came = connection.socket.recv(65536)
        answer = connection.answer + came
        end = answer.find(b"\r\n\r\n")
        good = answer.startswith(b"HTTP/1.1 200") and not connection.unsent
        if not came or (end >= 0 and not good and not self.load.refusable):
            raise LoadError(f"a request was answered {answer[:200]!r}")
        if end < 0 or len(answer) < end + 4 + _content_length(answer[:end]):
            connection.answer = answer
            return b""
        connection.answer = b""
        return answer[:end]


def _content_length(head: bytes) -> int:
    _, found, value = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise LoadError(f"an answer without Content-Length: {head[:200]!r}")
    return int(value.partition(b"\r\n")[0])


def _run_own(load: Load) -> Measured:
    with _Loop(load) as loop:
        gc.disable()
        try:
            began, used = time.monotonic(), time.process_time()
            until = began + load.seconds
            ended = loop.as_answered(until) if load.rate is None else loop.by_schedule(load.rate, until)
            used = time.process_time() - used
        except OSError as error:
            raise LoadError(f"a connection broke: {error}") from error
        finally:
            gc.enable()
    took = sorted(loop.took)
    if not took:
        raise LoadError(f"all {loop.refused} requests were refused")
    return Measured(
        acknowledged=len(took),
        rate=len(took) / (ended - began),
        p50=took[len(took) // 2],
        p99=took[min(len(took) - 1, len(took) * 99 // 100)],
        least=took[0],
        busy=used / (ended - began),
        ended=ended,
        refused=loop.refused,
        most=took[-1],
    )
