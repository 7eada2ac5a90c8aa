"""Sections of the page: paragraphs, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Table, one_line

ContentBlock = Table | RenderedFigure | Markup


@dataclass(frozen=True)
class Section:
    """A section of the page.

    id:          of its anchor, in lower-case letters, digits and hyphens
    paragraphs:  plain text, escaped on the page
    blocks:      tables and figures, shown and written as files, or trusted HTML as `markupsafe.Markup`
    file_tables: tables that are written as files only

    Raises TypeError where a block is none of these.
    """

    id: str
    title: str
    paragraphs: tuple[str, ...]
    blocks: tuple[ContentBlock, ...]
    file_tables: tuple[Table, ...] = ()

    def __post_init__(self) -> None:
        for block in self.blocks:
            if not isinstance(block, ContentBlock):
                raise TypeError(
                    f"section {self.id}: a block is a {type(block).__name__}, expected a Table, a RenderedFigure or Markup"
                )

    def iter_html(self, prefix: str = "") -> Iterator[Markup]:
        """The blocks as HTML; adjacent narrow figures share a row. prefix: of the links to files."""
        for narrow, group in groupby(self.blocks, lambda b: isinstance(b, RenderedFigure) and not b.wide):
            shown = [_render_block(block, prefix) for block in group]
            yield (
                Markup('<div class="panels">\n{}\n</div>').format(Markup("\n").join(shown))
                if narrow
                else Markup("\n").join(shown)
            )


def _render_block(block: ContentBlock, prefix: str) -> Markup:
    if isinstance(block, Table):
        names = [f"{prefix}tables/{block.name}.{end}" for end in ("csv", "md", "tex")]
        return block.to_html() + _download_links(names, ("CSV", "Markdown", "LaTeX"), block.caption)
    if isinstance(block, RenderedFigure):
        names = [f"{prefix}figures/{block.name}.{end}" for end in ("svg", "pdf")]
        return Markup('<figure class="{}">{}<figcaption>{}</figcaption>{}</figure>').format(
            "wide" if block.wide else "panel",
            block.inline_svg,
            block.caption,
            _download_links(names, ("SVG", "PDF"), block.caption),
        )
    return block


def _download_links(names: Sequence[str], kinds: Sequence[str], what: str) -> Markup:
    links = Markup(" · ").join(
        Markup('<a href="{}">{}<span class="hidden"> of {}</span></a>').format(name, kind, one_line(what)[:60])
        for name, kind in zip(names, kinds, strict=True)
    )
    return Markup('<p class="files">{}</p>').format(links)


def collapsible_block(title: str, text: str) -> Markup:
    return Markup('<details><summary>{}</summary><pre tabindex="0">{}</pre></details>').format(one_line(title), text)
