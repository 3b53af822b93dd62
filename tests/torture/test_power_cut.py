"""A receiver loses its power at any instant: what it had acknowledged is there, and a repeat of it is a duplicate."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from sqlalchemy import select

from dgreceiver.inbox.rows import read_body
from dgreceiver.inbox.sqlite import SqliteFile
from dgreceiver.inbox.tables import callbacks
from dgreceiver.testing.payloads import Payload, analysis, audio, failure, live_result, transcript

from ..serving import Process, a_process
from ..support import PASSWORD, USER, Facts, Ledger, calling, in_file, new_receiver, post, until
from .disk import Disk

CUTS = int(os.environ.get("POWER_CUTS", "40"))
SYNC = 0.003  # seconds that each takes: whoever answers before its end is caught
CLIENTS, EACH, FRAMES = 6, 20, 60

STORES = f"""
from dgreceiver import BasicAuth, Receiver
receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"), inbox="sqlite:///disk/inbox.db")
"""
HANDLES = (
    STORES
    + f"""
import sys
sys.path.append({str(Path(__file__).parents[2])!r})
from pathlib import Path
from dgreceiver import Delivery, Event
from tests.support import Ledger
ledger = Ledger(Path("."))
@receiver.on(Event)
async def note(event: Event, delivery: Delivery) -> None:
    ledger.note("handled", delivery.key)
"""
)


@dataclass(frozen=True, slots=True)
class Said:
    """What was answered 200, and when by the monotonic clock."""

    at: float
    payload: Payload


def instants(disk: Disk, said: Sequence[Said], dice: random.Random) -> list[float]:
    """When the power may go: half of them right behind an acknowledgement, half behind what is done, of all kinds alike."""
    answered = sorted(each.at for each in said)
    done = defaultdict[tuple[str, str], list[float]](list)
    for operation in disk.operations():
        if answered[0] < operation.ended <= answered[-1]:
            done[operation.kind, operation.name].append(operation.ended)
    return [dice.choice(dice.choice([answered, dice.choice([*done.values()])])) for _ in range(CUTS)]


@dataclass(frozen=True, slots=True)
class Run:
    """What was sent to a receiver on a disk, and what it did."""

    disk: Disk
    acknowledged: Sequence[Said]
    frames: Sequence[str]  # of one WebSocket, which nobody acknowledges
    handled: Mapping[str, float]  # when, by key

    def payloads(self, at: float) -> list[Payload]:
        return [said.payload for said in self.acknowledged if said.at <= at]


@dataclass(frozen=True, slots=True)
class Found:
    """What an inbox holds, by key."""

    bodies: Mapping[str, bytes | None]
    states: Mapping[str, str]


def found_in(folder: Path) -> Found:
    """Open an inbox as the receiver does, and read all that is in it."""
    with (
        closing(SqliteFile(folder / "inbox.db", receiver="default", emit=Facts())) as place,
        closing(place.connect()) as connection,
    ):
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        rows = connection.execute(select(callbacks.c.id, callbacks.c.key, callbacks.c.state)).all()
        return Found({row.key: read_body(connection, row.id) for row in rows}, {row.key: row.state for row in rows})


@contextmanager
def cut(disk: Disk, at: float | None = None, *, seed: int = 0) -> Iterator[Path]:
    """A folder as a power cut would have left it; fsync costs nothing where it is."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        disk.after_power_cut(Path(folder), at, dice=random.Random(seed))
        yield Path(folder)


def lost(disk: Disk, payloads: Sequence[Payload], at: float | None = None, *, seed: int = 0) -> list[Payload]:
    """Which of what was acknowledged a power cut takes."""
    with cut(disk, at, seed=seed) as folder:
        bodies = Counter(found_in(folder).bodies.values())
    return [payload for payload in payloads if bodies[payload.body] == 0]


@contextmanager
def serving(disk: Disk, folder: Path, app: str = STORES) -> Iterator[Process]:
    with pytest.MonkeyPatch.context() as around:
        for name, value in disk.environment.items():
            around.setenv(name, value)
        with a_process(folder, app) as process:
            yield process


def say(process: Process, payload: Payload) -> int:
    """What a callback is answered; 0 if nobody answers."""
    try:
        with httpx.Client(auth=(USER, PASSWORD), verify=False) as client:
            return client.post(process.url, content=payload.body, headers=dict(payload.headers)).status_code
    except httpx.TransportError:
        return 0


async def say_all(process: Process, payloads: Sequence[Payload]) -> list[Said]:
    """One after the other over one connection."""
    said = []
    async with httpx.AsyncClient(base_url=process.url, auth=(USER, PASSWORD), verify=False) as client:
        for payload in payloads:
            answer = await post(client, payload)
            said.append(Said(time.monotonic(), payload))
            assert answer.status_code == 200
    return said


async def stream(process: Process) -> list[str]:
    """A live stream over a WebSocket."""
    frames = [live_result(f"frame {n}", request_id="a stream").body.decode() for n in range(FRAMES)]
    async with process.socket() as socket:
        for frame in frames:
            await socket.send(frame)
            await asyncio.sleep(0)
    return frames


def payloads_of(client: int) -> list[Payload]:
    """Of all kinds and sizes; each client speaks a live stream over HTTP in between."""
    dice, stream = random.Random(client), f"stream {client}"
    small = [
        lambda n: transcript(f"text {n}"),
        lambda n: transcript(*["many words of one channel " * 60] * 2),
        lambda n: analysis(f"summary {n}"),
        lambda n: failure(),
        lambda n: audio(dice.uniform(0.01, 0.5)),
        lambda n: live_result(f"text {n}", request_id=stream),
    ]
    large = [lambda n: audio(30), lambda n: transcript(more=dice.randbytes(700_000).hex())]
    makes = [dice.choice(small) for _ in range(EACH)]
    if client < len(large):
        makes[EACH // 2] = large[client]
    return [make(n) for n, make in enumerate(makes)]


async def a_run(disk: Disk, folder: Path) -> Run:
    disk.slow(sync=SYNC)
    with serving(disk, folder, HANDLES) as process:
        clients = [say_all(process, payloads_of(client)) for client in range(CLIENTS)]
        frames, said = await asyncio.gather(stream(process), asyncio.gather(*clients))
        ledger = Ledger(folder)
        await until(lambda: len(ledger.read()) > CLIENTS * EACH)
    handled = {line["about"]: line["at"] for line in ledger.read()}
    return Run(disk, [each for some in said for each in some], frames, handled)


# --- at any instant


async def test_whenever_the_power_goes_all_that_was_acknowledged_is_there_byte_for_byte(disk, tmp_path):
    run = await a_run(disk, tmp_path)
    for seed, at in enumerate(instants(disk, run.acknowledged, random.Random(1))):
        with cut(disk, at, seed=seed) as folder:
            found = found_in(folder)
            bodies = Counter(found.bodies.values())
            assert Counter(payload.body for payload in run.payloads(at)) <= bodies
            assert {key for key, handled in run.handled.items() if handled <= at} <= found.bodies.keys()
            assert set(found.states.values()) <= {"waiting", "leased", "done"}
            frames = [frame for frame in run.frames if frame.encode() in bodies]
            assert frames == list(run.frames[: len(frames)])
        if seed % 10 == 0:
            with cut(disk, at, seed=seed) as folder:
                assert await repeated(folder, run.payloads(at)) <= {"duplicate"}


async def repeated(folder: Path, payloads: Sequence[Payload]) -> set[str]:
    """What it is answered that all is sent once more, by a receiver that opens what is left."""
    receiver = new_receiver(inbox=in_file(folder))
    async with receiver.running(), calling(receiver) as client:
        return {(await post(client, payload)).json()["status"] for payload in payloads}


async def test_where_syncs_lie_the_same_proof_finds_what_is_lost(disk, tmp_path):
    with serving(disk, tmp_path) as process:
        await say_all(process, [transcript()])
        disk.lying()
        said = await say_all(process, [transcript() for _ in range(10)])
    payloads = [each.payload for each in said]
    assert any(lost(disk, payloads, seed=seed) for seed in range(10))


def test_a_power_cut_while_the_file_is_made_leaves_one_that_opens(disk, tmp_path):
    with serving(disk, tmp_path):
        pass
    for seed, operation in enumerate(random.Random(1).choices(disk.operations(), k=CUTS)):
        with cut(disk, operation.ended, seed=seed) as folder:
            assert found_in(folder) == Found({}, {})


def test_what_was_erased_is_in_no_file_after_a_power_cut(disk, tmp_path):
    names = ["an-id-that-is-erased-beside-a-server", "an-id-that-is-erased-when-none-runs"]
    command = [sys.executable, "-m", "dgreceiver", "inbox", "erase", "--app", "app:receiver", "--yes", "--request-id"]
    erased = []
    with serving(disk, tmp_path) as process:
        for name in names:
            assert say(process, transcript(request_id=name)) == 200
        for name in names:
            subprocess.run([*command, name], cwd=tmp_path, env={**os.environ, **disk.environment}, check=True)
            erased.append((name, time.monotonic()))
            process.child.kill()
            process.child.wait()
    for (name, at), seed in product(erased, range(20)):
        with cut(disk, at, seed=seed) as folder:
            assert [file.name for file in folder.iterdir() if name.encode() in file.read_bytes()] == []


# --- what an acknowledgement costs


async def test_a_lone_client_has_a_sync_for_each_acknowledgement_and_many_share_them(disk, tmp_path):
    disk.slow(sync=0.02)
    with serving(disk, tmp_path) as process:
        before = disk.counts.syncs
        await say_all(process, [transcript() for _ in range(10)])
        alone = disk.counts.syncs - before
        await asyncio.gather(*(say_all(process, [transcript() for _ in range(4)]) for _ in range(25)))
        together = disk.counts.syncs - before - alone
    assert alone >= 10
    assert together < 50  # of 100


async def test_an_acknowledgement_comes_after_the_sync_that_followed_its_write(disk, tmp_path):
    disk.slow(sync=0.02)
    payloads = [audio(0.1, request_id=f"r-{n}") for n in range(8)]
    with serving(disk, tmp_path) as process:
        said = await say_all(process, payloads)
    done = disk.operations()
    for each in said:
        name = each.payload.headers["dg-request-id"].encode()
        written = min(operation.ended for operation in done if name in bytes(operation.data))
        synced = min(operation.ended for operation in done if operation.kind == "sync" and operation.begun > written)
        assert synced < each.at


# --- a disk that fails, a process that dies before its sync


def test_what_cannot_be_written_is_not_acknowledged_and_takes_nothing_that_was(disk, tmp_path):
    said = []
    with serving(disk, tmp_path) as process:
        for fault in 4 * [Disk.full, Disk.failing, Disk.failing_syncs]:
            said += insisted(process, [transcript()])
            fault(disk)
            payload = transcript()
            answers = {say(process, each) for each in [payload, payload, transcript()]}
            assert answers == {503}, fault
            disk.mend()
            said += insisted(process, [payload])
    assert taken_by_cuts(disk, said) == []


def test_what_is_acknowledged_after_syncs_have_failed_is_on_the_disk(disk, tmp_path):
    """Linux says once that it could not write, and takes it as written from then on: another sync is no proof."""
    said = []
    with serving(disk, tmp_path) as process:
        for times in range(8):
            disk.failing_syncs(times=times)
            said += insisted(process, [transcript()])
        process.child.terminate()
        assert process.child.wait(20) == 0
    assert taken_by_cuts(disk, said) == []


def insisted(process: Process, payloads: Sequence[Payload]) -> list[Said]:
    """Each is sent until it is acknowledged."""
    said = []
    for payload in payloads:
        while say(process, payload) != 200:
            pass
        said.append(Said(time.monotonic(), payload))
    return said


def taken_by_cuts(disk: Disk, said: Sequence[Said]) -> list[Payload]:
    """What is lost of what had been acknowledged, by cuts at any instant."""
    taken = list[Payload]()
    for seed, at in enumerate(instants(disk, said, random.Random(1))):
        taken += lost(disk, [each.payload for each in said if each.at <= at], at, seed=seed)
    return taken


def test_what_a_killed_process_has_written_is_on_the_disk_before_its_retry_is_a_duplicate(disk, tmp_path):
    payload = transcript()
    with serving(disk, tmp_path) as process:
        say(process, transcript())
        before = len(disk.operations())
        say(process, transcript())
        kinds = [operation.kind for operation in disk.operations()[before:]]
        disk.die_at(kinds.index("sync") + 1)
        assert say(process, payload) == 0
    assert any(lost(disk, [payload], seed=seed) for seed in range(10))
    with serving(disk, tmp_path) as process:
        assert say(process, payload) == 200
        assert not any(lost(disk, [payload], seed=seed) for seed in range(10))
