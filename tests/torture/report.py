"""The report: what was sent, what struck, what came of it; each broken promise with its history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .verdict import Account, Line, Violation

SHOWN = 10  # violations with their history
LONGEST = 25  # lines of one history


def tell(account: Account, found: Sequence[Violation], *, seed: int, seconds: float) -> None:
    """Print the table, the violations and the verdict."""
    print()
    for name, figure in figures(account).items():
        print(f"{name:<28} {figure}")
    print()
    for violation in found[:SHOWN]:
        print(f"{violation.what.upper()}: {violation.about or ''} {violation.why}")
        for line in history(account, violation)[:LONGEST]:
            print(f"    {line}")
    counts = Counter(violation.what for violation in found)
    words = (
        "lost",
        "doubled",
        "out of order",
        "mistaken",
        *(set(counts) - {"lost", "doubled", "out of order", "mistaken"}),
    )
    print(", ".join(f"{counts[word]} {word}" for word in words), f"(seed {seed}, {seconds:.0f} s)")


def figures(account: Account) -> dict[str, str]:
    answers = [answer for sent in account.sent.values() for answer in sent.answers]
    statuses = Counter(answer["status"] for answer in answers)
    refused = ", ".join(
        f"{count} × {status or 'no answer'}" for status, count in sorted(statuses.items()) if status != 200
    )
    said = Counter(answer["said"] for answer in answers if answer["said"])
    faults = ", ".join(f"{count} × {kind}" for kind, count in sorted(account.faults.items()))
    repeats = ", ".join(f"{count} × {reason}" for reason, count in sorted(account.repeats.items()))
    whole = {run.about for run in account.runs if run.kind == "LiveTranscript"}
    frames = sum(map(len, account.frames.values()))
    return {
        "callbacks sent": f"{len(account.sent)}, in {len(answers)} attempts",
        "acknowledged": f"{sum(sent.acknowledged > 0 for sent in account.sent.values())} ({_listed(said)})",
        "refused or unanswered": refused or "0",
        "sent over sockets": f"{frames} frames of {len(account.frames)} streams",
        "handled": f"{len({run.key for run in account.runs})} deliveries in {len(account.runs)} runs",
        "whole streams": str(len(whole)),
        "faults": faults or "none",
        "run again, explained": repeats or "none",
    }


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def history(account: Account, violation: Violation) -> list[str]:
    """The ledger's lines about it, and what struck meanwhile."""
    if violation.about is None:
        return []
    its = [line for line in account.lines if line["about"] == violation.about]
    processes = {line["by"] for line in its if line.get("run")}
    since, until = (its[0]["at"], its[-1]["at"]) if its else (0.0, 0.0)
    around = [line for line in account.lines if _strikes(line, processes) and since - 5 <= line["at"] <= until + 5]
    begun = account.lines[0]["at"]
    return [_shown(line, begun) for line in sorted([*its, *around], key=lambda line: line["at"])]


def _strikes(line: Line, processes: set[int]) -> bool:
    return line["what"] == "trouble" or (line["what"] in ("struck", "gone") and line["pid"] in processes)


def _shown(line: Line, begun: float) -> str:
    rest = " ".join(f"{name}={value}" for name, value in line.items() if name not in ("what", "about", "at", "text"))
    return f"{line['at'] - begun:8.3f} s  {line['what']:<9} {rest}"
