"""`dgreceiver serve`: which receiver it finds, and what it says if it finds none. What it serves: test_server.py."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from dgreceiver.cli.main import app

FINE = 'from dgreceiver import NoAuth, Receiver\nreceiver = Receiver(auth=NoAuth(), name="{name}")\nother = 1\n'


def serve(*arguments: str, **environment: str) -> str:
    """What it says in its one line."""
    ended = CliRunner().invoke(app, ["serve", *arguments], env=environment)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    return ended.stderr.removeprefix("dgreceiver: ").strip()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        pytest.param("one", "'one' names no receiver; write module:attribute", id="no attribute"),
        pytest.param(".one:receiver", "'.one:receiver' names no receiver; write module:attribute", id="relative"),
        pytest.param("none:receiver", "there is no module none in {folder}; write the name of a file", id="no module"),
        pytest.param("one.py:receiver", "there is no module one.py in {folder}", id="a file"),
        pytest.param("one:nothing", "one has no nothing; write one:receiver", id="another attribute"),
        pytest.param("one:other", "one:other is of type int, not a Receiver; write one:receiver", id="another type"),
        pytest.param("two:nothing", "two has no nothing; make one there: receiver = Receiver(auth=…)", id="none there"),
        pytest.param("three:receiver", "auth=None lets anyone who finds the URL", id="one that cannot be"),
    ],
)
def test_what_is_no_receiver_is_told_with_what_to_write(here, argument, said):
    (here / "one.py").write_text(FINE.format(name="found"))
    (here / "two.py").write_text("")
    (here / "three.py").write_text("from dgreceiver import Receiver\nreceiver = Receiver(auth=None)")
    assert serve(argument).startswith(said.format(folder=here))


@pytest.mark.parametrize("code", ["import not_installed", "1 / 0"])
def test_an_error_in_the_users_module_is_shown_as_it_is(here, code):
    (here / "broken.py").write_text(code)
    ended = CliRunner().invoke(app, ["serve", "broken:receiver"])
    assert (ended.exit_code, type(ended.exception)) in [(1, ModuleNotFoundError), (1, ZeroDivisionError)]


def test_a_port_that_is_taken_is_told(here):
    (here / "taken.py").write_text(FINE.format(name="taken"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert serve("taken:receiver", "--port", port).startswith(f"cannot listen on 127.0.0.1:{port}: Address already")
        assert serve("taken:receiver", DGRECEIVER_PORT=port).startswith(f"cannot listen on 127.0.0.1:{port}: Address")


def test_a_setting_that_cannot_be_read_is_named_but_not_shown(here):
    said = serve("any:receiver", DGRECEIVER_PORT="hush")
    assert said == "--port or DGRECEIVER_PORT: input should be a valid integer, unable to parse string as an integer"


@pytest.mark.parametrize(("variable", "option"), [("DGRECEIVER_INBOX", "inbox"), ("DGRECEIVER_NAME", "name")])
def test_a_setting_that_contradicts_the_app_is_an_error(here, variable, option):
    (here / "contradicted.py").write_text(FINE.format(name="contradicted"))
    said = serve("contradicted:receiver", **{variable: "sqlite:///another.db"})
    assert said == f"--{option} (or {variable}) contradicts the app, which has its own; leave out one of both"


def test_an_app_has_to_be_named():
    ended = CliRunner().invoke(app, ["serve"])
    assert ended.exit_code == 2
    assert "Missing argument 'APP'" in ended.stderr
