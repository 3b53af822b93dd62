"""When to try again, and how a duration is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import isfinite

from ..errors import SetupError

# In a lane everything behind a failure waits for it, so it may not wait for long.
LANE_ATTEMPTS, LANE_WAIT = 5, 30.0
_MOST_DOUBLINGS = 1000  # 2.0**1024 would overflow; every wait is at its longest by then
_HOW = "write a timedelta or a number of seconds, finite and not below zero, such as timedelta(minutes=5) or 300.0"


def seconds(duration: timedelta | float, name: str) -> float:
    """Read a duration as seconds; `name` is what the developer called it.

    Raises: SetupError unless it is a timedelta or a number, finite and not below zero.
    """
    value = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SetupError(f"{name} is of type {type(value).__name__}; {_HOW}")
    if not _is_measurable(value):
        raise SetupError(f"{name} is {_shown(value)}; {_HOW}")
    return float(value)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a handler is run, the first run included, and how long it is waited between runs.

    Units: a float is seconds. `longest_wait` bounds `first_wait` too.

    Raises: SetupError for what cannot be counted or waited.
    """

    attempts: int = 20
    first_wait: timedelta | float = 1.0
    longest_wait: timedelta | float = 600.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise SetupError(
                f"RetryPolicy(attempts={_shown(self.attempts)}) leaves no run; "
                "write a whole number from 1 (1 means: never again)"
            )
        seconds(self.first_wait, "first_wait")
        seconds(self.longest_wait, "longest_wait")

    def wait_after(self, attempt: int, *, roll: float) -> float | None:
        """Seconds to wait after failed attempt `attempt` (from 1), or None to bury the delivery.

        It doubles up to the longest; half of it is fixed, and `roll` (from 0 to 1) decides how
        much of the other half is added, so that what failed together does not return together.

        Source: "equal jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        if attempt >= self.attempts:
            return None
        first, longest = seconds(self.first_wait, "first_wait"), seconds(self.longest_wait, "longest_wait")
        half = min(first * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), longest) / 2
        return half + half * roll

    def in_lane(self) -> RetryPolicy:
        """The policy for what others wait behind: the smaller of this one and 5 attempts, 30 s."""
        return RetryPolicy(
            attempts=min(self.attempts, LANE_ATTEMPTS),
            first_wait=min(seconds(self.first_wait, "first_wait"), LANE_WAIT),
            longest_wait=min(seconds(self.longest_wait, "longest_wait"), LANE_WAIT),
        )


def _is_measurable(value: float) -> bool:
    try:
        return isfinite(value) and value >= 0
    except OverflowError:  # an int that no float can hold
        return False


def _shown(value: object) -> str:
    """A value for a message; cut, as an int may have any number of digits."""
    try:
        return f"{value!r:.40}"
    except ValueError:
        return "too large"
