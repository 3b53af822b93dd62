"""An event framework of another trade: slack_bolt's async app, which acknowledges and runs a listener in memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from ends import Ends
from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def app_in(folder: Path) -> Starlette:
    """An app that keeps nothing: what it acknowledged is in the memory of a listener. It does not check who calls."""
    bolt = AsyncApp(signing_secret="fake", authorize=_authorize, request_verification_enabled=False)
    handler, ends = AsyncSlackRequestHandler(bolt), Ends.in_folder(folder)
    pause = float(os.environ["BENCH_HANDLER_SECONDS"])

    @bolt.event("deepgram")
    async def listen(body: dict[str, Any]) -> None:
        document = body["callback"]
        if pause:
            await asyncio.sleep(pause)
        if document["results"]["channels"][0]["alternatives"][0]["transcript"]:
            ends.note(document["metadata"]["request_id"])

    async def receive(request: Request) -> Response:
        answer: Response = await handler.handle(request)
        return answer

    return Starlette(routes=[Route("/", receive, methods=["POST"])])


async def _authorize(**_: object) -> AuthorizeResult:
    return AuthorizeResult(enterprise_id=None, team_id="T1", bot_token="xoxb-fake", bot_user_id="B1", bot_id="B1")
