"""Draws the rooms of kzoo/ and the imports between them into docs/architecture.md.

python tools/architecture.py [--check]
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by tools/architecture.py -->\n", "<!-- end -->\n"


def room(path: Path) -> str:
    """The room of a file: its folder, or its own name at the top."""
    parts = path.relative_to(ROOT / "kzoo").parts
    return parts[0].removesuffix(".py") if len(parts) == 1 else parts[0]


def imports(path: Path) -> set[str]:
    """The rooms that a file imports, also inside functions, but not for type checking alone."""
    found = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"kzoo.{alias.name}" for alias in node.names]
            modules = names if node.module == "kzoo" else [node.module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in modules if name.startswith("kzoo.")}
    return found


def drawing() -> str:
    """A table of the rooms and a diagram of the arrows between them, in Markdown."""
    files = sorted((ROOT / "kzoo").rglob("*.py"))
    rooms = {room(path) for path in files if path.parent != ROOT / "kzoo"}
    arrows: Counter[tuple[str, str]] = Counter()
    foundation = set()
    for path in files:
        here = room(path)
        for other in imports(path):
            if here in rooms and other in rooms and other != here:
                arrows[here, other] += 1
            elif here in rooms and other not in rooms and other != "__version__":
                foundation.add(other)
    text = ["```mermaid", "graph TD"]
    text += [f"    {a} --> {b}" for a, b in sorted(arrows)]
    text += ["```", "", "| room | what it is | imports |", "|---|---|---|"]
    for name in sorted(rooms):
        init = ast.parse((ROOT / "kzoo" / name / "__init__.py").read_text())
        says = ast.get_docstring(init) or ""
        below = ", ".join(sorted(b for a, b in arrows if a == name)) or "no other room"
        text.append(f"| `{name}/` | {says.splitlines()[0]} | {below} |")
    used = ", ".join(f"`{name}.py`" for name in sorted(foundation))
    text += ["", f"Beside the rooms: {used}."]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is not current")
    options = parser.parse_args()
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{drawing()}\n{END}{after}"
    if options.check:
        sys.exit(0 if new == page else f"{PAGE.name} is old: run python tools/architecture.py")
    PAGE.write_text(new)


if __name__ == "__main__":
    main()
