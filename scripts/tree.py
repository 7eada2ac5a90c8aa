"""Prints the tree for the README: every module with the first words of its docstring. `--write` puts it there."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "phoropter"
ROOMS = ["core", "signals", "results", "data", "models", "training", "study", "report", "deploy", "studies"]
WIDTH = 124
BESIDE = {
    "benchmarks/": "side-by-side ratios against what one would otherwise use; each prints a table and writes JSON",
    "docs/": "tutorial, reference, design, reproduction tables",
    "examples/": "short scripts, run by the tests",
    "scripts/": "what writes the catalogue of backbones and this tree",
    "tests/": "mirrors src; tests/real/ uses real recordings, pictures and weights where they are present",
}


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", text)[0].rstrip(".")


def line(prefix: str, name: str, words: str) -> str:
    """A line of the tree, its words cut at a clause where they are too long."""
    room = WIDTH - len(prefix) - 25
    while len(words) > room:
        shorter = re.sub(
            r"(?:[,;:·]|\s(?:and|by|in|from|as|with|for|of|so|where|which|that|→|—))\s*[^,;:·]*?$", "", words
        ).rstrip(" ,;:·")
        words = shorter if shorter and shorter != words else words[:room].rsplit(" ", 1)[0]
    return f"{prefix}{name:<24} {words}"


def tree() -> str:
    lines = ["src/phoropter/"]
    for name in ("cli.py", "console.py", "api.py"):
        lines.append(line("├── ", name, sentence(PACKAGE / name)))
    for room in ROOMS:
        files = sorted(p for p in (PACKAGE / room).glob("*.py") if p.name != "__init__.py")
        words = (
            sentence(PACKAGE / room / "__init__.py") if (PACKAGE / room / "__init__.py").exists() else "shipped studies, as YAML"
        )
        if not files and room != "studies":
            continue
        lines.append(line("├── ", f"{room}/", words))
        lines += [line("│   ├── ", p.name, sentence(p)) for p in files]
    lines += [line("", name, words) for name, words in BESIDE.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--write" in sys.argv:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition("## Where everything lives\n\n```\n")
        _, _, after = rest.partition("\n```\n")
        readme.write_text(f"{before}## Where everything lives\n\n```\n{tree()}\n```\n{after}", encoding="utf-8")
    else:
        print(tree())
