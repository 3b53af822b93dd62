"""An app as a user writes it: what was said goes into a database. Run by .ci/run with the built wheel."""

import os
import sqlite3

from dgreceiver import Bury, Delivery, Receiver, SignedAuth, Transcript, UtteranceEnd

receiver = Receiver(auth=SignedAuth(os.environ.get("CALLBACK_KEY", "a-key-of-thirty-two-characters-or-more")))
database = sqlite3.connect(":memory:", check_same_thread=False)  # a def runs in a thread
database.execute("CREATE TABLE call (id INTEGER, text TEXT)")


@receiver.on(Transcript)
def save(transcript: Transcript, delivery: Delivery) -> None:
    if not transcript.text:
        raise Bury("nothing was said")
    with database:
        database.execute("INSERT INTO call VALUES (?, ?)", (delivery.context["call_id"], transcript.text))


@receiver.on(UtteranceEnd)
async def pause(end: UtteranceEnd) -> None:
    with database:
        database.execute("INSERT INTO call VALUES (NULL, ?)", (f"pause at {end.last_word_end}",))
