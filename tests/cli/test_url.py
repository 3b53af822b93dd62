"""`dgreceiver url`: callback URLs, and whose credentials they carry."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from dgreceiver import SignedAuth
from dgreceiver.cli.main import app
from dgreceiver.core.auth import BasicAuth

PUBLIC = "https://hooks.example.com/deepgram"
KEY = "fake key, fake key, fake key, fake key"
SECRETS = {"A_PASSWORD": "fake p@ssword", "A_KEY": KEY}
BASIC = ("--public-url", PUBLIC, "--user", "deepgram")
SIGNED = ("--public-url", PUBLIC, "--key-env", "A_KEY")


def url(*arguments: str, answer: str | None = None, **environment: str) -> str:
    ended = CliRunner().invoke(app, ["url", *arguments], env=SECRETS | environment, input=answer)
    assert (ended.exit_code, ended.stderr) == (0, "password:" if answer else "")
    return ended.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        pytest.param(("--password-env", "A_PASSWORD"), None, id="in a variable"),
        pytest.param((), "fake p@ssword\n", id="asked for"),
    ],
)
def test_a_password_is_never_an_option(arguments, answer):
    assert url(*BASIC, *arguments, answer=answer) == "https://deepgram:fake%20p%40ssword@hooks.example.com/deepgram"


def test_a_signed_url_carries_context_until_it_expires():
    parts = urlsplit(url(*SIGNED, "--context", "call=17", "--context", "note=a=b", "--expires", "2h", "--websocket"))
    [admitting] = SignedAuth(KEY).candidates
    header = BasicAuth(parts.username or "", parts.password or "")._header
    admissions = [admitting.admit([(b"authorization", header)], now=time.time() + later) for later in (7000, 7300)]
    assert parts.scheme == "wss"
    assert [(each.context, each.expired) for each in admissions if each] == [
        ({"call": "17", "note": "a=b"}, False),
        ({"call": "17", "note": "a=b"}, True),
    ]


def test_an_app_brings_its_credentials_and_may_be_told_where_it_is(here):
    made = 'Receiver(auth=BasicAuth("deepgram", "fake"), name="{0}", public_url={1!r})'
    lines = [
        "from dgreceiver import BasicAuth, Receiver",
        *(f"{n} = {made.format(n, u)}" for n, u in (("a", PUBLIC), ("b", None))),
    ]
    (here / "with_urls.py").write_text("\n".join(lines))
    expected = "https://deepgram:fake@hooks.example.com/deepgram"
    assert url("--app", "with_urls:a") == expected
    assert url("--app", "with_urls:b", "--public-url", PUBLIC) == expected
    assert url("--app", "with_urls:b", DGRECEIVER_PUBLIC_URL=PUBLIC) == expected
    assert "contradicts the app" in refused("--app", "with_urls:a", "--public-url", "https://other.example.com/")


def refused(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["url", *arguments], env=SECRETS)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert not [secret for secret in SECRETS.values() if secret in ended.stderr]
    return ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--public-url", PUBLIC), "say whose credentials to write", id="nobody's"),
        pytest.param((*SIGNED, "--user", "deepgram"), "say whose credentials to write", id="two at once"),
        pytest.param(
            (*SIGNED, "--password-env", "A_KEY"), "say whose credentials to write", id="a password for nobody"
        ),
        pytest.param((*BASIC, "--password-env", "NONE"), "the variable NONE is not set", id="no variable"),
        pytest.param((*SIGNED, "--context", "17"), "--context '17' is no NAME=VALUE", id="no context"),
        pytest.param((*SIGNED, "--expires", "soon"), "--expires 'soon' is no duration", id="no duration"),
        pytest.param(("--key-env", "A_KEY"), "callback_url() needs public_url", id="no address"),
        pytest.param(
            ("--key-env", "A_KEY", "--public-url", "http://localhost/"), "is not one Deepgram can reach", id="local"
        ),
        pytest.param(
            (*BASIC, "--password-env", "A_PASSWORD", "--context", "a=b"), "context= has to be signed", id="unsigned"
        ),
    ],
)
def test_what_cannot_be_written_is_told_without_the_secret(arguments, said):
    assert said in refused(*arguments)


def test_a_local_address_is_written_if_it_is_meant():
    assert url("--key-env", "A_KEY", "--public-url", "http://localhost:5000/", "--local").endswith("@localhost:5000/")
