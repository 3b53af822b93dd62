"""The page of benchmarks is made by a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_of_benchmarks_and_its_plots_are_what_the_results_give():
    script = ROOT / "benchmarks" / "render.py"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
