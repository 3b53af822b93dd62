"""What a server's 200 is worth, tried: is it on disk by then, is a retry recognised, does it outlive a kill -9?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import load
from bodies import body_of
from ends import Ends
from load import Load
from running import Bench, serving, wait_until
from servers import SERVERS

SIZE = 5_000
DELAY = 300.0  # milliseconds
PATIENCE = 5.0  # seconds
CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen."""

    server: str
    durable: bool | None  # no answer came before a slow fsync had returned; None: there is no compiler to try it
    recognised: bool  # the same callback, sent again, is there once
    acknowledged: int  # by a server that was then killed at once
    found: int  # of those, handled or still there


def prove(bench: Bench, server: str) -> Proof:
    acknowledged, found = _killed(bench, server)
    return Proof(server, _is_durable(bench, server), _is_recognised(bench, server), acknowledged, found)


def _is_durable(bench: Bench, server: str) -> bool | None:
    if bench.shim is None:
        return None
    with bench.room() as folder, serving(server, bench, folder, seconds=PATIENCE, delay=DELAY) as running:
        return load.run(_load(running.port, server, 1, run=1, seconds=1.5), "own").least >= DELAY / 1000


def _is_recognised(bench: Bench, server: str) -> bool:
    with bench.room() as folder:
        with serving(server, bench, folder, seconds=PATIENCE) as running:
            for _ in range(2):  # a load of one request, which is numbered anew in the second
                load.run(_load(running.port, server, 1, run=1, seconds=0.0), "own")
            if SERVERS[server].handles:
                wait_until(lambda: Ends.in_folder(folder).count() > 1, 1.0)
        return _found(server, folder) == 1


def _killed(bench: Bench, server: str) -> tuple[int, int]:
    with bench.room() as folder:
        with serving(server, bench, folder, seconds=PATIENCE, handler=0.2) as running:
            first = load.run(_load(running.port, server, 1, run=1, seconds=0.0), "own")
            burst = load.run(_load(running.port, server, CONNECTIONS, run=2, seconds=0.5), "own")
            running.kill()
        return first.acknowledged + burst.acknowledged, _found(server, folder)


def _load(port: int, server: str, connections: int, *, run: int, seconds: float) -> Load:
    return Load(port, SERVERS[server].wrapped(body_of(SIZE)), connections, seconds, run)


def _found(server: str, folder: Path) -> int:
    kept = SERVERS[server].kept
    return 0 if kept is None else kept(folder)
