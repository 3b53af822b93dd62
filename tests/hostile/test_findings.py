"""Each fuzz target holds for what the fuzzer begins with, and for all that it has found."""

from __future__ import annotations

import pytest

from .targets import TARGETS, seeds

FINDINGS = [
    pytest.param(
        "identify",
        b'\x03{"err_code":"X","request_id":"9a4cd3a4-924bb7-4a-8298-bbf61918f24e"}',
        id="a key with a time in it was taken for too long",
    ),
    pytest.param("urls", b"http.1%s://%s@%s" % (3 * (b"Z" * 12,)), id="what is no scheme was shown as one"),
    pytest.param(
        "urls", b"https:/deepgram:fake-password@a.b/?to=https://deepgram:fake-password@c", id="a password in it"
    ),
]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_begins_with_breaks_nothing(target):
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize(("target", "data"), FINDINGS)
def test_what_a_fuzzer_found_breaks_nothing_any_more(target, data):
    TARGETS[target](data)
