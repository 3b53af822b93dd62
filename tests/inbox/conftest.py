"""The stores that the contract is held against."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from .stores import Shelf


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """An SQLite file that has been migrated: to do so for every test would take most of the time."""

    async def make(shelf):
        async with shelf.opened():
            return shelf.path

    return asyncio.run(make(Shelf("sqlite", tmp_path_factory.mktemp("template"))))


@pytest.fixture(params=["sqlite", "memory"])
def shelf(request, tmp_path, template):
    """A place for an inbox, of every kind of store."""
    return Shelf(request.param, tmp_path, template)


@pytest.fixture(params=["sqlite"])
def durable(request, tmp_path, template):
    """A place for an inbox, of every kind of store that outlives its process."""
    return Shelf(request.param, tmp_path, template)


@pytest.fixture
async def inbox(shelf):
    async with shelf.opened() as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"cannot mount: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
