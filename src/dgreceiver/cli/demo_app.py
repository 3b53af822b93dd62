"""The receiver of `dgreceiver demo`: it writes into a ledger what it has handled.

Apart from its oddities, which the demo is about, it is a receiver like any other; it runs in the demo's own folder.
"""

from __future__ import annotations

import json
import os
import time
from hashlib import sha256
from pathlib import Path

from dgreceiver import Delivery, Event, Receiver, RetryPolicy, SignedAuth

KEY = "DGRECEIVER_DEMO_KEY"  # the variable that holds the key with which the demo's URLs are signed
INBOX = "sqlite:///demo.db"
LEDGER = Path("ledger.jsonl")
HOLD = Path("hold")  # while it is there, every handler waits
AWKWARD = {"fails": True}  # the context of what is to fail

receiver = Receiver(auth=SignedAuth(os.environ[KEY]), inbox=INBOX, name="demo", retry=RetryPolicy(first_wait=0.3))


@receiver.on(Event)
def enter(event: Event, delivery: Delivery) -> None:
    """Enter an event into the ledger; at the first attempt, fail on what asks for it."""
    while HOLD.exists():
        time.sleep(0.05)
    if delivery.context == AWKWARD and delivery.attempt == 1:
        write("failed", event, delivery)
        raise RuntimeError("as was asked for")
    write("handled", event, delivery)


def write(what: str, event: Event, delivery: Delivery) -> None:
    line = {
        "what": what,
        "kind": type(event).__name__,
        "digest": sha256(event.raw).hexdigest(),
        "attempt": delivery.attempt,
    }
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps(line) + "\n")
