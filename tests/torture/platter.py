"""What a disk holds of a folder when its power goes: what was synced, and of the rest any part."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .journal import Operation

SECTORS = (512, 4096)  # bytes that a disk writes whole or not at all
MADE_ANEW = "-shm"  # files that end so SQLite makes anew after a power cut, whatever is in them

Node = tuple[int, int]  # a file: its inode, and when that became this file, 0 if before all
FOLDER: Node = (0, 0)
Change = Mapping[str, Node | None]  # what names name from then on; None: nothing


@dataclass(frozen=True, slots=True)
class Base:
    """What stands in a folder, taken as synced."""

    names: Mapping[str, Node]
    contents: Mapping[Node, bytes]
    taken: int  # nanoseconds since 1970

    @classmethod
    def of(cls, folder: Path) -> Base:
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        names = {name: FOLDER if path.is_dir() else (path.stat().st_ino, 0) for name, path in paths.items()}
        contents = {node: paths[name].read_bytes() for name, node in names.items() if node != FOLDER}
        return cls(names, contents, time.time_ns())


@dataclass(slots=True)
class _File:
    content: bytearray  # on the disk
    pending: list[Operation] = field(default_factory=list)  # not synced


class Platter:
    """A disk on which operations take place, in the order in which they began, until its power goes at an instant.

    A name is synced with its folder: stricter than ext4, which also does so with the file.
    """

    def __init__(self, base: Base, *, until: float, dice: random.Random) -> None:
        self._base = base
        self._until = until
        self._dice = dice
        self._files = {node: _File(bytearray(content)) for node, content in base.contents.items()}
        self._seen = dict(base.names)  # by processes, and never forgotten
        self._names: dict[str, Node | None] = dict(base.names)  # on the disk
        self._changes: list[Change] = []  # of names, not synced

    def take(self, operation: Operation) -> None:
        """Let an operation take place: a write if it had begun, all else if it had ended."""
        match operation.kind:
            case "sync" if operation.ended <= self._until:
                self._sync(operation)
            case "sync folder" if operation.ended <= self._until and not operation.error:
                self._sync_folder(operation.name)
            case "write" | "truncate" if operation.begun <= self._until and not operation.error:
                self._file(operation).pending.append(operation)
            case "create" if operation.ended <= self._until:
                self._file(operation)
            case "make folder" | "remove" | "rename" if operation.ended <= self._until and not operation.error:
                self._change(_named_anew(operation, self._seen))

    def cut(self) -> Iterator[tuple[str, bytearray | None]]:
        """Lose the power: the names that are left, folders first, and what their files hold; None of a folder."""
        for change in _any_of(self._changes, self._dice):
            self._names |= change
        for name, node in sorted(self._names.items()):
            if node is not None and not name.endswith(MADE_ANEW) and self._is_within_reach(name):
                yield name, None if node == FOLDER else self._left_of(self._files[node])

    def _is_within_reach(self, name: str) -> bool:
        parent = _parent(name)
        return not parent or (self._names.get(parent) == FOLDER and self._is_within_reach(parent))

    def _left_of(self, file: _File) -> bytearray:
        _do(_part_of(file.pending, self._dice), file.content)
        return file.content

    def _file(self, operation: Operation) -> _File:
        """The file of an operation; if nobody has heard of it, it was made there."""
        was_there = operation.born <= self._base.taken and (operation.inode, 0) in self._base.contents
        node = (operation.inode, 0 if was_there else operation.born)
        if node not in self._files:
            self._files[node] = _File(bytearray())
            self._change({operation.name: node})
        return self._files[node]

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        self._seen |= {name: node for name, node in change.items() if node is not None}

    def _sync(self, operation: Operation) -> None:
        """What was written before it is on the disk; if it failed, any part of that, and the rest is forgotten.

        Source: https://wiki.postgresql.org/wiki/Fsync_Errors (Linux tells once that a page could not be written,
        and takes it for written from then on)
        """
        file = self._file(operation)
        before = [each for each in file.pending if each.ended <= operation.begun]
        file.pending = [each for each in file.pending if each.ended > operation.begun]
        _do(_part_of(before, self._dice) if operation.error else before, file.content)

    def _sync_folder(self, folder: str) -> None:
        later: list[Change] = []
        for change in self._changes:
            if folder in map(_parent, change):
                self._names |= change
            else:
                later.append(change)
        self._changes = later


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _named_anew(operation: Operation, seen: Mapping[str, Node]) -> Change:
    match operation.kind:
        case "make folder":
            return {operation.name: FOLDER}
        case "rename":
            return {operation.name: None, str(operation.data, "utf-8"): seen[operation.name]}
        case _:
            return {operation.name: None}


def _any_of(changes: Iterable[Change], dice: random.Random) -> Iterator[Change]:
    """Any part of what happened to names; but of each name a beginning."""
    lost: set[str] = set()
    chance = dice.choice((0.0, 0.5, 1.0))
    for change in changes:
        if lost.isdisjoint(change) and dice.random() < chance:
            yield change
        else:
            lost |= change.keys()


def _part_of(pending: Sequence[Operation], dice: random.Random) -> Sequence[Operation]:
    """Nothing, all, a beginning, some of the writes, or some sectors of them."""
    match dice.choice(("nothing", "all", "a beginning", "writes", "sectors")):
        case "nothing":
            return []
        case "all":
            return pending
        case "a beginning":
            return pending[: dice.randrange(len(pending) + 1)]
        case "writes":
            return [each for each in pending if dice.random() < 0.5]
        case _:
            size, chance = dice.choice(SECTORS), dice.random()
            return [piece for each in pending for piece in _sectors(each, size) if dice.random() < chance]


def _sectors(operation: Operation, size: int) -> Iterator[Operation]:
    """The parts of a write that lie in different sectors; what is no write is whole."""
    start, end = operation.offset, operation.offset + len(operation.data)
    for at in range(start - start % size, end, size) if operation.kind == "write" else ():
        first, last = max(at, start), min(at + size, end)
        yield replace(operation, offset=first, data=operation.data[first - start : last - start])
    if operation.kind != "write":
        yield operation


def _do(operations: Iterable[Operation], content: bytearray) -> None:
    for each in operations:
        content.extend(bytes(max(0, each.offset - len(content))))
        if each.kind == "write":
            content[each.offset : each.offset + len(each.data)] = each.data
        else:
            del content[each.offset :]
