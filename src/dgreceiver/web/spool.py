"""What has come over a WebSocket and is not stored yet: so much in memory, all beyond that on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO

import msgspec

from ..errors import SpoolFull

MIB = 1024 * 1024
HELD = MIB  # bytes in memory beyond which one more waits
OWN_WEIGHT = 256  # bytes that a frame weighs beside what it carries
AT_ONCE = 128  # frames that are stored together, at most
SPOOL = 64 * MIB  # bytes on disk, of one socket
PATIENCE = 0.5  # seconds that a socket stays unread: a peer that pings once a second has its pong in time
LENGTH = 4  # bytes in front of each frame on disk that say how long it is


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A message of a WebSocket, less a callback secret."""

    number: int  # in its connection, from 1
    received_at: float  # seconds since 1970
    data: bytes

    @property
    def weight(self) -> int:
        return len(self.data) + OWN_WEIGHT


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


class Backlog:
    """The frames of one socket on their way to the inbox, in order, however slow that is.

    One task adds, another takes. `spilled` is called whenever disk has to be used.
    """

    def __init__(self, *, spilled: Callable[[], None], patience: float = PATIENCE, spool: int = SPOOL) -> None:
        self._held: deque[Frame] = deque()
        self._weight = 0
        self._spool = Spool(spool)
        self._spilled = spilled
        self._patience = patience
        self._changed = asyncio.Event()
        self._over = False

    async def add(self, frame: Frame) -> None:
        """Take a frame in; wait a moment for room in memory, then put it on disk.

        Raises: SpoolFull if it can be put nowhere.
        """
        if self._over:
            raise SpoolFull("the receiver has stopped, so nothing more can be stored")
        if self._is_full and not self._spool.size:
            await self._wait_for_room()
        if self._is_full or self._spool.size:
            await self._spill(frame)
        else:
            self._held.append(frame)
            self._weight += frame.weight
        self._changed.set()

    async def take(self) -> list[Frame]:
        """The oldest frames, so many as are to be stored together; none if there will be no more."""
        while not self._held and not self._spool.size and not self._over:
            self._changed.clear()
            await self._changed.wait()
        taken = [self._held.popleft() for _ in range(min(AT_ONCE, len(self._held)))]
        self._weight -= sum(frame.weight for frame in taken)
        self._changed.set()
        return taken or await self._spool.take()

    def end(self) -> None:
        """Take nothing more in; what is there can still be taken out."""
        self._over = True
        self._changed.set()

    def close(self) -> None:
        """Give the disk back."""
        self._spool.close()

    @property
    def _is_full(self) -> bool:
        return self._weight >= HELD

    async def _wait_for_room(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while self._is_full:
                    self._changed.clear()
                    await self._changed.wait()

    async def _spill(self, frame: Frame) -> None:
        if not self._spool.size:
            self._spilled()
        await self._spool.add(frame)


class Spool:
    """Frames in a temporary file without a name, which is gone with the process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._file: IO[bytes] | None = None
        self._start = self._end = 0  # what was not taken yet lies in between
        self._turn = asyncio.Lock()

    @property
    def size(self) -> int:
        """Bytes that were not taken yet."""
        return self._end - self._start

    async def add(self, frame: Frame) -> None:
        """Put a frame behind the others.

        Raises: SpoolFull if there is no room, by the limit or on the disk.
        """
        packed = _encode(frame)
        record = len(packed).to_bytes(LENGTH) + packed
        async with self._turn:
            if self._end + len(record) > self._limit:
                raise SpoolFull(f"the inbox has stored nothing for so long that {self._limit} bytes were put aside")
            try:
                await asyncio.to_thread(self._write, record)
            except OSError as error:
                raise SpoolFull(f"what comes can neither be stored nor put aside: {error.strerror}") from error
            self._end += len(record)

    async def take(self) -> list[Frame]:
        """The oldest frames, so many as are to be stored together."""
        async with self._turn:
            if not self.size:
                return []
            taken, self._start = await asyncio.to_thread(self._read)
            if not self.size:
                self._start = self._end = 0
            return taken

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, record: bytes) -> None:
        if self._file is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - it is closed with the socket
        if self._end == 0:
            self._file.truncate(0)
        self._file.seek(self._end)
        left = memoryview(record)
        while left:  # a disk that is about to be full takes a part
            left = left[self._file.write(left) :]

    def _read(self) -> tuple[list[Frame], int]:
        """Frames from the start on, and where the next one stands."""
        taken, weight, start, file = list[Frame](), 0, self._start, self._file
        while file and start < self._end and len(taken) < AT_ONCE and weight < HELD:
            file.seek(start)
            length = int.from_bytes(file.read(LENGTH))
            taken.append(_decode(file.read(length)))
            weight += taken[-1].weight
            start += LENGTH + length
        return taken, start
