"""Calling back: what is sent, when it is sent again, and when no more."""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta
from itertools import pairwise

import httpx
import pytest

from dgreceiver.server import listen
from dgreceiver.testing import Emulator, SteppedClock, Timeouts

from ..support import BASIC, PASSWORD, USER, until
from .emulating import LISTEN, READ, RESET, SPEAK, SPEAK_2, TOKEN, a_door, status, stepped, submit, submitted

HALF_MINUTE = timedelta(seconds=30)
QUICK = Timeouts(connect=0.5, response=0.05)


@pytest.mark.parametrize("path", [LISTEN, READ, SPEAK, SPEAK_2])
async def test_the_callback_carries_what_the_synchronous_answer_would(path):
    emulator, _ = stepped()
    async with emulator.serve() as url, a_door() as door:
        answer = await submit(url, path)
        submission = await submitted(emulator, url, path, callback=door.url)
        await emulator.idle()
    [came] = door.came
    alike = answer.content.replace(emulator.record.submissions[0].request_id.encode(), submission.request_id.encode())
    assert (came.line, came.headers["content-type"]) == ("POST / HTTP/1.1", answer.headers["content-type"])
    assert len(came.body) == len(alike)
    assert submission.acknowledged
    assert not emulator.record.submissions[0].callbacks


async def test_what_is_percent_encoded_in_credentials_is_decoded():
    emulator = Emulator()
    async with emulator.serve() as url, a_door() as door:
        await submitted(emulator, url, callback=f"http://us%40er:p%3A%2Fss@127.0.0.1:{door.port}/")
        await emulator.idle()
    assert b64decode(door.came[0].headers["authorization"].removeprefix("Basic ")) == b"us@er:p:/ss"


async def test_the_head_is_that_of_the_one_callback_that_is_public():
    emulator, _ = stepped()
    async with emulator.serve() as url, a_door() as door:
        await submitted(emulator, url, callback=door.url)
        await emulator.idle()
    assert set(door.came[0].headers) == {"host", "accept", "content-type", "content-length"}


@pytest.mark.parametrize("method", ["PUT", "put", "POST", "post"])
async def test_the_method_is_the_one_that_was_asked_for(method):
    emulator, _ = stepped()
    async with emulator.serve() as url, a_door() as door:
        await submitted(emulator, url, callback=f"{door.url}a/b?c=d%20e", callback_method=method)
        await emulator.idle()
    assert door.came[0].line == f"{method.upper()} /a/b?c=d%20e HTTP/1.1"


async def test_credentials_go_from_the_url_into_a_header_and_the_keys_identifier_beside_them():
    emulator = Emulator(keys={"fake-api-key": "fake-key-id"}, dg_token=True)
    async with emulator.serve() as url, a_door() as door:
        await submitted(emulator, url, callback=f"http://{USER}:{PASSWORD}@127.0.0.1:{door.port}/")
        await emulator.idle()
    headers = door.came[0].headers
    assert (headers["authorization"], headers["dg-token"]) == (BASIC, "fake-key-id")
    assert headers["host"] == f"127.0.0.1:{door.port}"


@pytest.mark.parametrize(
    ("answers", "attempts", "acknowledged"),
    [
        pytest.param([], 1, True, id="acknowledged at once"),
        pytest.param([status(204)], 1, True, id="any 2xx will do"),
        pytest.param([status(103) + status(200)], 1, True, id="after hints"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"], 1, True, id="whatever else is said"),
        pytest.param([status(503)] * 9, 10, True, id="the tenth"),
        pytest.param([status(503)] * 10, 11, True, id="the last"),
        pytest.param([status(503)] * 99, 11, False, id="never"),
        pytest.param([status(401), status(404), status(302), b"nonsense\r\n\r\n", b""], 6, True, id="all but 2xx"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + bytes(70_000)], 2, True, id="an endless head"),
        pytest.param([None, None], 3, True, id="no answer"),
        pytest.param([None] * 99, 11, False, id="never any answer"),
        pytest.param([RESET], 2, True, id="a reset"),
    ],
)
async def test_it_comes_again_every_half_minute_until_it_is_acknowledged(answers, attempts, acknowledged):
    emulator, advance = stepped(timeouts=QUICK)
    async with emulator.serve() as url, a_door(*answers) as door:
        submission = await submitted(emulator, url, callback=door.url)
        await advance(3600)
    [outgoing] = submission.callbacks
    assert (len(door.came), len(outgoing.attempts), submission.acknowledged) == (attempts, attempts, acknowledged)
    assert {came.body for came in door.came} == {door.came[0].body}
    times = [attempt.at for attempt in outgoing.attempts]
    assert [after - before for before, after in pairwise(times)] == [HALF_MINUTE] * (attempts - 1)


async def test_a_step_takes_it_no_further_than_the_step():
    emulator, advance = stepped()
    async with emulator.serve() as url, a_door(status(503), status(503)) as door:
        await submitted(emulator, url, callback=door.url)
        seen = []
        for seconds in (0, 29, 1, 30, 300):
            await advance(seconds)
            seen.append(len(door.came))
    assert seen == [1, 1, 2, 3, 3]


async def test_nobody_there_is_an_attempt_like_any_other():
    emulator, advance = stepped()
    with listen("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
    async with emulator.serve() as url:
        submission = await submitted(emulator, url, callback=f"http://127.0.0.1:{port}/")
        await advance(30)
    assert [attempt.status for attempt in submission.callbacks[0].attempts] == [None, None]
    assert submission.callbacks[0].attempts[0].note.startswith("no connection: ")


async def test_a_connection_that_is_not_made_in_time_is_given_up():
    emulator, _ = stepped(timeouts=Timeouts(connect=1e-9))
    async with emulator.serve() as url, a_door() as door:
        submission = await submitted(emulator, url, callback=door.url)
        await until(lambda: submission.callbacks and submission.callbacks[0].attempts)
    assert submission.callbacks[0].attempts[0].note == "no connection within 1e-09 s"


async def test_a_name_that_is_not_known_is_no_connection():
    emulator, advance = stepped()
    async with emulator.serve() as url:
        submission = await submitted(emulator, url, callback="http://no-such-host.invalid/")
        await advance(0)
    assert submission.callbacks[0].attempts[0].note.startswith("no connection: ")


async def test_a_door_that_speaks_no_tls_is_no_connection():
    emulator, advance = stepped()
    async with emulator.serve() as url, a_door() as door:
        submission = await submitted(emulator, url, callback=f"https://127.0.0.1:{door.port}/")
        await advance(0)
    assert submission.callbacks[0].attempts[0].note.startswith("no connection")


async def test_a_redirect_is_not_followed_but_explained():
    emulator, advance = stepped()
    async with emulator.serve() as url, a_door(status(307, headers="location: /elsewhere\r\n")) as door:
        submission = await submitted(emulator, url, callback=door.url)
        await advance(0)
        assert [came.line for came in door.came] == ["POST / HTTP/1.1"]
    [attempt] = submission.callbacks[0].attempts
    assert (attempt.status, attempt.acknowledged) == (307, False)
    assert "add a slash" in attempt.note


async def test_there_are_never_more_in_flight_than_is_said():
    emulator = Emulator(clock=SteppedClock(), in_flight=2)
    async with emulator.serve() as url, a_door() as door:
        for _ in range(8):
            await submitted(emulator, url, callback=door.url, fault="concurrent")
        await emulator.idle()
    assert (len(door.came), door.most_open) == (24, 2)


async def test_what_is_on_its_way_ends_with_the_emulator():
    emulator = Emulator()
    async with emulator.serve() as url, a_door(status(503)) as door:
        await submitted(emulator, url, callback=door.url)
        await until(lambda: door.came)
    await emulator.idle()
    assert len(door.came) == 1


async def test_it_may_be_called_without_a_socket():
    emulator = Emulator()
    transport = httpx.ASGITransport(emulator)
    async with a_door() as door, httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        await client.post("/v1/speak", params={"callback": door.url}, headers=TOKEN, json={"text": "hello"})
        await emulator.idle()
    assert len(door.came) == 1
