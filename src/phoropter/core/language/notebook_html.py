"""The small HTML that a notebook shows of an object: a title, a line of facts and a table. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

MAX_SHOWN_ROWS = 20


def format_notebook_html(
    title: str, facts: Iterable[str], header: Sequence[str] = (), rows: Sequence[Sequence[object]] = (), omitted: int = 0
) -> str:
    """A title, the facts in one line and a table of at most MAX_SHOWN_ROWS rows. omitted: rows that the caller left out itself"""
    line = " · ".join(fact for fact in facts if fact)
    html = Markup("<div><strong>{}</strong>").format(title)
    html += Markup("<br>{}").format(line) if line else Markup("")
    if header:
        heads = Markup("").join(Markup("<th>{}</th>").format(name) for name in header)
        shown = rows[:MAX_SHOWN_ROWS]
        body = Markup("").join(
            Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row)) for row in shown
        )
        html += Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(heads, body)
        omitted += len(rows) - len(shown)
    html += Markup("<br>and {:,} more").format(omitted) if omitted else Markup("")
    return str(html + Markup("</div>"))
