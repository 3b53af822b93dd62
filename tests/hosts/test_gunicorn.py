"""Flask and Django behind gunicorn: delivered once, whatever becomes of its workers, and nothing to see in the log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import httpx
import pytest

from dgreceiver import Event
from dgreceiver.testing.payloads import transcript

from ..support import (
    LOOK,
    PASSWORD,
    USER,
    address,
    deliver,
    entries_of,
    in_file,
    listen,
    new_receiver,
    states_of,
    unmeasured,
)
from .wsgi_apps import SLOW

if not os.environ.get("CI"):  # there they have to be installed
    for needed in ("django", "flask", "gunicorn"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]
GTHREAD = ("--worker-class=gthread", "--threads=8")
LAST = 50  # of a worker's requests, at most
RECYCLED = (f"--max-requests={LAST - 10}", "--max-requests-jitter=10")
HOSTS = [
    pytest.param("flask", 2, RECYCLED, id="flask, sync"),
    pytest.param("flask", 3, (*GTHREAD, *RECYCLED, "--preload"), id="flask, gthread, preloaded"),
    pytest.param("django", 3, (*RECYCLED, "--preload"), id="django, sync, preloaded"),
    pytest.param("django", 2, (*GTHREAD, *RECYCLED), id="django, gthread"),
]


HOOKS = """
def post_worker_init(worker):
    worker.wsgi.start()

def worker_exit(server, worker):
    worker.wsgi.stop()
"""


class Gunicorn:
    """A gunicorn in a folder, and what it and its workers have written there."""

    def __init__(self, folder: Path, app: str, options: Sequence[str]) -> None:
        self._folder = folder
        listening = listen()
        self.url = address(listening)
        command = [sys.executable, "-m", "gunicorn", f"tests.hosts.wsgi_apps:{app}()", "--no-control-socket", *options]
        command += ["--bind", f"fd://{listening.fileno()}", "--chdir", str(folder)]
        environment = unmeasured() | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        with listening, (folder / "log.txt").open("wb") as log:
            self.child = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, pass_fds=[listening.fileno()], cwd=folder
            )

    @property
    def log(self) -> str:
        return (self._folder / "log.txt").read_text()

    def noted(self) -> list[tuple[str, str, int]]:
        """What handlers noted: begun or ended, the request_id, the process."""
        ledger = self._folder / "ledger.txt"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return [(what, about, int(by)) for what, about, by in map(str.split, lines)]

    def ids(self, noted: str) -> Counter[str]:
        return Counter(about for what, about, _ in self.noted() if what == noted)

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(40)


@contextmanager
def a_gunicorn(folder: Path, app: str, options: Sequence[str]) -> Iterator[Gunicorn]:
    gunicorn = Gunicorn(folder, app, options)
    try:
        yield gunicorn
    finally:
        gunicorn.stop()


class Senders(ThreadPoolExecutor):
    """Post as Deepgram does, several at a time: what is not answered with 200 comes again."""

    def __init__(self, url: str) -> None:
        super().__init__(8)
        self._client = httpx.Client(base_url=url, auth=(USER, PASSWORD), timeout=20)
        self.acknowledged = set[str]()

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def send(self, ids: Sequence[str]) -> None:
        list(self.map(self._insist, ids))

    def send_until_nobody_answers(self) -> None:
        for _ in range(8):
            self.submit(self._go_on)

    def _go_on(self) -> None:
        for request_id in (f"late-{id(object())}-{time.monotonic_ns()}" for _ in count()):
            try:
                self._post(request_id)
            except httpx.TransportError:
                return

    def _insist(self, request_id: str) -> None:
        while request_id not in self.acknowledged:
            with suppress(httpx.TransportError):  # a worker ended with the connection
                self._post(request_id)

    def _post(self, request_id: str) -> None:
        answer = self._client.post("/deepgram", json={"request_id": request_id})
        assert answer.status_code == 200
        self.acknowledged.add(request_id)


def until(condition: Callable[[], object], *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(LOOK)


async def handle_the_rest(folder: Path, gunicorn: Gunicorn) -> Counter[str]:
    """How often each callback was handled, when a next process has handled what was left."""
    handled = gunicorn.ids("ended")
    receiver = new_receiver(inbox=in_file(folder))
    receiver.on(Event, name="save")(lambda event: handled.update([event.request_id or ""]))
    async with receiver.running():
        await receiver.idle()
        assert {entry.state for entry in await entries_of(receiver)} <= {"done"}
    return handled


@pytest.mark.parametrize(("app", "workers", "options"), HOSTS)
async def test_each_callback_is_handled_once_though_workers_come_and_go(app, workers, options, tmp_path):
    with a_gunicorn(tmp_path, app, (f"--workers={workers}", *options)) as gunicorn, Senders(gunicorn.url) as senders:
        own = senders.get("/own")
        senders.send([f"r-{n}" for n in range(workers * LAST)])
        senders.send_until_nobody_answers()
        until(lambda: len(senders.acknowledged) > workers * LAST + 20)
        gunicorn.stop()
    handled = await handle_the_rest(tmp_path, gunicorn)
    assert (own.text, own.headers["content-type"].partition(";")[0]) == ("one two", "text/plain")
    assert [line for line in gunicorn.log.splitlines() if "[INFO]" not in line] == []
    assert gunicorn.log.count("Booting worker") > workers
    assert senders.acknowledged - handled.keys() == set()
    assert {request_id: times for request_id, times in handled.items() if times > 1} == {}


@pytest.mark.parametrize("app", ["flask", "django"])
def test_another_worker_takes_over_from_one_that_is_killed(app, tmp_path):
    with a_gunicorn(tmp_path, app, ("--workers=3", "--preload")) as gunicorn, Senders(gunicorn.url) as senders:
        senders.send([f"r-{n}" for n in range(10)])
        senders.send([f"{SLOW}{n}" for n in range(4)])
        until(lambda: gunicorn.ids("begun") - gunicorn.ids("ended"))
        killed = {by for _, _, by in gunicorn.noted()}
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        senders.send(["after"])
        until(lambda: gunicorn.ids("ended").keys() == senders.acknowledged)
        assert senders.get("/broken").status_code == 500  # the app's own fault stays its own
        assert len(killed) == 1
        assert killed < {by for _, _, by in gunicorn.noted()}
    by_others = Counter(about for what, about, by in gunicorn.noted() if what == "ended" and by not in killed)
    assert max(by_others.values()) == 1  # what the killed one had not noted yet runs again


async def test_its_hooks_start_a_receiver_before_the_first_request_and_stop_it(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    async with (before := new_receiver(inbox=in_file(tmp_path))).running():
        await deliver(before, transcript(request_id=f"{SLOW}one"))
    with a_gunicorn(tmp_path, "django", ("--config", "hooks.py")) as gunicorn:
        until(lambda: gunicorn.ids("begun"))
    assert gunicorn.ids("ended") == {f"{SLOW}one": 1}
    assert await states_of(before) == {"done"}
