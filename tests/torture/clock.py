"""A wall clock that jumps, for processes that are started with it; the steady clocks go on as they are."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class WallClock:
    """The clock of all processes that have this environment."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        self.set(0)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "TORTURE_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Let it be so many seconds later than it is; a negative number is earlier."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))
