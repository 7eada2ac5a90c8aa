"""Prints the tree of docs/architecture.md: every room with the first words of its docstring. `--write` puts it there."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "phoropter"
ROOMS = ["core", "signals", "results", "data", "models", "training", "study", "report"]
ROOMS += ["deploy", "refit", "operations", "interface", "studies"]
DOORS = ["cli.py", "api.py"]
HEAD = "### The tree\n\n```text\n"
BESIDE = {
    "benchmarks/": "what is claimed about speed: both sides in one run, a table and JSON each",
    "docs/": "tutorial, guides, reference, design",
    "examples/": "short scripts, run by the tests",
    "scripts/": "what writes the catalogue of backbones, the reference pages and this tree",
    "tests/": "mirrors src; tests/real/ uses real recordings, images and weights where they are present",
}


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", text)[0].rstrip(".")


def room_lines(room: Path, indent: str) -> list[str]:
    """A room and the rooms inside it."""
    init = room / "__init__.py"
    words = first_sentence(init) if init.exists() else "shipped studies, as YAML"
    lines = [f"{indent}{room.name + '/':<{27 - len(indent)}}{words}"]
    for inner in sorted(p.parent for p in room.glob("*/__init__.py")):
        lines += room_lines(inner, indent + "    ")
    return lines


def draw_tree() -> str:
    lines = ["src/phoropter/"]
    lines += [f"    {name:<23}{first_sentence(PACKAGE / name)}" for name in DOORS]
    for room in ROOMS:
        lines += room_lines(PACKAGE / room, "    ")
    return "\n".join(lines + [f"{name:<27}{words}" for name, words in BESIDE.items()])


if __name__ == "__main__":
    if "--write" in sys.argv:
        page = ROOT / "docs" / "architecture.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(HEAD)
        _, _, after = rest.partition("\n```\n")
        page.write_text(f"{before}{HEAD}{draw_tree()}\n```\n{after}", encoding="utf-8")
    else:
        print(draw_tree())
