"""The page on tuned values and on what more data would bring, of a study of baselines over people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from phoropter.data.sources.arrays import from_arrays
from phoropter.report.figures.size_curves import draw_size_curves
from phoropter.report.page import write_report
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.table import IntervalBounds, Table
from phoropter.report.sections.training.data_size import describe_gain, tabulate_gains, tabulate_sizes
from phoropter.report.sections.training.tuned_values import tuned_values_section
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.data_size.size_curves import DataSizes, read_data_sizes
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.data_size.gain import Bounded
from phoropter.results.metrics.registry import METRICS
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.spec import StudySpec
from phoropter.study.worker import ComputeOptions


def run_people(folder: Path, **keys: Any) -> Store:
    """60 people with 4 pictures each: one half of a picture is a little lighter where a person is of one class."""
    draw = np.random.default_rng(1)
    labels = np.repeat(np.arange(60) % 2, 4)
    light = draw.normal(0, 8, (240, 12, 12, 1)) + 120 + 3 * labels[:, None, None, None] * (np.arange(12) < 6)[None, None, :, None]
    pictures = np.clip(np.repeat(light, 3, axis=3), 0, 255).astype(np.uint8)
    words, people = np.array(["dark", "light"])[labels], [f"p{i // 4:02d}" for i in range(240)]
    data = {"object": from_arrays(pictures, words.tolist(), groups=people, name="made"), "group_word": "person"}
    study = StudySpec.model_validate({"name": "people", "data": data, "metrics": ["accuracy"], **keys})
    return execute_study(study, folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    protocol = {"split": "stratified-group-k-fold", "folds": 4, "seeds": [0, 1]}
    candidates = [{"baseline": "mean-image", "name": "plain"}]
    return run_people(tmp_path_factory.mktemp("sizes"), protocol=protocol, learning_curve=[0.2, 0.5], candidates=candidates)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Store:
    protocol = {"split": "stratified-group-k-fold", "folds": 2}
    tune = {"baseline.classifier": ["logistic", "gradient-boosting"], "folds": 2}
    candidates = [{"baseline": "colour-texture", "name": "tuned"}]
    return run_people(tmp_path_factory.mktemp("tuned"), protocol=protocol, tune=tune, candidates=candidates)


@pytest.fixture(scope="module")
def sizes(store: Store) -> DataSizes:
    found = read_data_sizes(store, collect_summary(store))
    assert found is not None
    return found


def test_sizes_and_values_are_those_of_the_runs(store: Store, sizes: DataSizes) -> None:
    assert sizes.unit.plural == "people" and not sizes.waiting and [each.name for each in sizes.curves] == ["plain"]
    for each in sizes.curves:
        assert each.shares == (0.2, 0.5, 1.0) and each.curve.sizes.tolist() == pytest.approx([9, 22.5, 45], abs=1.1)
        assert each.curve.n_units == 60 and each.curve.rounds.tolist() == [0] * 4 + [1] * 4
        for place, share in enumerate(each.shares):
            rows = store.study["plan"] if share == 1 else store.study["side_plan"]
            keys = [
                r["key"]
                for r in rows
                if r["candidate"] == each.name and r.get("share", 1.0) == share and r.get("role") != "trial"
            ]
            parts = [part for key in keys if (part := store.run(str(key)).load_predictions()) is not None]
            right = [accuracy_score(part.labels, part.logits.argmax(1)) for part in parts]
            weights = [len(part.labels) for part in parts]
            assert len(parts) == 8 and each.curve.values[place] == pytest.approx(np.average(right, weights=weights))
            assert each.curve.split_values[place] == pytest.approx(right)
            assert each.intervals[place].low < each.curve.values[place] < each.intervals[place].high


def test_sentences_tables_and_figure_agree(sizes: DataSizes) -> None:
    scale = MetricFormat.from_metric(METRICS["accuracy"])
    gains, table = tabulate_gains(sizes), tabulate_sizes(sizes)
    assert len(table.rows) == 3 and len(gains.rows) == 1
    (each,) = sizes.curves
    told = replace(each, gain=replace(each.gain, gain=Bounded(0.018, 0.002, 0.035), reason=""))
    assert describe_gain(told, sizes, scale) == (
        "Twice as many people to train on, 90 in place of 45, would bring plain about 1.8 points of accuracy (95 % interval 0.2 "
        "to 3.5)."
    )
    row = tabulate_gains(replace(sizes, curves=(told,))).rows[0]
    assert row.values[1:4] == (45.0, 0.018, IntervalBounds(0.002, 0.035))
    lost = replace(each, gain=replace(each.gain, gain=None, seen=Bounded(-0.01, -0.05, 0.03), reason="it is so"))
    assert describe_gain(lost, sizes, scale) == (
        "What more people would bring plain cannot be told, because it is so: from 9 to 45 people its accuracy is worse by 1.0 "
        "point (95 % interval of the gain \u22125.0 to 3.0)."
    )
    assert tabulate_gains(replace(sizes, curves=(lost,))).rows[0].values[2:4] == (None, None)
    still = replace(lost, gain=replace(lost.gain, seen=Bounded(0.0, -0.0004, 0.0004)))
    assert describe_gain(still, sizes, scale).endswith("better by 0.0 points (95 % interval of the gain 0.0 to 0.0).")
    figure = draw_size_curves(sizes.curves, "people", scale)
    assert "people trained on" in figure.caption and "accuracy" in figure.caption.lower()


def test_the_page_shows_the_sections_and_the_compared_runs_alone(store: Store, tuned: Store, tmp_path: Path) -> None:
    for folder, title in ((store, "What more data would bring"), (tuned, "Tuned values")):
        text = write_report(folder.folder, tmp_path / f"{title}.html").read_text(encoding="utf-8")
        assert title in text and "Failed runs" not in text
        assert len(collect_summary(folder).candidates) == 1


def test_tuned_values_are_counted_over_the_splits(tuned: Store) -> None:
    summary = collect_summary(tuned)
    section = tuned_values_section(ReportInput(tuned, summary, compare_candidates(tuned, summary)))
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    chosen = [run.record["tuning"] for run in summary.candidates[0].runs]
    assert len(chosen) == 2 and len(table.rows) == 2
    for row in table.rows:
        name = str(row.values[1]).removeprefix("classifier ")
        assert row.values[2] == sum(each["chosen"]["baseline.classifier"] == name for each in chosen)
        scores = [s["value"] for each in chosen for s in each["scores"] if s["settings"]["baseline.classifier"] == name]
        assert row.values[3] == pytest.approx(np.mean(scores))
