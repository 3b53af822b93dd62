"""What the tests of the commands share."""

from __future__ import annotations

import logging
import sys

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, whose modules are forgotten afterwards, and with them their receivers."""
    monkeypatch.chdir(tmp_path)
    known, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _own_logging():
    """What a command sets for its process ends with the test."""
    loggers = [logging.getLogger(name) for name in ("dgreceiver", "httpx")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
