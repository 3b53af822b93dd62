"""schemathesis asks the door what its description does not foresee; the receiver publishes none, so one stands here."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgreceiver import Limits

from ..support import BASIC, new_receiver, unmeasured
from .servers import listening

TEXT = {"type": "string"}
TAKEN = {
    "type": "object",
    "required": ["status", "request_id"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["stored", "duplicate", "conflict"]},
        "request_id": {"type": ["string", "null"], "minLength": 1, "maxLength": 200},
    },
}
REFUSED = {"type": "object", "required": ["error"], "additionalProperties": False, "properties": {"error": TEXT}}
METADATA = {"type": "object", "properties": {"request_id": {}, "language": {}, "extra": {"type": "object"}}}
MESSAGE = {
    "type": "object",
    "properties": {
        "type": {"enum": ["Results", "Metadata", "UtteranceEnd", "SpeechStarted", "Error", "Other", 1, None]},
        "metadata": METADATA,
        "results": {"type": "object", "properties": {"channels": {}}},
        "err_code": TEXT,
    },
}


def answer(content: dict[str, Any]) -> dict[str, Any]:
    return {"description": "as docs/operations.md has it", "content": {"application/json": {"schema": content}}}


def operation() -> dict[str, Any]:
    bodies = {"application/json": MESSAGE, "application/octet-stream": TEXT, "audio/wav": TEXT, "text/plain": TEXT}
    headers = [
        {"name": name, "in": "header", "schema": TEXT} for name in ("dg-request-id", "dg-token", "content-encoding")
    ]
    refusals = dict.fromkeys(("400", "401", "408", "413", "415", "503"), answer(REFUSED))
    return {
        "parameters": [{"name": "below", "in": "path", "required": True, "schema": TEXT}, *headers],
        "requestBody": {"content": {name: {"schema": schema} for name, schema in bodies.items()}},
        "responses": {"200": answer(TAKEN), **refusals},
        "security": [{"basic": []}],
    }


DESCRIPTION = {
    "openapi": "3.1.0",
    "info": {"title": "the door", "version": "1"},
    "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
    "paths": {"/{below}": {"post": operation(), "put": operation()}},
}
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,ignored_auth,unsupported_method"
)


def asked(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """schemathesis as it is run by hand, with the same dice each time."""
    (folder / "door.json").write_text(json.dumps(DESCRIPTION))
    options = ["--seed=1", "--max-examples=10", "--phases=fuzzing", "--no-color", f"--checks={CHECKS}"]
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "door.json", f"--url={url}", *options]
    credentials = ["--header", f"Authorization: {BASIC}"]
    return subprocess.run(
        [*command, *credentials],
        cwd=folder,
        env=unmeasured(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("server", ["dgreceiver serve", "h11"])
async def test_nothing_that_the_door_answers_is_undescribed(server, tmp_path, caplog):
    receiver = new_receiver(limits=Limits(body=10_000))
    async with listening(receiver, server) as port:
        ended = await asyncio.to_thread(asked, f"http://127.0.0.1:{port}", tmp_path)
    assert (ended.returncode, ended.stdout[-3000:]) == (0, ended.stdout[-3000:])
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
