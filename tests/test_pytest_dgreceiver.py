"""The plugin as a user's pytest loads it: cheap, and of use in every kind of test."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
USE = """
import asyncio
import unittest
import httpx
import pytest
from dgreceiver import NoAuth, Receiver, Transcript
from dgreceiver.testing import deliver as function, transcript

receiver, heard = Receiver(auth=NoAuth(), inbox="memory://"), []

@receiver.on(Transcript)
async def save(said):
    heard.append((said.text, asyncio.get_running_loop()))

def test_sync(deliver):
    deliver(receiver, transcript("sync"))
    assert heard[-1][0] == "sync"

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async(deliver, anyio_backend):
    await deliver(receiver, transcript("async"))
    assert heard[-1] == ("async", asyncio.get_running_loop())

SUBMISSION = {
    "params": {"callback": "http://127.0.0.1:9/", "language": "en"},
    "headers": {"authorization": "Token any"},
    "json": {"text": "hello"},
}

def test_emulator_in_sync(emulator):
    with emulator.running() as url:
        httpx.post(f"{url}/v1/read", **SUBMISSION)
        emulator.wait(lambda: emulator.advance(30))
    assert len(emulator.record.callbacks[0].attempts) == 2

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_emulator_in_async(emulator, anyio_backend):
    async with emulator.serve() as url, httpx.AsyncClient() as client:
        await client.post(f"{url}/v1/read", **SUBMISSION)
        await emulator.advance(30)
    assert len(emulator.record.callbacks[0].attempts) == 2

class TestUnit(unittest.TestCase):
    def test_sync(self):
        function(receiver, transcript("unit"))
        assert heard[-1][0] == "unit"

class TestAsyncUnit(unittest.IsolatedAsyncioTestCase):
    async def test_async(self):
        await function(receiver, transcript("async unit"))
        assert heard[-1] == ("async unit", asyncio.get_running_loop())
"""


def run(*arguments, folder):
    path = f"import sys; sys.path.insert(0, {str(SOURCE)!r});"
    command = [sys.executable, "-c", f"{path} {arguments[0]}", *arguments[1:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_loading_it_imports_nothing_of_the_package(tmp_path):
    look = "import pytest, pytest_dgreceiver; print([name for name in sys.modules if name.startswith('dgreceiver')])"
    assert run(look, folder=tmp_path).strip() == "[]"


def test_it_serves_tests_of_every_kind(tmp_path):
    (tmp_path / "test_use.py").write_text(USE)
    options = ["-q", "-W", "error", *("-p", "no:dgreceiver"), *("-p", "pytest_dgreceiver"), *("-p", "no:cacheprovider")]
    assert "6 passed" in run("import pytest; pytest.main()", *options, folder=tmp_path)
