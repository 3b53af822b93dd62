"""How long a message of a live stream takes from its POST to its handler, stored on disk in between.

Run as `python benchmarks/live.py [STREAMS] [MESSAGES]`: so many streams at once, each of so many messages, one after
the other. Client and server share this process and its interpreter, so the figures are upper bounds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvicorn

from dgreceiver import BasicAuth, LiveResult, LiveTranscript, Receiver, StreamMetadata
from dgreceiver.testing.payloads import live_result, stream_metadata

AUTH = ("deepgram", "fake-password")
HEADERS = {"content-type": "application/json"}


async def measure(folder: Path, streams: int, messages: int) -> tuple[list[float], list[float]]:
    """Seconds from the POST to the handler, and from the POST to its answer."""
    receiver = Receiver(auth=BasicAuth(*AUTH), inbox=f"sqlite:///{folder / 'inbox.db'}")
    sent: dict[str, float] = {}
    handled, answered = list[float](), list[float]()
    receiver.on(LiveTranscript, StreamMetadata)(lambda event: None)

    @receiver.on(LiveResult)
    async def note(event: LiveResult) -> None:
        handled.append(time.perf_counter() - sent[event.text])

    server = uvicorn.Server(uvicorn.Config(receiver, port=0, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    async def stream(name: str) -> None:
        async with httpx.AsyncClient(auth=AUTH, headers=HEADERS) as client:
            for n in range(messages):
                text = f"{name}-{n}"
                body = live_result(text, request_id=name, is_final=True).body
                sent[text] = time.perf_counter()
                await client.post(url, content=body)
                answered.append(time.perf_counter() - sent[text])
            await client.post(url, content=stream_metadata(request_id=name).body)

    await asyncio.gather(*(stream(f"stream {n}") for n in range(streams)))
    await receiver.idle()
    server.should_exit = True
    await serving
    return handled, answered


def shown(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"median {cuts[49] * 1000:6.2f} ms   p99 {cuts[98] * 1000:6.2f} ms   of {len(seconds)}"


def main() -> None:
    streams, messages = (*map(int, sys.argv[1:]), 1, 500)[:2] if len(sys.argv) != 2 else (int(sys.argv[1]), 500)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        handled, answered = asyncio.run(measure(Path(folder), streams, messages))
    print(f"{streams} streams of {messages} messages")
    print(f"POST to answer   {shown(answered)}")
    print(f"POST to handler  {shown(handled)}")


if __name__ == "__main__":
    main()
