"""The verdict: what the senders were promised against what the handlers did, from the ledger alone.

It shares no code with the inbox or with identity: a callback is known by where it was sent and what it says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from .plan import ATTEMPTS, STUBBORN, TIMEOUT

SETTLED_WITHIN = 2.0  # seconds from the end of a handler to the commit of its settle, on a disk that works
AFTER_TROUBLE = 6.5  # seconds after a fault of the disk or a freeze until what waited for it has been tried again
PATIENCE = 10.0  # seconds that running handlers have when their process is told to go
HANDLERS: Mapping[str, Sequence[str]] = {
    "Transcript": ("save", "mirror", "index"),
    "Analysis": ("save", "mirror"),
    "Audio": ("save", "mirror"),
}
MAY_HANG = ("mirror", "index")

Line = Mapping[str, Any]


@dataclass(slots=True)
class Run:
    """One run of one handler."""

    about: str
    handler: str
    key: str
    lane: str | None
    kind: str
    attempt: int
    by: int  # process id
    begun: float
    text: str  # of a whole stream
    ended: float = inf
    error: str | None = None

    @property
    def scope(self) -> str:
        return self.about.partition(":")[0]

    @property
    def succeeded(self) -> bool:
        return self.ended < inf and self.error is None

    @property
    def settled(self) -> bool:
        """Whether this handler is through with the callback, well or for good."""
        return self.succeeded or self.error == "Bury" or (self.error is not None and self.attempt >= ATTEMPTS)


@dataclass(frozen=True, slots=True)
class Strike:
    """A process that was killed or told to go."""

    kind: str
    since: float
    until: float


@dataclass(slots=True)
class Sent:
    """What is known of one callback on the sender's side."""

    kind: str = ""
    scope: str = ""
    repeats: bool = False  # equal bytes are another message
    conflicts: bool = False  # another body came under its id before
    places: list[int] = field(default_factory=list)
    said: str | None = None
    sends: list[float] = field(default_factory=list)
    answers: list[Line] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        return sum(answer["status"] == 200 for answer in self.answers)

    @property
    def handlers(self) -> Sequence[str]:
        return HANDLERS.get(self.kind, ("save",))


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    what: str  # lost, doubled, out of order, mistaken, refused, leaked, died
    about: str | None
    why: str


class Account:
    """The ledger, read."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = sorted(lines, key=lambda line: line["at"])
        self.sent = defaultdict[str, Sent](Sent)
        self.frames = defaultdict[str, list[Line]](list)  # by scope
        self.sockets = defaultdict[str, list[float]](list)  # by scope, when they were opened and closed
        self.closed: dict[str, int | None] = {}  # by scope, with which code
        self.runs: list[Run] = []
        self.strikes = defaultdict[int, list[Strike]](list)  # by process
        self.troubles: list[tuple[float, float, str]] = []
        self.repeats = Counter[str]()  # that are explained, by what explains them
        self.faults = Counter[str]()
        self._open: dict[str, Run] = {}
        self._by_key = defaultdict[str, list[Run]](list)
        for line in self.lines:
            read = getattr(self, f"_read_{line['what']}", None)
            if read:
                read(line)

    def _read_message(self, line: Line) -> None:
        sent = self.sent[line["about"]]
        sent.kind, sent.scope, sent.repeats = line["kind"], line["scope"], line["repeats"]
        sent.conflicts = sent.conflicts or line.get("conflicts", False)
        sent.said = line["said"]
        if line["place"] is not None:
            sent.places.append(line["place"])

    def _read_sent(self, line: Line) -> None:
        self.sent[line["about"]].sends.append(line["at"])

    def _read_answered(self, line: Line) -> None:
        self.sent[line["about"]].answers.append(line)

    def _read_framed(self, line: Line) -> None:
        self.frames[line["scope"]].append(line)

    def _read_opened(self, line: Line) -> None:
        self.sockets[line["scope"]].append(line["at"])

    def _read_closed(self, line: Line) -> None:
        self.sockets[line["scope"]].append(line["at"])
        self.closed[line["scope"]] = line["code"]

    def _read_begun(self, line: Line) -> None:
        run = Run(
            line["about"],
            line["handler"],
            line["key"],
            line["lane"],
            line["kind"],
            line["attempt"],
            line["by"],
            line["at"],
            line.get("text", ""),
        )
        self.runs.append(run)
        self._open[line["run"]] = run
        self._by_key[run.key].append(run)

    def _read_ended(self, line: Line) -> None:
        self._open[line["run"]].ended = line["at"]

    def _read_raised(self, line: Line) -> None:
        self._open[line["run"]].ended, self._open[line["run"]].error = line["at"], line["error"]

    def _read_struck(self, line: Line) -> None:
        self.faults[line["kind"]] += 1
        self.strikes[line["pid"]].append(Strike(line["kind"], line["at"], inf))

    def _read_gone(self, line: Line) -> None:
        its = self.strikes[line["pid"]]
        if its:
            its[-1] = Strike(its[-1].kind, its[-1].since, line["at"])

    def _read_trouble(self, line: Line) -> None:
        self.faults[line["kind"]] += 1
        self.troubles.append((line["since"], line["at"], line["kind"]))

    # --- what is asked of it

    def by_about(self) -> Mapping[str, list[Run]]:
        found = defaultdict[str, list[Run]](list)
        for run in self.runs:
            found[run.about].append(run)
        return found

    def settled_by(self, at: float) -> float:
        """By when the inbox has noted, durably, what happened then: later, while there is trouble."""
        by = at + SETTLED_WITHIN
        for since, until, _ in sorted(self.troubles):
            if since <= by and until >= at:
                by = max(by, until + AFTER_TROUBLE)
        return by

    def reason(self, first: Run, second: Run) -> str | None:
        """Why a handler that had begun with something began with it again; None if there is no good reason."""
        if first.error is not None and first.ended <= second.begun:
            return "retry"
        if first.handler in MAY_HANG and min(first.ended, second.begun) - first.begun >= TIMEOUT * 0.95:
            return "time-out"
        over = self._over(first, second)
        until = self.settled_by(over) if over < inf else inf
        for strike in self.strikes[first.by]:
            if first.begun <= strike.until and strike.since <= min(until, second.begun):
                return strike.kind
        return None

    def _over(self, first: Run, second: Run) -> float:
        """When all handlers that ran beside the first were through: only then it is noted what they came to."""
        return max(run.ended for run in self._by_key[first.key] if run.by == first.by and run.begun < second.begun)

    def end_of(self, run: Run) -> float:
        """When a run was over, be it because its process was."""
        ends = [run.ended]
        for strike in self.strikes[run.by]:
            if strike.kind in ("stop", "hand over"):
                ends.append(max(run.begun, strike.since + PATIENCE))
            ends.append(max(run.begun, strike.until))
        return min(ends)

    def was_struck(self, since: float, until: float) -> bool:
        """Whether any process was killed or cut off in that time."""
        strikes = [strike for its in self.strikes.values() for strike in its]
        return any(strike.since <= until and strike.until >= since for strike in strikes)


def pending(account: Account) -> list[str]:
    """What was acknowledged and is not handled to the end."""
    return [violation.about or "" for violation in (*_lost(account), *_wholes(account))]


def violations(account: Account) -> list[Violation]:
    checks = (_lost, _doubled, _stored_twice, _out_of_order, _frames, _wholes, _mistaken, _died)
    return [violation for check in checks for violation in check(account)]


# --- lost


def _lost(account: Account) -> Iterator[Violation]:
    runs = account.by_about()
    for about, sent in account.sent.items():
        if not sent.acknowledged or sent.conflicts:
            continue
        least = sent.acknowledged if sent.repeats else 1
        for handler in sent.handlers:
            settled = {run.key for run in runs[about] if run.handler == handler and run.settled}
            if len(settled) < least:
                what = "handled to the end" if least == 1 else f"handled {least} times but {len(settled)}"
                yield Violation("lost", about, f"acknowledged, and not {what} by {handler}")


def _frames(account: Account) -> Iterator[Violation]:
    """What came over a socket: all of it in order, or, if a process was killed meanwhile, its beginning."""
    by_scope = defaultdict[str, dict[str, Run]](dict)
    for run in sorted(account.runs, key=lambda run: run.begun):
        if run.scope in account.frames and run.handler == "save" and run.kind != "LiveTranscript":
            by_scope[run.scope].setdefault(run.key, run)
    for scope, frames in account.frames.items():
        told = [frame["about"] for frame in sorted(frames, key=lambda frame: frame["place"])]
        handled = [run.about for run in by_scope[scope].values()]
        if handled != told[: len(handled)]:
            at = next((n for n, pair in enumerate(zip(handled, told, strict=False)) if pair[0] != pair[1]), len(told))
            about = (handled[at:] or told[-1:])[0]
            yield Violation("out of order", about, f"frame {at} of {scope} is not the one that was sent there")
        elif len(handled) < len(told) and _is_whole(account, scope):
            why = f"{len(told) - len(handled)} frames at the end of {scope} were never handled, and nothing was killed"
            yield Violation("lost", told[len(handled)], why)


def _is_whole(account: Account, scope: str) -> bool:
    times = account.sockets[scope]
    whole = account.closed.get(scope) == 1000 and len(times) == 2
    return whole and not account.was_struck(times[0], account.settled_by(times[1]))


# --- doubled


def _doubled(account: Account) -> Iterator[Violation]:
    by_handler = defaultdict[tuple[str, str], list[Run]](list)
    for run in sorted(account.runs, key=lambda run: run.begun):
        by_handler[run.key, run.handler].append(run)
    for its in by_handler.values():
        for first, second in pairwise(its):
            reason = account.reason(first, second)
            if reason is None:
                yield Violation("doubled", first.about, f"{first.handler} began again, and nothing explains it")
            else:
                account.repeats[reason] += 1
    for about, runs in account.by_about().items():
        yield from _doubled_keys(account, about, runs)


def _doubled_keys(account: Account, about: str, runs: Sequence[Run]) -> Iterator[Violation]:
    """One callback is one delivery; of what is never taken for a retry, as many as were sent."""
    keys, sent = len({run.key for run in runs}), account.sent.get(about)
    if sent is not None:
        most = len(sent.sends) if sent.repeats else 1
    else:
        most = sum(frame["about"] == about for frame in account.frames.get(runs[0].scope, ())) or 1
    if keys > most:
        yield Violation("doubled", about, f"{keys} deliveries of what was sent {most} times")


def _stored_twice(account: Account) -> Iterator[Violation]:
    for about, sent in account.sent.items():
        stored = sum(answer["said"] == "stored" for answer in sent.answers)
        if stored > 1 and not sent.repeats:
            yield Violation("doubled", about, f"stored {stored} times")


# --- out of order


def _out_of_order(account: Account) -> Iterator[Violation]:
    lanes = defaultdict[str, dict[str, list[Run]]](lambda: defaultdict(list))
    for run in sorted(account.runs, key=lambda run: run.begun):
        if run.lane:
            lanes[run.lane][run.key].append(run)
    for deliveries in lanes.values():
        spans = [(its[0], max(account.end_of(run) for run in its)) for its in deliveries.values()]
        for (first, over), (second, _) in pairwise(spans):
            if second.begun < over:
                yield Violation("out of order", second.about, f"begun before {first.about} had ended")
        yield from _misplaced(account, [first for first, _ in spans])


def _misplaced(account: Account, runs: Sequence[Run]) -> Iterator[Violation]:
    """Messages that were sent one by one are handled in that order, those aside that are never taken for a retry."""
    placed = [(account.sent[run.about].places, run) for run in runs if run.about in account.sent]
    placed = [(places, run) for places, run in placed if places and not account.sent[run.about].repeats]
    for (first, _), (second, run) in pairwise(placed):
        if second[0] < first[0]:
            yield Violation("out of order", run.about, f"message {second[0]} came after message {first[0]}")


# --- whole streams


def _wholes(account: Account) -> Iterator[Violation]:
    """Of each stream one LiveTranscript, or one for each revision; the last has all that was acknowledged, in order."""
    told = defaultdict[str, list[Run]](list)
    for run in account.runs:
        if run.kind == "LiveTranscript":
            told[run.scope].append(run)
    for scope, said in _said(account).items():
        settled = [run for run in told[scope] if run.settled]
        if not said:
            continue
        if not settled:
            yield Violation("lost", f"{scope}:whole", "the stream has ended without a LiveTranscript")
            continue
        last = max(settled, key=lambda run: int(run.about.rpartition(":")[2]))
        words = [word for word in last.text.split() if word in set(said)]
        if words != said:
            yield Violation("lost", last.about, f"the whole stream does not say what was said: {said} is {last.text!r}")


def _said(account: Account) -> Mapping[str, list[str]]:
    """The final results of each stream of ours that must be in the whole of it, in order of time."""
    found = defaultdict[str, list[str]](list)
    handled = {run.about for run in account.runs}
    posted = [sent for sent in account.sent.values() if sent.said and sent.acknowledged and sent.places]
    for sent in sorted(posted, key=lambda sent: sent.places[0]):
        found[sent.scope].append(str(sent.said))
    for scope, frames in account.frames.items():
        if scope != STUBBORN:
            found[scope] += [frame["said"] for frame in frames if frame["said"] and frame["about"] in handled]
    return found


# --- the rest


def _mistaken(account: Account) -> Iterator[Violation]:
    for about, sent in account.sent.items():
        first = sent.answers[0] if sent.answers else None
        if first and first["said"] == "duplicate" and sum(at <= first["at"] for at in sent.sends) == 1:
            yield Violation("mistaken", about, "taken for a retry, and it was the first")
        if not sent.conflicts and any(answer["said"] == "conflict" for answer in sent.answers):
            yield Violation("mistaken", about, "taken for a conflict, and it was the same")


def _died(account: Account) -> Iterator[Violation]:
    for line in account.lines:
        if line["what"] != "gone":
            continue
        kinds = {strike.kind for strike in account.strikes[line["pid"]]}
        if not kinds:
            yield Violation("died", None, f"process {line['pid']} ended by itself, with code {line['code']}")
        elif kinds <= {"stop", "hand over"} and line["code"] != 0:
            yield Violation("died", None, f"process {line['pid']} was asked to end, and ended with {line['code']}")
