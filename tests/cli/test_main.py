"""The command as a whole: versions, usage, what is missing, and how errors are told."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from dgreceiver.cli.main import app
from dgreceiver.cli.output import shown

WITHOUT = "import sys; sys.modules[{!r}] = None; sys.argv = ['dgreceiver', '--version']; from dgreceiver.__main__ import main; main()"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_the_version_is_that_of_the_package():
    ended = python("-m", "dgreceiver", "--version")
    assert (ended.returncode, ended.stdout) == (0, f"dgreceiver {version('dgreceiver')}\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing):
    ended = python("-c", WITHOUT.format(missing))
    said = 'the command line needs more than the library; write: pip install "dgreceiver[serve]"\n'
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)


def test_without_what_the_library_itself_needs_the_error_is_pythons():
    assert "ModuleNotFoundError: import of uvicorn halted" in python("-c", WITHOUT.format("uvicorn")).stderr


def test_without_a_command_there_is_help():
    said = CliRunner().invoke(app).output
    assert [command for command in ("serve", "inbox", "send", "url", "demo") if command not in said] == []


def test_a_setup_error_is_one_line_on_stderr_and_exit_code_2():
    ended = CliRunner().invoke(app, ["serve", "nonsense"])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == (
        "dgreceiver: 'nonsense' names no receiver; write module:attribute, such as \"app:receiver\" for app.py\n"
    )


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        pytest.param("plain ünïcode", "plain ünïcode", id="letters stay"),
        pytest.param("\x1b[2J", r"\x1b[2J", id="an escape sequence"),
        pytest.param("\x9b31m", r"\x9b31m", id="one of the upper half"),
        pytest.param("a\r\nb", r"a\r\nb", id="line ends"),
        pytest.param("\u202eevil", r"\u202eevil", id="direction of reading"),
        pytest.param("[bold]", "[bold]", id="markup is text"),
    ],
)
def test_what_a_stranger_wrote_moves_nothing_in_a_terminal(hostile, harmless):
    assert shown(hostile) == harmless
