"""The pytest plugin of dgreceiver: the fixtures `deliver` and `emulator`.

It stands beside the package, since every run of pytest in its environment loads it: to import it from within would
import all of dgreceiver first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from dgreceiver.testing import Delivered, Emulator


@pytest.fixture
def deliver() -> Callable[..., Delivered]:
    """Run a receiver's handlers for a payload: `deliver(receiver, transcript("hello"))`; awaited in an async test."""
    from dgreceiver.testing import deliver

    return deliver


@pytest.fixture
def emulator() -> Emulator:
    """Deepgram's side, not yet served, on a clock that stands still until `emulator.advance(seconds)`."""
    from dgreceiver.testing import Emulator, SteppedClock

    return Emulator(clock=SteppedClock())
