"""What handlers have finished: a file to which the processes of a server append, read from outside."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class End:
    """One handler's end. Units: seconds, by the monotonic clock of the machine."""

    at: float
    since: float  # what it was told of: the instant at which that was due, or 0
    number: int  # the last digits of its request_id


class Ends:
    """A file of ends; a record is appended in one write, so none tears."""

    LAYOUT = struct.Struct("=ddQ")

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    @classmethod
    def in_folder(cls, folder: Path | str) -> Self:
        return cls(Path(folder) / "ends")

    def note(self, request_id: str | None, since: float = 0.0) -> None:
        number = int((request_id or "0").replace("-", ""), 16) & 2**64 - 1
        os.write(self._file, self.LAYOUT.pack(time.monotonic(), since, number))

    def count(self) -> int:
        return os.fstat(self._file).st_size // self.LAYOUT.size

    def read(self, start: int = 0) -> Sequence[End]:
        size = self.LAYOUT.size
        data = os.pread(self._file, (self.count() - start) * size, start * size)
        return [End(*fields) for fields in self.LAYOUT.iter_unpack(data)]

    def last(self) -> float:
        """When the last handler ended; 0 if none has."""
        count = self.count()
        return self.read(count - 1)[0].at if count else 0.0

    def distinct(self) -> int:
        """How many requests have been handled, however often each."""
        return len({end.number for end in self.read()})

    def close(self) -> None:
        os.close(self._file)
