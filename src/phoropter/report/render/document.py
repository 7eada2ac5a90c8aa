"""A document: title, notices, conclusion and sections in one self-contained page, with its files beside it.

Style, script and images are inside the page. Its content security policy forbids every request and allows only this style and
this script, by their digests. All text that comes from a study is escaped.
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
from phoropter.core.files import atomic_write, remove_unfinished, write_text
from phoropter.report.render.section import Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Table, one_line
from phoropter.report.render.wording import tie_units

ABANDONED_S = 600.0  # no file of a report takes so long to write: it is a killed process's


@dataclass(frozen=True)
class Notice:
    """A warning shown above the conclusion."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ReliabilityFact:
    """What one thing says of how far the results can be trusted. is_warning: it limits them · section: id of its details"""

    label: str
    text: str
    is_warning: bool = False
    section: str = ""


@dataclass(frozen=True)
class Document:
    """conclusion: sentences in large print · small_print: sentences below them · footer: the last line of the page

    The first section is open, the others are folded. reliability: shown beside the conclusion.
    """

    title: str
    subtitle: str
    notices: Sequence[Notice]
    conclusion: Sequence[str]
    small_print: Sequence[str]
    sections: Sequence[Section]
    footer: str
    reliability: Sequence[ReliabilityFact] = ()

    def write(self, page: Path, folder: Path) -> Path:
        """Writes the page, and in `folder` its tables, figures and conclusion. Raises DiskError when it cannot."""
        for place in (page.parent, folder, folder / "tables", folder / "figures"):
            remove_unfinished(place, older_than_s=ABANDONED_S)
        for section in self.sections:
            _write_section_files(section, folder)
        write_text(folder / "conclusion.txt", "\n".join(map(one_line, (*self.conclusion, *self.small_print))) + "\n")
        write_text(page, self.to_html("" if folder == page.parent else f"{folder.name}/"))
        return page

    def to_html(self, prefix: str) -> str:
        """prefix: of the links to files."""
        import jinja2

        css, script = read_page_asset("page.css"), read_page_asset("page.js")
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        html = environment.from_string(read_page_asset("page.html")).render(
            policy=f"{content_security_policy(css, script)}; base-uri 'none'; form-action 'none'",
            css=Markup(css),
            script=Markup(script),
            version=phoropter.__version__,
            title=one_line(self.title),
            facts=one_line(self.subtitle),
            notices=self.notices,
            conclusion=[one_line(s) for s in self.conclusion],
            beside=[one_line(s) for s in self.small_print],
            facts_of_reliability=self.reliability,
            sections=[_template_values(s, prefix) for s in self.sections],
            closing=self.footer,
        )
        return tie_units(html)


def _template_values(section: Section, prefix: str) -> dict[str, object]:
    return {
        "id": section.id,
        "title": section.title,
        "contents": section.describe_contents(),
        "text": [one_line(t) for t in section.paragraphs],
        "html": list(section.iter_html(prefix)),
        "notes": [one_line(t) for t in section.notes],
    }


def resolve_output_paths(folder: Path, out: Path | None) -> tuple[Path, Path]:
    """The path of the page and the folder of its files. folder: the default of `out`."""
    out = folder if out is None else Path(out)
    if out.suffix.lower() in (".html", ".htm"):
        return out, out.with_suffix("")
    return out / "index.html", out


def read_page_asset(name: str, package: str = "phoropter.report.render") -> str:
    """The text of a stylesheet, script or template of the package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def content_security_policy(css: str, script: str) -> str:
    """A policy without requests, styles and scripts other than these two."""

    def hash_source(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return f"default-src 'none'; img-src data:; style-src {hash_source(css)}; script-src {hash_source(script)}"


def _write_section_files(section: Section, folder: Path) -> None:
    for block in (*section.iter_blocks(), *section.file_tables):
        if isinstance(block, Table):
            for ending, text in (("csv", block.to_csv()), ("md", block.to_markdown()), ("tex", block.to_latex())):
                write_text(folder / "tables" / f"{block.name}.{ending}", text)
        elif isinstance(block, RenderedFigure):
            for ending, data in (("svg", block.svg), ("pdf", block.pdf)):
                with atomic_write(folder / "figures" / f"{block.name}.{ending}") as aside:
                    aside.write_bytes(data)
