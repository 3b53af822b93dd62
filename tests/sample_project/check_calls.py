"""Tests as a user writes them; named so that only .ci/run collects them."""

import pytest
from calls import database, receiver

from dgreceiver import Bury
from dgreceiver.testing import transcript, utterance_end


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


@pytest.fixture
def anyio_backend():
    return "asyncio"
