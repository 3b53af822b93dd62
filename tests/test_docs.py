"""The documentation: what it shows runs, what it names exists, what there is stands in it."""

from __future__ import annotations

import asyncio
import inspect
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import dgreceiver
from dgreceiver import Event, Limits, Receiver, RetryPolicy
from dgreceiver.cli.main import app as command_line
from dgreceiver.cli.settings import PREFIX, Settings
from dgreceiver.inbox.contract import STATES, Delivery
from dgreceiver.testing.payloads import transcript
from dgreceiver.web.intake import MIB

from .support import calling, post

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
ALL = PAGES | {name: (ROOT / name).read_text() for name in ("CHANGELOG.md", "SECURITY.md")}
LATER = "## What comes later"
NOT_YET = r"doctor|postgres|jetstream"
VARIABLES = ("CALLBACK_PASSWORD", "CALLBACK_KEY", "NEW_KEY", "OLD_KEY", "DEEPGRAM_API_KEY")

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
DEFINED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| `?([^|]+?)`? \|", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page, text in PAGES.items():
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 2
            inside = inspect.cleandoc(match[3]) if match[1] else match[3]
            found.append(Block(page, line, match[2], inside))
    return [block for block in found if block.language in languages]


def without_later(text: str) -> str:
    before, mark, behind = text.partition(LATER)
    return before + behind.partition("\n## ")[2] if mark else text


def commands() -> Iterator[str]:
    """Every command line that is named anywhere."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield from (line, *re.findall(r"\$\((dgreceiver [^)]*)\)", line))
    for text in PAGES.values():
        yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", without_later(text)))


COMMANDS = sorted({line.partition(" #")[0].strip() for line in commands() if line.startswith("dgreceiver ")})


def leaves(group: TyperGroup, *path: str) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Every command that does something, and the words that lead to it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, *path, name)
        elif isinstance(command, TyperCommand):
            yield (*path, name), command


@cache
def command_tree() -> TyperGroup:
    root = get_command(command_line)
    assert isinstance(root, TyperGroup)
    return root


def options_of(command: TyperGroup | TyperCommand) -> dict[str, bool]:
    """The options of a command; whether each is a flag."""
    own = {option: bool(getattr(param, "is_flag", False)) for param in command.params for option in param.opts}
    return {option: flag for option, flag in own.items() if option.startswith("--")} | {"--help": True}


def unknown_words(line: str) -> list[str]:
    """What a command line holds that the command does not know."""
    _, *words = shlex.split(line)
    command: Any = command_tree()
    if words[0] == "COMMAND":
        words = words[1:]
    while isinstance(command, TyperGroup) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    options, places = options_of(command), sum(param.param_type_name == "argument" for param in command.params)
    unknown = []
    while words:
        word = words.pop(0)
        if word in options:
            words = words if options[word] else words[1:]
        elif word.startswith("-") or places == 0:
            unknown.append(word)
        else:
            places -= 1
    return unknown


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def code_of(*pages: str) -> str:
    """All that stands as code on these pages."""
    fenced = "\n".join(block.text for block in blocks("python", "sh", "") if block.page in pages)
    return fenced + "\n".join(re.findall(r"`([^`\n]+)`", "\n".join(FENCE.sub("", PAGES[page]) for page in pages)))


def defaults(call: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(call).parameters.items() if name != "self"}


def said_defaults(page: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults in the tables of a page, as values."""
    scope = {
        "timedelta": timedelta,
        "RetryPolicy": RetryPolicy,
        "Limits": Limits,
        "MIB": MIB,
        "required": inspect._empty,
    }
    return {name: eval(said, scope) for name, said in ROW.findall(PAGES[page]) if name in names}


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder and an environment as a reader of the pages would have them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "shown", ModuleType("shown"))
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "settings.py").write_text("SECRET_KEY = 'fake-secret-key'")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    for variable in VARIABLES:
        monkeypatch.setenv(variable, f"fake-{variable.lower()}-fake-fake-fake-fake-fake")
    return tmp_path


def run(block: Block) -> dict[str, Any]:
    names = vars(sys.modules["shown"])  # a module that exists: frameworks look annotations up in it
    exec(compile(block.text, str(block), "exec"), names)
    return names


# --- what is shown


@pytest.mark.parametrize("block", blocks("python"), ids=str)
async def test_what_is_shown_runs(block, user):
    await asyncio.to_thread(run, block)  # off the loop, as a module is imported


async def test_the_five_lines_print_a_transcript(user, capsys):
    [first, *_] = [block for block in blocks("python") if block.page == "README.md"]
    receiver = run(first)["receiver"]
    async with receiver.running(), calling(receiver, auth=("deepgram", "a-long-secret")) as client:
        answer = await post(client, transcript("hello there", request_id="shown"))
        await receiver.idle()
    assert answer.json() == {"status": "stored", "request_id": "shown"}
    assert capsys.readouterr().out == "shown hello there\n"
    assert (user / "dgreceiver.db").exists()


async def test_the_app_that_is_shown_takes_callbacks_beside_its_own(user):
    [block] = [block for block in blocks("python") if block.page == "README.md" and "add_middleware" in block.text]
    app = run(block)["app"]
    async with calling(app, auth=("deepgram", "a-long-secret")) as client:
        statuses = [
            (await post(client, transcript(), path)).status_code for path in ("/deepgram", "/deepgram/", "/else")
        ]
    assert statuses == [200, 200, 404]


async def test_the_mount_that_is_shown_has_the_trap_that_is_told(user):
    [block] = [block for block in blocks("python") if block.page == "README.md" and "app.mount" in block.text]
    names = run(block)
    async with names["receiver"].running(), calling(names["app"], auth=("deepgram", "a-long-secret")) as client:
        statuses = [(await post(client, transcript(), path)).status_code for path in ("/deepgram", "/deepgram/")]
    assert statuses == [307, 200]


# --- what is named


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_named_exists_with_its_options(command):
    assert unknown_words(command) == []


def test_an_option_that_does_not_exist_would_be_seen():
    assert unknown_words("dgreceiver inbox list --dead --nope x") == ["--nope", "x"]
    assert unknown_words("dgreceiver nope --help") == ["nope"]


@pytest.mark.parametrize("page", ALL)
def test_every_link_within_the_repository_leads_somewhere(page):
    links = [link for link in LINK.findall(FENCE.sub("", ALL[page])) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", ALL)
def test_what_is_not_there_yet_is_named_in_one_place_only(page):
    assert re.findall(NOT_YET, without_later(ALL[page]), re.IGNORECASE) == []


def test_what_comes_later_stands_on_one_page():
    assert [page for page, text in ALL.items() if LATER in text] == ["README.md"]


def test_every_test_that_is_named_exists():
    named = {name for text in ALL.values() for name in re.findall(r"`(test_\w+)`", text)}
    existing = {name for path in Path(__file__).parent.rglob("*.py") for name in re.findall(DEFINED, path.read_text())}
    assert len(named) > 20
    assert sorted(named - existing) == []


def test_every_page_is_linked_from_the_readme():
    linked = set(LINK.findall(PAGES["README.md"]))
    assert {page for page in PAGES if page.startswith("docs/")} - linked == {"docs/index.md"}


# --- what there is


def test_every_public_name_is_documented():
    code = code_of(*PAGES)
    assert [name for name in dgreceiver.__all__ if not re.search(rf"\b{name}\b", code)] == []


@pytest.mark.parametrize("name", [field.name for field in fields(RetryPolicy)])
def test_every_part_of_a_retry_policy_is_documented_with_its_default(name):
    assert said_defaults("docs/handlers.md", defaults(RetryPolicy))[name] == defaults(RetryPolicy)[name]


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_every_limit_is_documented_with_its_default(name):
    assert said_defaults("docs/security.md", defaults(Limits))[name] == defaults(Limits)[name]


@pytest.mark.parametrize("name", defaults(Receiver))
def test_every_setting_of_a_receiver_is_documented_with_its_default(name):
    assert said_defaults("docs/operations.md", defaults(Receiver))[name] == defaults(Receiver)[name]


@pytest.mark.parametrize(
    "call", [Receiver.callback_url, Receiver.replay, Receiver.erase, Receiver.on], ids=lambda call: call.__name__
)
def test_every_keyword_of_the_receivers_methods_is_documented(call):
    code = code_of(*PAGES)
    assert [name for name in defaults(call) if name != "event_types" and not re.search(rf"\b{name}\b", code)] == []


@pytest.mark.parametrize("name", Delivery.__struct_fields__)
def test_every_part_of_a_delivery_is_documented(name):
    assert f"`{name}`" in PAGES["docs/handlers.md"].partition("## The delivery")[2].partition("\n## ")[0]


@pytest.mark.parametrize("page", ["README.md", "docs/handlers.md"])
def test_every_event_is_in_the_tables_of_events(page):
    rows = [line for line in PAGES[page].splitlines() if line.startswith("| `")]
    listed = {name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    public = {name for name in dgreceiver.__all__ if issubclass(getattr(dgreceiver, name), Event)}
    assert public - {"Event"} <= listed


def test_every_attribute_in_the_table_of_events_exists():
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|$", PAGES["README.md"], re.MULTILINE)
    told = [(getattr(dgreceiver, event), name) for event, _, reads in rows for name in re.findall(r"\.(\w+)", reads)]
    assert len(told) > 30
    assert [(kind, name) for kind, name in told if name not in kind.model_fields and not hasattr(kind, name)] == []


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_explained(state):
    assert f"**{state}**" in PAGES["docs/glossary.md"]


@pytest.mark.parametrize(
    ("path", "command"),
    list(leaves(command_tree())),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_and_option_is_documented(path, command):
    page = PAGES["docs/cli.md"]
    assert f"dgreceiver {' '.join(path)}" in page
    assert [option for option in options_of(command) if option not in page] == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_variable_of_the_environment_is_documented(name):
    assert f"`{PREFIX}{name.upper()}`" in PAGES["docs/cli.md"]


def test_the_retries_of_a_handler_take_as_long_as_is_told():
    policy = RetryPolicy()
    longest = [sum(policy.wait_after(n, roll=roll) or 0 for n in range(1, policy.attempts)) for roll in (0.0, 1.0)]
    shortest, most = (round(seconds / 60) for seconds in longest)
    assert f"{policy.attempts} runs in all, spread over {shortest} to {most} minutes" in PAGES["docs/handlers.md"]


def test_the_glossary_is_in_order():
    words = re.findall(r"^\| \*\*([\w ]+)\*\*", PAGES["docs/glossary.md"], re.MULTILINE)
    assert words == sorted(words, key=lambda word: word.lower().replace("_", " "))
