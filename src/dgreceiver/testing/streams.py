"""The payloads of a whole live stream, and what a receiver makes of them when it has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from ..core.transcript import assemble
from ..streams import WHOLE
from .payloads import Payload, json_payload, live_result, merged, speech_started, stream_metadata, utterance_end

PAUSE = 1.0  # seconds between utterances


def live_stream(
    text: str = "hello world", *, request_id: str | None = None, extra: Mapping[str, str] | None = None
) -> list[Payload]:
    """All messages of a stream in order, each line of the text an utterance; the last is the Metadata."""
    stream = request_id or str(uuid4())
    return list(_messages(text, stream, extra))


def live_transcript(
    text: str = "hello world",
    *,
    request_id: str | None = None,
    extra: Mapping[str, str] | None = None,
    revision: int = 0,
    **fields: Any,
) -> Payload:
    """The whole of such a stream, as a receiver makes it. Deepgram sends none: it is for `deliver`."""
    bodies = [message.body for message in live_stream(text, request_id=request_id, extra=extra)]
    document = json.loads(assemble(bodies, revision=revision) or b"{}")
    return json_payload(WHOLE, merged(document, fields))


def _messages(text: str, request_id: str, extra: Mapping[str, str] | None) -> Iterator[Payload]:
    at = 0.0
    for line in filter(str.split, text.splitlines()):
        said = live_result(line, request_id=request_id, start=at, extra=extra)
        end = round(at + json.loads(said.body)["duration"], 3)
        yield from (speech_started(at), said, utterance_end(end))
        at = end + PAUSE
    yield stream_metadata(at, request_id=request_id, extra=extra)
