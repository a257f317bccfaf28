"""The arrows of docs/architecture.md: which room may import which, read from the source."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "kzoo").rglob("*.py"))

ORDER = ("cli", "runs", "squeeze", "measure", "lite", "compress", "learn", "network", "data")
"""From the top down; network and data stand side by side."""
BY_NAME = {"cli", "runs", "squeeze"}
"""Who looks a network up by name: the others get a model or a path, from kzoo or from elsewhere."""
NAMES = {"zoo", "registry"}
"""Importing either is looking up by name."""
GROUND = {"errors", "files", "progress", "child", "environment", "fetch", "light_keras"}
"""Modules that every room may use, and that use the standard library and each other only."""
SINGLE = {
    "doctor": GROUND,
    "registry": GROUND | {"zoo"},
    "__init__": {*ORDER, *NAMES, *GROUND},
    "__main__": {"cli"},
}


@functools.cache
def imports(path: Path) -> set[str]:
    """The dotted names that a file imports, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", "") == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(node.args[0].value)
    return found


def room(path: Path) -> str:
    """``kzoo/lite/check.py`` -> ``lite``; ``kzoo/files.py`` -> ``files``."""
    parts = path.relative_to(ROOT / "kzoo").with_suffix("").parts
    return parts[0]


def rooms(path: Path) -> set[str]:
    """The rooms and modules of kzoo that a file imports."""
    known = {room(file) for file in FILES}
    named = {name.split(".")[1] for name in imports(path) if name.startswith("kzoo.")}
    return (named & known) - {room(path)}


def allowed(name: str) -> set[str]:
    """What the files of a room may import of kzoo."""
    if name in SINGLE:
        return SINGLE[name]
    if name in ("report", "network"):
        return GROUND
    if name == "zoo":
        return GROUND | {"registry", "network"}
    below = set(ORDER[ORDER.index(name) + 1 :]) | (NAMES if name in BY_NAME else set())
    # report reads records alone, so whoever makes records may call it.
    return (
        below
        | GROUND
        | ({"report"} if name in ("cli", "runs") else set())
        | ({"doctor"} if name == "cli" else set())
    )


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in GROUND], ids=shown)
def test_arrows_point_down(path):
    assert rooms(path) <= allowed(room(path))


TABLE = "zoo/weights/table"
"""What the registry reads of pretrained weights."""


@pytest.mark.parametrize("name", sorted({*GROUND, "registry", TABLE}))
def test_the_ground_is_the_standard_library_alone(name):
    for imported in imports(ROOT / "kzoo" / f"{name}.py"):
        top, *rest = imported.split(".")
        if name == "registry" and "/".join(rest).startswith(TABLE):
            continue
        assert top in sys.stdlib_module_names or (top == "kzoo" and (not rest or rest[0] in GROUND))


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("tensorflow", {"lite"}),
        ("ai_edge_litert", {"lite"}),
        ("keras", {"lite", "compress", "learn", "network", "zoo"}),
        ("click", {"cli"}),
        ("rich", {"cli"}),
        ("pydantic", {"measure", "runs"}),
        ("sklearn", {"data"}),
        ("matplotlib", {"report"}),
        ("jinja2", {"report"}),
        ("kzoo.registry", {*BY_NAME, "zoo", "__init__"}),
    ],
)
def test_a_package_is_imported_in_its_rooms_only(package, users):
    found = {
        room(path): shown(path)
        for path in FILES
        if any(f"{name}.".startswith(f"{package}.") for name in imports(path))
    }
    assert set(found) <= users, found
    assert found, f"nothing imports {package}; is the test looking?"


LAYERS = {"fake_quant.py"}
"""Files of layers, imported where a network is made of them."""


def test_no_file_imports_a_heavy_package_at_its_top_above_the_room_that_needs_it():
    """`kzoo --help`, a record or a config must not cost the seconds of Keras."""
    heavy = {"keras", "tensorflow", "matplotlib", "ai_edge_litert", "sklearn"}
    for path in FILES:
        if room(path) in ("zoo", "lite") or path.name in LAYERS:
            continue
        for node in ast.parse(path.read_text()).body:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                names = {node.module}
            assert not {name.split(".")[0] for name in names} & heavy, path


def test_deploy_runs_without_kzoo():
    files = sorted((ROOT / "deploy").rglob("*.py"))
    assert files
    for path in files:
        assert not any(name.split(".")[0] == "kzoo" for name in imports(path)), path
