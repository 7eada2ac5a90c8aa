"""A page's tables as lists of text, and all its tags, by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "wbr", "input", "link", "hr"}


class Tags(HTMLParser):
    """Every tag with its attributes, every table's rows by the name of its caption, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.texts: list[str] = []
        self._table: list[list[str]] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("li", "p", "td", "th", "dd", "dt"):
            self.texts.append(" ")
        if tag == "table":
            name = (dict(attrs).get("aria-labelledby") or "").removeprefix("caption-")
            self._table = self.tables.setdefault(name, [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()
        if tag == "table":
            self._table = None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)
        if self._table is not None and any(t in ("td", "th") for t in self.open):
            self._table[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def columns(self, table: str) -> dict[str, dict[str, str]]:
        """First cell of a row → head → text."""
        head, *rows = self.tables[table]
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}
