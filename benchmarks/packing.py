"""What levels of zstd cost, and what they save.

    python benchmarks/packing.py

Packs bodies of several sizes in turns of all levels and prints medians, each beside that of level 1; a star is at the
level by which dgreceiver packs.
"""

from __future__ import annotations

from statistics import median
from time import process_time

from bodies import body_of
from zstandard import ZstdCompressor

from dgreceiver.inbox.packing import LEVEL

LEVELS = (3, 1, -1, LEVEL, -5, -10)
SIZES = (1_000, 5_000, 20_000, 50_000, 150_000, 1_000_000)  # bytes
AT_ONCE = 1_000_000  # bytes in one call
REPEATS = 15


def main() -> None:
    print(f"{'bytes':>9} {'level':>5} {'µs':>8} {'÷ level 1':>9} {'packed':>8} {'÷ level 1':>9}")
    for size in SIZES:
        body = body_of(size)
        seconds = _seconds([body] * max(1, AT_ONCE // size))
        packed = {level: len(ZstdCompressor(level=level).compress(body)) for level in LEVELS}
        for level in LEVELS:
            mark = "*" if level == LEVEL else ""
            print(
                f"{len(body):9,} {mark + str(level):>5} {seconds[level] * 1e6:8,.1f} "
                f"{seconds[level] / seconds[1]:9.2f} {packed[level]:8,} {packed[level] / packed[1]:9.2f}"
            )


def _seconds(bodies: list[bytes]) -> dict[int, float]:
    """The processor's time for each body, by level."""
    compressors = {level: ZstdCompressor(level=level) for level in LEVELS}
    took: dict[int, list[float]] = {level: [] for level in LEVELS}
    for _ in range(REPEATS):
        for level, compressor in compressors.items():
            before = process_time()
            compressor.multi_compress_to_buffer(bodies)  # type: ignore[arg-type]  # its lists are invariant
            took[level].append((process_time() - before) / len(bodies))
    return {level: median(times) for level, times in took.items()}


if __name__ == "__main__":
    main()
