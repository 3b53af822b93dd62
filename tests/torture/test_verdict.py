"""The verdict sees each broken promise, and takes none for broken that was not."""

from __future__ import annotations

from itertools import count, islice
from typing import Any

import pytest

from .breaks import BREAKS, broken
from .plan import EVERY, plan_of, schedule
from .report import figures, history
from .verdict import Account, pending, violations

A, B = "one:a", "one:b"
runs = count()


def message(about: str = A, kind: str = "Failure", **more: Any) -> dict[str, Any]:
    own = {"scope": about.partition(":")[0], "kind": kind, "repeats": False, "said": None, "place": None}
    return {"what": "message", "about": about, "at": 0.0, **own, **more}


def sent(about: str = A, at: float = 1.0, status: int = 200, said: str = "stored") -> list[dict[str, Any]]:
    return [
        {"what": "sent", "about": about, "at": at},
        {"what": "answered", "about": about, "at": at + 0.1, "status": status, "said": said},
    ]


def run(
    about: str = A, begun: float = 2.0, lasts: float | None = 0.1, *, by: int = 1, key: str = "", **more: Any
) -> list[dict[str, Any]]:
    """A run of a handler; `lasts` is None if it was cut off, `error` what it raised."""
    own = {"handler": "save", "key": key or about, "lane": None, "kind": "Failure", "attempt": 1, **more}
    error, name = own.pop("error", None), str(next(runs))
    begin = {"what": "begun", "about": about, "at": begun, "by": by, "run": name, **own}
    if lasts is None:
        return [begin]
    end = {"what": "raised" if error else "ended", "about": about, "at": begun + lasts, "run": name, "by": by}
    return [begin, {**end, "error": error} if error else end]


def struck(at: float, by: int = 1, kind: str = "kill", *, code: int = -9) -> list[dict[str, Any]]:
    return [
        {"what": "struck", "about": None, "at": at, "pid": by, "kind": kind},
        {"what": "gone", "about": None, "at": at + 0.1, "pid": by, "code": code},
    ]


def trouble(since: float, until: float) -> dict[str, Any]:
    return {"what": "trouble", "about": None, "at": until, "since": since, "kind": "disk full"}


def framed(*abouts: str, code: int = 1000) -> list[dict[str, Any]]:
    """Frames of one socket."""
    frames = [
        {
            "what": "framed",
            "about": about,
            "at": 1.0,
            "scope": "one",
            "place": place,
            "kind": "SpeechStarted",
            "said": None,
        }
        for place, about in enumerate(abouts)
    ]
    opened = {"what": "opened", "about": None, "at": 0.5, "scope": "one"}
    return [opened, *frames, {"what": "closed", "about": None, "at": 3.0, "scope": "one", "code": code}]


SOUND = [message(), *sent()]
IN_LANE: dict[str, Any] = {"lane": "l"}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([*SOUND, *run()], id="handled once"),
        pytest.param([message(), *sent(status=503, said="")], id="never acknowledged"),
        pytest.param([*SOUND, *run(error="RuntimeError"), *run(begun=3.0, attempt=2)], id="failed, then not"),
        pytest.param([*SOUND, *run(error="RuntimeError", attempt=5)], id="given up"),
        pytest.param([*SOUND, *run(error="Bury")], id="buried"),
        pytest.param([*SOUND, *run(lasts=None), *struck(2.5), *run(begun=3.0, by=2)], id="killed within"),
        pytest.param([*SOUND, *run(), *struck(2.5), *run(begun=3.0, by=2)], id="killed before it was settled"),
        pytest.param(
            [*SOUND, *run(), trouble(1.5, 9.0), *struck(10.0), *run(begun=11.0, by=2)],
            id="killed while the disk was full",
        ),
        pytest.param(
            [
                *(message(kind="Analysis"), *sent(), *run(), *run(handler="mirror", lasts=None), *struck(9.0)),
                *(*run(begun=10.0, by=2), *run(begun=10.0, by=2, handler="mirror")),
            ],
            id="killed while another handler of it ran",
        ),
        pytest.param([*SOUND, *sent(at=1.5, said="duplicate"), *run()], id="a retry"),
        pytest.param([message(kind="Failure", conflicts=True), *sent(said="conflict")], id="a conflict"),
        pytest.param(
            [message(repeats=True), *sent(), *sent(), *run(key="1"), *run(key="2", begun=3.0)], id="equal, and two"
        ),
        pytest.param([*framed(A, B), *run(A, **IN_LANE), *run(B, 3.0, **IN_LANE)], id="frames"),
        pytest.param([*framed(A, B), *run(A), *struck(2.9)], id="the beginning of a socket whose process was killed"),
        pytest.param([*struck(1.0, kind="stop", code=0)], id="ended in order"),
    ],
)
def test_nothing_is_wrong(lines):
    assert violations(Account(lines)) == []


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        pytest.param("lost", SOUND, id="never handled"),
        pytest.param("lost", [*SOUND, *run(error="RuntimeError")], id="not handled again"),
        pytest.param("lost", [message(kind="Analysis"), *sent(), *run()], id="by one handler only"),
        pytest.param("lost", [message(repeats=True), *sent(), *sent(), *run()], id="equal, two, and one was handled"),
        pytest.param("lost", [*framed(A, B), *run(A)], id="the end of a socket"),
        pytest.param("doubled", [*SOUND, *run(), *run(begun=3.0)], id="handled twice"),
        pytest.param("doubled", [*SOUND, *run(lasts=9.0), *run(begun=3.0, by=2)], id="by two processes at once"),
        pytest.param("doubled", [*SOUND, *run(), *struck(9.0), *run(begun=10.0, by=2)], id="killed long after"),
        pytest.param("doubled", [*SOUND, *run(), *struck(2.5, by=3), *run(begun=3.0, by=2)], id="another was killed"),
        pytest.param("doubled", [*SOUND, *run(key="1"), *run(key="2", begun=3.0)], id="two deliveries"),
        pytest.param("doubled", [*SOUND, *sent(), *run()], id="stored twice"),
        pytest.param("out of order", [*framed(A, B), *run(B), *run(A, 3.0)], id="frames"),
        pytest.param(
            "out of order",
            [*framed(A, B), *run(A, lasts=2.0, **IN_LANE), *run(B, 3.0, **IN_LANE)],
            id="begun before the one in front had ended",
        ),
        pytest.param(
            "out of order",
            [
                *(message(about, place=place) for place, about in enumerate((A, B))),
                *sent(A),
                *sent(B),
                *run(B, **IN_LANE),
                *run(A, 3.0, **IN_LANE),
            ],
            id="messages of a posted stream",
        ),
        pytest.param("mistaken", [message(), *sent(said="duplicate"), *run()], id="taken for a retry"),
        pytest.param("mistaken", [*SOUND, *sent(said="conflict"), *run()], id="taken for a conflict"),
        pytest.param("died", [{"what": "gone", "about": None, "at": 1.0, "pid": 1, "code": 1}], id="by itself"),
        pytest.param("died", struck(1.0, kind="stop", code=1), id="badly"),
    ],
)
def test_what_is_wrong_is_told_with_its_history(what, lines):
    account = Account(lines)
    found = violations(account)
    assert {violation.what for violation in found} == {what}
    assert all(history(account, violation) for violation in found if violation.about)
    assert figures(account)


WORDS = [f"word{n}" for n in range(3)]


def stream(text: str, *revisions: int) -> list[dict[str, Any]]:
    """A stream of three final results, and what was told of it as a whole."""
    abouts = [f"one:{n}" for n in range(3)]
    posted = [message(about, place=n, said=word) for n, (about, word) in enumerate(zip(abouts, WORDS, strict=True))]
    handled = [line for about in abouts for line in (*sent(about), *run(about))]
    whole = [run(f"one:whole:r:{n}", 5.0 + n, kind="LiveTranscript", text=text) for n in revisions]
    return [*posted, *handled, *(line for lines in whole for line in lines)]


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        pytest.param(stream("word0 word1 word2", 0), 0, id="all"),
        pytest.param(stream("word0 word1 word2", 0, 1), 0, id="revised"),
        pytest.param(stream(""), 1, id="none"),
        pytest.param(stream("word0 word2", 0), 1, id="with a gap"),
        pytest.param(stream("word1 word0 word2", 0), 1, id="in another order"),
    ],
)
def test_a_stream_is_told_as_a_whole(lines, missing):
    assert len(pending(Account(lines))) == missing


# --- the plan


def test_a_seed_is_one_schedule_in_which_every_fault_strikes():
    first, again, other = (list(islice(schedule(seed), 30)) for seed in (1, 1, 2))
    assert first == again != other
    assert {act.kind for act in first} == set(EVERY)


def test_a_seed_is_one_plan_for_every_handler():
    plans = [[plan_of(seed, f"scope:{n}", "index") for n in range(200)] for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {plan.how for plan in plans[0]} >= {"succeed", "raise", "retry", "hang"}


@pytest.mark.parametrize("name", BREAKS)
def test_each_safeguard_that_can_be_taken_out_is_there(name, tmp_path):
    assert (broken(name, tmp_path) / "dgreceiver").is_dir()
