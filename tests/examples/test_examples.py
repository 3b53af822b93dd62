"""The examples as a user starts them: what is submitted by the form is on the page, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from dgreceiver.testing import Emulator
from dgreceiver.testing.clock import Clock

from ..support import LOOK, address, entries_of, in_file, listen, new_receiver, until_state

if not os.environ.get("CI"):  # there they have to be installed
    for needed in ("deepgram", "django", "flask_sqlalchemy", "gunicorn", "python_multipart", "sqlmodel"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"
URL = {"data": {"url": "https://example.com/<b>.wav"}}
FILE = {"files": {"audio": ("<b>.wav", b"RIFF" * 99)}}
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
            return self.browser.get("/").is_success
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


def a_free_address() -> str:
    with listen() as listening:
        return address(listening)


@contextmanager
def running(app: str, folder: Path, deepgram: str) -> Iterator[Example]:
    url = a_free_address()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DATA": str(folder),
        "DEEPGRAM_URL": deepgram,
        "PORT": url.rpartition(":")[2],
        "PUBLIC_URL": f"{url}/deepgram",
    }
    with (folder / "log.txt").open("wb") as log, httpx.Client(base_url=url, trust_env=False) as browser:
        process = subprocess.Popen([EXAMPLES / app / "run"], env=environment, stdout=log, stderr=log, cwd=folder)
        example = Example(browser, folder, process)
        try:
            until(example.is_up)
            yield example
        finally:
            example.stop()


@APPS
@pytest.mark.parametrize("fault", ["duplicate", "lost-answer"])
async def test_what_is_submitted_by_the_form_is_on_the_page_once(app, form, fault, tmp_path):
    emulator = Emulator(faults=fault, clock=Clock(60))
    with emulator.running() as deepgram, running(app, tmp_path, deepgram) as example:
        assert "blockquote" not in example.page().tags
        example.submit(form)
        emulator.wait(emulator.idle)
        assert sum(len(callback.attempts) for callback in emulator.record.callbacks) > 1
        receiver = new_receiver(inbox=in_file(tmp_path))
        await until_state(receiver, "done")
        page = example.page()
        assert (len(page.transcripts), page.tags.count("article"), "b" in page.tags) == (1, 1, False)
        assert example.stop() in (0, -signal.SIGTERM)
    assert len(await entries_of(receiver)) == 1
    assert re.findall("Traceback|ERROR|WARNING", example.log) == []
