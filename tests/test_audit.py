"""The audit of dependencies in CI: what is known, what is not, and that nobody is taken for an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from .support import unmeasured

AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
KNOWN = {"jinja2": ["OLD-1"]}


@contextmanager
def a_service(vulnerable: Mapping[str, list[str]], status: int) -> Iterator[str]:
    """The address of a service that knows these packages to be vulnerable.

    Source: https://google.github.io/osv.dev/post-v1-query/
    """

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            package = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
            known = [{"id": id_, "affected": []} for id_ in vulnerable.get(package, ())]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": known} if known else {}).encode())

        def log_message(self, *args: Any) -> None:
            """Keep the terminal to the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def audited(folder: Path, url: str, *, requirements: str = "starlette==1.0\nuvicorn==0.40\n") -> tuple[int, str]:
    """The exit code of an audit, and all that it said."""
    (folder / "requirements.txt").write_text(requirements)
    asked = ["--vulnerability-service", "osv", "--osv-url", url, "--cache-dir", str(folder / "cache")]
    line = [sys.executable, str(AUDIT), str(folder / "requirements.txt"), *asked]
    ended = subprocess.run(line, env=unmeasured(), capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("vulnerable", "status", "exit_code", "said"),
    [
        pytest.param(KNOWN, 200, 0, "audited: 2, vulnerable: 0", id="nothing is known"),
        pytest.param(
            {**KNOWN, "uvicorn": ["NEW-1"]}, 200, 1, "uvicorn 0.40: NEW-1; fixed in no version", id="vulnerable"
        ),
        pytest.param({}, 200, 0, "NOT AUDITED, for nobody could be asked: the service knows of no", id="a mirror"),
        pytest.param(KNOWN, 503, 0, "NOT AUDITED, for nobody could be asked: ", id="out of order"),
    ],
)
def test_an_audit_fails_for_a_known_vulnerability_alone_and_says_if_nobody_answered(
    tmp_path, vulnerable, status, exit_code, said
):
    with a_service(vulnerable, status) as url:
        code, output = audited(tmp_path, url)
    assert (code, said in output) == (exit_code, True), output


def test_a_service_that_is_not_there_is_told_of_loudly(tmp_path):
    with a_service(KNOWN, 200) as url:
        pass
    code, output = audited(tmp_path, url)
    assert (code, "NOT AUDITED" in output) == (0, True), output


def test_an_audit_that_does_not_work_fails(tmp_path):
    code, output = audited(tmp_path, "http://127.0.0.1:1/", requirements="starlette>=1\n")
    assert (code, "the audit went wrong: " in output) == (2, True), output
