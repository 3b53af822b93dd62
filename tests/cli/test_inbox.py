"""`dgreceiver inbox`: looking into an inbox, having callbacks handled again, giving them up, erasing them."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dgreceiver import Bury, LiveTranscript, Transcript
from dgreceiver.cli.main import app
from dgreceiver.inbox.contract import STATES
from dgreceiver.streams import Endings
from dgreceiver.testing.payloads import analysis, audio, live_result, stream_metadata, transcript, utterance_end

from ..support import calling, deliver, entries_of, in_file, new_receiver, post, until

NAME = "cli"
HOSTILE = "\x1b[2J[bold]evil[/]"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The folder of an inbox with something in every state, behind a receiver that is not running."""
    folder = tmp_path_factory.mktemp("filled")
    receiver = new_receiver(inbox=in_file(folder), name=NAME)

    @receiver.on(Transcript, name="save")
    async def save(event: Transcript) -> None:
        if event.text == "bury":
            raise Bury(HOSTILE)

    async def fill() -> None:
        async with receiver.running():
            await deliver(receiver, transcript(request_id="done"), transcript("bury", request_id="dead"))
            await deliver(receiver, transcript("differs", request_id="done"), analysis(request_id="nobody's"))
            await deliver(receiver, audio(request_id="audio"))
            await receiver.idle()

    asyncio.run(fill())
    return folder


@pytest.fixture
def folder(here, filled):
    """A copy of it, to be in and to change."""
    shutil.copytree(filled, here, dirs_exist_ok=True)
    return here


def run(folder: Path, command: str, *arguments: str, name: str = NAME, answers: str = "") -> Result:
    whose = ["--inbox", in_file(folder), "--name", name]
    return CliRunner().invoke(app, ["inbox", command, *arguments, *whose], input=answers)


def stats(folder: Path) -> dict[str, str]:
    lines = run(folder, "stats").stdout.splitlines()
    return dict(line.split(maxsplit=1) for line in lines)


def an_app(folder: Path, **settings: object) -> str:
    """An app whose receiver has these settings besides."""
    more = "".join(f", {name}={value!r}" for name, value in settings.items())
    (folder / "of_an_app.py").write_text(
        f'from dgreceiver import NoAuth, Receiver\nr = Receiver(auth=NoAuth(), name="{NAME}", inbox="sqlite:///inbox.db"{more})'
    )
    return "of_an_app:r"


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    _, *lines = result.stdout.splitlines()
    return [line.split() for line in lines]


def key_of(folder: Path, request_id: str) -> str:
    [found] = [row[0] for row in rows(run(folder, "list")) if row[2] == request_id and row[3] != "conflict"]
    return found


# --- list


def test_a_list_shows_callbacks_newest_first(folder):
    assert [row[1:4] for row in rows(run(folder, "list"))] == [
        ["Audio", "audio", "unhandled"],
        ["Analysis", "nobody's", "unhandled"],
        ["Transcript", "done", "conflict"],
        ["Transcript", "dead", "dead"],
        ["Transcript", "done", "done"],
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--dead",), ["dead"]),
        (("--unhandled",), ["audio", "nobody's"]),
        (("--conflict",), ["done"]),
        (("--state", "done"), ["done"]),
        (("--state", "waiting"), []),
    ],
)
def test_a_list_may_be_of_one_state(folder, options, found):
    assert [row[2] for row in rows(run(folder, "list", *options))] == found


def test_a_long_list_comes_in_pages(folder):
    first = run(folder, "list", "--limit", "3")
    before = first.stderr.split()[-1]
    assert first.stderr.endswith(f"what came before: --before {before}\n")
    rest = run(folder, "list", "--limit", "3", "--before", before)
    assert [row[2] for row in rows(first) + rows(rest)] == ["audio", "nobody's", "done", "dead", "done"]
    assert "before" not in rest.stderr


def test_a_list_is_of_one_receiver(folder):
    assert rows(run(folder, "list", name="another")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dead", "--conflict"), "one state at a time; leave out all but one of dead, conflict"),
        (("--state", "lost"), "'lost' is no state; write one of waiting, leased, done, "),
    ],
)
def test_a_state_that_is_none_is_told(folder, options, said):
    ended = run(folder, "list", *options)
    assert ended.exit_code == 2
    assert said in ended.stderr


def test_what_a_stranger_wrote_does_nothing_to_the_terminal(folder):
    for ended in (run(folder, "list", "--dead"), run(folder, "show", key_of(folder, "dead"))):
        assert r"\x1b[2J[bold]evil[/]" in ended.stdout
        assert "\x1b" not in ended.stdout


# --- show


def test_a_callback_is_shown_with_all_that_is_known_of_it(folder):
    key = key_of(folder, "dead")
    shown = dict(line.split(maxsplit=1) for line in run(folder, "show", key).stdout.splitlines())
    assert shown["key"] == key
    assert shown["handler"].startswith("save: 1 attempts, given up: ")
    assert shown["state"] == "dead"
    assert shown["header"] == "content-type: application/json"


def test_the_values_of_a_query_are_not_shown(tmp_path):
    receiver = new_receiver(inbox=in_file(tmp_path), name=NAME)

    async def fill() -> None:
        async with receiver.running(), calling(receiver) as client:
            await post(client, transcript(), "/?token=hush&id=17&hush")

    asyncio.run(fill())
    ended = run(tmp_path, "show", rows(run(tmp_path, "list"))[0][0])
    assert "query        token=… id=… …\n" in ended.stdout
    assert "hush" not in ended.stdout


def test_a_body_is_written_byte_for_byte(folder):
    body = audio(request_id="audio").body
    assert run(folder, "show", key_of(folder, "audio"), "--body").stdout_bytes == body


def test_the_body_of_a_live_transcript_is_what_its_stream_came_to(tmp_path):
    whole = asyncio.run(a_live_transcript(tmp_path))
    [key] = [row[0] for row in rows(run(tmp_path, "list")) if row[1] == "LiveTranscript"]
    assert run(tmp_path, "show", key, "--body").stdout_bytes == whole.raw


async def a_live_transcript(folder: Path) -> LiveTranscript:
    """What a stream came to that was handled there."""
    receiver, wholes = new_receiver(inbox=in_file(folder), name=NAME), list[LiveTranscript]()
    receiver._endings = Endings(settling=0.05)
    receiver.on(LiveTranscript)(wholes.append)
    async with receiver.running():
        stream = [live_result("hello", request_id="r", is_final=True), stream_metadata(request_id="r")]
        await deliver(receiver, *stream)
        await until(lambda: wholes)
    return wholes[0]


def test_a_body_that_is_no_longer_kept_is_told(folder):
    key = key_of(folder, "done")

    async def purge() -> None:
        async with new_receiver(inbox=in_file(folder), name=NAME).opened() as inbox:
            await inbox.purge(keep=timedelta(0), dedupe_for=timedelta(days=1))

    asyncio.run(purge())
    ended = run(folder, "show", key, "--body")
    assert ended.exit_code == 2
    assert ended.stderr.endswith(f"dgreceiver: the body of {key} is no longer kept\n")


def test_a_key_that_nothing_has_is_told(folder):
    ended = run(folder, "show", "0" * 32)
    assert ended.exit_code == 2
    assert f"no callback of receiver cli has the key {'0' * 32}" in ended.stderr


# --- replay


@pytest.mark.parametrize(
    ("options", "request_ids"),
    [(("--dead",), {"dead"}), (("--unhandled",), {"audio", "nobody's"}), (("--conflict",), {"done"})],
)
def test_all_of_a_state_are_replayed(folder, options, request_ids):
    assert run(folder, "replay", *options).stdout == f"replayed: {len(request_ids)}\n"
    assert {row[2] for row in rows(run(folder, "list", "--state", "waiting"))} == request_ids


def test_one_is_replayed_by_its_key_and_once(folder):
    key = key_of(folder, "done")
    assert run(folder, "replay", key).stdout == "replayed: 1\n"
    again = run(folder, "replay", key)
    assert again.exit_code == 2
    assert f"{key} cannot be replayed" in again.stderr


@pytest.mark.parametrize("arguments", [(), ("0" * 32, "--dead")])
def test_it_has_to_be_said_what_to_replay(folder, arguments):
    ended = run(folder, "replay", *arguments)
    assert ended.exit_code == 2
    assert "say what to replay: a KEY, or one of --dead" in ended.stderr


async def test_a_server_that_runs_handles_what_is_replayed_beside_it(tmp_path):
    receiver, handled = new_receiver(inbox=in_file(tmp_path), name=NAME), list[str | None]()

    @receiver.on(Transcript)
    async def save(event: Transcript) -> None:
        handled.append(event.request_id)

    async with receiver.running():
        await deliver(receiver, transcript(request_id="again"))
        await receiver.idle()
        [entry] = await entries_of(receiver)
        ended = await beside(tmp_path, "replay", entry.key)
        assert ended.stdout == b"replayed: 1\n", ended.stderr
        await until(lambda: len(handled) == 2, within=1.0)


async def beside(folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own, while a server runs."""
    whose = ["--inbox", in_file(folder), "--name", NAME]
    line = [sys.executable, "-m", "dgreceiver", "inbox", *command, *whose]
    return await asyncio.to_thread(subprocess.run, line, capture_output=True, check=False)


# --- bury


def test_what_waits_is_buried_with_its_reason_and_once(folder):
    key = key_of(folder, "done")
    run(folder, "replay", key)
    assert run(folder, "bury", key, "--reason", HOSTILE).stdout == "buried: 1\n"
    shown = run(folder, "show", key).stdout
    assert "state        dead\n" in shown
    assert r"error        \x1b[2J[bold]evil[/]" in shown
    again = run(folder, "bury", key)
    assert again.exit_code == 2
    assert f"{key} cannot be buried: there is none, it is being handled, or it has ended" in again.stderr


# --- erase


@pytest.mark.parametrize(
    ("which", "erased"),
    [
        pytest.param(("--request-id", "done"), 2, id="a request, with its conflict"),
        pytest.param(("--request-id", "none"), 0, id="nothing"),
        pytest.param(("--job", "none"), 0, id="no job"),
    ],
)
def test_it_is_told_how_much_was_erased(folder, which, erased):
    ended = run(folder, "erase", *which, "--yes")
    assert (ended.exit_code, ended.stdout) == (0, f"erased: {erased}\n")
    assert ended.stderr == ("" if erased else "receiver cli keeps nothing of it\n")
    assert len(rows(run(folder, "list", "--state", "erased"))) == erased


@pytest.mark.parametrize(
    ("answers", "exit_code", "left"),
    [
        pytest.param("y\n", 0, 1, id="yes"),
        pytest.param("n\n", 1, 2, id="no"),
        pytest.param("", 1, 2, id="nobody is there to answer"),
    ],
)
def test_it_is_asked_before_anything_is_erased(folder, answers, exit_code, left):
    ended = run(folder, "erase", "--request-id", "audio", answers=answers)
    assert ended.exit_code == exit_code
    assert "erase all that receiver cli keeps of request audio? [y/N]" in ended.stderr
    assert len(rows(run(folder, "list", "--unhandled"))) == left


def test_a_question_does_nothing_to_the_terminal(folder):
    assert r"request \x1b[2J[bold]evil[/]? [y/N]" in run(folder, "erase", "--request-id", HOSTILE).stderr


@pytest.mark.parametrize("arguments", [(), ("--request-id", "a", "--job", "b")])
def test_it_has_to_be_said_what_to_erase(folder, arguments):
    ended = run(folder, "erase", *arguments, "--yes")
    assert ended.exit_code == 2
    assert "say what to erase: --request-id or --job" in ended.stderr


async def test_what_is_erased_beside_a_server_is_in_no_file_and_what_names_nobody_is_told_of(tmp_path):
    receiver = new_receiver(inbox=in_file(tmp_path), name=NAME)
    async with receiver.running():
        await deliver(receiver, transcript(request_id="forget-me"))
        traces = [b"forget-me", body_on_disk(tmp_path)[:50]]
        await deliver(receiver, utterance_end())
        assert [trace for trace in traces if trace not in everything_in(tmp_path)] == []
        ended = await beside(tmp_path, "erase", "--request-id", "forget-me", "--yes")
        assert ended.stdout.decode().splitlines()[0] == "erased: 1", ended.stderr
        assert ended.stdout.decode().splitlines()[1].startswith("not reached: what carries no id, such as")
        assert [trace for trace in traces if trace in everything_in(tmp_path)] == []


def body_on_disk(folder: Path) -> bytes:
    """The one body that is kept, as it lies there."""
    with closing(sqlite3.connect(folder / "inbox.db")) as connection:
        [(data,)] = connection.execute("SELECT data FROM dgreceiver_body")
    return bytes(data)


def everything_in(folder: Path) -> bytes:
    """What the files hold. Read by another process: who closes a file lets go of all locks that its process has on it.

    Source: https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    return subprocess.run(["cat", *folder.iterdir()], capture_output=True, check=True).stdout


# --- purge


def test_what_has_ended_is_purged_by_the_durations_that_are_said(folder):
    assert run(folder, "purge", "--keep", "1d", "--dedupe-for", "1d").stdout == "purged: 0 bodies, 0 rows\n"
    assert run(folder, "purge", "--keep", "0s", "--dedupe-for", "1d").stdout == "purged: 3 bodies, 0 rows\n"
    assert run(folder, "show", key_of(folder, "dead"), "--body").exit_code == 0


def test_what_has_ended_is_purged_as_its_app_has_it(folder):
    ended = CliRunner().invoke(app, ["inbox", "purge", "--app", an_app(folder, keep=0.0)])
    assert ended.stdout == "purged: 3 bodies, 0 rows\n", ended.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param((), "say how long to keep: --app, whose settings hold, or both --keep and", id="nothing"),
        pytest.param(("--keep", "1d"), "say how long to keep", id="one"),
        pytest.param(
            ("--keep", "soon", "--dedupe-for", "1d"), "--keep 'soon' is no duration; write a number", id="none"
        ),
        pytest.param(("--keep", "1d", "--dedupe-for", "1m"), "dedupe_for=0:01:00 is shorter than retries", id="short"),
    ],
)
def test_how_long_to_keep_is_never_guessed(folder, options, said):
    ended = run(folder, "purge", *options)
    assert ended.exit_code == 2
    assert said in ended.stderr


def test_a_duration_beside_an_app_is_an_error(folder):
    ended = CliRunner().invoke(app, ["inbox", "purge", "--app", an_app(folder), "--keep", "1d"])
    assert ended.exit_code == 2
    assert "say how long to keep: --app, whose settings hold" in ended.stderr


# --- stats


def test_the_states_the_oldest_and_the_files_are_counted(folder):
    before = stats(folder)
    assert [before[state] for state in STATES] == ["0", "0", "1", "2", "1", "1", "0"]
    assert (before["oldest"], before["log"]) == ("-", "0 bytes")
    assert before["file"] == f"{(folder / 'inbox.db').stat().st_size} bytes"
    run(folder, "replay", "--unhandled")
    after = stats(folder)
    assert (after["waiting"], after["oldest"][:3]) == ("2", "202")


async def test_the_log_beside_a_server_is_counted_too(tmp_path):
    receiver = new_receiver(inbox=in_file(tmp_path), name=NAME)
    async with receiver.running():
        await deliver(receiver, transcript())
        ended = await beside(tmp_path, "stats")
        assert f"log          {(tmp_path / 'inbox.db-wal').stat().st_size} bytes\n" in ended.stdout.decode()


# --- which inbox


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("show", "key"),
        ("replay", "--dead"),
        ("bury", "key"),
        ("erase", "--job", "j"),
        ("purge", "--keep", "1d", "--dedupe-for", "1d"),
        ("stats",),
    ],
)
def test_looking_makes_no_inbox(tmp_path, command):
    ended = run(tmp_path, *command)
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"dgreceiver: there is no inbox {tmp_path / 'inbox.db'}; name one: --inbox")
    assert list(tmp_path.iterdir()) == []


def test_an_inbox_in_memory_cannot_be_looked_at():
    ended = CliRunner().invoke(app, ["inbox", "list", "--inbox", "memory://"])
    assert ended.exit_code == 2
    assert "an inbox in memory ends with its process" in ended.stderr


def test_an_inbox_that_cannot_be_is_told(tmp_path):
    ended = CliRunner().invoke(app, ["inbox", "list", "--inbox", "redis://localhost"])
    assert ended.exit_code == 2
    assert "is none that this release opens" in ended.stderr


def test_an_app_says_which_inbox_it_is(folder):
    its = an_app(folder)
    assert len(rows(CliRunner().invoke(app, ["inbox", "list", "--app", its]))) == 5
    ended = CliRunner().invoke(app, ["inbox", "list", "--app", its, "--name", "another"])
    assert ended.exit_code == 2
    assert "--name (or DGRECEIVER_NAME) contradicts the app" in ended.stderr


def test_an_inbox_that_cannot_be_read_is_one_line_and_exit_code_1(folder):
    with closing(sqlite3.connect(folder / "inbox.db")) as connection:
        connection.execute("DROP TABLE dgreceiver_callback")
    ended = run(folder, "list")
    assert ended.exit_code == 1
    assert ended.stderr.splitlines()[-1].startswith("dgreceiver: OperationalError: no such table")
