"""Sphinx: Markdown pages and the API from docstrings; nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import phoropter

project = "phoropter"
author = copyright = "The phoropter authors"
release = version = phoropter.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
exclude_patterns = ["_build", "_pages"]
html_theme = "furo"
html_title = f"phoropter {version}"
html_show_sourcelink = html_copy_source = False
# What scripts/gallery.py has made, if it has: docs/gallery.md links to it.
html_extra_path = [name for name in ("_pages",) if (Path(__file__).parent / name).is_dir()]

_FIELD = re.compile(r"^(\w+(?:, \w+)*):(?:\s+|$)(.*)")


def to_restructured_text(lines: list[str]) -> Iterator[str]:
    """A docstring as the project writes it → reStructuredText: `key: text` lines become a list, indented paragraphs code."""
    for paragraph in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        rows = paragraph.rstrip().split("\n")
        if rows[0].lstrip().startswith(">>>"):
            yield from rows
        elif rows[0].startswith("    "):
            yield from ("::", "", *rows)
        else:
            yield from _convert_rows(rows)
        yield ""


def _convert_rows(rows: list[str]) -> Iterator[str]:
    in_list = False
    for row in rows:
        field = _FIELD.match(row)
        if field:
            yield from () if in_list else ("",)
            in_list = True
            yield f"- **{field[1]}**: {_escape_inline(field[2])}"
        else:
            yield ("  " if in_list else "") + _escape_inline(row.strip())


def _escape_inline(text: str) -> str:
    """Backticks become literals; characters with a meaning in reStructuredText lose it elsewhere."""
    pieces = text.split("`")
    escaped = [f"``{p}``" if i % 2 and i < len(pieces) - 1 else re.sub(r"([*|\\]|_\b)", r"\\\1", p) for i, p in enumerate(pieces)]
    return re.sub(r"(\w)(``)(?=\w)", r"\1\2\\ ", "".join(escaped))


def _process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(to_restructured_text(lines))


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _process_docstring)
