"""Locks beside an SQLite file: who writes now, and who dispatches until it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from weakref import WeakSet


class FileLock:
    """An exclusive lock that ends with its process, however that ends.

    A fork does not inherit it: the child's copy would keep the lock alive after the parent.

    Source: flock(2); a lock belongs to the open file description, which fork(2) shares.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        _all.add(self)

    def acquire(self) -> None:
        """Wait for the lock."""
        fcntl.flock(self._open(), fcntl.LOCK_EX)

    def try_acquire(self) -> bool:
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the lock and let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Let go of the lock and of its file, which nobody is to have again."""
        self._path.unlink(missing_ok=True)
        self.close()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._file


_all: WeakSet[FileLock] = WeakSet()


def _forget_after_fork() -> None:
    for lock in list(_all):
        lock.close()


os.register_at_fork(after_in_child=_forget_after_fork)
