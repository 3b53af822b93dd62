"""Slow clients in great number: a good callback is taken beside them, within a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dgreceiver import Receiver
from dgreceiver.testing.payloads import transcript

from ..serving import a_process
from ..support import BASIC, PASSWORD, USER, in_file, new_receiver, post, serving
from .crowd import crowd, descriptors

MANY = 1000
FEW = 1024  # descriptors of a process whose system was not told otherwise
MIB = 1024 * 1024
APP = f"""
from dgreceiver import BasicAuth, Receiver
receiver = Receiver(auth=BasicAuth("{USER}", "{PASSWORD}"))
"""
TRUSTED = f"POST / HTTP/1.1\r\nhost: localhost\r\nauthorization: {BASIC}\r\n".encode()
STRANGE = b"POST / HTTP/1.1\r\nhost: localhost\r\n"


def storing(folder: Path) -> Receiver:
    return new_receiver(inbox=in_file(folder))


@pytest.fixture(scope="module", params=["dgreceiver serve", "plain uvicorn"])
def port(request, tmp_path_factory) -> Iterator[int]:
    """Where a server listens, a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    with descriptors(3 * MANY):
        if request.param == "dgreceiver serve":
            with a_process(folder, APP) as process:
                yield process.port
        else:
            with serving(storing, folder) as (listening, _):
                yield listening.getsockname()[1]


SLOW = [
    pytest.param(TRUSTED + b"content-length: %d\r\n\r\n{" % (64 * MIB), b" ", id="a body of 64 MiB that is admitted"),
    pytest.param(TRUSTED + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n", id="a body in chunks"),
    pytest.param(STRANGE + b"content-length: %d\r\n\r\n{" % (64 * MIB), b" ", id="a stranger's body"),
    pytest.param(STRANGE + b"x: ", b"a", id="half a header"),
    pytest.param(b"", b"", id="nothing"),
    pytest.param(2 * (STRANGE + b"content-length: 0\r\n\r\n"), b"", id="requests whose answers nobody reads"),
]


@pytest.mark.parametrize(("opening", "drip"), SLOW)
async def test_a_good_callback_is_taken_within_a_second_beside_a_thousand_slow_ones(port, opening, drip):
    async with crowd(port, MANY, opening, drip=drip, reads=drip != b""):
        await callbacks(port, 1)  # behind all that they have said first
        assert [status for status, seconds in await callbacks(port, 5) if seconds < 1.0] == [200] * 5


async def callbacks(port: int, many: int) -> list[tuple[int, float]]:
    """The status of each and the seconds to its answer, over a connection of its own."""
    answers = []
    for _ in range(many):
        begun = time.monotonic()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", auth=(USER, PASSWORD), trust_env=False
        ) as client:
            answer = await post(client, transcript(), timeout=20.0)
        answers.append((answer.status_code, time.monotonic() - begun))
    return answers
