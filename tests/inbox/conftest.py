"""The stores that the contract is held against."""

from __future__ import annotations

import asyncio

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
