"""Tests as a user writes them; named so that only .ci/run collects them."""

import httpx
import pytest
from calls import database, receiver

from dgreceiver import Bury
from dgreceiver.testing import transcript, utterance_end
from dgreceiver.testing.serving import served


def test_a_call_is_saved(deliver):
    deliver(receiver, transcript("hello"), context={"call_id": 7})
    assert database.execute("SELECT text FROM call WHERE id = 7").fetchall() == [("hello",)]


def test_silence_is_buried(deliver):
    with pytest.raises(Bury, match="nothing was said"):
        deliver(receiver, transcript(""))


@pytest.mark.anyio
async def test_a_pause_is_saved(deliver):
    await deliver(receiver, utterance_end(2.5))
    assert database.execute("SELECT text FROM call WHERE id IS NULL").fetchall() == [("pause at 2.5",)]


@pytest.mark.anyio
async def test_a_call_is_saved_once_though_the_answer_was_lost(emulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # there the inbox will be
    async with (
        emulator.serve() as deepgram,
        served(receiver) as address,
        httpx.AsyncClient(base_url=deepgram) as client,
    ):
        receiver.public_url = f"{address}/"
        callback = receiver.callback_url({"call_id": 8}, local=True)
        await client.post(
            "/v1/listen",
            params={"callback": callback, "fault": "lost-answer"},
            headers={"authorization": "Token any"},
            json={"url": "https://example.com/a.wav"},
        )
        await emulator.advance(30)
        await receiver.idle()
    assert [attempt.status for attempt in emulator.record.callbacks[0].attempts] == [None, 200]
    assert len(database.execute("SELECT text FROM call WHERE id = 8").fetchall()) == 1


@pytest.fixture
def anyio_backend():
    return "asyncio"
