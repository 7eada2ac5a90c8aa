"""What a bundle decides: by the rule and threshold of its study, and only for the answers that the threshold is for."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.data.dataset import Dataset
from phoropter.data.in_memory import as_dataset
from phoropter.deploy.decision import DecisionRule
from phoropter.deploy.predictions import BundlePredictions
from phoropter.deploy.tables import write_predictions
from phoropter.results.clinical.levels import Aggregation
from phoropter.results.store import Predictions

CLASSES = ("ill", "well")
DRAW = np.random.default_rng(2)
LOGITS = DRAW.normal(size=(12, 2)).astype(np.float32)
SUBJECTS = np.repeat(["a", "b"], 6)


def dataset_of(recordings: list[str]) -> Dataset:
    made = as_dataset((np.zeros((12, 8, 8, 3), dtype=np.uint8), ["ill", "well"] * 6))
    return replace(made, groups=SUBJECTS, recordings=np.array(recordings), spans=np.zeros((12, 2)))


SEVERAL = dataset_of(["a1"] * 3 + ["a2"] * 3 + ["b1"] * 6)
SINGLE = dataset_of(["a1"] * 6 + ["b1"] * 6)


def predicted(dataset: Dataset, rule: DecisionRule) -> BundlePredictions:
    return BundlePredictions(dataset, CLASSES, LOGITS, temperature=1.5, rule=rule)


@pytest.mark.parametrize("rule", ["mean", "vote", "max", "top-2"])
def test_a_recording_is_answered_as_its_study_was_evaluated(rule: str) -> None:
    found = predicted(SEVERAL, DecisionRule(CLASSES, rule, "ill"))
    stored = Predictions(SEVERAL.ids, SEVERAL.labels * 0, LOGITS, SUBJECTS, recordings=SEVERAL.recordings)
    for level, answers in (("recording", found.average_by_recording()), ("group", found.average_by_subject())):
        assert answers is not None
        study = Aggregation(level, rule, 0, 1.5).apply_to(stored)  # type: ignore[arg-type]
        np.testing.assert_allclose(answers.probabilities, study.probabilities)


def test_the_positive_class_is_decided_for_from_the_threshold_on() -> None:
    three = DecisionRule(("x", "ill", "z"), positive="ill", threshold=0.3)
    p = np.array([[0.5, 0.3, 0.2], [0.5, 0.29, 0.21], [0.2, 0.29, 0.51], [0.1, 0.8, 0.1]])
    assert three.decide(p, "row") == ["ill", "x", "z", "ill"]
    assert three.decide(p, "group") is None and replace(three, threshold=None).decide(p, "row") is None


def test_a_threshold_decides_only_answers_of_its_level() -> None:
    rule = DecisionRule(CLASSES, "mean", "ill", 0.4, "group")
    several, single = predicted(SEVERAL, rule), predicted(SINGLE, rule)
    assert several.decide_rows() is None and several.decide_recordings() is None
    subjects, recordings = several.average_by_subject(), single.average_by_recording()
    assert subjects is not None and recordings is not None and single.average_by_subject() is None
    expected = ["ill" if p >= 0.4 else "well" for p in subjects.probabilities[:, 0]]
    assert several.decide_subjects() == expected == single.decide_recordings()
    of_recordings = predicted(SEVERAL, replace(rule, level="recording"))
    assert of_recordings.decide_recordings() is not None and of_recordings.decide_subjects() is None
    of_rows = predicted(SEVERAL, replace(rule, level="row"))
    assert of_rows.decide_rows() == ["ill" if p >= 0.4 else "well" for p in of_rows.probabilities[:, 0]]
    assert of_rows.decide_recordings() is None  # several windows each
    alone = BundlePredictions(SEVERAL.select_rows(np.array([0, 6])), CLASSES, LOGITS[[0, 6]], rule=replace(rule, level="row"))
    assert alone.decide_recordings() == alone.decide_rows()


def test_the_decision_is_a_column_of_the_files_it_is_for(tmp_path: Path) -> None:
    found = predicted(SEVERAL, DecisionRule(CLASSES, "mean", "ill", 0.4, "group"))
    files = {file.name: file for file in write_predictions(found, tmp_path / "p.csv")}
    rows = {name: list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) for name, file in files.items()}
    assert [row["decision"] for row in rows["p-subjects.csv"]] == found.decide_subjects()
    assert "decision" not in rows["p.csv"][0] and "decision" not in rows["p-recordings.csv"][0]


def test_the_terminal_shows_the_decision_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    from phoropter.console import make_console, print_predictions

    for dataset, shown in ((SINGLE, True), (SEVERAL, False)):
        print_predictions(make_console(), predicted(dataset, DecisionRule(CLASSES, "mean", "ill", 0.0, "group")))
        said = capsys.readouterr().out
        assert ("decision" in said) == shown and "recording" in said
        if shown:
            assert [line.split()[2] for line in said.splitlines() if line.startswith(("a1", "b1"))] == ["ill", "ill"]
            assert "total by decision: 2 ill" in said  # though the likeliest class is another
