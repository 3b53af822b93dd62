"""Paths that are written to be taken for others: the receiver has its own and all below it, the app has the rest."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dgreceiver import CallbackMiddleware
from dgreceiver.testing.payloads import transcript

from ..support import BASIC, entries_of, new_receiver, served

OURS, APP, NOBODY = b"405", b"200", b"400"  # by what is answered to GET; NOBODY: the server refuses the target
PATHS = [
    pytest.param(b"/deepgram", OURS, id="its own"),
    pytest.param(b"/deepgram/", OURS, id="with a slash"),
    pytest.param(b"/deepgram/calls?x=/admin", OURS, id="below it"),
    pytest.param(b"/%64eepgram", OURS, id="spelled in escapes"),
    pytest.param(b"/deepgram%2Fcalls", OURS, id="an escaped slash"),
    pytest.param(b"/deepgram/../admin", OURS, id="out of it by dots"),
    pytest.param(b"/deepgram/%2e%2e/admin", OURS, id="out of it by escaped dots"),
    pytest.param(b"/deepgram/..%2fadmin", OURS, id="out of it by an escaped slash"),
    pytest.param(b"/deepgram//admin", OURS, id="two slashes below it"),
    pytest.param(b"/deepgram/%00", OURS, id="a NUL below it"),
    pytest.param(b"/deepgram/%ff%fe", OURS, id="no UTF-8 below it"),
    pytest.param(b"/deepgram/%e2%80%ae%1b%5b2J", OURS, id="escapes of a terminal below it"),
    pytest.param(b"/deepgram/" + b"a" * 20_000, OURS, id="a long one"),
    pytest.param(b"/deepgramx", APP, id="one that begins like it"),
    pytest.param(b"/deepgram%00", APP, id="it and a NUL"),
    pytest.param(b"/deepgram;x", APP, id="a parameter"),
    pytest.param(b"/deepgram%3fx", APP, id="an escaped question mark"),
    pytest.param(b"/deepgram%23x", APP, id="an escaped fragment"),
    pytest.param(b"/deepgram.", APP, id="a dot behind it"),
    pytest.param(b"/deepgram%20", APP, id="a space behind it"),
    pytest.param(b"//deepgram", APP, id="two slashes before it"),
    pytest.param(b"/./deepgram", APP, id="a dot before it"),
    pytest.param(b"/x/../deepgram", APP, id="into it by dots"),
    pytest.param(b"/x/%2e%2e/deepgram", APP, id="into it by escaped dots"),
    pytest.param(b"/x/deepgram", APP, id="below another"),
    pytest.param(b"/x?/deepgram", APP, id="in a query"),
    pytest.param(b"/DEEPGRAM", APP, id="in capitals"),
    pytest.param("/deepgr\u0430m".encode(), NOBODY, id="with a letter of another script"),
    pytest.param(b"/%64%65%65pgr%61m%2f..%2f..%2fadmin", OURS, id="all at once"),
]


async def app_s_own(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the app's")


async def ask(url: str, method: bytes, target: bytes, body: bytes = b"", host: bytes = b"localhost") -> bytes:
    """The status of the answer to a target as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    head = [method + b" " + target + b" HTTP/1.1", b"host: " + host, b"authorization: " + BASIC.encode()]
    writer.write(b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body]))
    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    return answer.split()[1]


@pytest.mark.parametrize(("target", "whose"), PATHS)
async def test_a_path_is_whose_it_is_however_it_is_written(target, whose):
    receiver = new_receiver()
    inner = Starlette(routes=[Route("/{path:path}", app_s_own)])
    app = CallbackMiddleware(inner, receiver=receiver, path="/deepgram")
    async with served(app, http="httptools") as url:
        assert await ask(url, b"GET", target) == whose


@pytest.mark.parametrize("host", [b"", b"another.example", b"localhost:99999", b"[::1", b"a/b@c", b"\xff"])
async def test_a_host_changes_nothing(host):
    receiver, payload = new_receiver(), transcript()
    async with served(receiver, http="httptools") as url:
        assert await ask(url, b"POST", b"/calls", payload.body, host) == b"200"
        assert [entry.path for entry in await entries_of(receiver)] == ["/calls"]
