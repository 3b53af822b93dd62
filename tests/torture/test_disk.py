"""The disk itself: what is done is written down, what is asked for goes wrong, a power cut takes what it may."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .disk import Counts, Disk, NoCompiler, build

BEGINNING = """
import os, sys, time
folder = os.open(".", os.O_RDONLY)
file = os.open("file", os.O_RDWR | os.O_CREAT)

def tried(work, *args):
    begun = time.monotonic()
    try:
        work(*args)
    except OSError as error:
        print(error.strerror)
    else:
        print("slow" if time.monotonic() - begun > 0.1 else "fine")
"""
SYNCED = "\nos.fsync(file); os.fsync(folder)\n"
SECTOR = 512
ENDED = 16  # where in a record it stands when it ended


def start(disk: Disk, program: str, *, beginning: str = BEGINNING) -> subprocess.Popen[str]:
    """A program that runs in the folder and has a `file` there."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", beginning + program],
        env={**os.environ, **disk.environment},
        cwd=disk.environment["DISK_FOLDER"],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def run(disk: Disk, program: str, **options: str) -> list[str]:
    """What a program says until it ends, by itself or by being killed."""
    with start(disk, program, **options) as running:
        said = running.communicate(timeout=20)[0]
    assert running.returncode in (0, -signal.SIGKILL)
    return said.split("\n")[:-1]


def held(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder, by name; None is a folder."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: None if path.is_dir() else path.read_bytes() for name, path in paths.items()}


def left(disk: Disk, *, at: float | None = None, throws: int = 60) -> list[dict[str, bytes | None]]:
    """What power cuts leave, by different throws of the dice."""
    with TemporaryDirectory() as folder:
        for seed in range(throws):
            disk.after_power_cut(Path(folder, str(seed)), at, dice=random.Random(seed))
        return [held(Path(folder, str(seed))) for seed in range(throws)]


def contents(disk: Disk, *, at: float | None = None, throws: int = 60) -> set[bytes | None]:
    """The same, of the file alone."""
    return {names.get("file") for names in left(disk, at=at, throws=throws)}


# --- what is done ---


@pytest.mark.parametrize(
    ("program", "content"),
    [
        pytest.param("os.write(file, b'ab'); os.write(file, b'cd')", b"abcd", id="write"),
        pytest.param("os.pwrite(file, b'ab', 2)", b"\0\0ab", id="pwrite"),
        pytest.param("os.writev(file, [b'ab', b'cd'])", b"abcd", id="writev"),
        pytest.param("os.pwritev(file, [b'ab', b'cd'], 1)", b"\0abcd", id="pwritev"),
        pytest.param("os.write(file, b'abcd'); os.ftruncate(file, 2)", b"ab", id="truncate"),
        pytest.param("os.ftruncate(file, 2)", b"\0\0", id="truncate to more"),
        pytest.param("os.write(os.dup(file), b'ab')", b"ab", id="dup"),
        pytest.param("os.pwrite(file, b'abcd', 0); open('file', 'ab').write(b'ef')", b"abcdef", id="append"),
        pytest.param("os.write(file, b'abcd'); open('file', 'wb').write(b'ef')", b"ef", id="opened anew"),
        pytest.param("os.write(file, b'ab')\nif os.fork(): os.wait()\nelse: os.write(file, b'cd')", b"abcd", id="fork"),
        pytest.param("os.chdir('..'); open('disk/file', 'wb').write(b'ab')", b"ab", id="another folder"),
        pytest.param("os.symlink(os.getcwd(), '../link'); open('../link/file', 'wb').write(b'ab')", b"ab", id="link"),
    ],
)
def test_what_was_synced_is_left_as_it_was_written(disk, tmp_path, program, content):
    run(disk, program + SYNCED)
    assert held(tmp_path / "disk") == {"file": content}
    assert contents(disk) == {content}


@pytest.mark.parametrize(
    ("program", "name"),
    [
        pytest.param("os.unlink('file')", "file", id="unlink"),
        pytest.param("os.unlink('file', dir_fd=folder)", "file", id="unlinkat"),
        pytest.param("os.rename('file', 'other')", "other", id="rename"),
        pytest.param("os.replace('file', 'other', src_dir_fd=folder)", "other", id="renameat"),
        pytest.param("os.open('other', os.O_CREAT, dir_fd=folder)", "other", id="openat"),
        pytest.param("os.mkdir('other')", "other", id="mkdir"),
        pytest.param("os.mkdir('other', dir_fd=folder)", "other", id="mkdirat"),
        pytest.param("os.rmdir('sub')", "sub", id="rmdir"),
    ],
)
def test_a_name_is_synced_with_its_folder(disk, tmp_path, program, name):
    run(disk, "os.mkdir('sub')" + SYNCED)
    before = held(tmp_path / "disk")
    run(disk, program)
    after = held(tmp_path / "disk")
    assert before != after
    possible = left(disk)
    assert before in possible
    assert after in possible
    assert all(names in (before, after) for names in possible)
    run(disk, "os.fsync(os.open('.', os.O_RDONLY))", beginning="import os;")
    assert left(disk) == [after] * 60


def test_what_stands_in_a_folder_is_left_if_the_folder_is(disk):
    run(disk, "os.mkdir('sub'); open('sub/file', 'w'); os.fsync(os.open('sub', os.O_RDONLY))")
    possible = {(), ("sub", "sub/file"), ("file",), ("file", "sub", "sub/file")}
    assert {tuple(sorted(names)) for names in left(disk)} == possible


def test_what_is_done_elsewhere_is_not_written_down(disk, tmp_path):
    run(disk, "open('../elsewhere', 'w').write('x'); open('../disk-too', 'w').write('x'); os.unlink('../disk-too')")
    assert [each.kind for each in disk.operations()] == ["create"]
    assert disk.counts == Counts(0, 0, 0)


def test_operations_tell_what_was_done_when_and_by_whom(disk):
    begun = time.monotonic()
    with start(disk, "os.pwrite(file, b'abc', 7); os.fdatasync(file); os.fsync(folder); os.unlink('file')") as running:
        pass
    done = disk.operations()
    assert [each.kind for each in done] == ["create", "write", "sync", "sync folder", "remove"]
    assert (done[1].name, done[1].offset, bytes(done[1].data), done[1].pid) == ("file", 7, b"abc", running.pid)
    times = [begun, *(at for each in done for at in (each.begun, each.ended)), time.monotonic()]
    assert times == sorted(times)
    assert disk.counts == Counts(writes=1, syncs=2, bytes=3)


def test_operations_are_read_while_a_process_goes_on(disk):
    with start(
        disk, "for line in sys.stdin: os.write(file, line.encode()); print(line, end='', flush=True)"
    ) as running:
        for n in range(1, 4):
            running.stdin.write(f"{n}\n")
            running.stdin.flush()
            assert running.stdout.readline() == f"{n}\n"
            assert Counter(each.kind for each in disk.operations()) == {"create": 1, "write": n}


# --- what a power cut leaves ---


def test_of_what_was_not_synced_any_part_is_left(disk):
    run(disk, f"os.write(file, bytes({2 * SECTOR}))" + SYNCED + f"os.pwrite(file, b'x' * {2 * SECTOR}, 0)")
    old, new = bytes(SECTOR), b"x" * SECTOR
    assert contents(disk) == {old + old, new + new, old + new, new + old}


def test_of_writes_that_were_not_synced_a_later_one_may_be_left_alone(disk):
    run(disk, SYNCED + "os.write(file, b'ab'); os.write(file, b'cd')")
    assert contents(disk) == {b"", b"ab", b"\0\0cd", b"abcd"}


def test_a_cut_in_the_past_knows_nothing_of_what_came_later(disk):
    run(disk, "os.write(file, b'ab')" + SYNCED + "os.pwrite(file, b'cd', 0); os.fsync(file)")
    first, second = [each for each in disk.operations() if each.kind == "sync"]
    assert contents(disk, at=first.begun) >= {None, b"", b"ab"}
    assert contents(disk, at=first.ended) == {None, b"ab"}  # the name is not synced yet
    assert contents(disk, at=second.begun) == {b"ab", b"cd"}
    assert contents(disk, at=second.ended) == {b"cd"}


def test_a_cut_in_place_leaves_the_folder_as_the_disk_had_it_and_that_is_the_beginning_of_what_comes(disk, tmp_path):
    run(disk, "os.write(file, b'ab')" + SYNCED + "os.write(file, b'cd'); os.mkdir('sub'); open('sub/file', 'w')")
    disk.cut(dice=random.Random(2))
    after = held(tmp_path / "disk")
    assert after["file"] in (b"ab", b"abcd")
    assert disk.operations() == []
    assert left(disk) == [after] * 60
    run(disk, "os.pwrite(file, b'ef', 0); os.fsync(file); os.unlink('file'); os.open('file', os.O_CREAT)")
    assert contents(disk) == {b"ef" + after["file"][2:], b"", None}


def test_a_dead_process_has_done_what_the_folder_shows(disk, tmp_path):
    """It is killed between an operation and the note that it has ended, and another syncs what it did."""
    run(disk, "os.write(file, b'ab')" + SYNCED)
    run(disk, "os.pwrite(file, b'cd', 0)")
    [journal] = [path for path in (tmp_path / "work/disk-journals").iterdir() if path.read_bytes().endswith(b"cd")]
    with journal.open("r+b") as file:
        file.seek(ENDED)
        file.write(bytes(8))
    run(disk, "os.fsync(file)")
    assert contents(disk) == {b"cd"}
    (tmp_path / "disk/file").write_bytes(b"ab")
    assert contents(disk) == {b"ab", b"cd"}


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("fault", "operation", "said"),
    [
        pytest.param(Disk.full, "os.write, file, b'ab'", "No space left on device", id="full"),
        pytest.param(Disk.full, "os.pwrite, file, b'ab', 0", "No space left on device", id="full, pwrite"),
        pytest.param(Disk.full, "os.fsync, file", "fine", id="full, but what is there can be synced"),
        pytest.param(Disk.failing, "os.write, file, b'ab'", "Input/output error", id="failing"),
        pytest.param(Disk.failing, "os.ftruncate, file, 2", "Input/output error", id="failing, truncate"),
        pytest.param(Disk.failing_syncs, "os.fsync, file", "Input/output error", id="failing syncs"),
        pytest.param(Disk.failing_syncs, "os.fdatasync, folder", "Input/output error", id="failing syncs, of a folder"),
        pytest.param(Disk.failing_syncs, "os.write, file, b'ab'", "fine", id="failing syncs, but writes go"),
        pytest.param(lambda disk: disk.slow(sync=0.15), "os.fsync, file", "slow", id="slow syncs"),
        pytest.param(
            lambda disk: disk.slow(sync=0.15), "os.write, file, b'ab'", "fine", id="slow syncs, but writes go"
        ),
        pytest.param(lambda disk: disk.slow(write=0.15), "os.write, file, b'ab'", "slow", id="slow writes"),
        pytest.param(Disk.lying, "os.fsync, file", "fine", id="lying"),
    ],
)
def test_what_is_asked_for_goes_wrong_in_a_process_that_runs_until_it_is_mended(disk, fault, operation, said):
    with start(disk, f"for _ in sys.stdin: tried({operation}); print(flush=True, end='')") as running:
        answers = [ask(running)]
        fault(disk)
        answers += [ask(running), ask(running)]
        disk.mend()
        answers += [ask(running)]
    assert answers == ["fine", said, said, "fine"]


def ask(running: subprocess.Popen[str]) -> str:
    running.stdin.write("\n")
    running.stdin.flush()
    return running.stdout.readline().strip()


def test_what_fails_is_not_done_but_told(disk, tmp_path):
    disk.full()
    run(disk, "tried(os.write, file, b'ab')" + SYNCED)
    assert contents(disk) == {b""}
    assert [each.error for each in disk.operations() if each.kind == "write"] == [errno.ENOSPC]
    assert disk.counts == Counts(writes=0, syncs=2, bytes=0)


def test_a_sync_that_fails_loses_for_ever_what_it_was_to_bring_to_the_disk(disk):
    run(disk, SYNCED)
    disk.failing_syncs(times=1)
    said = run(disk, "os.write(file, b'ab'); tried(os.fsync, file); tried(os.fsync, file)")
    assert said == ["Input/output error", "fine"]
    assert contents(disk) == {b"", b"ab"}
    run(disk, "os.write(file, b'ab'); os.fsync(file)")
    assert contents(disk) == {b"ab"}


def test_what_was_synced_by_a_lie_is_lost(disk):
    run(disk, SYNCED)
    disk.lying()
    run(disk, "os.write(file, b'ab')" + SYNCED)
    assert contents(disk) == {b"", b"ab"}
    assert disk.counts.syncs == 2


@pytest.mark.parametrize("operation", [1, 2, 3])
def test_a_process_is_killed_before_the_operation_that_was_named(disk, operation):
    run(disk, "")
    disk.die_at(operation)
    said = run(disk, "for n in 1, 2, 3: os.write(file, b'x'); print(n, flush=True)")
    assert said == [str(n) for n in range(1, operation)]
    assert disk.counts.writes == operation - 1


# --- what there has to be ---


@pytest.mark.parametrize("tools", [[], ["false"]], ids=["no compiler", "one that fails"])
def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch, tools):
    for name in tools:
        (tmp_path / "cc").symlink_to(shutil.which(name))
    with pytest.raises(NoCompiler, match="install"):
        build(tmp_path, compilers=str(tmp_path))
