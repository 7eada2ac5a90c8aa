"""A study whose rows may have several labels, from its data to its page and to a bundle's answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

import phoropter as ph
from made_label_sets import MARKS, make_marks
from phoropter.commands.json_documents import make_predict_document
from phoropter.core.errors import SpecError
from phoropter.deploy.export.export import ExportOptions, export_bundle
from phoropter.deploy.export.int8 import MeasuredRows
from phoropter.deploy.export.proof import ProofInputs
from phoropter.deploy.predict import predict_dataset
from phoropter.deploy.serve.answers import decide_class
from phoropter.deploy.tables import write_predictions
from phoropter.interface.frames import iter_prediction_frames
from phoropter.refit.refit import RefitOptions, refit_candidate
from phoropter.report.page import create_report, read_report_input
from phoropter.results.positive_class import open_results
from phoropter.results.store import Store
from phoropter.study.plan import plan_study
from phoropter.study.variants.multi_label_uses import DEFAULT_METRICS

torch.set_num_threads(1)
RANDOM = {"backbone": "test_resnet", "weights": "random"}
PROTOCOL: dict[str, Any] = {"split": "stratified-group-k-fold", "folds": 2, "seeds": [0]}


def write_marks(folder: Path) -> Path:
    """160 pictures of 40 people as an npz file with a table of labels."""
    made = make_marks(160, groups=40)
    images = np.stack([made.read(row) for row in range(len(made))])
    named = {"classes": np.array(made.classes), "groups": made.groups}
    np.savez(folder / "marks.npz", images=images, labels=made.labels, **named)  # type: ignore[arg-type]
    return folder / "marks.npz"


def make_study(candidates: list[Any], file: Path | None = None, **keys: Any) -> ph.Study:
    data = ph.npz(file, multi_label=True, size=32) if file else ph.in_memory(make_marks(160, groups=40), size=32)
    return ph.Study(name="marks", data=data, protocol=PROTOCOL, recipe="probe", candidates=candidates, **keys)


CANDIDATES = [
    {**RANDOM, "name": "solved", "frozen": True, "recipe": "logistic"},
    {**RANDOM, "name": "fine", "recipe": {"preset": "finetune", "epochs": 8, "lr": 3e-3, "augment": ["mixup"]}},
    {"fuse": ["solved", "fine"], "mode": "ensemble", "name": "mean"},
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("study")
    make_study(CANDIDATES, write_marks(folder)).run(folder / "out")
    yield folder / "out"


def test_the_marks_are_found_by_a_solved_head_and_by_a_trained_network(finished: Path) -> None:
    store = Store(finished)
    assert store.study["dataset"]["task"] == "multi-label" and store.study["dataset"]["classes"] == list(MARKS)
    for item in store.study["plan"]:
        run = store.run(item["key"])
        found = run.load_predictions()
        assert found is not None and found.is_multi_label
        area = sk.roc_auc_score(found.labels, found.probabilities, average="macro")
        assert run.record["metrics"]["roc_auc"] == pytest.approx(area)
        assert tuple(run.record["metrics"]) == DEFAULT_METRICS
        assert area > 0.9, item["candidate"]


def test_an_average_is_of_the_probability_of_each_label(finished: Path) -> None:
    store = Store(finished)
    runs = {
        name: [store.run(i["key"]) for i in store.study["plan"] if i["candidate"] == name] for name in ("solved", "fine", "mean")
    }
    for solved, fine, mean in zip(*runs.values(), strict=True):
        parts = [run.load_predictions() for run in (solved, fine, mean)]
        a, b, both = (p.probabilities for p in parts if p is not None)
        np.testing.assert_allclose(both, (a + b) / 2, atol=1e-6)


def test_the_page_shows_each_label_and_leaves_out_what_needs_one_class(finished: Path, tmp_path: Path) -> None:
    written = create_report(read_report_input(finished), tmp_path / "report")
    page = written.page.read_text()
    assert "Results by label" in page and "160 rows with 3 labels" in page
    for section in ('id="confusion"', 'id="classes"', 'id="operating-points"', 'id="mistakes"'):
        assert section not in page
    with (tmp_path / "report" / "tables" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["Label"] for row in rows} == set(MARKS)
    card = (tmp_path / "report" / "model-card.md").read_text()
    assert "a probability for each of 3 labels" in card


@pytest.fixture(scope="module")
def bundle_folder(finished: Path) -> Path:
    folder = finished.parent / "bundle"
    refit_candidate(finished, folder, RefitOptions("mean"), torch.device("cpu"), lambda event: None)
    return folder


def test_a_bundle_answers_with_a_probability_and_a_decision_for_each_label(bundle_folder: Path, tmp_path: Path) -> None:
    bundle = ph.load(bundle_folder)
    assert bundle.multi_label and json.loads((bundle_folder / "bundle.json").read_text())["members"][0]["multi_label"]
    fresh = make_marks(60, seed=5)
    found = predict_dataset(bundle, fresh, device="cpu")
    p = found.probabilities
    assert sk.roc_auc_score(fresh.labels, p, average="macro") > 0.9
    members = [torch.sigmoid(m(torch.from_numpy(bundle.preprocess([fresh.read(0)]).numpy()))) for m in bundle.model.members]
    np.testing.assert_allclose(p[0], expected_average(members, bundle.temperature), atol=1e-5)
    write_predictions(found, tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    above = [name for name, value in zip(MARKS, p[0], strict=True) if value > 0.5]
    assert first["class"] == ("|".join(above) or "none") and float(first["p_bar"]) == pytest.approx(p[0, 0])
    assert first["label"] == fresh.describe_label(0)
    document = make_predict_document(bundle_folder, found, [])
    assert document.rows[0].answer == first["class"]


def test_an_export_gives_the_bundles_probabilities(finished: Path, tmp_path: Path) -> None:
    kept = Store(finished).run(Store(finished).study["plan"][0]["key"]).bundle_folder
    assert kept is not None
    bundle, fresh = ph.load(kept), make_marks(4, seed=6)
    squares = bundle.preprocess([fresh.read(row) for row in range(4)]).numpy()
    expected = predict_dataset(bundle, fresh, device="cpu").probabilities
    report = export_bundle(bundle, tmp_path / "model.pt2", ProofInputs(squares, "made pictures"), ExportOptions())
    exported = torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(squares))[1]
    np.testing.assert_allclose(exported.detach().numpy(), expected, atol=1e-4)
    assert report.n_inputs == 4
    rows = MeasuredRows(*[None] * len(fields(MeasuredRows)))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="--int8: its loss is measured on rows of one class each"):
        export_bundle(bundle, tmp_path / "int8.onnx", ProofInputs(squares, "made"), ExportOptions(), rows)


def test_an_explanation_is_of_one_label_and_divides_it_between_the_members(bundle_folder: Path) -> None:
    bundle, fresh = ph.load(bundle_folder), make_marks(1, seed=6)
    expected = predict_dataset(bundle, fresh, device="cpu").probabilities
    explained = bundle.explain([fresh.read(0)], target="dot", device="cpu")[0]
    np.testing.assert_allclose(explained.probabilities, expected[0], atol=1e-5)
    assert explained.target == 1 and sum(one.weight for one in explained.branches.values()) == pytest.approx(1)


def test_a_served_answer_decides_label_by_label(bundle_folder: Path) -> None:
    bundle = ph.load(bundle_folder)
    found = predict_dataset(bundle, make_marks(1, seed=8), device="cpu")
    decided = decide_class(found)
    above = [name for name, value in zip(MARKS, found.probabilities[0], strict=True) if value > 0.5]
    assert decided == {
        "class": "|".join(above) or "none",
        "rule": "the labels with a probability above a half",
        "threshold": None,
    }


def expected_average(members: list[torch.Tensor], temperature: float) -> Any:
    mean = torch.stack(members).mean(0)[0]
    return torch.sigmoid((mean / (1 - mean)).log() / temperature).detach().numpy()


def test_predictions_as_a_frame_name_the_sets_of_labels(finished: Path) -> None:
    pytest.importorskip("pandas")
    store = open_results(finished)
    run = store.run(store.study["plan"][0]["key"])
    frame = next(iter_prediction_frames([run], ["test"]))
    found = run.load_predictions()
    assert found is not None
    assert frame["label"][0] == ("|".join(n for n, y in zip(MARKS, found.labels[0], strict=True) if y) or "none")


@pytest.mark.parametrize(
    ("candidate", "keys", "message"),
    [
        (RANDOM, {"metrics": ["accuracy"]}, "'accuracy' has no meaning where rows may have several labels"),
        (RANDOM, {"clinical": {"prevalence": 0.1}}, "clinical needs thresholds of one positive class"),
        (RANDOM, {"aggregate": "vote"}, "aggregate needs one class of a recording"),
        ({**RANDOM, "recipe": {"imbalance": {"undersample": 1}}}, {}, "imbalance needs one class a row.*class_weights: auto"),
        ({"baseline": "colour-texture", "classifier": "gradient-boosting"}, {}, "gradient-boosting needs one class a row"),
        (
            {"backbone": "test_resnet", "weights": "random", "recipe": {"loss": ph.Loss("own", compute=abs)}},
            {},
            "the loss 'own' needs",
        ),
    ],
)
def test_what_needs_one_class_a_row_is_refused_before_anything_is_computed(candidate: Any, keys: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_study(make_study([candidate], **keys))


def test_a_student_learns_by_loss_soft_alone() -> None:
    student = {"student": "test_resnet", "weights": "random", "teacher": "fine", "name": "student"}
    with pytest.raises(SpecError, match=r"distillation by loss: hard needs one class a row.*choose loss: soft"):
        plan_study(make_study([CANDIDATES[1], student]))
    assert len(plan_study(make_study([CANDIDATES[1], {**student, "loss": "soft"}])).runs) == 4


def test_recordings_have_several_labels_from_ptbxl_to_an_answer(tmp_path: Path, write_ptbxl: Callable[..., Path]) -> None:
    """Records like PTB-XL's with several superclasses, under the patients' own folds; a recording is answered as a whole."""
    codes = (
        "{'NORM': 100.0}",
        "{'IMI': 100.0, 'NDT': 15.0}",
        "{'CLBBB': 100.0, 'LVH': 100.0, 'IMI': 0.0}",
        "{'LVH': 50.0, 'NDT': 0.0}",
    )
    rows = {n: (str(100 + n // 2), "0.0", codes[n // 2 % 4], (3, 4, 10, 10)[n // 8 % 4]) for n in range(32)}
    root = write_ptbxl(tmp_path / "ptbxl", rows)
    data = {"ptbxl": root, "multi_label": True, "size": 32, "window": {"length_s": 5, "step_s": 5}}
    study = ph.Study(name="ecg", data=data, protocol="predefined", candidates=[CANDIDATES[0]])
    study.run(tmp_path / "out")
    store = Store(tmp_path / "out")
    assert store.study["dataset"]["classes"] == ["NORM", "MI", "STTC", "CD", "HYP"] and store.study["dataset"]["rows"] == 64
    found = store.run(store.study["plan"][0]["key"]).load_predictions()
    assert found is not None and found.labels.shape == (32, 5) and found.labels.sum(axis=0).tolist() == [8, 16, 16, 8, 16]
    folder = store.run(store.study["plan"][0]["key"]).bundle_folder
    assert folder is not None
    answers = ph.load(folder).predict([root / "records100" / "00000" / "00017_lr.hea"], device="cpu")
    mean = answers.average_by_recording()
    assert mean is not None and len(answers.probabilities) == 2
    np.testing.assert_allclose(mean.probabilities[0], answers.probabilities.mean(axis=0))
