"""docs/benchmarks.md and its plots, made of results.json alone: `python benchmarks/render.py [--check]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from charts import Bar, bars
from turns import ratio

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "plots"
USUAL = 64  # connections

Record = Mapping[str, Any]
Results = Mapping[str, Any]

SERVERS = {
    "bare": "uvicorn that reads the body and keeps nothing",
    "storing": "`dgreceiver serve` without handlers",
    "plain": "the same under plain uvicorn",
    "handling": "`dgreceiver serve` with an `async def` handler",
    "in-threads": "`dgreceiver serve` with a `def` handler",
    "fastapi": "FastAPI, aiosqlite: INSERT and COMMIT under a lock",
    "flask": "Flask, sqlite3; gunicorn, 16 threads",
    "flask-sync": "Flask, sqlite3; gunicorn, 4 sync workers, a connection per request",
    "django": "Django, its ORM, SQLite; gunicorn, 16 threads",
    "celery": "Flask, Celery, Redis as it comes; gunicorn, 16 threads, one worker",
    "celery-always": "the same, Redis with `appendfsync always`",
    "bolt": "slack_bolt's async app: acknowledges, then runs its listener",
}


def page(results: Results) -> str:
    """The page, in Markdown."""
    parts = [
        _head(results),
        _short(results),
        _ingest(results),
        _beside(results),
        _burst(results),
        _dispatch(results),
        _live(results),
        _memory(results),
        _growth(results),
        _foot(results),
    ]
    return "\n".join(part for part in parts if part)


def plots(results: Results) -> dict[str, str]:
    """The plots by the names of their files."""
    made = {"ingest.svg": _plot_ingest, "beside.svg": _plot_beside, "live.svg": _plot_live, "growth.svg": _plot_growth}
    return {name: bars(*make(results)) for name, make in made.items()}


def write(results: Results) -> None:
    PLOTS.mkdir(exist_ok=True)
    for path, text in _files(results).items():
        path.write_text(text)


def stale(results: Results) -> list[Path]:
    """What is not as it would be written now."""
    return [path for path, text in _files(results).items() if not path.exists() or path.read_text() != text]


def _files(results: Results) -> dict[Path, str]:
    return {PAGE: page(results)} | {PLOTS / name: text for name, text in plots(results).items()}


# --- the parts of the page


def _head(results: Results) -> str:
    run = results["run"]
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    rough = "\n**A quick run: its figures are rough.**\n" if run["quick"] else ""
    failed = "".join(f"\n**Failed: {reason}.**\n" for reason in run["failed"])
    return f"""# Benchmarks

This page is written by `scripts/bench`, which measures all of it in one run of about ten minutes, also on your own
machine, from `benchmarks/results.json`. Times are of the machine below; ratios travel better, so they come first.
{rough}{failed}
| | |
|---|---|
| measured | {run["date"]} |
| processor | {run["processor"]}, {run["cores"]} cores |
| memory | {run["memory"] / 2**30:.0f} GiB |
| system | {run["kernel"]}, {run["file_system"]}, load average {run["load"]:g} at the beginning |
| Python | {run["python"]} |
| versions | {versions} |

The server has one core, with all of its processes, and the load another. Every request has Basic credentials and a
recorded transcript that none before it had. [How it is measured, and what is verified](../benchmarks/README.md).
"""


def _short(results: Results) -> str:
    lines = [*_short_ratios(results), *_short_burst(results)]
    return "## In short\n\n" + "".join(f"- {line}\n" for line in lines) if lines else ""


def _short_ratios(results: Results) -> Iterable[str]:
    rates = _rates(results, "beside", 5_000, USUAL)
    if {"bare", "storing"} <= rates.keys():
        yield (
            f"Storing a callback of 5 KB on disk before its 200 runs at {_ratio(rates, 'storing', 'bare')} of the rate "
            "of a bare uvicorn that keeps nothing."
        )
        hand = [name for name in rates if name not in ("bare", "storing", "plain", "handling", "bolt")]
        if hand:
            said = ", ".join(f"{ratio(rates['storing'], rates[name]):.1f} × {name}" for name in hand)
            yield f"Beside endpoints written by hand, it is {said}."


def _short_burst(results: Results) -> Iterable[str]:
    for burst in results.get("burst", ()):
        yield (
            f"{burst['rate']:g} callbacks a second of {_size(burst['size'])} for {burst['seconds']:g} s: "
            f"{burst['refused'] or 'none'} refused, p50 {_ms(burst['p50'])}, p99 {_ms(burst['p99'])}."
        )


def _ingest(results: Results) -> str:
    records = results.get("ingest", ())
    sizes = sorted({record["size"] for record in records})
    tables = [f"### {_size(size)}\n\n{_ingest_table(results, size)}" for size in sizes]
    text = (
        "## Taking callbacks\n\nA closed loop of keep-alive connections. `bare` is uvicorn that reads the body and "
        "keeps nothing; `storing` is a\n`Receiver` without handlers; `handling` has one, which shares the core.\n\n"
        "![Requests a second against bare uvicorn](plots/ingest.svg)\n\n"
    )
    return text + "\n".join(tables) if tables else ""


def _ingest_table(results: Results, size: int) -> str:
    records = [record for record in results["ingest"] if record["size"] == size]
    rows = []
    for connections in sorted({record["connections"] for record in records}):
        rates = _rates(results, "ingest", size, connections)
        for name in rates:
            runs = _runs(records, server=name, connections=connections)
            rows.append([str(connections), name, _ratio(rates, name, "bare"), *_figures(runs)])
    return _table("connections | server | ÷ bare | requests/s | p50 ms | p99 ms | µs each | instructions each", rows)


def _figures(runs: Sequence[Record]) -> list[str]:
    instructions = _median(runs, "instructions")
    return [
        f"{_median(runs, 'rate'):,.0f}",
        f"{_median(runs, 'p50') * 1e3:,.1f}",
        f"{_median(runs, 'p99') * 1e3:,.1f}",
        f"{_median(runs, 'cost') * 1e6:,.0f}",
        f"{instructions / 1e3:,.0f} k" if instructions else "",
    ]


def _beside(results: Results) -> str:
    records = results.get("beside", ())
    sizes = sorted({record["size"] for record in records})
    if not sizes:
        return ""
    named = "".join(f"| `{name}` | {text} |\n" for name, text in SERVERS.items() if _runs(records, server=name))
    missing = "".join(
        f"`{name}` is missing: {need} is not installed.\n" for name, need in results["run"]["missing"].items()
    )
    tables = "\n".join(f"### {_size(size)}, side by side\n\n{_beside_table(results, size)}" for size in sizes)
    return f"""## Beside what one writes by hand

| server | is |
|---|---|
{named}{missing}
![Requests a second, side by side](plots/beside.svg)

{tables}
{_proofs(results)}"""


def _beside_table(results: Results, size: int) -> str:
    records = _runs(results["beside"], size=size)
    rates = _rates(results, "beside", size, USUAL)
    rows = []
    for name in rates:
        runs = _runs(records, server=name)
        handled = _median(runs, "handled_rate")
        rows.append(
            [
                f"`{name}`",
                _ratio(rates, name, "bare"),
                *_figures(runs),
                f"{_median(runs, 'memory') / 2**20:,.0f}",
                f"{handled:,.0f}" if handled else "",
            ]
        )
    return _table(
        "server | ÷ bare | requests/s | p50 ms | p99 ms | µs each | instructions each | MiB | handled/s", rows
    )


def _proofs(results: Results) -> str:
    rows = [
        [
            f"`{proof['server']}`",
            {True: "yes", False: "**no**", None: "not tried"}[proof["durable"]],
            "yes" if proof["recognised"] else "**no**",
            f"{proof['found']:,} of {proof['acknowledged']:,}",
        ]
        for proof in results.get("proof", ())
    ]
    if not rows:
        return ""
    return f"""
What a 200 is worth, tried in the same run. *On disk*: with every fsync 300 ms slower, no answer came sooner than that.
*Retry recognised*: the same callback, sent twice, is there once. *After a kill -9*: of what was acknowledged, with
handlers that take 0.2 s, what was handled or was still there when all processes, Redis too, had been killed at once
after the last answer.

{_table("server | on disk before the answer | retry recognised | after a kill -9", rows)}
Redis as it comes writes a snapshot now and then; with `appendfsync everysec` it would outlive the kill of its process,
and lose up to a second or two of what was acknowledged when the power fails. slack_bolt keeps nothing, by design: it is
here for what a framework of handlers costs; its app does not check the signature of the caller.
"""


def _burst(results: Results) -> str:
    rows = [
        [
            f"{burst['rate']:g}/s for {burst['seconds']:g} s",
            _size(burst["size"]),
            f"{burst['sent']:,}",
            f"**{burst['refused']:,}**",
            *(_ms(burst[name]) for name in ("p50", "p99", "most")),
            f"{burst['backlog']:,}",
            f"{burst['lag']:.1f} s",
            f"{burst['idle_memory'] / 2**20:.0f} → {burst['peak_memory'] / 2**20:.0f}",
        ]
        for burst in results.get("burst", ())
    ]
    if not rows:
        return ""
    return f"""## A burst

By the clock, an open loop: a callback is sent when it is due, whatever became of those before, and timed from that
instant. A handler runs beside; *backlog* is what it had not handled when the last answer came, *lag* how long it took
from then on.

{_table("callbacks | size | sent | refused | p50 | p99 | longest | backlog | lag | MiB", rows)}"""


def _dispatch(results: Results) -> str:
    rows = [
        [
            f"`{one['kind']}`",
            _size(one["size"]),
            "`def`" if one["server"] == "in-threads" else "`async def`",
            f"{one['rate']:,.0f}",
            f"{one['cost'] * 1e6:,.0f}",
            f"{one['memory'] / 2**20:.0f}",
        ]
        for one in results.get("dispatch", ())
    ]
    if not rows:
        return ""
    return f"""## Handling a backlog

An inbox that is full when the server opens it: claimed, parsed, handed to a handler that reads the text, settled on
disk. Live results are of 64 streams, in order in each.

{_table("event | size | handler | callbacks/s | µs each | MiB", rows)}"""


def _live(results: Results) -> str:
    rows = [
        [
            f"{one['sockets']:,}",
            f"{one['each']:g}" if one["each"] else "all they could",
            f"`{one['server']}`",
            f"{one['rate']:,.0f}",
            *(_ms(one[name]) if one[name] is not None else "" for name in ("p50", "p99", "most")),
            f"{(one['open_memory'] - one['idle_memory']) / one['sockets'] / 1024:,.0f}",
            f"{one['peak_memory'] / 2**20:.0f}",
        ]
        for one in results.get("live", ())
    ]
    if not rows:
        return ""
    size = results["live"][0]["size"]
    return f"""## Live streams over WebSocket

Frames of {size:,} bytes, by the clock, evenly spread over the sockets. Timed from the instant at which a frame was due
until its handler has it, stored on disk in between.

![From frame to handler](plots/live.svg)

{_table("sockets | frames/s each | server | stored/s | p50 | p99 | longest | KiB a socket | MiB at most", rows)}"""


def _memory(results: Results) -> str:
    rows = [
        [
            f"{held['bodies']:,} × {_size(held['size'])}",
            f"{held['at_once']:,}",
            f"{held['refused']:,}",
            f"{held['seconds']:.1f} s",
            f"{held['idle_memory'] / 2**20:.0f}",
            f"{held['peak_memory'] / 2**20:.0f}",
        ]
        for held in results.get("memory", ())
    ]
    if not rows:
        return ""
    return f"""## Memory

So many bodies at once, each on a connection of its own. Who finds no room within 5 s is told to come again (503;
Deepgram tries again after 30 s): that bounds the memory, whatever comes.

{_table("bodies | at once | told to come again | until the last answer | MiB at rest | MiB at most", rows)}"""


def _growth(results: Results) -> str:
    rows = [
        [
            f"{one['rows']:,}",
            f"{one['file'] / 1e6:,.1f} MB",
            f"{one['ingest_rate']:,.0f}",
            f"{one['ingest_cost'] * 1e6:,.0f}",
            f"{one['dispatch_rate']:,.0f}",
            f"{one['dispatch_cost'] * 1e6:,.0f}",
        ]
        for one in results.get("growth", ())
    ]
    if not rows:
        return ""
    return f"""## Beside a backlog that grows

Callbacks of 1 KB that wait in the inbox already, and what one more costs to take, and one of them to handle.

![Processor time beside a growing backlog](plots/growth.svg)

{_table("waiting | file | taken/s | µs each | handled/s | µs each", rows)}"""


def _foot(results: Results) -> str:
    return """## Measure it yourself

```sh
scripts/bench --quick    # a minute or two; prints this page with rough figures
scripts/bench            # all of it; writes this page
```

Linux only; nothing else should run meanwhile. Redis is used where `redis-server` is installed.
"""


# --- the plots


def _plot_ingest(results: Results) -> tuple[str, list[Bar]]:
    rows = []
    records = results.get("ingest", ())
    for size in sorted({record["size"] for record in records}):
        for connections in sorted({record["connections"] for record in _runs(records, size=size)}):
            rates = _rates(results, "ingest", size, connections)
            rows += [
                Bar(
                    f"{name}, {_size(size)}, {connections} conn.",
                    ratio(rates[name], rates["bare"]),
                    _ratio(rates, name, "bare"),
                    n,
                )
                for n, name in enumerate(("storing", "handling"), 1)
                if name in rates and "bare" in rates
            ]
    return "Requests a second ÷ bare uvicorn", rows


def _plot_beside(results: Results) -> tuple[str, list[Bar]]:
    rates = _rates(results, "beside", 5_000, USUAL)
    ours = ("storing", "handling")
    rows = [Bar(name, median(turns), f"{median(turns):,.0f}", int(name in ours)) for name, turns in rates.items()]
    return "Requests a second at 5 KB, side by side", rows


def _plot_live(results: Results) -> tuple[str, list[Bar]]:
    paced = [one for one in results.get("live", ()) if one["each"]]
    return "From frame to handler", [
        Bar(f"{one['sockets']} sockets × {one['each']:g}/s, {name}", one[name], _ms(one[name]), n)
        for one in paced
        for n, name in enumerate(("p50", "p99"), 1)
    ]


def _plot_growth(results: Results) -> tuple[str, list[Bar]]:
    return "Processor time for one callback, beside so many that wait", [
        Bar(f"{what}, {one['rows']:,} waiting", one[name], f"{one[name] * 1e6:,.0f} µs", n)
        for n, (what, name) in enumerate((("taken", "ingest_cost"), ("handled", "dispatch_cost")), 1)
        for one in results.get("growth", ())
    ]


# --- what they share


def _runs(records: Iterable[Record], **wanted: object) -> list[Record]:
    return [record for record in records if all(record[name] == value for name, value in wanted.items())]


def _median(runs: Sequence[Record], column: str) -> float:
    values = [run[column] for run in runs if run[column] is not None]
    return median(values) if values else 0.0


def _rates(results: Results, section: str, size: int, connections: int) -> dict[str, list[float]]:
    """Requests a second by server, turn by turn."""
    rates: dict[str, list[float]] = {}
    for run in _runs(results.get(section, ()), size=size, connections=connections):
        rates.setdefault(run["server"], []).append(run["rate"])
    return rates


def _ratio(rates: Mapping[str, Sequence[float]], name: str, to: str) -> str:
    return f"{ratio(rates[name], rates[to]):.2f}" if to in rates else ""


def _size(size: int) -> str:
    shown = float(f"{size:.2g}")
    return f"{shown / 1e6:g} MB" if shown >= 1e6 else f"{shown / 1e3:g} KB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    results = json.loads(RESULTS.read_text())
    if sys.argv[1:] != ["--check"]:
        write(results)
        return 0
    for path in (found := stale(results)):
        print(
            f"{path.relative_to(ROOT)} is not what benchmarks/render.py makes of results.json; run it", file=sys.stderr
        )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
