"""The table of labels: each label's figures against scikit-learn, on made answers of two folds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from phoropter.report.sections.predictions.label_table import label_section, measure_labels
from phoropter.results.run_folder import Predictions

NAMES = ("edema", "mass", "nodule")


def make_runs(rows: int = 240, folds: int = 2) -> dict[str, Predictions]:
    random = np.random.default_rng(4)
    labels = (random.random((rows, 3)) < (0.5, 0.3, 0.2)).astype(np.int64)
    logits = ((2 * labels - 1) * (2.0, 1.0, 0.2) + 1.5 * random.normal(size=labels.shape)).astype(np.float32)
    ids = np.array([f"{i:03d}" for i in range(rows)])
    groups = np.array([f"p{i // 3}" for i in range(rows)])
    return {f"run{f}": Predictions(ids[f::folds], labels[f::folds], logits[f::folds], groups[f::folds]) for f in range(folds)}


def make_inputs(runs: dict[str, Predictions], multi_label: bool = True) -> Any:
    store = SimpleNamespace(run=lambda key: SimpleNamespace(load_predictions=lambda: runs[key]))
    lines = [SimpleNamespace(key=key, split=(0, 0, fold)) for fold, key in enumerate(runs)]
    candidate = SimpleNamespace(name="network", runs=lines)
    summary = SimpleNamespace(candidates=[candidate], classes=NAMES, is_multi_label=multi_label)
    return SimpleNamespace(store=store, summary=summary)


def test_each_label_is_a_question_of_its_own() -> None:
    runs = make_runs()
    inputs = make_inputs(runs)
    found = measure_labels(inputs.store, inputs.summary.candidates[0], NAMES)
    labels, p = (np.concatenate([getattr(r, name) for r in runs.values()]) for name in ("labels", "probabilities"))
    for k, label in enumerate(found):
        areas = [sk.roc_auc_score(r.labels[:, k], r.probabilities[:, k]) for r in runs.values()]
        assert label.area.estimate == pytest.approx(np.mean(areas))  # every fold has 10 rows of the rarest answer
        assert label.area.low < label.area.estimate < label.area.high and label.area.n_units == 80
        if k:  # pooled: fewer than 50 rows of the label in a fold
            assert label.precision.estimate == pytest.approx(sk.average_precision_score(labels[:, k], p[:, k]))
        assert label.prevalence == pytest.approx(labels[:, k].mean()) and label.rows == 240
        answer = p[:, k] > 0.5
        assert label.f1 == pytest.approx(sk.f1_score(labels[:, k], answer))
        assert label.recall == pytest.approx(sk.recall_score(labels[:, k], answer))
        assert label.specificity == pytest.approx(sk.recall_score(labels[:, k], answer, pos_label=0))
        assert 0 <= label.calibration.debiased <= label.calibration.error < 0.5


def test_the_section_has_the_hardest_label_first_and_is_left_out_for_one_class_a_row() -> None:
    section = label_section(make_inputs(make_runs()))
    assert section is not None
    table = section.blocks[1]
    assert [row.values[0] for row in table.rows] == ["nodule", "mass", "edema"] and "lowest ROC-AUC first" in table.caption
    assert table.columns[-1].name == "ECE, debiased"  # as the table of candidates calls it, whose "Calibration error" is not
    assert label_section(make_inputs(make_runs(), multi_label=False)) is None


def test_a_second_candidate_has_the_labels_in_the_order_of_the_first() -> None:
    inputs = make_inputs(make_runs())
    inputs.summary.candidates.append(SimpleNamespace(**{**vars(inputs.summary.candidates[0]), "name": "other"}))
    section = label_section(inputs)
    assert section is not None
    assert "lowest" in section.blocks[1].caption and section.blocks[2].caption.endswith("in the same order")
