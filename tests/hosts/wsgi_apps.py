"""A Flask app and a Django project with a receiver, as gunicorn's workers import them; they work in the current folder.

What handlers do is noted in ledger.txt, a line each: begun or ended, the request_id, the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from wsgiref.types import WSGIApplication

import dgreceiver.inbox.sqlite  # noqa: F401 - else every worker does it, also one that was forked from what is loaded
from dgreceiver import BasicAuth, Event, Receiver, WSGICallbackMiddleware

SLOW = "slow-"  # a request_id that begins so is handled for a while
A_WHILE = 0.3  # seconds


def received(app: WSGIApplication) -> WSGICallbackMiddleware:
    """The app with a receiver."""
    receiver = Receiver(auth=BasicAuth("deepgram", "fake-password"), inbox="sqlite:///inbox.db")
    receiver.on(Event)(save)
    return WSGICallbackMiddleware(app, receiver=receiver, path="/deepgram")


def save(event: Event) -> None:
    note("begun", event)
    if (event.request_id or "").startswith(SLOW):
        time.sleep(A_WHILE)
    note("ended", event)


def note(what: str, event: Event) -> None:
    ledger = os.open("ledger.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, f"{what} {event.request_id} {os.getpid()}\n".encode())
    os.close(ledger)


def numbers() -> Iterator[bytes]:
    yield b"one "
    yield b"two"


def flask() -> WSGIApplication:
    from flask import Flask, Response

    app = Flask(__name__)

    @app.get("/own")
    def own() -> Response:
        return Response(numbers(), mimetype="text/plain")

    @app.get("/broken")
    def broken() -> Response:
        raise ZeroDivisionError("the app's own fault")

    app.wsgi_app = received(app.wsgi_app)  # type: ignore[method-assign]
    return app


def django() -> WSGIApplication:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import FileResponse, HttpRequest, StreamingHttpResponse
    from django.urls import path

    def own(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(numbers(), content_type="text/plain")

    def broken(request: HttpRequest) -> FileResponse:
        raise ZeroDivisionError("the app's own fault")

    routes = (path("own", own), path("broken", broken))
    settings.configure(ROOT_URLCONF=routes, ALLOWED_HOSTS=["*"], SECRET_KEY="fake-secret-key")
    return received(get_wsgi_application())
