"""Sections of the page: paragraphs, tables, figures, and blocks that are folded away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Table, one_line
from phoropter.report.render.wording import count_with_noun


@dataclass(frozen=True)
class FileLink:
    """A link to a file that another part of the report writes beside the page.

    path: below the folder of the report, with forward slashes · text: of the link · about: a sentence before it
    """

    path: str
    text: str
    about: str = ""


@dataclass(frozen=True)
class FoldedBlocks:
    """Blocks under a line of their own, closed until the reader opens it; printed open."""

    title: str
    blocks: tuple[Table | RenderedFigure | Markup, ...]


ContentBlock = Table | RenderedFigure | Markup | FileLink | FoldedBlocks


@dataclass(frozen=True)
class Section:
    """A section of the page, which the reader can fold.

    id:          of its anchor, in lower-case letters, digits and hyphens
    paragraphs:  plain text above the blocks · notes: below them; escaped on the page
    blocks:      tables and figures, shown and written as files, or trusted HTML as `markupsafe.Markup`
    file_tables: tables that are written as files only

    Raises TypeError where a block is none of these.
    """

    id: str
    title: str
    paragraphs: tuple[str, ...]
    blocks: tuple[ContentBlock, ...]
    file_tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for block in self.iter_blocks():
            if not isinstance(block, ContentBlock):
                raise TypeError(
                    f"section {self.id}: a block is a {type(block).__name__}, expected a Table, a RenderedFigure or Markup"
                )

    def iter_blocks(self) -> Iterator[ContentBlock]:
        """The blocks, those that are folded away in their place."""
        for block in self.blocks:
            yield from block.blocks if isinstance(block, FoldedBlocks) else (block,)

    def describe_contents(self) -> str:
        """`2 tables, 1 figure`: what the reader finds on opening it; empty where it has text alone."""
        blocks = list(self.iter_blocks())
        counts = [(sum(isinstance(b, Table) for b in blocks), "table")]
        counts += [(sum(isinstance(b, RenderedFigure) for b in blocks), "figure")]
        return ", ".join(count_with_noun(number, noun) for number, noun in counts if number)

    def iter_html(self, prefix: str = "") -> Iterator[Markup]:
        """The blocks as HTML; adjacent narrow figures share a row. prefix: of the links to files."""
        return _iter_rows(self.blocks, prefix)


def _iter_rows(blocks: Iterable[ContentBlock], prefix: str) -> Iterator[Markup]:
    for narrow, group in groupby(blocks, lambda b: isinstance(b, RenderedFigure) and not b.wide):
        shown = Markup("\n").join(_render_block(block, prefix) for block in group)
        yield Markup('<div class="panels">\n{}\n</div>').format(shown) if narrow else shown


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
    if isinstance(block, FileLink):
        return Markup('<p class="files">{} <a href="{}">{}</a></p>').format(block.about, prefix + block.path, block.text)
    if isinstance(block, FoldedBlocks):
        inside = Markup("\n").join(_iter_rows(block.blocks, prefix))
        return Markup("<details><summary>{}</summary>\n{}\n</details>").format(one_line(block.title), inside)
    return block


def _download_links(names: Sequence[str], kinds: Sequence[str], what: str) -> Markup:
    links = Markup(" · ").join(
        Markup('<a href="{}">{}<span class="hidden"> of {}</span></a>').format(name, kind, one_line(what)[:60])
        for name, kind in zip(names, kinds, strict=True)
    )
    return Markup('<p class="files">{}</p>').format(links)


def collapsible_block(title: str, text: str) -> Markup:
    return Markup('<details><summary>{}</summary><pre tabindex="0">{}</pre></details>').format(one_line(title), text)
