"""Ask a vulnerability service about pinned requirements: python audit.py requirements.txt [options of pip-audit].

Exits with 0 if it knows of no vulnerability, with 1 if it knows of one, with 2 if the audit itself went wrong; and
with 0, saying so loudly, if nobody could be asked. pip-audit alone does not tell these apart: it exits with 1 for a
vulnerability and for a service that is out of reach, and with 0 for a mirror that knows nothing of vulnerabilities. So
it is asked about one more package, whose vulnerabilities are old: only who knows of those has answered.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

KNOWN, KNOWN_VERSION = "jinja2", "2.4.1"  # vulnerable since 2014, under several names
OUT_OF_REACH = re.compile(r"requests\.exceptions\.|ServiceError|ConnectionError|your network may be blocking")

Found = list[dict[str, Any]]  # of each package: name, and version and vulns or skip_reason


class NobodyAnswered(Exception):
    """There is no service, or it knows nothing."""


class WentWrong(Exception):
    """There is no audit, and the network is not why."""


def audit(requirements: str, options: Sequence[str]) -> Found:
    """What the service knows of each requirement.

    Raises: NobodyAnswered, WentWrong.
    """
    found = _ask(f"{requirements}\n{KNOWN}=={KNOWN_VERSION}\n", options)
    if not any(one["name"] == KNOWN and one.get("vulns") for one in found):
        raise NobodyAnswered(f"the service knows of no vulnerability in {KNOWN} {KNOWN_VERSION}, which has several")
    asked = [one for one in found if one["name"] != KNOWN]
    if unknown := [one["name"] for one in asked if "vulns" not in one]:
        raise WentWrong(f"the service does not know {', '.join(unknown)}")
    return asked


def _ask(requirements: str, options: Sequence[str]) -> Found:
    with TemporaryDirectory() as folder:
        asked, report = Path(folder, "requirements.txt"), Path(folder, "report.json")
        asked.write_text(requirements)
        pinned = ["--requirement", str(asked), "--no-deps", "--disable-pip"]
        form = ["--format", "json", "--output", str(report), "--progress-spinner", "off"]
        command = [sys.executable, "-m", "pip_audit", *pinned, *form, *options]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if report.exists():
            found: Found = json.loads(report.read_text())["dependencies"]
            return found
    *_, last = ["", *ended.stderr.splitlines()]
    raise NobodyAnswered(last) if OUT_OF_REACH.search(last) else WentWrong(ended.stderr)


def lines(found: Found) -> Iterator[str]:
    """Each vulnerability, and how many packages were looked at."""
    for one in found:
        for vulnerability in one["vulns"]:
            names = ", ".join([vulnerability["id"], *vulnerability["aliases"]])
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            yield f"{one['name']} {one['version']}: {names}; fixed in {fixed}"
    yield f"audited: {len(found)}, vulnerable: {sum(bool(one['vulns']) for one in found)}"


def main(requirements: str, *options: str) -> int:
    try:
        found = audit(Path(requirements).read_text(), options)
    except NobodyAnswered as error:
        print("!" * 80, f"NOT AUDITED, for nobody could be asked: {error}", "!" * 80, sep="\n")
        return 0
    except WentWrong as error:
        print(f"the audit went wrong: {error}", file=sys.stderr)
        return 2
    print(*lines(found), sep="\n")
    return 1 if any(one["vulns"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
