"""`dgreceiver serve`: a receiver by itself, behind uvicorn."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from .. import server
from .apps import receiver_of
from .output import LogFormatter
from .settings import settings

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def serve(
    *,
    app: Annotated[str, typer.Argument(metavar="APP", help="The receiver as module:attribute, such as app:receiver.")],
    host: Annotated[str | None, typer.Option(help="DGRECEIVER_HOST; 127.0.0.1 if not said.")] = None,
    port: Annotated[int | None, typer.Option(help="DGRECEIVER_PORT; 8080 if not said.")] = None,
    drain: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="DGRECEIVER_DRAIN; for live streams at the end; 120.")
    ] = None,
    reuse_port: Annotated[
        bool | None, typer.Option("--reuse-port", help="DGRECEIVER_REUSE_PORT; share the port with a successor.")
    ] = None,
) -> None:
    """Serve a receiver until SIGTERM, and its live streams until they end; /livez and /readyz tell how it is."""
    given = settings(host=host, port=port, drain=drain, reuse_port=reuse_port)
    logging.getLogger("dgreceiver").setLevel(logging.INFO)
    receiver = receiver_of(app, given)
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)  # unless the app has its own idea of logging
    server.serve(receiver, host=given.host, port=given.port, drain=given.drain, reuse_port=given.reuse_port)
