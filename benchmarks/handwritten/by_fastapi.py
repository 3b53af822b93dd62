"""What a careful user writes by hand: FastAPI and aiosqlite, committed before it is acknowledged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from secrets import compare_digest
from typing import Annotated

import aiosqlite
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from load import PASSWORD, USER


async def deepgram(sent: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    user = compare_digest(sent.username.encode(), USER.encode())
    password = compare_digest(sent.password.encode(), PASSWORD.encode())
    if not (user and password):
        raise HTTPException(401)


def app_in(folder: Path, *, exclusive: bool) -> FastAPI:
    """An app that keeps callbacks in a file of the folder.

    `exclusive`: one request at a time is between INSERT and COMMIT.
    """
    lock = asyncio.Lock() if exclusive else nullcontext()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiosqlite.connect(folder / "inbox.db") as database:
            await database.execute("PRAGMA journal_mode=WAL")
            await database.execute("PRAGMA synchronous=FULL")
            await database.execute(
                "CREATE TABLE IF NOT EXISTS callback (request_id TEXT PRIMARY KEY, body BLOB NOT NULL)"
            )
            await database.commit()
            app.state.database = database
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/", dependencies=[Depends(deepgram)])
    async def receive(request: Request) -> dict[str, str]:
        body = await request.body()
        name = json.loads(body)["metadata"]["request_id"]
        async with lock:
            await app.state.database.execute("INSERT OR IGNORE INTO callback VALUES (?, ?)", (name, body))
            await app.state.database.commit()
        return {"status": "stored", "request_id": name}

    return app
