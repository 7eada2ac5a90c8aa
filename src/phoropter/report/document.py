"""A document of the report: title, notices, a conclusion and sections in one self-contained page, and its files beside it.

The page needs nothing but itself: its style, script and pictures are inside, its content policy forbids every request, and it
allows only this style and this script, by their digests. Everything that came from a study is escaped on its way in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from markupsafe import Markup

import phoropter
from phoropter.core.files import write_text, writing
from phoropter.report.drawing import Drawing
from phoropter.report.section import Section
from phoropter.report.table import Table, one_line


@dataclass(frozen=True)
class Notice:
    """What a reader must know before the first number."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """facts: one line under the title · conclusion: sentences in large print · beside: in small · closing: the last line"""

    title: str
    facts: str
    notices: Sequence[Notice]
    conclusion: Sequence[str]
    beside: Sequence[str]
    sections: Sequence[Section]
    closing: str

    def write(self, page: Path, folder: Path) -> Path:
        """The page, and in `folder` its tables, figures and conclusion. Raises DiskError when it cannot be written."""
        for section in self.sections:
            _write_files(section, folder)
        write_text(folder / "conclusion.txt", "\n".join(map(one_line, (*self.conclusion, *self.beside))) + "\n")
        write_text(page, self.html("" if folder == page.parent else f"{folder.name}/"))
        return page

    def html(self, prefix: str) -> str:
        """prefix: of the links to files."""
        import jinja2

        css, script = part("page.css"), part("page.js")
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        return environment.from_string(part("page.html")).render(
            policy=f"{policy(css, script)}; base-uri 'none'; form-action 'none'",
            css=Markup(css),
            script=Markup(script),
            version=phoropter.__version__,
            title=one_line(self.title),
            facts=one_line(self.facts),
            notices=self.notices,
            conclusion=[one_line(s) for s in self.conclusion],
            beside=[one_line(s) for s in self.beside],
            sections=[
                {"id": s.id, "title": s.title, "text": [one_line(t) for t in s.text], "html": list(s.html(prefix))}
                for s in self.sections
            ],
            closing=self.closing,
        )


def places(folder: Path, out: Path | None) -> tuple[Path, Path]:
    """The page, and the folder its tables and figures lie in. folder: where `out` is not given."""
    out = folder if out is None else Path(out)
    if out.suffix.lower() in (".html", ".htm"):
        return out, out.with_suffix("")
    return out / "index.html", out


def part(name: str) -> str:
    """A file of the page's style, script or skeleton."""
    return resources.files("phoropter.report").joinpath(name).read_text(encoding="utf-8")


def policy(css: str, script: str) -> str:
    """No request to anywhere, no style and no script but these two."""

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return f"default-src 'none'; img-src data:; style-src {digest(css)}; script-src {digest(script)}"


def _write_files(section: Section, folder: Path) -> None:
    for block in (*section.blocks, *section.files):
        if isinstance(block, Table):
            for ending, text in (("csv", block.csv()), ("md", block.markdown()), ("tex", block.latex())):
                write_text(folder / "tables" / f"{block.name}.{ending}", text)
        elif isinstance(block, Drawing):
            for ending, data in (("svg", block.svg), ("pdf", block.pdf)):
                with writing(folder / "figures" / f"{block.name}.{ending}") as aside:
                    aside.write_bytes(data)
