"""The example with captions, looked at in a real browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

from dgreceiver.testing import Payload, live_result, stream_metadata

from ..support import address, listen, unmeasured
from .browser import page_at

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSWORD = "fake-password"


@contextmanager
def the_example(folder: Path) -> Iterator[str]:
    """Start it as its first lines say, in a folder of its own; its address."""
    with listen() as listening:
        command = ["uvicorn", "--app-dir", str(EXAMPLES), "live_captions:app", "--timeout-graceful-shutdown", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--fd", str(listening.fileno())],
            cwd=folder,
            env={**unmeasured(), "CALLBACK_PASSWORD": PASSWORD},
            pass_fds=[listening.fileno()],
        )
        try:
            httpx.get(address(listening), trust_env=False, timeout=30)
            yield address(listening)
        finally:
            process.terminate()
            process.wait(20)


def text_of(payload: Payload) -> str:
    return payload.body.decode()


async def test_captions_appear_as_they_come_and_the_whole_at_the_end(tmp_path):
    (tmp_path / "later").mkdir()
    with the_example(tmp_path) as url:
        async with page_at(url, tmp_path) as page:
            callback = url.replace("http://", f"ws://deepgram:{PASSWORD}@") + "/deepgram"
            async with connect(callback) as stream:
                await stream.send(text_of(live_result("good mor", request_id="r", is_final=False)))
                await page.shows(lambda text: "good mor" in text)
                await stream.send(text_of(live_result("good <b>morning</b>", request_id="r")))
                await stream.send(text_of(live_result("everybody", request_id="r", start=5.0)))
                shown = await page.shows(lambda text: "everybody" in text)
                assert shown.split() == ["Live", "captions", "good", "<b>morning</b>", "everybody"]
                await stream.send(text_of(stream_metadata(request_id="r")))
            async with page_at(url, tmp_path / "later") as later:
                await later.shows(lambda text: text.split() == shown.split())
