"""What processes have done to a folder, as disk.c has written it down."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import Struct
from typing import Literal

NANOSECONDS = 1_000_000_000

Kind = Literal["write", "truncate", "sync", "sync folder", "create", "make folder", "remove", "rename"]
KINDS: tuple[Kind, ...] = ("write", "truncate", "sync", "sync folder", "create", "make folder", "remove", "rename")
RECORD = Struct("9q")  # `struct record` of disk.c


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a process did to the folder, or tried to. Units: seconds of CLOCK_MONOTONIC."""

    kind: Kind
    name: str  # below the folder; of the folder itself ""
    inode: int
    born: int  # nanoseconds since 1970: when the inode became this file
    begun: float
    ended: float  # infinite: not yet, or never, for its process was killed
    error: int  # errno, or 0
    offset: int  # of a write; the size of a truncate
    data: memoryview  # what was written; the new name of a rename
    pid: int

    @property
    def has_ended(self) -> bool:
        return self.ended < math.inf


class Journal:
    """The journal of one process, which may still be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = int(path.name.split("-")[0])
        self._text = memoryview(b"")
        self._known: list[Operation] = []  # up to the first that had not ended when it was read last
        self._position = 0  # of that one

    def read(self) -> list[Operation]:
        """All operations, in the order in which they began."""
        self._map()
        position, latest = self._position, list[Operation]()
        while found := self._at(position):
            operation, position = found
            latest.append(operation)
            if operation.has_ended and len(latest) == 1:
                self._known.append(latest.pop())
                self._position = position
        return self._known + latest

    def _at(self, position: int) -> tuple[Operation, int] | None:
        """The operation at a position, and the position of the next; None if it is not there, or not whole."""
        start = position + RECORD.size
        if start > len(self._text):
            return None
        kind, begun, ended, result, inode, born, offset, length, named = RECORD.unpack_from(self._text, position)
        name, data = self._text[start : start + named], self._text[start + named : start + named + length]
        if len(name) + len(data) < named + length:
            return None
        operation = Operation(
            kind=KINDS[kind - 1],
            name=str(name, "utf-8"),
            inode=inode,
            born=born,
            begun=begun / NANOSECONDS,
            ended=ended / NANOSECONDS if ended else math.inf,
            error=max(0, -result),
            offset=offset,
            data=data[:result] if KINDS[kind - 1] == "write" and ended and result >= 0 else data,
            pid=self._pid,
        )
        return operation, start + named + length

    def _map(self) -> None:
        with self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > len(self._text):
                self._text = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
