"""`dgreceiver serve`: a receiver by itself, behind uvicorn."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from .. import server
from .apps import receiver_of
from .settings import settings

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def serve(
    *,
    app: Annotated[str, typer.Argument(metavar="APP", help="The receiver as module:attribute, such as app:receiver.")],
    host: Annotated[str | None, typer.Option(help="DGRECEIVER_HOST; 127.0.0.1 if not said.")] = None,
    port: Annotated[int | None, typer.Option(help="DGRECEIVER_PORT; 8080 if not said.")] = None,
) -> None:
    """Serve a receiver until SIGTERM; /livez and /readyz tell how it is."""
    given = settings(host=host, port=port)
    logging.getLogger("dgreceiver").setLevel(logging.INFO)
    receiver = receiver_of(app, given)
    logging.basicConfig(format=FORMAT, level=logging.WARNING)  # unless the app has its own idea of logging
    server.serve(receiver, host=given.host, port=given.port)
