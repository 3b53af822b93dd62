"""An inbox that ends with its process: for tests."""

from __future__ import annotations

from ..facts import Hook
from ..streams import Endings
from .sql import SqlInbox
from .sqlite import SqliteMemory


class MemoryInbox(SqlInbox):
    """The SQL inbox with its tables in this process's memory: the same code, nothing on the disk."""

    def __init__(self, *, receiver: str, emit: Hook, endings: Endings = Endings()) -> None:
        super().__init__(SqliteMemory, receiver=receiver, emit=emit, endings=endings)
