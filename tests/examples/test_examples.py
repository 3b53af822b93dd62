"""The examples as a user starts them: what is submitted by the form is on the page, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from dgreceiver import Receiver
from dgreceiver.testing import Emulator
from dgreceiver.testing.clock import Clock

from ..support import LOOK, a_port, entries_of, in_file, new_receiver, unmeasured, until_state
from .browser import page_at

if not os.environ.get("CI"):  # there they have to be installed
    for needed in ("deepgram", "django", "flask_sqlalchemy", "gunicorn", "python_multipart", "sqlmodel"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"
DGRECEIVER = (sys.executable, "-m", "dgreceiver")
ENDED = (0, -signal.SIGTERM)  # uvicorn passes the signal on when it has stopped
URL = {"data": {"url": "https://example.com/<b>.wav"}}
FILE = {"files": {"audio": ("<b>.wav", b"RIFF" * 99)}}
FAULTS = ("duplicate", "lost-answer")  # of one submission after the other: either way a callback comes twice
APPS = pytest.mark.parametrize(
    ("app", "form"),
    [
        pytest.param("flask_app", URL, id="flask"),
        pytest.param("django_app", FILE, id="django"),
        pytest.param("fastapi_app", FILE, id="fastapi"),
    ],
)


class Page(HTMLParser):
    """What a page says: its transcripts, and where its form goes with which hidden fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.transcripts: list[str] = []
        self.action = "/"
        self.hidden: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        if tag == "form":
            self.action = found.get("action") or self.action
        if found.get("type") == "hidden":
            self.hidden[found["name"] or ""] = found["value"] or ""

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1] == "blockquote" and text.strip():
            self.transcripts.append(text.strip())

    def shows_each_once(self) -> None:
        """The recordings, their transcripts, and no markup but the page's own."""
        count = len(FAULTS)
        assert (self.tags.count("article"), len(self.transcripts), self.tags.count("b")) == (count, count, 0)


@dataclass
class Example:
    """An example that runs in a folder of its own, and a browser that looks at it."""

    browser: httpx.Client
    folder: Path
    process: subprocess.Popen[bytes]

    def page(self) -> Page:
        return Page(self.browser.get("/").raise_for_status().text)

    def submit(self, form: dict[str, Any]) -> None:
        page = self.page()
        data = page.hidden | form.get("data", {})
        assert self.browser.post(page.action, **{**form, "data": data}).has_redirect_location

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return bool(self.browser.get("/"))
        except httpx.TransportError:
            return False

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(40)


def until(condition: Callable[[], object], *, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(LOOK)


@contextmanager
def running(command: Sequence[str | Path], folder: Path, **environment: str) -> Iterator[Example]:
    """An example as a process, told by its environment where to listen."""
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        a_port() as port,
        (folder / "log.txt").open("wb") as log,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as browser,
    ):
        told = {"PATH": bin_first, "PYTHONUNBUFFERED": "1", "PORT": str(port), "DGRECEIVER_PORT": str(port)}
        told["PUBLIC_URL"] = f"http://127.0.0.1:{port}/deepgram"
        process = subprocess.Popen(command, env=unmeasured() | told | environment, stdout=log, stderr=log, cwd=folder)
        example = Example(browser, folder, process)
        try:
            until(example.is_up)
            yield example
        finally:
            example.stop()


def an_app(name: str, folder: Path, deepgram: str) -> AbstractContextManager[Example]:
    return running([EXAMPLES / name / "run"], folder, DATA=str(folder), DEEPGRAM_URL=deepgram)


def minimal(folder: Path) -> AbstractContextManager[Example]:
    paths = os.pathsep.join((str(EXAMPLES), os.environ.get("PYTHONPATH", "")))
    return running([*DGRECEIVER, "serve", "minimal:receiver"], folder, PYTHONPATH=paths)


@APPS
async def test_what_is_submitted_by_the_form_is_on_the_page_once(app, form, tmp_path):
    emulator = Emulator(faults=FAULTS, clock=Clock(60))
    receiver = new_receiver(inbox=in_file(tmp_path))  # looks at the app's inbox
    with emulator.running() as deepgram, an_app(app, tmp_path, deepgram) as example:
        assert example.page().transcripts == []
        for _ in FAULTS:
            example.submit(form)
        emulator.wait(emulator.idle)
        await until_state(receiver, "done")
        for submission in emulator.record.submissions:
            assert sum(len(callback.attempts) for callback in submission.callbacks) > 1
        example.page().shows_each_once()
        await handle_again(receiver)
        await looks_right(example)
        assert example.stop() in ENDED
    assert re.findall("Traceback|ERROR|WARNING", example.log) == []


async def looks_right(example: Example) -> None:
    """What a user sees in a real browser: the recordings' names as they were given, and what was said in each, once."""
    page = example.page()
    page.shows_each_once()
    async with page_at(str(example.browser.base_url), example.folder) as seen:
        shown = await seen.shows(lambda text: text.count("<b>.wav") == len(FAULTS))
    for said, times in Counter(map(on_one_line, page.transcripts)).items():
        assert on_one_line(shown).count(said) == times


def on_one_line(text: str) -> str:
    """However a browser has set it."""
    return " ".join(text.split())


async def handle_again(receiver: Receiver) -> None:
    """Have the handler run once more, as if its process had died before its end was noted."""
    for entry in await entries_of(receiver):
        assert await receiver.replay(key=entry.key) == 1
    await until_state(receiver, "done")


def test_the_five_lines_print_what_was_said(tmp_path):
    with minimal(tmp_path) as example:
        url = str(example.browser.base_url).replace("//", "//deepgram:for-development-only@")
        subprocess.run([*DGRECEIVER, "send", "transcript", "--request-id", "r-1", "--to", url], check=True)
        until(lambda: "\nr-1 hello world\n" in example.log)
        assert example.stop() in ENDED
