"""Totals count a shared pass once and an average of finished runs not again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from phoropter.report.model_card import _describe_cost
from phoropter.report.sections.candidate_costs import (
    SHARED_PASSES,
    describe_shown_size,
    shares_passes,
    sum_study_seconds,
    sum_training_seconds,
)
from phoropter.report.sections.candidates.cost import cost_table
from phoropter.report.summary.model import CandidateResults, RunSummary

PASSES = {"one": {"seconds": 30.0, "images": 100}, "two": {"seconds": 5.0, "images": 100}}


def made_run(train: float, predict: float, *entries: str, members: bool = False, **more: Any) -> Any:
    """A run with `train` and `predict` seconds of its own, and the share of the passes of 80 and 20 of 100 rows."""
    each = sum(PASSES[name]["seconds"] for name in entries) / 100
    cost = {
        "train_seconds": train + 80 * each,
        "predict_seconds": predict + 20 * each,
        "train_pass_seconds": 80 * each,
        "predict_pass_seconds": 20 * each,
    }
    record = {"feature_passes": {name: PASSES[name] for name in entries}, "digests": {"members": ["x"]} if members else {}}
    return SimpleNamespace(cost=cost, record={**record, **more})


def test_a_pass_that_runs_share_is_counted_once() -> None:
    probes = [made_run(2, 1, "one") for _ in range(5)]
    assert sum_training_seconds(probes) == pytest.approx(5 * 2 + 30)
    assert sum_training_seconds([*probes, made_run(4, 1, "one", "two")]) == pytest.approx(5 * 2 + 4 + 30 + 5)
    assert sum_training_seconds([made_run(7, 1)]) == pytest.approx(7)
    old: Any = SimpleNamespace(cost={"train_seconds": 3.0}, record={})  # of an earlier version
    assert sum_training_seconds([old]) == 3.0


def test_a_study_took_its_runs_and_each_pass_once() -> None:
    probe = SimpleNamespace(runs=[made_run(2, 1, "one") for _ in range(5)])
    solved = SimpleNamespace(runs=[made_run(1, 1, "one") for _ in range(5)])
    mean = SimpleNamespace(runs=[made_run(3, 2, members=True) for _ in range(5)])
    summary: Any = SimpleNamespace(candidates=[probe, solved, mean])
    assert sum_study_seconds(summary) == pytest.approx(5 * (2 + 1) + 5 * (1 + 1) + 30)
    tuned: Any = SimpleNamespace(runs=[made_run(2, 1)])
    assert shares_passes([tuned, probe]) and not shares_passes([tuned])  # type: ignore[list-item]


def test_the_size_that_is_shown_is_told_where_it_differs() -> None:
    def told(stored: int | None, *shown: tuple[str, list[int]]) -> str:
        candidates = [SimpleNamespace(name=n, runs=[made_run(1, 1, shown_at=sides)]) for n, sides in shown]
        summary: Any = SimpleNamespace(study={"dataset": {"size": stored}}, candidates=candidates)
        return describe_shown_size(summary)

    both = told(96, ("a", [224]), ("b", [96]), ("c", [224, 384]))
    assert both == "Images are stored at 96 pixels and shown at 224 to a, c; shown at 384 to c."
    assert told(96, ("b", [96])) == told(None, ("a", [224])) == ""
    many = told(96, *((name, [224]) for name in "abcde"))
    assert many == "Images are stored at 96 pixels and shown at 224 to a, b, c and others."


def test_table_and_card_show_the_time_to_an_answer_where_it_is_known_and_say_what_is_included() -> None:
    def made_summary(**more: float) -> Any:
        cost = {"parameters": 1e6, "train_seconds": 40.0, "peak_memory_bytes": 2.0**30, **more}
        run = RunSummary.__new__(RunSummary)
        object.__setattr__(run, "cost", cost)
        object.__setattr__(run, "record", {})
        later = RunSummary.__new__(RunSummary)
        object.__setattr__(later, "cost", {k: v for k, v in cost.items() if not k.startswith("answer")})
        object.__setattr__(later, "record", {})
        candidate = CandidateResults("probe", 2, {})
        candidate.runs = [run, later]
        return SimpleNamespace(candidates=[candidate], study={})

    plain = cost_table(made_summary())
    assert not any("Answer" in column.name for column in plain.columns) and "frozen" not in str(plain.note)
    assert "Epoch" not in [column.name for column in plain.columns], "nothing was trained by epochs"
    by_epoch = cost_table(made_summary(epochs=5, train_pass_seconds=30.0))
    cells = dict(zip([c.name for c in by_epoch.columns], by_epoch.rows[0].values, strict=True))
    assert cells["Epoch"] == (40 - 30) / 5
    summary = made_summary(answer_seconds_1=0.02, answer_seconds_32=0.4, train_pass_seconds=30.0)
    table = cost_table(summary)
    cells = dict(zip([c.name for c in table.columns], table.rows[0].values, strict=True))
    assert (cells["Answer, 1 image"], cells["Answer, 32 images"]) == (0.02, 0.4)  # the first run's alone: others were not timed
    assert cells["Training"] == 40.0 and SHARED_PASSES in str(table.note)
    (card,) = _describe_cost(summary.candidates[0])
    assert "20 ms from one stored image to its answer, 400 ms for 32 images together, 1.0 GiB of memory at most" in card
    assert "A frozen backbone sees each image once" in card
