"""A real browser, asked what it shows.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from ..support import LOOK, until

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE = 20.0  # seconds
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "about:blank")


class Page:
    """A page that is open in a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def text(self) -> str:
        """What a user reads there now."""
        question = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": "document.body.innerText"}}
        await self._socket.send(json.dumps(question))
        answer = json.loads(await self._socket.recv())
        return str(answer["result"]["result"].get("value", ""))

    async def shows(self, condition: Callable[[str], object]) -> str:
        """Look until the text is as wanted; the text."""
        async with asyncio.timeout(PATIENCE):
            while not condition(text := await self.text()):  # noqa: ASYNC110 - a page sets no event
                await asyncio.sleep(LOOK)
        return text


@contextmanager
def browser(folder: Path) -> Iterator[Path]:
    """Start a browser; the file to which it writes where it can be asked.

    Where there is none the test is skipped, but in CI it fails.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell(f"no browser to look with; install one of {', '.join(PROGRAMS)}")
    log = folder / "browser.log"
    with log.open("w") as file:
        command = [program, f"--user-data-dir={folder / 'browser'}", *OPTIONS]
        process = subprocess.Popen(command, stderr=file, start_new_session=True)
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the program may be a script that has started the browser
        process.wait()


@asynccontextmanager
async def page_at(url: str, folder: Path) -> AsyncIterator[Page]:
    """Open an address in a browser of its own."""
    with browser(folder) as log:
        await until(lambda: "DevTools listening on" in log.read_text(), within=30)
        [address] = re.findall(r"DevTools listening on ws://([^/]+)/", log.read_text())
        async with httpx.AsyncClient(trust_env=False) as client:
            opened = (await client.put(f"http://{address}/json/new?{url}")).json()
        async with connect(opened["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Page(socket)
