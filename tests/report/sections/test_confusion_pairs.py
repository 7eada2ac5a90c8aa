"""Matrices beside each other: which pairs, each once, and counts that are those of the predictions."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from made_study import Made, make_study

from phoropter.report.page import read_report_input
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.sections.confusion_pairs import MAX_CONFUSION_PAIRS, draw_confusion_pairs
from phoropter.results.store import Store

CONTRAST: dict[str, Any] = {"role": "primary", "metric": "accuracy", "factor": "candidate"}
SKILLS = {"a": 0.9, "b": 0.7, "a + b": 0.95}


def contrast_of(side: tuple[str, ...], against: tuple[str, ...]) -> dict[str, Any]:
    units = [{"title": "", "side": list(side), "against": list(against)}]
    return {**CONTRAST, "side": " and ".join(side), "against": " and ".join(against), "units": units}


def percentages(figure: RenderedFigure) -> list[int]:
    """The numbers that a matrix of two classes prints, from its alternative text and caption: right answers in per cent."""
    found = re.search(r"([\d.]+) % of ([\d,]+) predictions are correct", str(figure.inline_svg))
    assert found is not None
    return [round(float(found.group(1)) * 10), int(found.group(2).replace(",", ""))]


def count_right(store: Store, names: tuple[str, ...]) -> list[int]:
    runs = [run for run in store.runs() if run.record["candidate"]["name"] in names]
    answers = [p for run in runs if (p := run.load_predictions()) is not None]
    right = np.concatenate([p.logits.argmax(1) == p.labels for p in answers])
    return [round(1000 * right.mean()), len(right)]


def test_best_single_beside_best_fusion_and_both_sides_of_each_contrast(tmp_path: Path) -> None:
    asked = [contrast_of(("a",), ("a + b",)), contrast_of(("a", "b"), ("a + b",)), contrast_of(("a",), ("gone",))]
    made = Made(SKILLS, classes=("calm", "stress"), rows=200, folds=2, seeds=(0,), pictures=0, contrasts=asked)
    store = make_study(tmp_path, made)
    blocks = draw_confusion_pairs(read_report_input(store.folder))
    heads = [re.sub("<.*?>", "", str(b)) for b in blocks if not isinstance(b, RenderedFigure)]
    assert heads == ["Best single network beside best fusion", "Planned contrast: a and b against a + b"], "no pair twice"
    figures = [b for b in blocks if isinstance(b, RenderedFigure)]
    assert [f.name for f in figures] == [f"confusion-pair-{n}{e}" for n in (1, 2) for e in "ab"]
    sides = (("a",), ("a + b",), ("a", "b"), ("a + b",))
    assert [percentages(f) for f in figures] == [count_right(store, names) for names in sides]
    assert figures[2].caption.startswith("a and b, 2 candidates together.")


def test_none_without_a_fusion_or_a_contrast_and_few_with_many(tmp_path: Path) -> None:
    made = Made({"a": 0.9, "b": 0.7}, classes=("calm", "stress"), rows=80, folds=2, seeds=(0,), pictures=0)
    assert draw_confusion_pairs(read_report_input(make_study(tmp_path / "none", made).folder)) == ()
    skills = {f"net {i}": 0.6 + 0.05 * i for i in range(6)}
    asked = [contrast_of((f"net {i}",), (f"net {i + 1}",)) for i in range(5)]
    many = Made(skills, classes=("calm", "stress"), rows=80, folds=2, seeds=(0,), pictures=0, contrasts=asked)
    *drawn, rest = draw_confusion_pairs(read_report_input(make_study(tmp_path / "many", many).folder))
    assert len(drawn) == 3 * MAX_CONFUSION_PAIRS
    assert "Not drawn, so that the page stays small: Planned contrast: net 4 against net 5." in str(rest)


def test_matrices_of_other_rows_say_so(tmp_path: Path) -> None:
    asked = [contrast_of(("a",), ("b",))]
    made = Made(SKILLS, classes=("calm", "stress"), rows=80, folds=2, seeds=(0,), pictures=0, contrasts=asked)
    store = make_study(tmp_path, made)
    gone = next(run for run in store.runs() if run.record["candidate"]["name"] == "b")
    shutil.rmtree(gone.folder)
    blocks = draw_confusion_pairs(read_report_input(store.folder))
    said = [re.sub("<.*?>", "", str(b)) for b in blocks if not isinstance(b, RenderedFigure)]
    assert said[:2] == ["Best single network beside best fusion", "Planned contrast: a against b"]
    assert said[2].startswith("The two matrices are not of the same rows")
