"""Coverage-guided fuzzing with atheris: scripts/fuzz [TARGET] [--seconds 60]."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOUND = Path(__file__).parents[2] / ".fuzz"  # where inputs are kept that broke something
LONGEST = 4096  # bytes of an input
NOT_HERE = 3
MISSING = "nothing is fuzzed: atheris is not installed; it has wheels for Linux on x86-64 alone"


def main() -> int:
    options = parsed()
    if options.inside:
        return fuzz(options.inside, options.seconds, options.seed)
    try:
        import atheris  # noqa: F401 - is it there?
    except ImportError:
        sys.stderr.write(f"{MISSING}\n")
        return NOT_HERE
    from .targets import TARGETS

    ended = [run(target, options.seconds, options.seed) for target in ([options.target] if options.target else TARGETS)]
    return max(ended)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="all, one after the other, if not said")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="of the dice; 0 is another each time")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(target: str, seconds: int, seed: int) -> int:
    """In a process of its own: libFuzzer ends the one it is in."""
    FOUND.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--inside", target, f"--seconds={seconds}", f"--seed={seed}"]
    ended = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds + 120, check=False
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("Done") or "stat::" in line]
    if ended.returncode:
        sys.stderr.write(f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}\n")
        lines = [f"FAILED; what broke it is in {FOUND}"]
    sys.stdout.write(f"{target:<12} {'; '.join(lines)}\n")
    sys.stdout.flush()
    return int(ended.returncode != 0)


def fuzz(target: str, seconds: int, seed: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["dgreceiver"]):
        from .targets import TARGETS, seeds

    with TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(target)):
            (Path(corpus) / f"seed-{number}").write_bytes(data)
        limits = [
            f"-seed={seed}",
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            "-timeout=20",
            "-rss_limit_mb=3000",
        ]
        atheris.Setup([sys.argv[0], corpus, f"-artifact_prefix={FOUND}/{target}-", *limits], TARGETS[target])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
