"""Torture: real processes, Deepgram's side, and one fault after the other; then a ledger is compared. See docs/proof.md.

Run as `python -m tests.torture`, or scripts/torture.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .breaks import BREAKS, broken
from .disk import NoCompiler
from .fleet import ROOT
from .report import tell
from .torture import Torture

SHORTEST = 20.0  # seconds


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="of all that is sent and of all faults; a new one if not said")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long it goes on; 300")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the ledger, the inbox and the logs are left")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="take this safeguard out first")
    said = parser.parse_args(words)
    if said.seconds < SHORTEST:
        parser.error(f"--seconds {said.seconds:g} is too short to prove anything; write {SHORTEST:g} or more")
    said.seed = random.SystemRandom().randrange(1_000_000) if said.seed is None else said.seed
    return said


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        yield folder
    finally:
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def run(said: argparse.Namespace, folder: Path) -> int:
    """Torture, tell what was found, and the exit code; no process lives on."""
    begun = time.monotonic()
    source = broken(said.broken, folder) if said.broken else ROOT / "src"
    torture = Torture(folder, source=source, seed=said.seed, seconds=said.seconds)
    try:
        account, found = asyncio.run(torture.run())
    finally:
        torture.end()
    tell(account, found, seed=said.seed, seconds=time.monotonic() - begun)
    return 1 if found else 0


def main() -> int:
    said = arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, interrupted)
    without = f", without {said.broken}" if said.broken else ""
    print(f"torture: seed {said.seed}, {said.seconds:g} s{without}", flush=True)
    try:
        with work_folder(said.keep) as folder:
            return run(said, folder)
    except KeyboardInterrupt:
        print("\ninterrupted; all processes have ended")
        return 130
    except NoCompiler as error:
        print(f"torture: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
