"""A receiver inside another ASGI app: whose path, whose lifespan, and everything else as it was."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dgreceiver import BasicAuth, CallbackMiddleware, Delivery, Event, Receiver, SetupError, Transcript
from dgreceiver.facts import StartedLate
from dgreceiver.testing.payloads import transcript

from ..support import (
    BASIC,
    PASSWORD,
    USER,
    Call,
    Facts,
    a_scope,
    calling,
    living,
    new_receiver,
    piece,
    post,
    served,
    until,
)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.url.path}")


def starlette(receiver: Receiver, path: str = "/deepgram", **options: Any) -> Starlette:
    middleware = [Middleware(CallbackMiddleware, receiver=receiver, path=path)]
    return Starlette(middleware=middleware, routes=[Route("/{rest:path}", hello)], **options)


def heard_by(receiver: Receiver) -> list[Delivery]:
    heard = list[Delivery]()

    async def hear(event: Event, delivery: Delivery) -> None:
        heard.append(delivery)

    receiver.on(Event)(hear)
    return heard


# --- the path


@pytest.mark.parametrize("given", ["/deepgram", "/deepgram/"])
@pytest.mark.parametrize(
    ("path", "below"),
    [
        pytest.param("/deepgram", "", id="the path"),
        pytest.param("/deepgram/", "/", id="with a slash"),
        pytest.param("/deepgram/calls/7", "/calls/7", id="below it"),
        pytest.param("/deepgram2", None, id="what begins like it"),
        pytest.param("/", None, id="the root"),
        pytest.param("/api/deepgram", None, id="elsewhere"),
    ],
)
async def test_the_receiver_takes_its_path_and_all_below_it(given, path, below):
    receiver = new_receiver()
    heard = heard_by(receiver)
    app = starlette(receiver, given)
    async with living(app), calling(app) as client:
        answer = await post(client, transcript(), path)
        await receiver.idle()
    assert [delivery.path for delivery in heard] == ([] if below is None else [below])
    assert answer.status_code == (405 if below is None else 200)  # the app's routes take GET


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        pytest.param("/api", "/api/deepgram/x", "/x", id="as the specification has it"),
        pytest.param("/api/", "/api/deepgram", "", id="with a slash"),
        pytest.param("/api", "/deepgram/x", "/x", id="where a proxy took it off"),
        pytest.param("/api", "/api/other", None, id="elsewhere"),
    ],
)
async def test_the_path_is_one_below_the_root_path(root, path, below):
    receiver = new_receiver()
    heard = heard_by(receiver)
    app = CallbackMiddleware(PlainTextResponse("the app"), receiver=receiver, path="/deepgram")
    async with receiver.running():
        call = await Call(piece(b"{}"))(app, a_scope(path=path, root_path=root))
        await receiver.idle()
    assert [delivery.path for delivery in heard] == ([] if below is None else [below])
    assert (call.sent[1]["body"] == b"the app") == (below is None)


@pytest.mark.parametrize("path", ["", "/", "//", "deepgram", "https://hooks.example.com/deepgram"])
def test_a_path_that_cannot_be_given_away_is_refused(path):
    with pytest.raises(SetupError, match="is no path to give away; write one such as"):
        CallbackMiddleware(PlainTextResponse(), receiver=new_receiver(), path=path)


async def test_fastapi_serves_it_among_its_own_routes():
    receiver = new_receiver()
    heard = heard_by(receiver)
    app = FastAPI()
    app.add_middleware(CallbackMiddleware, receiver=receiver, path="/deepgram")
    app.get("/own")(lambda: {"own": True})
    async with served(app, root_path="/api") as url, httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD)) as client:
        answers = [await post(client, transcript(), path) for path in ("/deepgram", "/deepgram/")]
        own = await client.get("/own")
        await receiver.idle()
    assert [answer.json()["status"] for answer in answers] == ["stored", "stored"]
    assert own.json() == {"own": True}
    assert [delivery.path for delivery in heard] == ["", "/"]


async def test_two_receivers_stand_side_by_side():
    one, two = new_receiver(name="one"), new_receiver(name="two")
    app = starlette(one, "/one")
    app.add_middleware(CallbackMiddleware, receiver=two, path="/two")
    heard = heard_by(one), heard_by(two)
    async with living(app) as said, calling(app) as client:
        for path in ("/one", "/two", "/two"):
            await post(client, transcript(), path)
        await one.idle()
        await two.idle()
    assert [len(each) for each in heard] == [1, 2]
    assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_within_a_mounted_app_it_starts_on_the_first_request():
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    heard = heard_by(receiver)
    app = Starlette(routes=[Mount("/api", starlette(receiver))])
    async with living(app), calling(app) as client:
        answers = [await post(client, transcript(), "/api/deepgram/x"), await client.get("/api/own")]
        await receiver.idle()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [delivery.path for delivery in heard] == ["/x"]
    assert len(facts.of(StartedLate)) == 1
    await receiver._stop()


async def test_mounted_without_a_lifespan_it_takes_the_path_with_a_slash(caplog):
    receiver = new_receiver()
    heard = heard_by(receiver)
    app = Starlette(routes=[Mount("/deepgram", receiver)])
    async with served(app) as url, httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD)) as client:
        answers = [await post(client, transcript(), path) for path in ("/deepgram/", "/deepgram/", "/deepgram")]
        await receiver.idle()
        await receiver._stop()
    assert [answer.status_code for answer in answers] == [200, 200, 307]
    assert [delivery.path for delivery in heard] == ["/", "/"]
    assert caplog.text.count("started on the first request: this app never ran our lifespan") == 1


async def test_plain_uvicorn_serves_it_and_stops_it():
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    heard = heard_by(receiver)
    async with served(receiver, lifespan="on") as url, httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD)) as client:
        await post(client, transcript(), "/any/path?a=1")
        await receiver.idle()
        assert not receiver.is_over
    assert [(delivery.path, delivery.query) for delivery in heard] == [("/any/path", "a=1")]
    assert receiver.is_over
    assert facts.of(StartedLate) == []


# --- lifespans


async def test_the_receiver_starts_after_the_app_and_stops_before_it():
    receiver, seen, go = new_receiver(), list[str](), asyncio.Event()

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        seen.append(f"the app starts, receiver: {receiver._running is not None}")
        yield
        seen.append(f"the app stops, receiver: {receiver._running is not None}")

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        seen.append("a handler begins")
        await go.wait()
        seen.append("a handler ends")

    app = starlette(receiver, lifespan=life)
    async with living(app) as said:
        assert receiver._running is not None
        async with calling(app) as client:
            await post(client, transcript(), "/deepgram")
        await until(lambda: len(seen) == 2)
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert seen == [
        "the app starts, receiver: False",
        "a handler begins",
        "a handler ends",
        "the app stops, receiver: False",
    ]
    assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_state_of_a_lifespan_reaches_the_app():
    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"database": "open"}

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(request.state.database)

    middleware = [Middleware(CallbackMiddleware, receiver=new_receiver(), path="/deepgram")]
    app = Starlette(middleware=middleware, routes=[Route("/", show)], lifespan=life)
    async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/")).json() == "open"


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan here")
    await PlainTextResponse("the app")(scope, receive, send)


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await PlainTextResponse("the app")(scope, receive, send)


async def reads_and_returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
    else:
        await PlainTextResponse("the app")(scope, receive, send)


@pytest.mark.parametrize("app", [raises, returns, reads_and_returns])
async def test_an_app_that_knows_no_lifespan_is_given_the_receivers(app):
    facts = Facts()
    receiver = new_receiver(hooks=[facts])
    heard = heard_by(receiver)
    whole = CallbackMiddleware(app, receiver=receiver, path="/deepgram")
    async with served(whole, lifespan="on") as url, httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD)) as client:
        answers = [await post(client, transcript(), "/deepgram"), await client.get("/")]
        await receiver.idle()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].text == "the app"
    assert len(heard) == 1
    assert receiver.is_over
    assert facts.of(StartedLate) == []


async def test_an_app_that_does_not_start_starts_no_receiver():
    receiver = new_receiver()

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(RuntimeError, match="no database"):
        async with living(starlette(receiver, lifespan=life)) as said:
            assert [message["type"] for message in said] == ["lifespan.startup.failed"]
    assert receiver._running is None
    assert not receiver.is_over


async def test_an_app_that_does_not_stop_well_has_its_receiver_stopped():
    receiver = new_receiver()

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        raise RuntimeError("no goodbye")

    with pytest.raises(RuntimeError, match="no goodbye"):
        async with living(starlette(receiver, lifespan=life)) as said:
            assert not receiver.is_over
    assert said[-1]["type"] == "lifespan.shutdown.failed"
    assert receiver.is_over


async def test_an_app_that_leaves_its_lifespan_early_has_its_receiver_stopped():
    receiver = new_receiver()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async with living(CallbackMiddleware(app, receiver=receiver, path="/deepgram")) as said:
        await until(lambda: receiver.is_over)
    assert [message["type"] for message in said] == ["lifespan.startup.complete"]


@pytest.mark.parametrize("alone", [pytest.param(False, id="in an app"), pytest.param(True, id="by itself")])
async def test_a_receiver_that_does_not_start_fails_the_startup(tmp_path, alone, caplog):
    receiver, seen = new_receiver(inbox=f"sqlite:///{tmp_path}/missing/inbox.db"), list[str]()

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        seen.append("closing")
        await asyncio.sleep(0.02)  # it has something to close, and that takes a while
        seen.append("closed")

    app = receiver if alone else starlette(receiver, lifespan=life)
    async with living(app) as said:
        seen += [message["type"] for message in said]
    assert seen == [*([] if alone else ["closing", "closed"]), "lifespan.startup.failed"]
    assert "the folder of the inbox does not exist: " in said[0]["message"]
    assert len(said) == 1
    assert [record.exc_info for record in caplog.records if record.name == "dgreceiver"] in ([None], [False])


async def test_a_server_ends_when_the_receiver_does_not_start(tmp_path, caplog):
    receiver = new_receiver(inbox=f"sqlite:///{tmp_path}/missing/inbox.db")
    server = uvicorn.Server(uvicorn.Config(starlette(receiver), port=0, log_config=None))
    with pytest.raises(SystemExit):
        await asyncio.to_thread(server.run)
    assert "the folder of the inbox does not exist: " in caplog.text


@pytest.mark.parametrize("alone", [pytest.param(False, id="in an app"), pytest.param(True, id="by itself")])
async def test_whatever_keeps_a_receiver_from_starting_the_server_hears_of_it(alone, caplog):
    receiver = new_receiver(auth=Unready("deepgram", "fake-password"))
    async with living(receiver if alone else starlette(receiver)) as said:
        pass
    assert said == [{"type": "lifespan.startup.failed", "message": "out of luck"}]
    assert "OSError: out of luck" in caplog.text


class Unready(BasicAuth):
    def warnings(self) -> list[str]:
        raise OSError("out of luck")


# --- everything else


async def test_what_is_not_the_receivers_passes_untouched(caplog):
    go = asyncio.Event()

    async def stream(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one "
            await go.wait()
            yield b"two"

        return StreamingResponse(parts())

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="mine")
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    receiver = new_receiver()
    middleware = [Middleware(CallbackMiddleware, receiver=receiver, path="/deepgram")]
    routes = [Route("/stream", stream), WebSocketRoute("/socket", echo)]
    app = Starlette(middleware=middleware, routes=routes)
    async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("GET", "/stream") as answer:
            parts = answer.aiter_bytes()
            assert await anext(parts) == b"one "
            go.set()
            assert await anext(parts) == b"two"
        async with connect(url.replace("http", "ws") + "/socket", subprotocols=["mine"]) as socket:  # type: ignore[list-item]
            await socket.send("héllo")
            assert (await socket.recv(), socket.subprotocol) == ("héllo", "mine")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_websocket_on_the_path_is_the_receivers():
    receiver = new_receiver()
    heard = heard_by(receiver)
    async with served(starlette(receiver)) as url:
        address = url.replace("http://", "ws://")
        with pytest.raises(InvalidStatus) as denied:
            await connect(f"{address}/deepgram/calls")
        assert denied.value.response.status_code == 401
        async with connect(f"{address}/deepgram/calls", additional_headers={"authorization": BASIC}) as socket:
            await socket.send('{"type":"SpeechStarted"}')
            await until(lambda: heard)
    assert (heard[0].path, heard[0].context) == ("/calls", {})
