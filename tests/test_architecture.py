"""The house as the design draws it: who may import whom, what is public, and what stays out."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import dgreceiver

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = "dgreceiver"

FOUNDATION = ("errors", "facts")
CONTRACT = (*FOUNDATION, "core", "inbox.contract")
WORK = (*CONTRACT, "handlers", "streams", "threads")
PARTS = (*WORK, "web", "dispatch", "telemetry")
RECEIVER = (*PARTS, "receiver")
FRONTS = (*RECEIVER, "hosts", "server", "folder")
KIT = (*FRONTS, "testing")

# Room or module: what it may import besides itself. The first line that fits a module is its line.
MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "errors": (),
    "facts": ("errors",),
    "core": FOUNDATION,
    "inbox.contract": (*FOUNDATION, "core"),
    "inbox": (*CONTRACT, "streams"),  # the stores
    "web": CONTRACT,
    "handlers": CONTRACT,
    "streams": CONTRACT,
    "threads": (),
    "dispatch": WORK,
    "telemetry": CONTRACT,
    "receiver": PARTS,
    "hosts": RECEIVER,
    "server": RECEIVER,
    "folder": RECEIVER,
    "testing": FRONTS,
    "cli.demo_app": ("__init__",),  # an app as a user would write it
    "cli": KIT,
    "__main__": (*KIT, "cli"),
    "__init__": (*FRONTS, "inbox.contract"),
}
MAY_IMPORT_LATE = {"receiver": ("inbox",)}  # within a function: the stores, when one is opened
HEAVY = ("sqlalchemy", "uvicorn", "typer", "alembic", "nats")


@dataclass(frozen=True, slots=True)
class Import:
    """One module importing another; `late` from within a function."""

    importer: str
    imported: str
    late: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}{' late' if self.late else ''}"


def modules() -> dict[str, Path]:
    """Every module by its name below the package; a folder's `__init__` has the folder's name."""
    found = {}
    for path in (SOURCE / PACKAGE).rglob("*.py"):
        parts = path.relative_to(SOURCE / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)] = path
    return found


def imports() -> list[Import]:
    known = modules()
    found = {
        Import(name, imported, late)
        for name, path in known.items()
        for node, late in statements(ast.parse(path.read_text(encoding="utf-8")))
        for imported in targets(node, path, known)
    }
    return sorted((each for each in found if each.importer != each.imported), key=str)


def statements(tree: ast.AST, *, late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(tree):
        yield child, late
        yield from statements(child, late=late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def targets(node: ast.AST, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that a statement imports; `from .core import events` is the module `core.events`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        home = absolute(node, path)
        names = [f"{home}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            yield nearest(name.removeprefix(PACKAGE).removeprefix("."), known)


def absolute(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    folders = path.relative_to(SOURCE).parent.parts
    home = folders[: len(folders) - node.level + 1]
    return ".".join((*home, *([node.module] if node.module else [])))


def nearest(name: str, known: Mapping[str, Path]) -> str:
    """The module in which `name` is: itself, or the one that it is a name of."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or "__init__"


def room(module: str) -> str:
    fitting = (line for line in MAY_IMPORT if module == line or module.startswith(f"{line}."))
    return next(fitting, f"{module} (say in MAY_IMPORT where it stands)")


IMPORTS = imports()


def test_every_module_has_its_place():
    assert {room(module) for module in modules()} <= set(MAY_IMPORT)


@pytest.mark.parametrize("importer", sorted(modules()))
def test_a_module_imports_only_what_stands_before_it(importer):
    here = room(importer)
    allowed = {here, *MAY_IMPORT[here]}
    late = allowed.union(MAY_IMPORT_LATE.get(here, ()))
    own = [each for each in IMPORTS if each.importer == importer]
    assert [str(each) for each in own if room(each.imported) not in (late if each.late else allowed)] == []


def test_no_import_leads_back():
    graph: dict[str, set[str]] = {}
    for each in IMPORTS:
        graph.setdefault(each.importer, set()).add(each.imported)
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_web_and_dispatch_meet_only_in_the_inbox():
    seen, queue = set[str](), [module for module in modules() if room(module) == "web"]
    while queue:
        importer = queue.pop()
        seen.add(importer)
        queue += [each.imported for each in IMPORTS if each.importer == importer and each.imported not in seen]
    assert "dispatch" not in seen


def test_all_lists_the_public_names_in_order():
    def is_public(name: str) -> bool:
        return not name.startswith("_") and not isinstance(getattr(dgreceiver, name), ModuleType)

    assert dgreceiver.__all__ == sorted(filter(is_public, dir(dgreceiver)))


@pytest.mark.parametrize("name", sorted(dgreceiver.__all__))
def test_every_public_class_and_function_says_what_it_means(name):
    value = getattr(dgreceiver, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        made_up = f"{name}("  # by dataclass
        assert value.__doc__, "no docstring"
        assert not value.__doc__.startswith(made_up)


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.testing"])
def test_importing_the_package_imports_nothing_heavy(module):
    look = f"import {module}, sys; print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-I", "-c", look], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            yield name, (ROOT / name).read_text(encoding="utf-8", errors="replace")


def test_no_file_knows_the_machine_it_was_made_on():
    local = "|".join(re.escape(str(path)) for path in (ROOT, Path.home()) if len(path.parts) > 1)
    registry = r"pypi\.org|pythonhosted\.org|\b(?:registry|index|deb)\.[\w-]+\.(?:org|com)"
    known = re.compile(rf"(?<![\w.-])(?:{local})/|{registry}")
    assert {name: found[0] for name, text in texts() if (found := known.search(text))} == {}
