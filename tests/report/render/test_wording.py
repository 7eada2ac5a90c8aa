"""Numbers with their nouns, and lists as a sentence writes them."""

from __future__ import annotations

import pytest

from phoropter.report.render.wording import count_with_noun, list_names, tie_units


def test_a_number_stands_with_its_noun() -> None:
    assert [count_with_noun(n, "fold") for n in (0, 1, 2, 1_234_567)] == ["0 folds", "1 fold", "2 folds", "1,234,567 folds"]


@pytest.mark.parametrize(
    ("names", "limit", "text"),
    [
        ([], 6, ""),
        (["a"], 6, "a"),
        (["a", "b"], 6, "a and b"),
        (["a", "b", "c"], 3, "a, b and c"),
        (["a", "b", "c", "d"], 3, "a, b, c and 1 more"),
        (list("abcdefgh"), 6, "a, b, c, d, e, f and 2 more"),
        (["a", "b", "c"], 1, "a and 2 more"),
    ],
)
def test_names_are_listed_as_in_a_sentence(names: list[str], limit: int, text: str) -> None:
    assert list_names(names, limit) == text


@pytest.mark.parametrize(
    ("html", "tied"),
    [
        ("<p>90.0 % (bootstrap), 10 %–20 %</p>", "<p>90.0~% (bootstrap), 10~%–20~%</p>"),
        ("<p>92.5 ± 2.1, 1 min 43 s, 25.6 M, 1.5 GiB</p>", "<p>92.5 ±~2.1, 1~min 43~s, 25.6~M, 1.5~GiB</p>"),
        ("<p>3 samples, 12 minutes, 4 mothers, a % of b</p>", "<p>3 samples, 12 minutes, 4 mothers, a % of b</p>"),
        ('<img alt="5 % of 3 s"><style>a{width:5 %}</style>5 %', '<img alt="5 % of 3 s"><style>a{width:5 %}</style>5~%'),
        (
            "<td>5 %</td><pre>5 %\n5 s</pre><svg><text>5 %</text></svg>",
            "<td>5 %</td><pre>5 %\n5 s</pre><svg><text>5 %</text></svg>",
        ),
        ("<p>1&lt;5 % &amp; 3 s</p>", "<p>1&lt;5~% &amp; 3~s</p>"),
    ],
)
def test_no_line_ends_between_a_number_and_its_unit(html: str, tied: str) -> None:
    assert tie_units(html) == tied.replace("~", "\u00a0")
