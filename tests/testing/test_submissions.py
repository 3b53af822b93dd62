"""What the emulator takes and what it denies, in the documented shapes."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from dgreceiver.testing import Emulator

from .emulating import BODIES, LISTEN, READ, SPEAK, SPEAK_2, TOKEN, submit

PUBLISHED = Path(__file__).parents[3] / "shared" / "payloads" / "errors"
KEYS = {"fake-api-key": "fake-key-id"}
FINE = "http://127.0.0.1:5000/"
QUERY = "INVALID_QUERY_PARAMETER"


@pytest.fixture
async def url():
    async with Emulator(keys=KEYS).serve() as url:
        yield url


async def send(url: str, path: str, content: bytes, content_type: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return await client.post(path, headers={**TOKEN, "content-type": content_type}, content=content)


def shape(content: dict[str, str]) -> set[str]:
    """The fields of an error, its id being one."""
    assert UUID(content["request_id"]).version == 7
    return set(content)


@pytest.mark.parametrize("path", [LISTEN, READ, SPEAK, SPEAK_2])
async def test_a_submission_is_answered_with_an_id_at_once(url, path):
    answer = await submit(url, path, callback=FINE)
    assert (answer.status_code, shape(answer.json())) == (200, {"request_id"})


@pytest.mark.parametrize(
    ("keys", "headers"),
    [
        pytest.param(KEYS, {}, id="none"),
        pytest.param(KEYS, {"authorization": "Token fake-other-key"}, id="another"),
        pytest.param(KEYS, {"authorization": "Token"}, id="empty"),
        pytest.param(KEYS, {"authorization": "Basic fake-api-key"}, id="another scheme"),
        pytest.param(None, {}, id="none where any is good"),
        pytest.param(None, {"authorization": "Token"}, id="empty where any is good"),
        pytest.param(None, {"authorization": "Basic fake-api-key"}, id="another scheme where any is good"),
    ],
)
async def test_without_a_good_key_nothing_is_taken(keys, headers):
    async with Emulator(keys=keys).serve() as url:
        answer = await submit(url, headers=headers, callback=FINE)
    assert (answer.status_code, shape(answer.json())) == (401, {"err_code", "err_msg", "request_id"})
    assert (answer.json()["err_code"], answer.json()["err_msg"]) == ("INVALID_AUTH", "Invalid credentials.")


@pytest.mark.parametrize("scheme", ["Token", "token", "Bearer", "bearer"])
async def test_a_key_may_be_a_token_or_a_bearer(url, scheme):
    assert (await submit(url, headers={"authorization": f"{scheme} fake-api-key"})).status_code == 200


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        pytest.param({"callback": "https://a_b.example.com/"}, QUERY, "Failed to resolve callback.", id="host with _"),
        pytest.param({"callback": "https://h.example.com:5000/"}, QUERY, "Invalid callback url.", id="port"),
        pytest.param({"callback": "wss://h.example.com/"}, QUERY, "Invalid callback url.", id="socket"),
        pytest.param({"callback": "ftp://h.example.com/"}, QUERY, "Invalid callback url.", id="scheme"),
        pytest.param({"callback": "h.example.com"}, QUERY, "Invalid callback url.", id="no scheme"),
        pytest.param({"callback": ""}, QUERY, "Invalid callback url.", id="empty"),
        pytest.param(
            {"callback": FINE, "callback_method": "GET"},
            QUERY,
            "Failed to deserialize query parameters: unknown callback_method `GET`",
            id="method",
        ),
        pytest.param({"fault": "hiccup"}, QUERY, "The emulator: 'hiccup' is no fault; write one of ", id="fault"),
        pytest.param({"model": "no-such-model"}, "Bad Request", "Bad Request: No such model/", id="options"),
    ],
)
async def test_what_cannot_be_done_is_denied_with_the_documented_error(url, query, code, said):
    answer = await submit(url, **query)
    assert (answer.status_code, shape(answer.json())) == (400, {"err_code", "err_msg", "request_id"})
    assert answer.json()["err_code"] == code
    assert answer.json()["err_msg"].startswith(said)


@pytest.mark.parametrize(
    ("callback", "strict", "status"),
    [
        pytest.param("http://localhost:5000/", False, 200, id="this machine"),
        pytest.param("http://receiver:5000/", False, 200, id="this network"),
        pytest.param("http://localhost:5000/", True, 400, id="strictly this machine"),
        pytest.param("http://localhost:8080/", True, 400, id="strictly this machine, on a good port"),
        pytest.param("https://h.example.com:8443/", True, 200, id="strictly public"),
    ],
)
async def test_local_callbacks_are_good_on_any_port_unless_it_is_strict(callback, strict, status):
    emulator = Emulator(strict=strict, faults="late")
    async with emulator.serve() as url:
        assert (await submit(url, callback=callback)).status_code == status


@pytest.mark.parametrize(
    ("path", "content"),
    [
        pytest.param(LISTEN, b"{", id="broken"),
        pytest.param(READ, b"\xff", id="no text"),
        pytest.param(LISTEN, b"[]", id="no object"),
        pytest.param(SPEAK, b"{}", id="field missing"),
        pytest.param(SPEAK, b'{"text": 1}', id="no text in the field"),
        pytest.param(READ, b'{"text": "a", "url": "b"}', id="both"),
    ],
)
async def test_json_that_cannot_be_read_is_denied_in_its_own_shape(url, path, content):
    answer = await send(url, path, content, "application/json")
    assert (answer.status_code, shape(answer.json())) == (400, {"category", "message", "details", "request_id"})
    assert (answer.json()["category"], answer.json()["message"]) == ("INVALID_JSON", "Invalid JSON submitted.")


async def test_audio_is_taken_as_it_is_but_not_without_any(url):
    assert (await send(url, LISTEN, b"RIFF", "audio/wav")).status_code == 200
    assert (await send(url, LISTEN, b"", "audio/wav")).json()["err_msg"] == "Bad Request: no audio was sent."


async def test_a_request_that_is_not_known_is_told_so(url):
    async with httpx.AsyncClient(base_url=url, headers=TOKEN, trust_env=False) as client:
        answer = await client.get("/v1/projects/fake-project/requests/none")
    assert (answer.status_code, answer.json()["err_code"]) == (404, "REQUEST_NOT_FOUND")


async def test_of_a_request_without_a_callback_none_is_told(url):
    async with httpx.AsyncClient(base_url=url, headers=TOKEN, trust_env=False) as client:
        id_ = (await client.post(LISTEN, json=BODIES[LISTEN])).json()["metadata"]["request_id"]
        told = (await client.get(f"/v1/projects/fake-project/requests/{id_}")).json()["request"]
    assert (told["request_id"], told["path"], told["api_key_id"]) == (id_, LISTEN, "fake-key-id")
    assert "callback" not in told


async def test_a_denial_is_recorded_with_its_reason_and_without_the_url():
    emulator = Emulator()
    async with emulator.serve() as url:
        await submit(url, callback="https://user:fake-password@h.example.com:5000/?token=hush")
    [refusal] = emulator.record.refusals
    assert (refusal.status, refusal.path) == (400, LISTEN)
    assert refusal.reason == "callback port 5000 is not one Deepgram calls; use 80, 443, 8080 or 8443"
    assert not [secret for secret in ("fake-", "hush") if secret in emulator.record.json()]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published errors are not beside this repository")
@pytest.mark.parametrize(
    ("name", "query", "headers"),
    [
        ("docs_401_invalid_auth.json", {}, {}),
        ("docs_tts_400_invalid_callback.json", {"callback": "x"}, TOKEN),
    ],
)
async def test_errors_are_those_that_are_published(url, name, query, headers):
    published = json.loads((PUBLISHED / name).read_text())
    answer = (await submit(url, headers=headers, **query)).json()
    assert {**answer, "request_id": published["request_id"]} == published
