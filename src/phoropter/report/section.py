"""A section of the page: an idea, a few words, tables and figures; and what sections are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from phoropter.report import comparisons
from phoropter.report.drawing import Drawing
from phoropter.report.evidence import Evidence
from phoropter.report.table import Table, one_line
from phoropter.results.store import Store

Block = Table | Drawing | Markup


@dataclass(frozen=True)
class Section:
    """id: of its anchor · text: paragraphs · blocks: shown, and written as files · files: tables written as files only"""

    id: str
    title: str
    text: tuple[str, ...]
    blocks: tuple[Block, ...]
    files: tuple[Table, ...] = ()

    def html(self, prefix: str = "") -> Iterator[Markup]:
        """The blocks; neighbouring narrow figures share a row. prefix: of the links to files."""
        for narrow, group in groupby(self.blocks, lambda b: isinstance(b, Drawing) and not b.wide):
            shown = [_html(block, prefix) for block in group]
            yield (
                Markup('<div class="panels">\n{}\n</div>').format(Markup("\n").join(shown))
                if narrow
                else Markup("\n").join(shown)
            )


def _html(block: Block, prefix: str) -> Markup:
    if isinstance(block, Table):
        names = [f"{prefix}tables/{block.name}.{end}" for end in ("csv", "md", "tex")]
        return block.html() + _files(names, ("CSV", "Markdown", "LaTeX"), block.caption)
    if isinstance(block, Drawing):
        names = [f"{prefix}figures/{block.name}.{end}" for end in ("svg", "pdf")]
        return Markup('<figure class="{}">{}<figcaption>{}</figcaption>{}</figure>').format(
            "wide" if block.wide else "panel", block.inline, block.caption, _files(names, ("SVG", "PDF"), block.caption)
        )
    return block


def _files(names: Sequence[str], kinds: Sequence[str], what: str) -> Markup:
    links = Markup(" · ").join(
        Markup('<a href="{}">{}<span class="hidden"> of {}</span></a>').format(name, kind, one_line(what)[:60])
        for name, kind in zip(names, kinds, strict=True)
    )
    return Markup('<p class="files">{}</p>').format(links)


@dataclass(frozen=True, eq=False)
class Findings:
    """What the sections are made of."""

    store: Store
    evidence: Evidence
    comparisons: comparisons.Comparisons


def folded(title: str, text: str) -> Markup:
    return Markup('<details><summary>{}</summary><pre tabindex="0">{}</pre></details>').format(one_line(title), text)
