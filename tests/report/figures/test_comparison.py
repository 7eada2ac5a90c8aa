"""Figures: what they promise whatever they are given."""

from __future__ import annotations

import re
import warnings
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from phoropter.report.figures import comparison, cost, predictions
from phoropter.report.figures.comparison import Curve, LeaderboardEntry
from phoropter.report.render import font_subset, svg
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.svg import CSS_VARIABLES, RenderedFigure

ACCURACY = MetricFormat("Accuracy", True)
NASTY = ["a $x^2$ <b>&\"'", "猫の写真", "x" * 90, "\x00\x1b[31m", "b_c"]


def lines(names: list[str]) -> list[LeaderboardEntry]:
    return [
        LeaderboardEntry(n, 0.9 - i / 50, 0.88 - i / 50, 0.92 - i / 50, np.array([0.89, 0.91]) - i / 50)
        for i, n in enumerate(names)
    ]


@pytest.fixture(scope="module")
def standings() -> RenderedFigure:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return comparison.leaderboard_figure(lines(NASTY), ACCURACY, 0.6)


def test_a_printed_figure_says_its_name_and_not_its_bytes(standings: RenderedFigure) -> None:
    assert standings.name in repr(standings)
    assert "<svg" not in repr(standings) and "%PDF" not in repr(standings)


def test_inline_drawings_carry_no_style_attribute_and_no_fixed_ink(standings: RenderedFigure) -> None:
    assert "style=" not in standings.inline_svg and "<style" not in standings.inline_svg
    assert "font-family" not in standings.inline_svg
    assert not [c for c in CSS_VARIABLES if c in standings.inline_svg]
    assert set(re.findall(r"var\(--([\w-]+)\)", standings.inline_svg)) <= set(CSS_VARIABLES.values())


def test_inline_drawings_are_well_formed_and_keep_names_as_text(standings: RenderedFigure) -> None:
    root = ElementTree.fromstring(f"<div>{standings.inline_svg}</div>")
    texts = ["".join(t.itertext()) for t in root.iter("text")]
    assert NASTY[0] in texts and NASTY[1] in texts
    assert any(t.startswith("xxx") and "…" in t and len(t) <= 42 for t in texts)


def test_files_keep_their_own_ink(standings: RenderedFigure) -> None:
    assert b"var(--" not in standings.svg and standings.svg.startswith(b"<?xml")
    assert standings.pdf.startswith(b"%PDF-")
    assert b"Date" not in standings.svg and b"CreationDate" not in standings.pdf


def test_the_text_alternative_has_the_numbers(standings: RenderedFigure) -> None:
    assert "b_c 82.0 % (80.0 % to 84.0 %)" in standings.alt_text


def test_a_single_run_without_an_interval_is_drawn() -> None:
    single = LeaderboardEntry("a", 0.9, np.nan, np.nan, np.array([0.9]))
    assert "nan" not in comparison.leaderboard_figure([single], ACCURACY, None).inline_svg


def test_the_pareto_front_has_the_points_that_no_other_dominates() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = [cost.CostPoint(str(i), float(m), 0, 0, float(c)) for i, (m, c) in enumerate(rng.integers(1, 9, (12, 2)))]
        front = cost.pareto_front(points, True)
        for i, p in enumerate(points):
            beaten = any(q.cost <= p.cost and q.mean >= p.mean and (q.cost, q.mean) != (p.cost, p.mean) for q in points)
            twin = any(points[j].cost == p.cost and points[j].mean == p.mean for j in front)
            assert (i in front or twin) == (not beaten)
        assert [points[i].cost for i in front] == sorted(points[i].cost for i in front)


def test_the_pareto_front_of_a_loss() -> None:
    points = [cost.CostPoint("a", 0.5, 0, 0, 1), cost.CostPoint("b", 0.2, 0, 0, 2), cost.CostPoint("c", 0.3, 0, 0, 3)]
    assert cost.pareto_front(points, False) == [0, 1]


def test_labels_cover_neither_each_other_nor_points() -> None:
    from matplotlib.figure import Figure

    rng = np.random.default_rng(1)
    points = [
        cost.CostPoint(f"network_{i}_patch16", 0.8 + m / 100, 0.79 + m / 100, 0.81 + m / 100, c)
        for i, (m, c) in enumerate(rng.uniform(1, 9, (18, 2)))
    ]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([p.cost for p in points], [p.mean * 100 for p in points], "o")
    cost._label_points(figure, axes, points, cost.pareto_front(points, True), 100.0)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in axes.texts]
    dots = [axes.transData.transform((p.cost, p.mean * 100)) for p in points]
    assert len(boxes) >= 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


@pytest.mark.parametrize("classes", [2, 11, 30, 150])
def test_confusion_of_few_and_of_many_classes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    counts = np.diag(rng.integers(50, 99, classes)) + rng.integers(0, 3, (classes, classes))
    counts[1, 0] = 40
    drawing = predictions.confusion_matrix_figure(counts, [f"c{i}" for i in range(classes)], "net", "confusion-1")
    assert f"c1 predicted as c0, {40 / counts[1].sum() * 100:.1f} % of c1" in drawing.alt_text
    assert f"{np.trace(counts) / counts.sum() * 100:.1f} % of {counts.sum():,} predictions" in drawing.alt_text
    assert ("<image" in drawing.inline_svg) == (classes > predictions.MAX_CLASSES_WITH_NAMES)
    assert len(drawing.inline_svg) < 200_000


def test_a_class_without_rows_has_an_empty_row() -> None:
    drawing = predictions.confusion_matrix_figure(np.array([[5, 0], [0, 0]]), ["a", "b"], "net", "confusion-1")
    assert "nan" not in drawing.inline_svg and "100.0 % of 5 predictions" in drawing.alt_text


def test_a_confusion_matrix_prints_the_share_of_its_row() -> None:
    drawing = predictions.confusion_matrix_figure(np.array([[7, 3], [1, 4]]), ["a", "b"], "net", "confusion-1")
    root = ElementTree.fromstring(f"<div>{drawing.inline_svg}</div>")
    assert {"70", "30", "20", "80"} <= {t.text for t in root.iter("text")}


def test_curves_of_one_epoch_and_of_one_run() -> None:
    one = Curve("a", np.array([1.0]), np.array([0.5]), np.array([0.0]))
    two = Curve("b", np.array([1.0, 2.0]), np.array([0.5, 0.6]), np.array([np.nan, np.nan]))
    assert (
        "a ends at 50.0 %; b ends at 60.0 %"
        in comparison.learning_curve_figure([one, two], "train-accuracy", ACCURACY, 2).alt_text
    )
    assert (
        "2 more candidates are not shown" in comparison.learning_curve_figure([one, two], "train-accuracy", ACCURACY, 2).caption
    )


def test_a_sweep_over_text_labels_its_values() -> None:
    curve = Curve("net", np.array([0.0, 1.0]), np.array([0.5, 0.6]), np.full((2, 2), 0.05))
    drawing = comparison.sweep_figure([curve], "augment", "augment", ACCURACY, ["none", "cutmix"], 0)
    assert {"none", "cutmix"} <= {t.text for t in ElementTree.fromstring(f"<div>{drawing.inline_svg}</div>").iter("text")}


def test_two_drawings_share_no_id() -> None:
    a, b = (
        predictions.confusion_matrix_figure(np.eye(3, dtype=np.int64), ["x", "y", "z"], "net", name)
        for name in ("confusion-1", "confusion-2")
    )
    ids = re.findall(r' id="([^"]+)"', a.inline_svg + b.inline_svg)
    assert len(ids) == len(set(ids)) and len(ids) >= 4


def test_the_font_subset_moves_no_text_and_falls_back_to_the_full_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figure in the whole typeface: equal SVG bytes; letters the copy lacks are taken from the whole."""

    def paint(figure: Any) -> None:
        figure.add_subplot().set_title("Täfiling AV · −1 ≤ µ × 2 “w”")
        figure.axes[0].set_xlabel("Ж and Ω")

    quick = svg.draw_figure("letters", "Letters", "letters", (3, 1), paint)
    monkeypatch.setattr(svg, "font_families", lambda: (font_subset.FULL_FONT,))
    whole = svg.draw_figure("letters", "Letters", "letters", (3, 1), paint)
    assert quick.svg == whole.svg and quick.inline_svg == whole.inline_svg
    assert font_subset.SUBSET_FONT.encode() not in quick.svg and font_subset.SUBSET_FONT.replace(" ", "").encode() in quick.pdf
    assert font_subset.FULL_FONT.replace(" ", "").encode() in quick.pdf  # Cyrillic


def test_no_line_runs_through_a_name_on_a_narrow_screen(standings: RenderedFigure) -> None:
    wide, narrow = str(standings.inline_svg).split('class="at-narrow"')
    assert narrow.count("var(--paper)") >= len(NASTY) and "var(--paper)" not in wide
