"""The captions of running live streams in a browser, as they come, by server-sent events.

    CALLBACK_PASSWORD=a-long-secret uvicorn --app-dir examples live_captions:app --timeout-graceful-shutdown 2

Submit a stream with callback=ws://deepgram:a-long-secret@HOST:8000/deepgram, and look at http://127.0.0.1:8000/.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from dgreceiver import BasicAuth, CallbackMiddleware, Delivery, LiveResult, LiveTranscript, Receiver

KEPT = 20  # streams that whoever comes later is shown

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Live captions</title>
<style>
  body { font: 1.3rem/1.5 system-ui; margin: 2rem auto; max-width: 45rem; }
  section { border-left: .3rem solid #13ef93; margin: 1rem 0; padding-left: 1rem; }
  section.over { border-color: #999; }
  .interim { color: #888; }
</style>
<h1>Live captions</h1>
<main></main>
<script>
  const streams = {};
  function section(id) {
    if (!streams[id]) {
      const element = document.createElement("section");
      element.append(document.createElement("span"), " ", document.createElement("span"));
      element.lastChild.className = "interim";
      document.querySelector("main").prepend(element);
      streams[id] = element;
    }
    return streams[id];
  }
  new EventSource("captions").onmessage = message => {
    const {stream, text, final, over} = JSON.parse(message.data);
    const element = section(stream), [said, interim] = element.querySelectorAll("span");
    if (over) { element.className = "over"; said.textContent = text; }
    else if (final) said.textContent += " " + text;
    interim.textContent = final || over ? "" : text;
  };
</script>
"""

receiver = Receiver(auth=BasicAuth("deepgram", os.environ["CALLBACK_PASSWORD"]))
streams: dict[str, list[str]] = {}  # what was told of each, in order
listeners: set[asyncio.Queue[str]] = set()


def tell(stream: str | None, text: str, *, final: bool = True, over: bool = False) -> None:
    line = json.dumps({"stream": stream, "text": text, "final": final, "over": over})
    told = streams.setdefault(stream or "", [])
    if over:
        told.clear()
    told.append(line)
    while len(streams) > KEPT:
        del streams[next(iter(streams))]
    for listener in listeners:
        listener.put_nowait(line)


@receiver.on(LiveResult)
async def caption(result: LiveResult, delivery: Delivery) -> None:
    tell(delivery.stream, result.text, final=result.is_final is not False)


@receiver.on(LiveTranscript)
async def end(whole: LiveTranscript, delivery: Delivery) -> None:
    tell(delivery.stream, whole.text, over=True)


async def lines() -> AsyncIterator[str]:
    """What has been told, and then what is being told."""
    listener = asyncio.Queue[str]()
    for line in [line for told in streams.values() for line in told]:
        listener.put_nowait(line)
    listeners.add(listener)
    try:
        while True:
            yield f"data: {await listener.get()}\n\n"
    finally:
        listeners.discard(listener)


async def captions(request: Request) -> StreamingResponse:
    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


app = Starlette(
    routes=[Route("/", page), Route("/captions", captions)],
    middleware=[Middleware(CallbackMiddleware, receiver=receiver, path="/deepgram")],
)
