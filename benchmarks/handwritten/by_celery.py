"""What a careful user writes by hand: Flask, which gives each callback to Celery through Redis."""

from __future__ import annotations

import json
import os
import time

from celery import Celery
from ends import Ends
from flask import Flask, request
from handwritten.by_flask import check_caller

queue = Celery("bench", broker=f"redis+socket://{os.environ['BENCH_FOLDER']}/redis.sock")
ends = Ends.in_folder(os.environ["BENCH_FOLDER"])
pause = float(os.environ["BENCH_HANDLER_SECONDS"])
queue.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, task_ignore_result=True)


@queue.task
def handle(body: str) -> None:
    document = json.loads(body)
    time.sleep(pause)
    if document["results"]["channels"][0]["alternatives"][0]["transcript"]:
        ends.note(document["metadata"]["request_id"])


def app_in(folder: str) -> Flask:
    app = Flask(__name__)

    @app.post("/")
    def receive() -> dict[str, str]:
        check_caller()
        handle.delay(request.get_data(as_text=True))
        return {"status": "stored"}

    return app
