"""The HTML of an object in a notebook is escaped and short."""

from __future__ import annotations

from phoropter.core.language.notebook_html import MAX_SHOWN_ROWS, format_notebook_html


def test_text_is_escaped_and_long_tables_are_cut() -> None:
    html = format_notebook_html("<b>", ["a & b", ""], ("<i>",), [("<script>",)] * (MAX_SHOWN_ROWS + 3))
    assert "<script>" not in html and "&lt;b&gt;" in html and "a &amp; b<table>" in html and "<th>&lt;i&gt;</th>" in html
    assert html.count("<td>") == MAX_SHOWN_ROWS and "and 3 more" in html


def test_without_rows_there_is_no_table() -> None:
    assert format_notebook_html("a", []) == "<div><strong>a</strong></div>"
