"""An app behaves with the receiver in it as it does alone: what it answers, raises, keeps, and does afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from dgreceiver import CallbackMiddleware, Delivery, Event, Limits, Receiver
from dgreceiver.testing.payloads import transcript

from ..support import PASSWORD, USER, calling, living, new_receiver, post, served, until


def alone(app: Starlette) -> ASGIApp:
    return app


def inside(app: Starlette) -> ASGIApp:
    app.add_middleware(CallbackMiddleware, receiver=new_receiver(), path="/deepgram")
    return app


def around(app: Starlette) -> ASGIApp:
    return CallbackMiddleware(app, receiver=new_receiver(), path="/deepgram")


in_every_way = pytest.mark.parametrize("way", [alone, inside, around])


def receiver_that_hears(heard: list[Delivery], **options: Any) -> Receiver:
    receiver = new_receiver(**options)

    @receiver.on(Event)
    async def hear(event: Event, delivery: Delivery) -> None:
        heard.append(delivery)

    return receiver


@asynccontextmanager
async def reached(app: ASGIApp, **config: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that is served."""
    async with served(app, **config) as url, httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD)) as client:
        yield client


# --- the app's own requests


@in_every_way
async def test_an_answer_is_streamed_as_it_is_made(way):
    go = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        await go.wait()
        yield b"two"

    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(parts()))])
    async with reached(way(app)) as client, client.stream("GET", "/") as answer:
        came = answer.aiter_bytes()
        assert await anext(came) == b"one"
        go.set()
        assert await anext(came) == b"two"


@in_every_way
async def test_an_answer_is_no_longer_made_when_its_caller_has_left(way):
    ended = list[str]()

    async def parts() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            ended.append("yes")

    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(parts()))])
    async with reached(way(app)) as client:
        async with client.stream("GET", "/") as answer:
            assert await anext(answer.aiter_bytes()) == b"one"
        await until(lambda: ended)


@in_every_way
async def test_what_is_left_for_afterwards_runs_after_the_answer(way):
    go, done = asyncio.Event(), list[str]()

    async def afterwards() -> None:
        await go.wait()
        done.append("yes")

    app = Starlette(routes=[Route("/", lambda request: Response(background=BackgroundTask(afterwards)))])
    async with reached(way(app)) as client:
        assert (await client.get("/")).status_code == 200
        assert done == []
        go.set()
        await until(lambda: done)


@in_every_way
async def test_what_the_app_raises_stays_what_it_is(way):
    def broken(request: Request) -> Response:
        raise ZeroDivisionError("the app's own fault")

    app = way(Starlette(routes=[Route("/", broken)]))
    async with living(app), calling(app) as client:
        with pytest.raises(ZeroDivisionError, match="the app's own fault"):
            await client.get("/")


@in_every_way
async def test_the_app_answers_for_what_it_raises(way):
    def broken(request: Request) -> Response:
        raise ZeroDivisionError

    def explain(request: Request, error: Exception) -> Response:
        return PlainTextResponse(type(error).__name__, 418)

    app = way(Starlette(routes=[Route("/", broken)], exception_handlers={ZeroDivisionError: explain}))
    async with reached(app) as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.text) == (418, "ZeroDivisionError")


@in_every_way
async def test_a_request_has_the_state_of_the_lifespan_and_its_own(way):
    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, list[str]]]:
        yield {"seen": []}

    async def note(request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.who = request.url.path
        return await call_next(request)

    async def show(request: Request) -> JSONResponse:
        request.state.seen.append(request.state.who)
        return JSONResponse(request.state.seen)

    app = Starlette(
        routes=[Route("/{name}", show)], lifespan=life, middleware=[Middleware(BaseHTTPMiddleware, dispatch=note)]
    )
    async with reached(way(app)) as client:
        await client.get("/one")
        assert (await client.get("/two")).json() == ["/one", "/two"]


@in_every_way
async def test_a_socket_of_the_app_is_the_apps(way):
    closed = list[int]()

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="mine", headers=[(b"x-own", b"yes")])
        try:
            while True:
                await websocket.send_bytes(await websocket.receive_bytes())
        except WebSocketDisconnect as error:
            closed.append(error.code)

    app = way(Starlette(routes=[WebSocketRoute("/socket", echo)]))
    async with served(app) as url:
        async with connect(url.replace("http", "ws") + "/socket", subprotocols=["mine"]) as socket:  # type: ignore[list-item]
            await socket.send(b"\x00\xff")
            assert (await socket.recv(), socket.subprotocol) == (b"\x00\xff", "mine")
            assert socket.response.headers["x-own"] == "yes"
            await socket.close(4321)
        await until(lambda: closed)
    assert closed == [4321]


@in_every_way
async def test_an_app_that_is_mounted_in_mounts_knows_where_it_stands(way):
    async def where(request: Request) -> JSONResponse:
        return JSONResponse([request.url.path, request.scope["root_path"], request.url_for("where").path])

    inner = Starlette(routes=[Route("/own", where, name="where")])
    app = Starlette(routes=[Mount("/api", routes=[Mount("/v1", inner)])])
    async with reached(way(app), root_path="/proxied") as client:
        assert (await client.get("/api/v1/own")).json() == [
            "/proxied/api/v1/own",
            "/proxied/api/v1",
            "/proxied/api/v1/own",
        ]


def a_fastapi(way: Callable[[Starlette], ASGIApp]) -> tuple[FastAPI, ASGIApp]:
    app, router = FastAPI(title="Calls"), APIRouter(prefix="/calls")

    def who(x_who: str = Header()) -> str:
        return x_who

    @router.get("/{number}")
    def show(number: int, name: str = Depends(who)) -> dict[str, object]:
        return {"number": number, "name": name}

    app.include_router(router)
    return app, way(app)


@in_every_way
async def test_the_routers_of_fastapi_are_served_and_validated(way):
    _, app = a_fastapi(way)
    async with reached(app) as client:
        answers = [await client.get(f"/calls/{number}", headers={"x-who": "me"}) for number in ("7", "seven")]
    assert [answer.status_code for answer in answers] == [200, 422]
    assert answers[0].json() == {"number": 7, "name": "me"}


@in_every_way
async def test_the_document_of_fastapi_is_that_of_the_app(way):
    document, app = a_fastapi(way)
    async with reached(app) as client:
        assert (await client.get("/openapi.json")).json() == a_fastapi(alone)[0].openapi()
        assert (await client.get("/docs")).status_code == 200
    assert list(document.openapi()["paths"]) == ["/calls/{number}"]


# --- other middlewares


async def mark(request: Request, call_next: RequestResponseEndpoint) -> Response:
    answer = await call_next(request)
    answer.headers["x-marked"] = "yes"
    return answer


async def read_and_mark(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await request.body()
    return await mark(request, call_next)


@pytest.mark.parametrize("dispatch", [mark, read_and_mark])
@pytest.mark.parametrize(
    ("is_outside", "marked"),
    [
        pytest.param(True, [True, True], id="outside of ours"),
        pytest.param(False, [False, True], id="inside of ours"),
    ],
)
async def test_a_middleware_of_functions_may_stand_on_either_side(dispatch, is_outside, marked):
    heard = list[Delivery]()
    receiver = receiver_that_hears(heard)
    ours = Middleware(CallbackMiddleware, receiver=receiver, path="/deepgram")
    other = Middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app = Starlette(
        routes=[Route("/own", lambda request: PlainTextResponse("own"))],
        middleware=[other, ours] if is_outside else [ours, other],
    )
    async with reached(app) as client:
        answers = [await post(client, transcript(), "/deepgram"), await client.get("/own")]
        await receiver.idle()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ["x-marked" in answer.headers for answer in answers] == marked
    assert len(heard) == 1


class Swallows:
    """Reads the body and keeps it to itself, as some body parsers and loggers do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
        await self._app(scope, receive, send)


@pytest.mark.parametrize(
    ("patience", "reason"),
    [
        pytest.param(20.0, "the body stalled, took too long in all", id="the caller waits"),
        pytest.param(0.1, "the connection ended before the body was whole", id="the caller leaves"),
    ],
)
async def test_a_body_that_somebody_else_has_read_is_refused_with_the_cause(patience, reason):
    limits = Limits(stall_seconds=0.2 if patience > 1 else 20.0)
    receiver = new_receiver(limits=limits)
    app = Swallows(CallbackMiddleware(PlainTextResponse("own"), receiver=receiver, path="/deepgram"))
    async with reached(app) as client:
        client.timeout = httpx.Timeout(patience)
        try:
            assert (await post(client, transcript(), "/deepgram")).status_code == 408
        except httpx.ReadTimeout:
            assert patience < 1
        await until(lambda: receiver.refusals)
    [refusal] = receiver.refusals
    assert refusal.reason.startswith(reason)
    assert "no byte of the body came: something before us may have read it" in refusal.reason


# --- the receiver, deep within


async def test_a_receiver_in_an_app_that_is_mounted_in_mounts_has_its_path_below_them():
    heard = list[Delivery]()
    receiver = receiver_that_hears(heard)
    inner = CallbackMiddleware(PlainTextResponse("own"), receiver=receiver, path="/deepgram")
    app = Starlette(routes=[Mount("/api", routes=[Mount("/v1", inner)])], lifespan=receiver.running)
    async with reached(app, root_path="/proxied") as client:
        answers = [await post(client, transcript(), f"/api/v1/{path}") for path in ("deepgram", "deepgram/x", "other")]
        await receiver.idle()
    assert [answer.text == "own" for answer in answers] == [False, False, True]
    assert [delivery.path for delivery in heard] == ["", "/x"]
