"""The apps of other frameworks that servers serve in the tests: `APP=starlette FOLDER=… uvicorn tests.hosts.apps:app`.

Each has the receiver in it in one or two ways; its callbacks are kept in a file for each way, and noted when handled.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from dgreceiver import CallbackMiddleware, Event, Receiver

from ..support import Ledger, new_receiver

WORK = 0.5  # seconds that a handler takes; one at a time, so that whoever sends is soon ahead of them


def a_receiver(folder: Path, way: str, *, work: float = WORK) -> Receiver:
    """The receiver that stands there in this way, over the file that it always has."""
    receiver = new_receiver(name=way, inbox=f"sqlite:///{folder / way}.db", concurrency=1)
    ledger = Ledger(folder)

    @receiver.on(Event)
    async def note(event: Event) -> None:
        await asyncio.sleep(work)
        ledger.note("handled", event.request_id)

    return receiver


def alone(folder: Path) -> ASGIApp:
    return a_receiver(folder, "alone")


def starlette(folder: Path) -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the app")

    mounted = a_receiver(folder, "mounted")
    return Starlette(
        routes=[Route("/own", own), Mount("/mounted", mounted)],
        middleware=[Middleware(CallbackMiddleware, receiver=a_receiver(folder, "middleware"), path="/middleware")],
        lifespan=mounted.running,
    )


def fastapi(folder: Path) -> ASGIApp:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    mounted = a_receiver(folder, "mounted")
    app = FastAPI(lifespan=mounted.running)
    app.mount("/mounted", mounted)
    app.add_middleware(CallbackMiddleware, receiver=a_receiver(folder, "middleware"), path="/middleware")

    @app.get("/own")
    def own() -> PlainTextResponse:
        return PlainTextResponse("the app")

    return app


def litestar(folder: Path) -> ASGIApp:
    from litestar import Litestar, asgi, get

    mounted = a_receiver(folder, "mounted")

    @get("/own", media_type="text/plain", sync_to_thread=False)
    def own() -> str:
        return "the app"

    @asgi("/mounted", is_mount=True, copy_scope=True)
    async def callbacks(scope: Scope, receive: Receive, send: Send) -> None:
        await mounted(scope, receive, send)

    app = Litestar([own, callbacks], lifespan=[mounted.running])
    return CallbackMiddleware(app, receiver=a_receiver(folder, "middleware"), path="/middleware")


def django(folder: Path) -> ASGIApp:
    return CallbackMiddleware(_django(), receiver=a_receiver(folder, "middleware"), path="/middleware")


def django_in_starlette(folder: Path) -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    mounted = a_receiver(folder, "mounted")
    return Starlette(routes=[Mount("/mounted", mounted), Mount("/", _django())], lifespan=mounted.running)


def _django() -> ASGIApp:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def own(request: HttpRequest) -> HttpResponse:
        return HttpResponse("the app")

    class Urls:
        urlpatterns = (path("own", own),)

    settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=Urls, SECRET_KEY="fake")
    return cast(ASGIApp, get_asgi_application())


APPS: dict[str, tuple[Callable[[Path], ASGIApp], tuple[str, ...]]] = {
    "alone": (alone, ("alone",)),
    "starlette": (starlette, ("middleware", "mounted")),
    "fastapi": (fastapi, ("middleware", "mounted")),
    "litestar": (litestar, ("middleware", "mounted")),
    "django": (django, ("middleware",)),
    "django in starlette": (django_in_starlette, ("mounted",)),
}

if "APP" in os.environ:
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")  # as a user would who wants to see our warnings
    app = APPS[os.environ["APP"]][0](Path(os.environ["FOLDER"]))
