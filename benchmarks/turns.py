"""Servers measured in turns, A B C A B C …: what the machine does to one of a turn, it does to all."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def ratio(rates: Sequence[float], of: Sequence[float]) -> float:
    """The median of the ratios turn by turn, which a machine that is slow for some of the turns does not change.

    The ratio of the medians it does: one of them may be of a slow turn and the other of a fast one.
    """
    return median(rate / other for rate, other in zip(rates, of, strict=True))
