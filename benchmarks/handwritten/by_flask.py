"""What a careful user writes by hand: Flask and sqlite3, committed before it is acknowledged."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from secrets import compare_digest

from flask import Flask, abort, request
from load import PASSWORD, USER


def app_in(folder: str) -> Flask:
    """An app that keeps callbacks in a file of the folder; each of its threads has a connection of its own."""
    app = Flask(__name__)
    local = threading.local()
    path = Path(folder) / "inbox.db"
    with _connected(path) as database:
        database.execute("CREATE TABLE IF NOT EXISTS callback (request_id TEXT PRIMARY KEY, body BLOB NOT NULL)")

    @app.post("/")
    def receive() -> dict[str, str]:
        check_caller()
        body = request.get_data()
        name = json.loads(body)["metadata"]["request_id"]
        if not hasattr(local, "database"):
            local.database = _connected(path)
        with local.database:
            local.database.execute("INSERT OR IGNORE INTO callback VALUES (?, ?)", (name, body))
        return {"status": "stored", "request_id": name}

    return app


def check_caller() -> None:
    sent = request.authorization
    user = sent is not None and compare_digest((sent.username or "").encode(), USER.encode())
    password = sent is not None and compare_digest((sent.password or "").encode(), PASSWORD.encode())
    if not (user and password):
        abort(401)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database
