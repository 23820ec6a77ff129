"""Who may import whom: packages, folders and modules form no circle, and no arrow points upward."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vtok", "data_tools", "pipelines")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else node.module for name in inner}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & FILES.keys()


IMPORTS = {module: imported(path) - {module} for module, path in FILES.items()}


def folders(depth: int) -> dict[str, set[str]]:
    """The imports between rooms."""
    arrows = defaultdict(set)
    for module, others in IMPORTS.items():
        for other in others:
            ours, theirs = (room(name, depth) for name in (module, other))
            if ours != theirs:
                arrows[ours].add(theirs)
    return arrows


def room(module: str, depth: int) -> str:
    """The folder of a module at ``depth``; the module itself if it stands higher."""
    parts = module.split(".")
    folder = parts if FILES[module].name == "__init__.py" else parts[:-1]
    return ".".join(folder[:depth]) if len(folder) >= depth else module


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_imports_form_no_circle(depth):
    try:
        list(TopologicalSorter(folders(depth)).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_arrow_points_upward():
    for module, others in IMPORTS.items():
        package = module.split(".")[0]
        wrong = {other for other in others if other.split(".")[0] != package}
        assert package == "pipelines" or not wrong, f"{module} imports {wrong}"


def test_folders_import_no_command():
    """A command stands directly in ``pipelines/`` and has a ``main``."""
    commands = {
        module
        for module, path in FILES.items()
        if path.parent == ROOT / "pipelines" and "\ndef main(" in path.read_text()
    }
    assert {"pipelines.train", "pipelines.understand", "pipelines.plan"} <= commands
    for module, others in IMPORTS.items():
        assert not others & commands, f"{module} imports {others & commands}"
