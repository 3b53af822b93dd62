"""Where an SQLite inbox is: a file that any number of processes of one host may share, or this process's memory."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from hashlib import sha256
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from ..errors import InboxError, SetupError
from ..facts import Hook, InboxOpened
from ..streams import Endings
from .locks import FileLock
from .rows import run
from .sql import SqlInbox
from .store import time_of
from .tables import REVISIONS, VERSION_TABLE, metadata

MIB = 1024 * 1024
MIN_FREE = 128 * MIB  # bytes left on the disk below which nothing new is taken
LOG_LIMIT = 64 * MIB
VACUUM_UP_TO = 256 * MIB  # bytes that are rewritten in a second or two
PAGES_AT_ONCE = 4096  # that one shrink gives back
MOUNTS = Path("/proc/self/mountinfo")
BOOT = Path("/proc/sys/kernel/random/boot_id")

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre"}
TEMPORARY = {"tmpfs", "ramfs"}

_migrating = Lock()  # alembic keeps what it works on in global variables

PRAGMAS = (
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL would answer before the disk has it
    "secure_delete = ON",  # erased is overwritten
    f"journal_size_limit = {LOG_LIMIT}",
    "wal_autocheckpoint = 2048",  # pages: those of the indexes are copied once for many commits, in some 10 ms
    "cache_size = -16384",  # KiB: the indexes of unsorted keys
    "temp_store = MEMORY",  # the journal of a statement of many rows needs no file
    "busy_timeout = 5000",  # for tools that do not know our lock
)


class SqliteFile:
    """An inbox in a file, made or brought up to date on the spot.

    `write` is a mutex of our own: SQLite's busy handler is slow, and SQLite 3.40's WAL-reset bug
    needs two who write at once.

    Raises: SetupError if the file is newer than this release, no inbox, or out of reach.
    Source: https://www.sqlite.org/wal.html#walresetbug
    """

    begin = "BEGIN IMMEDIATE"

    def __init__(self, path: Path, *, receiver: str, emit: Hook, wall: Callable[[], float] = time.time) -> None:
        self._path = path.absolute()
        self._log = self._path.with_name(f"{self._path.name}-wal")
        if not self._path.parent.is_dir():
            raise SetupError(f"the folder of the inbox does not exist: {self._path.parent}; make it, or name another")
        owner = f"{self._path.name}.owner-{sha256(receiver.encode()).hexdigest()[:8]}"
        self._clock_file = self._path.with_name(f"{self._path.name}.write")  # which is there anyway
        self.write = FileLock(self._clock_file)
        self._owner = FileLock(self._path.with_name(owner))
        self._standing: FileLock | None = None
        self._engine = _engine(f"sqlite:///{self._path}", poolclass=NullPool)
        self._wall = wall
        self.clock = self._prepare()
        emit(InboxOpened(str(self._path), caveat(self._path)))

    def connect(self) -> Connection:
        self._write_log_again()
        return self._engine.connect()

    def own(self) -> bool:
        return self._owner.try_acquire()

    def stand_for(self, incarnation: str) -> None:
        self._standing = self._alive(incarnation)
        self._standing.acquire()

    def is_gone(self, incarnation: str) -> bool:
        lock = self._alive(incarnation)
        if not lock.try_acquire():
            lock.close()
            return False
        lock.remove()
        return True

    def _alive(self, incarnation: str) -> FileLock:
        """A lock that an incarnation holds while it lives; it is made and removed while `write` is held."""
        return FileLock(self._path.with_name(f"{self._path.name}.alive-{incarnation}"))

    def disown(self) -> None:
        self._owner.release()

    def check_room(self) -> None:
        disk = os.statvfs(self._path.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < min(MIN_FREE, disk.f_blocks * disk.f_frsize // 20):
            raise InboxError(f"the disk of {self._path} is full: {free // 1024} KiB are left")

    def scrub(self, connection: Connection) -> Sequence[str]:
        """Take what was erased out of the log and out of the free space in pages, which `secure_delete` leaves."""
        left = []
        if self._path.stat().st_size <= VACUUM_UP_TO:
            run(connection, "VACUUM")
        else:
            left.append("pieces of short texts in the free space of the file, until the next VACUUM")
        busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        if busy:
            return [*left, "the write-ahead log, which another process is reading"]
        with self._log.open("rb") as log:
            os.fsync(log.fileno())  # SQLite does not mind if a power cut brings it back
        return left

    def shrink(self, connection: Connection) -> None:
        connection.connection.cursor().executescript(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")  # to its end

    def close(self) -> None:
        self.write.close()
        self._owner.close()
        if self._standing is not None:
            self._standing.remove()

    def _prepare(self) -> Callable[[], float]:
        try:
            with self.write:
                self._bring_up_to_date()
                return self._start_clock()
        except (sqlite3.Error, SQLAlchemyError, OSError) as error:
            self.close()
            raise SetupError(f"cannot open the inbox {self._path}: {error}") from error
        except SetupError:
            self.close()
            raise

    def _write_log_again(self) -> None:
        """Bring to the disk what SQLite is about to take from the log as committed.

        The disk may have less: of a process that was killed before its sync, or whose sync failed. Another sync
        would not do, for Linux says once that it could not write a page, and takes it as written from then on.

        Source: https://wiki.postgresql.org/wiki/Fsync_Errors
        """
        if not self._log.exists() or self._log.stat().st_size == 0:
            return
        connecting = closing(sqlite3.connect(self._path, isolation_level=None))
        with connecting as connection, self._log.open("r+b", buffering=0) as log:
            connection.execute("BEGIN IMMEDIATE")  # no tool that does not know our lock writes there meanwhile
            _write_again(log)
            try:
                os.fdatasync(log.fileno())
            except OSError:
                _write_again(log)  # for SQLite, which syncs it once more as it closes, and believes that
                raise
            connection.execute("COMMIT")

    def _bring_up_to_date(self) -> None:
        self._write_log_again()
        version = self._version()
        self._path.touch(mode=0o600)
        if version != REVISIONS[-1]:
            with closing(self.connect()) as connection:
                migrate(connection, self.begin)

    def _start_clock(self) -> Callable[[], float]:
        """A clock that goes on where that of the others stands, whatever the wall's was set to meanwhile.

        Who comes first since the machine was started writes into the file of the lock when the monotonic clock, which
        all its processes share, was at 0: by the wall's clock, or by the newest callback if that is later.
        """
        begun = _begun(self._clock_file)
        if begun is None:
            begun = max(self._wall(), self._latest()) - time.monotonic()
            self._clock_file.write_text(f"{_boot()} {begun!r}")
        return lambda: begun + time.monotonic()

    def _latest(self) -> float:
        """When the newest callback was stored."""
        with closing(sqlite3.connect(self._path)) as connection:
            [newest] = connection.execute("SELECT max(id) FROM dgreceiver_callback").fetchone()
        return time_of(newest) if newest else 0.0

    def _version(self) -> str | None:
        """The schema's revision; None for a file that is yet to be made. Changes nothing."""
        if not self._path.exists() or self._path.stat().st_size == 0:
            return None
        with closing(sqlite3.connect(self._path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and VERSION_TABLE not in tables:
                raise SetupError(f"{self._path} is an SQLite database but no inbox; name another file")
            row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() if tables else None  # noqa: S608 - a constant
        version = row and str(row[0])
        if version is not None and version not in REVISIONS:
            raise SetupError(
                f"{self._path} was written by a newer dgreceiver: its schema is {version}, this release knows "
                f"{REVISIONS[-1]}; upgrade dgreceiver, or name another file"
            )
        return version


class SqliteInbox(SqlInbox):
    """The SQL inbox in a file; a relative path is relative to the folder at the time of opening."""

    def __init__(self, path: Path, *, receiver: str, emit: Hook, endings: Endings = Endings()) -> None:
        place = partial(SqliteFile, path, receiver=receiver, emit=self._tell)
        super().__init__(place, receiver=receiver, emit=emit, endings=endings)


class SqliteMemory:
    """An inbox that ends with its process: for tests."""

    begin = "BEGIN"
    write: AbstractContextManager[None] = nullcontext()

    def __init__(self) -> None:
        begun = time.time() - time.monotonic()
        self.clock = lambda: begun + time.monotonic()
        self._engine = _engine("sqlite://", poolclass=StaticPool)
        with closing(self.connect()) as connection:
            metadata.create_all(connection)

    def connect(self) -> Connection:
        return self._engine.connect()

    def own(self) -> bool:
        return True

    def stand_for(self, incarnation: str) -> None:
        """There is no other to see it."""

    def is_gone(self, incarnation: str) -> bool:
        return True

    def disown(self) -> None:
        """Nobody else is there."""

    def check_room(self) -> None:
        """Memory is bounded by what may be in flight, not here."""

    def scrub(self, connection: Connection) -> Sequence[str]:
        return []

    def shrink(self, connection: Connection) -> None:
        """There is no file to shrink."""

    def close(self) -> None:
        self._engine.dispose()


def _begun(file: Path) -> float | None:
    """When the monotonic clock was at 0, by what was written there since the machine was started."""
    boot, _, begun = file.read_text(errors="replace").partition(" ")
    if boot != _boot():
        return None
    with suppress(ValueError):
        return float(begun)
    return None


def _boot() -> str:
    """What names the time from one start of the machine to the next; only Linux says it so simply."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return f"process-{os.getpid()}"  # of no use to others


def migrate(connection: Connection, begin: str) -> None:
    """Bring the schema up to this release, in one transaction."""
    from alembic import command  # slow to import, and seldom needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    with _migrating:
        connection.exec_driver_sql(begin)
        command.upgrade(config, "head")
        connection.exec_driver_sql("COMMIT")


def caveat(path: Path, *, mounts: Path = MOUNTS) -> str | None:
    """What is doubtful about the file system that a path is on, if anything is known of it.

    Source: https://www.sqlite.org/wal.html ("does not work over a network filesystem"); proc(5), mountinfo
    """
    kind = _file_system(path, mounts)
    if kind in NETWORK:
        return f"it is on a network file system ({kind}), where SQLite's locks and syncs cannot be trusted"
    if kind in TEMPORARY:
        return f"it is on a temporary file system ({kind}): a restart of the machine loses it"
    return None


def _file_system(path: Path, mounts: Path) -> str | None:
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    mounted = [(fields[4], line.split(" - ")[1].split()[0]) for line in lines if (fields := line.split())]
    around = [(len(point), kind) for point, kind in mounted if path.is_relative_to(point)]
    return max(around)[1] if around else None


def _write_again(file: FileIO) -> None:
    file.seek(0)
    while piece := file.read(MIB):
        file.seek(-len(piece), os.SEEK_CUR)
        file.write(piece)


def _engine(url: str, *, poolclass: Any) -> Engine:
    """An engine without transactions of its own: the store begins and commits them by name."""
    engine = create_engine(
        url,
        poolclass=poolclass,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "cached_statements": 512},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine
