"""Does the time of a refusal tell how much of a credential was right? A statistical test, with a control that fails it.

For each kind of credential some wrong ones are checked in turn, in random order, thousands of times: with more and more
right bytes in front. Welch's t-test compares each with one that is wrong from its first byte on, as dudect does. Noise
makes no large t; a comparison that ends at the first wrong byte does, as the control shows in the same run.

Source: Reparaz, Balasch, Verbauwhede: Dude, is my code constant time? (2017); beyond |t| = 10 it surely is not.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean, variance
from time import perf_counter_ns

from dgreceiver import BasicAuth, DgTokenAuth, ExtraAuth, SignedAuth
from dgreceiver.core.auth import Admission, Auth, Headers

SURELY = 10.0  # |t| beyond which the times differ
CALLS = 8  # of each measurement: one takes about a microsecond
KEPT = 0.8  # of the measurements, the quickest: what is slower was interrupted
SECRET = "x" * 48
USER = "deepgram"
NOW = 1_800_000_000.0
RIGHT = (0, 12, 24, 36, 47)  # bytes that are right, from the first on; of the same length all

Check = Callable[[], Admission | None]
Cases = Mapping[str, Check]


class ByteByByte(BasicAuth):
    """The control: ends at the first byte that is wrong."""

    def admit(self, headers: Headers, *, now: float) -> Admission | None:
        [(_, sent)] = headers
        for one, other in zip(sent, self._header, strict=False):
            if one != other:
                return None
        return self._admission


def wrong(right: int) -> str:
    """The secret with so many right characters in front, and no others."""
    return SECRET[:right] + "y" * (len(SECRET) - right)


def by_head(auth: Auth, name: bytes, value: bytes) -> Check:
    headers = [(name, value)]
    return lambda: auth.admit(headers, now=NOW)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def basic_cases(auth: Auth) -> Iterator[tuple[str, Check]]:
    for right in RIGHT:
        yield f"{right} bytes right", by_head(auth, b"authorization", basic(USER, wrong(right)))
    yield "the user wrong", by_head(auth, b"authorization", basic(USER[::-1], SECRET))


def signed_cases() -> Iterator[tuple[str, Check]]:
    auth = SignedAuth(SECRET)
    job, token = auth.sign(job="job", context={"call": 7}, expires=60.0, now=NOW)
    payload, _, signature = token.rpartition(".")
    for right in (0, 10, 20, 30, 42):
        other = signature[:right] + "".join("A" if one != "A" else "B" for one in signature[right:])
        yield f"{right} bytes right", by_head(auth, b"authorization", basic(job, f"{payload}.{other}"))


def token_cases() -> Iterator[tuple[str, Check]]:
    auth = DgTokenAuth(SECRET)
    for right in RIGHT:
        yield f"{right} bytes right", by_head(auth, b"dg-token", wrong(right).encode())


def extra_cases() -> Iterator[tuple[str, Check]]:
    auth = ExtraAuth(SECRET)
    for right in RIGHT:
        body = json.dumps({"metadata": {"request_id": "r", "extra": {"callback_secret": wrong(right)}}}).encode()
        yield f"{right} bytes right", lambda body=body: auth.admit_body(body)  # type: ignore[misc]  # a default binds it


CHECKERS: Mapping[str, Cases] = {
    "BasicAuth": dict(basic_cases(BasicAuth(USER, SECRET))),
    "SignedAuth": dict(signed_cases()),
    "DgTokenAuth": dict(token_cases()),
    "ExtraAuth": dict(extra_cases()),
    "BasicAuth | SignedAuth": dict(basic_cases(BasicAuth(USER, SECRET) | SignedAuth(SECRET))),
    "control": dict(basic_cases(ByteByByte(USER, SECRET))),
}


def measure(cases: Cases, samples: int, dice: random.Random) -> dict[str, list[int]]:
    """Nanoseconds of each measurement; the cases come in random order, so that what disturbs disturbs all."""
    times: dict[str, list[int]] = {name: [] for name in cases}
    order = list(cases) * samples
    dice.shuffle(order)
    for name in order:
        check = cases[name]
        begun = perf_counter_ns()
        for _ in range(CALLS):
            check()
        times[name].append(perf_counter_ns() - begun)
    return times


def quickest(times: Sequence[int], until: int) -> list[float]:
    """Nanoseconds for a call, of those measurements that were not interrupted."""
    return [each / CALLS for each in times if each <= until]


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """How many standard errors the means are apart."""
    return (fmean(one) - fmean(other)) / sqrt(variance(one) / len(one) + variance(other) / len(other))


def report(checker: str, times: Mapping[str, Sequence[int]]) -> float:
    """Print a line for each case; the largest |t|."""
    together = sorted(each for case in times.values() for each in case)
    until = together[int(len(together) * KEPT)]
    kept = {name: quickest(case, until) for name, case in times.items()}
    first = next(iter(kept.values()))
    found = {name: welch(case, first) for name, case in kept.items() if case is not first}
    for name, t in found.items():
        print(f"{checker:<24}{name:<18}{fmean(kept[name]):9.1f} ns{fmean(kept[name]) - fmean(first):+9.1f} ns{t:+9.1f}")
    return max(map(abs, found.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8_000, help="measurements of each case")
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    gc.disable()
    print(f"{'checker':<24}{'sent':<18}{'a check':>12}{'apart':>12}{'t':>9}")
    largest = {name: report(name, measure(cases, options.samples, dice)) for name, cases in CHECKERS.items()}
    control = largest.pop("control")
    leaky = [name for name, t in largest.items() if t > SURELY]
    print(f"\ncontrol: |t| = {control:.0f}, {'seen' if control > SURELY else 'NOT SEEN: this run proves nothing'}")
    print(f"time tells: {', '.join(leaky)}" if leaky else f"no other is beyond {SURELY:g}: {max(largest.values()):.1f}")
    return int(bool(leaky) or control <= SURELY)


if __name__ == "__main__":
    sys.exit(main())
