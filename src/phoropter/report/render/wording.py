"""Small pieces of English that several pages share."""

from __future__ import annotations

import re
from collections.abc import Sequence


def count_with_noun(number: int, noun: str) -> str:
    """
    >>> count_with_noun(1, "run"), count_with_noun(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def list_names(names: Sequence[str], limit: int = 6) -> str:
    """Names as in a sentence; after `limit` of them, the number of the others.

    >>> list_names(["a", "b", "c"]), list_names(["a", "b", "c"], limit=2)
    ('a, b and c', 'a, b and 1 more')
    """
    rest = len(names) - limit
    words = [*names[:limit], f"{rest} more"] if rest > 0 else list(names)
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


_UNIT = r"(?:%|ms|s|min|h|d|k|M|G|[KMGT]iB|B|k?Hz|m?V|bpm|px)"
_GAPS = re.compile(
    rf"<(style|script|svg|pre|code|td|th)\b.*?</\1>|<[^>]*>|(?<=[0-9]) (?={_UNIT}(?![\w%]))|(?<=\u00b1) (?=[0-9])", re.DOTALL
)


def tie_units(html: str) -> str:
    """HTML in which no line ends between a number and its unit, as in 62.5 %, or between \u00b1 and its number.

    Marks, styles, scripts and drawings stay as they are, and so do cells, which do not wrap, and code, which readers copy.
    """
    return _GAPS.sub(lambda found: "\u00a0" if found[0] == " " else found[0], html)
