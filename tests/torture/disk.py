"""A folder whose disk does what a test says: it is full, it fails, it is slow, it lies, its power goes."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from mmap import mmap
from pathlib import Path

from .journal import NANOSECONDS, Journal, Operation
from .platter import Base, Platter

SOURCE = Path(__file__).with_name("disk.c")
FAULTS = ("write_error", "sync_error", "sync_errors", "write_delay", "sync_delay", "lying", "die_in")
COUNTERS = ("writes", "syncs", "bytes")


class NoCompiler(Exception):
    """There is no C compiler here to build the library with."""


class Control(ctypes.Structure):
    """`struct control` of disk.c, which the processes see as well."""

    _fields_ = [(name, ctypes.c_int64) for name in (*FAULTS, *COUNTERS)]


@dataclass(frozen=True, slots=True)
class Counts:
    """What went well since the disk was made."""

    writes: int
    syncs: int
    bytes: int


class Disk:
    """A folder whose disk does what a test says, for the processes that are started with `environment`.

    What stands in the folder at the beginning is on the disk. A process writes a journal into `work`.

    Raises: NoCompiler if the library cannot be built.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder = folder.resolve(strict=True)
        self._library = build()
        self._controls = work.resolve(strict=True) / "disk-control"
        self._notes = self._controls.with_name("disk-journals")
        self._control = _mapped(self._controls)
        self._begin()

    @property
    def environment(self) -> dict[str, str]:
        """What a process is to be started with, besides its own."""
        before = os.environ.get("LD_PRELOAD")
        return {
            "LD_PRELOAD": f"{self._library}:{before}" if before else str(self._library),
            "DISK_FOLDER": str(self._folder),
            "DISK_CONTROL": str(self._controls),
            "DISK_JOURNAL": str(self._notes),
        }

    # --- what goes wrong from now on, also in processes that run ---

    def full(self) -> None:
        """There is no room for what is written."""
        self._control.write_error = errno.ENOSPC

    def failing(self) -> None:
        """Nothing can be written."""
        self._control.write_error = errno.EIO

    def failing_syncs(self, *, times: int = -1) -> None:
        """The next syncs fail, or all; of what one was to bring to the disk any part is lost for ever."""
        self._control.sync_error = errno.EIO
        self._control.sync_errors = times

    def slow(self, *, sync: float = 0.0, write: float = 0.0) -> None:
        """Each takes longer. Units: seconds."""
        self._control.sync_delay = int(sync * NANOSECONDS)
        self._control.write_delay = int(write * NANOSECONDS)

    def lying(self) -> None:
        """Syncs do nothing, and say that they have."""
        self._control.lying = 1

    def mend(self) -> None:
        """All is as it should be again."""
        for fault in FAULTS:
            setattr(self._control, fault, 0)

    def die_at(self, operation: int) -> None:
        """Kill the process that is about to begin the n-th operation from now; the next one is 1."""
        self._control.die_in = operation

    # --- what was done ---

    @property
    def counts(self) -> Counts:
        return Counts(*(getattr(self._control, counter) for counter in COUNTERS))

    def operations(self) -> list[Operation]:
        """What all processes did since the beginning or the last cut, in the order in which it began."""
        for path in self._notes.iterdir():
            self._journals.setdefault(path, Journal(path))
        done = [self._as_it_ended(each) for journal in self._journals.values() for each in journal.read()]
        return sorted(done, key=lambda operation: operation.begun)

    def _as_it_ended(self, operation: Operation) -> Operation:
        """What a process did not mark as ended, for it was killed, has ended if the folder shows it."""
        if operation.has_ended or not self._shows(operation):
            return operation
        return replace(operation, ended=operation.begun)

    def _shows(self, operation: Operation) -> bool:
        path = self._folder / operation.name
        match operation.kind:
            case "write":
                return path.exists() and _read(path, operation.offset, len(operation.data)) == operation.data
            case "make folder" | "create":
                return path.exists()
            case "remove" | "rename":
                return not path.exists()
            case _:
                return False

    # --- the power cut ---

    def after_power_cut(self, target: Path, at: float | None = None, *, dice: random.Random) -> None:
        """Make in `target` what the disk would hold had its power gone at an instant of the monotonic clock, or now.

        All that was synced before, and of the rest any part, torn between sectors.
        """
        platter = Platter(self._base, until=time.monotonic() if at is None else at, dice=dice)
        for operation in self.operations():
            platter.take(operation)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in platter.cut():
            if content is None:
                (target / name).mkdir()
            else:
                (target / name).write_bytes(content)

    def cut(self, *, dice: random.Random) -> None:
        """Cut the power now, in place; all processes are dead. What is left is the beginning of what comes."""
        left = self._notes.with_name("disk-left")
        self.after_power_cut(left, dice=dice)
        for path in self._folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(left, self._folder, dirs_exist_ok=True)
        shutil.rmtree(left)
        self._begin()

    def _begin(self) -> None:
        """Take what stands in the folder as synced."""
        shutil.rmtree(self._notes, ignore_errors=True)
        self._notes.mkdir()
        self._journals: dict[Path, Journal] = {}
        self._base = Base.of(self._folder)


def build(folder: Path = SOURCE.parent / "__pycache__", *, compilers: str | None = None) -> Path:
    """The library, which is built once; `compilers` are looked for there instead of in PATH.

    Raises: NoCompiler if there is none, or it cannot.
    """
    library = folder / f"disk-{sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if not library.exists():
        compiler = shutil.which("cc", path=compilers) or shutil.which("gcc", path=compilers)
        if compiler is None:
            raise NoCompiler("there is no C compiler; install gcc and libc6-dev, or what they are called here")
        _compile(compiler, library)
    return library


def _compile(compiler: str, library: Path) -> None:
    library.parent.mkdir(exist_ok=True)
    mine = library.with_suffix(f".{os.getpid()}")  # another process may build it at the same time
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", str(mine), str(SOURCE), "-lpthread"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NoCompiler(f"{compiler} does not compile {SOURCE.name}; install libc6-dev\n{ended.stderr}")
    mine.replace(library)


def _mapped(path: Path) -> Control:
    path.write_bytes(bytes(ctypes.sizeof(Control)))
    with path.open("r+b") as file:
        return Control.from_buffer(mmap(file.fileno(), 0))


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
