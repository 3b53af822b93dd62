"""What each process of a test would otherwise do first: imported once, where those processes are forked from."""

from __future__ import annotations

import importlib

from dgreceiver.core.events import parse
from dgreceiver.testing.payloads import BUILDERS

for module in (
    "alembic.command",
    "dgreceiver.inbox.sqlite",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "tests.crash.apps",
    "tests.inbox.process",
    "tests.support",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
):
    importlib.import_module(module)

for kind, build in BUILDERS.items():  # pydantic makes a model ready when it is first used
    payload = build()
    parse(kind, payload.body, payload.headers)
