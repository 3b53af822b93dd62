"""What a careful user writes by hand: Django and its ORM over SQLite, committed before it is acknowledged."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from secrets import compare_digest
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from load import PASSWORD, USER

EXPECTED = b"Basic " + b64encode(f"{USER}:{PASSWORD}".encode())
urlpatterns: list[Any] = []


def app_in(folder: str) -> WSGIHandler:
    """An app that keeps callbacks in a file of the folder."""
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": Path(folder) / "inbox.db",
                "CONN_MAX_AGE": None,
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 30,
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
                },
            }
        },
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ALLOWED_HOSTS=["127.0.0.1"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    from django.db import connection, models

    class Callback(models.Model):
        request_id = models.TextField(primary_key=True)
        body = models.BinaryField()

        class Meta:
            app_label = "bench"
            db_table = "callback"

    def receive(request: HttpRequest) -> HttpResponse:
        if not compare_digest(request.headers.get("Authorization", "").encode(), EXPECTED):
            return HttpResponse(status=401)
        name = json.loads(request.body)["metadata"]["request_id"]
        Callback.objects.get_or_create(request_id=name, defaults={"body": request.body})
        return JsonResponse({"status": "stored", "request_id": name})

    urlpatterns.append(path("", receive))
    if "callback" not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Callback)
    connection.close()
    return WSGIHandler()
