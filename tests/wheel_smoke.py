"""Use the installed wheel as the README does: no source, no extra, no test tool. Run by .ci/run, not by pytest."""

import asyncio
import json
import sys
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from urllib.request import Request, urlopen

import uvicorn

import dgreceiver
from dgreceiver import BasicAuth, Receiver, Transcript

BODY = {
    "metadata": {"request_id": "2c3f2c0e-5a0b-4b0a-9f6e-0f1d2c3b4a59", "duration": 1.0, "channels": 1},
    "results": {"channels": [{"alternatives": [{"transcript": "hello", "confidence": 0.9, "words": []}]}]},
}

receiver = Receiver(auth=BasicAuth("deepgram", "a long secret"))
heard: list[str] = []


@receiver.on(Transcript)
async def save(transcript: Transcript) -> None:
    heard.append(transcript.text)


def check_what_was_installed() -> None:
    package = files("dgreceiver")
    assert Path(dgreceiver.__file__).is_relative_to(sys.prefix), f"{dgreceiver.__file__} is not what was installed"
    assert package.joinpath("py.typed").is_file(), "the wheel has no py.typed"
    versions = package.joinpath("inbox", "migrations", "versions")
    assert any(each.name.endswith(".py") for each in versions.iterdir()), "the wheel has no migrations"


def post(port: int) -> str:
    credentials = b64encode(b"deepgram:a long secret").decode()
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
    with urlopen(Request(f"http://127.0.0.1:{port}/", json.dumps(BODY).encode(), headers), timeout=10) as answer:
        status: str = json.load(answer)["status"]
    return status


async def main() -> None:
    check_what_was_installed()
    server = uvicorn.Server(uvicorn.Config(receiver, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    answers = [await asyncio.to_thread(post, port) for _ in range(2)]
    await receiver.idle()
    server.should_exit = True
    await serving
    assert answers == ["stored", "duplicate"], answers
    assert heard == ["hello"], heard


if __name__ == "__main__":
    asyncio.run(main())
