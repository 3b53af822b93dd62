"""From the messages of a live stream to its transcript."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .callbacks import find_request_id, load_json


def assemble(bodies: Iterable[bytes], *, revision: int = 0) -> bytes | None:
    """The LiveTranscript's own JSON, from the bodies of a stream in order of arrival; None without a request_id."""
    documents = [document for body in bodies if (document := _document(body)) is not None]
    request_id = next((found for each in documents if (found := find_request_id(each))), None)
    if request_id is None:
        return None
    texts = [_text(each) for each in documents if each.get("is_final")]
    complete = any(each.get("type") == "Metadata" for each in documents)
    return msgspec.json.encode(
        {"request_id": request_id, "text": " ".join(texts), "complete": complete, "revision": revision}
    )


def _document(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = load_json(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _text(document: Mapping[str, Any]) -> str:
    try:
        return str(document["channel"]["alternatives"][0]["transcript"])
    except (LookupError, TypeError):
        return ""
