"""Candidates without a network in a study: their runs, records and costs, on the folds of the networks; what a study refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_rows import save_frame
from phoropter import study_parts
from phoropter.core.errors import DataError, SpecError
from phoropter.refit.finished_study import open_finished_study
from phoropter.results.shift.answer_file import load_shift_answers
from phoropter.results.store import Store
from phoropter.study import compute
from phoropter.study.executors import execute_study
from phoropter.study.inputs import table_inputs
from phoropter.study.plan import Plan, plan_study
from phoropter.study.records import table_record
from phoropter.study.screening import make_probe_candidates
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions
from phoropter.training.tables.row_features import RowFeatures, compute_row_features
from small_recordings import CTG_STUDY, ECG_STUDY

STUDY = """\
name: simple
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: network}
  - {baseline: mean-image}
  - {baseline: mean-image, classifier: gradient-boosting}
"""
HERE = ComputeOptions("cpu", threads=1)


def study_of(folder: Path, text: str = STUDY) -> StudySpec:
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")[0]


def run(folder: Path, text: str = STUDY) -> Store:
    store = execute_study(study_of(folder, text), folder / "out", lambda event: None, options=HERE)
    assert not store.read_failures()
    return store


def plan(folder: Path, text: str) -> Plan:
    return plan_study(study_of(folder, text))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run(tmp_path_factory.mktemp("simple"))


def test_baselines_are_tested_on_the_rows_of_the_networks_and_learn(done: Store) -> None:
    by_name: dict[str, list[np.ndarray]] = {}
    for one in done.runs():
        predictions = one.load_predictions()
        assert predictions is not None and one.record["metrics"]["accuracy"] == np.mean(
            predictions.logits.argmax(1) == predictions.labels
        )
        by_name.setdefault(one.candidate_name, []).append(predictions.ids)
    assert list(by_name) == ["network", "mean-image", "mean-image, gradient-boosting"]
    for name in by_name:
        assert all(np.array_equal(a, b) for a, b in zip(by_name[name], by_name["network"], strict=True))
    accuracy = np.mean([r.record["metrics"]["accuracy"] for r in done.runs() if r.candidate_name == "mean-image"])
    assert accuracy > 0.7  # of ten digits


def test_a_record_says_what_it_is_and_what_it_took(done: Store) -> None:
    record = next(r.record for r in done.runs() if r.candidate_name == "mean-image")
    assert record["candidate"]["description"] == "baseline: mean-image under a logistic regression"
    assert record["logistic"]["penalty"] in (10.0, 1.0, 0.1, 0.01, 0.001)
    assert record["cost"]["parameters"] == 10 * 193 and record["cost"]["train_seconds"] >= record["cost"]["train_pass_seconds"]
    (passed,) = record["feature_passes"].values()
    assert passed["images"] == 120


def test_a_run_that_cannot_be_written_is_absent_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = table_record.write_table_run

    def fail_on_boosting(folder: Any, run: Any, *args: Any, **options: Any) -> dict[str, Any]:
        record = write(folder, run, *args, **options)
        if "boosting" in run.candidate.name:
            raise ValueError("no more")
        return record

    monkeypatch.setattr(compute, "write_table_run", fail_on_boosting)
    store = execute_study(study_of(tmp_path), tmp_path / "out", lambda event: None, options=HERE)
    assert {note["error"] for note in store.read_failures().values()} == {"no more"}
    assert {r.candidate_name for r in store.runs()} == {"network", "mean-image"}


def test_adding_a_baseline_keeps_the_keys_of_networks(tmp_path: Path) -> None:
    alone = STUDY.partition("  - {baseline")[0]
    keys = {r.key for r in plan(tmp_path, alone).runs}
    assert keys < {r.key for r in plan(tmp_path, STUDY).runs}


def test_features_of_a_file_are_a_candidate_and_their_contents_its_identity(tmp_path: Path) -> None:
    import pandas as pd

    text = STUDY.partition("  - {backbone")[0] + "  - {features: f.csv, name: mine}\n"
    dataset = plan(tmp_path, STUDY).runs[0].image_set.dataset
    values = np.eye(10)[dataset.labels] + np.random.default_rng(0).normal(0, 0.1, (len(dataset), 10))
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(10)]).assign(id=dataset.ids)
    save_frame(frame, tmp_path / "f.csv")
    store = run(tmp_path, text)
    assert all(r.record["metrics"]["accuracy"] > 0.95 for r in store.runs())
    before = {r.key for r in plan(tmp_path, text).runs}
    save_frame(frame.assign(x0=0.0), tmp_path / "f.csv")
    assert not before & {r.key for r in plan(tmp_path, text).runs}
    save_frame(frame.iloc[1:], tmp_path / "f.csv")
    with pytest.raises(DataError, match=r"candidate 'mine': f\.csv: 1 of 120 rows have no features"):
        plan(tmp_path, text)


def test_the_runs_of_a_candidate_share_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[RowFeatures]()

    def note_and_compute(*args: Any) -> RowFeatures:
        asked.append(compute_row_features(*args))
        return asked[-1]

    monkeypatch.setattr(table_inputs, "compute_row_features", note_and_compute)
    store = run(tmp_path, STUDY.partition("  - {backbone")[0] + "  - {baseline: mean-image}\n  - {baseline: colour-texture}\n")
    assert len(list(store.runs())) == 4 and len(asked) == 2
    assert len({found.values.shape for found in asked}) == 2 and not any(found.values.flags.writeable for found in asked)
    seconds = {float(p["seconds"]) for r in store.runs() for p in r.record["feature_passes"].values()}
    assert seconds == {round(found.seconds, 6) for found in asked}


def test_sweeps_over_recipes_leave_baselines_alone(tmp_path: Path) -> None:
    found = plan(tmp_path, STUDY + "sweep: {recipe.inner_folds: [2, 3]}\n")
    names = {r.candidate.name for r in found.runs}
    assert "mean-image" in names and len([n for n in names if n.startswith("network")]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (STUDY + "  - {baseline: hrv}\n", "needs windows of an ECG"),
        (STUDY + "  - {baseline: ctg-features}\n", "needs windows of a cardiotocogram"),
        (STUDY + "  - {baseline: signal-1d}\n", "signal-1d needs windows of recordings, and this dataset's rows are pictures"),
        (ECG_STUDY + "candidates: [{baseline: ctg-features}]\n", "windows show"),
        (STUDY + "  - {student: test_vit, teacher: mean-image}\n", "has no network"),
    ],
)
def test_baselines_of_other_data_are_refused_before_anything_runs(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        plan(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "name"), [(ECG_STUDY, "hrv"), (CTG_STUDY, "ctg-features"), (ECG_STUDY, "signal-1d, recipe: {epochs: 2}")]
)
def test_recordings_have_baselines_of_their_signals(tmp_path: Path, text: str, name: str) -> None:
    (first, *_) = run(tmp_path, text + f"candidates: [{{baseline: {name}}}]\nmetrics: [accuracy]\n").runs()
    predictions = first.load_predictions()
    assert predictions is not None and np.isfinite(predictions.logits).all() and predictions.logits.std(axis=0).min() > 0


def test_what_reads_no_pictures_is_one_candidate_for_all_sizes(tmp_path: Path) -> None:
    network = "{backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: network}"
    both = "{fuse: [hrv, network], mode: ensemble, name: both}"
    text = ECG_STUDY + f"candidates: [{{baseline: hrv}}, {{baseline: mean-image}}, {network}, {both}]\n"
    store = run(tmp_path, text + "metrics: [accuracy]\nsweep: {data.size: [32, 40]}\n")
    found = [r.candidate_name for r in store.runs()]
    swept = [f"{name} · size {size}" for name in ("mean-image", "network", "both") for size in (32, 40)]
    assert sorted(found) == sorted(2 * ["hrv", *swept])
    hrv = {r.key for r in plan(tmp_path, text).runs if r.candidate.name == "hrv"}
    assert hrv == {r.key for r in store.runs() if r.candidate_name == "hrv"}, "as in the study of the first size"
    with pytest.raises(SpecError, match=r"the sweep over data\.size changes nothing: no candidate reads pictures"):
        plan(tmp_path, ECG_STUDY + "candidates: [{baseline: hrv}]\nsweep: {data.size: [32, 40]}\n")


def test_what_reads_no_pictures_keeps_the_rows_that_each_page_leaves(tmp_path: Path) -> None:
    """A picture that lacks a page is left out with its row, so that other rows are trained on and tested."""
    lines = ["path,label,age"]
    for number in range(24):
        label, pages = ("dark", "light")[number % 2], [Image.new("L", (32, 32), 9 * number) for _ in range(2)]
        pages[0].save(tmp_path / f"{number}.tif", save_all=True, append_images=pages[1:] if number % 3 else [])
        lines.append(f"{number}.tif,{label},{30 + number}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    data = "data: {manifest: list.csv, size: 32, on_bad_input: skip}\nsweep: {data.page: [1, 2]}\n"
    members = "{metadata: [age]}, {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: network}"
    candidates = f"candidates: [{members}, {{fuse: [metadata, network], mode: ensemble, name: both}}]\nmetrics: [accuracy]\n"
    protocol = "protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}\n"
    store = run(tmp_path, "name: pages\n" + data + protocol + candidates)
    tested = {
        name: sum(len(r.load_predictions().ids) for r in store.runs() if r.candidate_name == name)
        for name in ("metadata · page 1", "metadata · page 2", "both · page 2")
    }
    assert list(tested.values()) == [24, 16, 16]


def test_a_network_on_samples_keeps_its_history_and_says_what_it_read(tmp_path: Path) -> None:
    text = CTG_STUDY + "candidates: [{baseline: signal-1d, recipe: {epochs: 2}}]\nmetrics: [accuracy]\n"
    store = run(tmp_path, text)
    (first, *_) = store.runs()
    assert first.record["signal"]["channels"] == ["FHR", "UC"] and first.record["signal"]["standardised_by"] == "training rows"
    assert first.record["choice"] == {"epoch": 2, "by": "last"} and first.record["cost"]["epochs"] == len(first.history) == 2
    assert first.record["cost"]["parameters"] == 95_810 and first.record["cost"]["train_seconds"] > 0
    finished = open_finished_study(store.folder, lambda event: None)
    with pytest.raises(SpecError, match="'signal-1d' reads samples, not pictures, and a bundle is made of a network of pictures"):
        finished.planned_runs("signal-1d")


def test_a_screening_is_of_networks(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'mean-image' is not one"):
        make_probe_candidates(study_of(tmp_path, STUDY.replace("frozen: true, recipe: logistic, ", "") + "screening: true\n"))


def test_a_smoke_version_keeps_baselines_and_leaves_files_out(tmp_path: Path) -> None:
    small = make_smoke_version(study_of(tmp_path, STUDY + "  - {predictions: theirs.csv}\n"))
    assert [c.name for c in small.parsed_candidates] == ["network", "mean-image", "mean-image, gradient-boosting"]
    assert "'imported theirs' is left out: its file is of all rows" in small.context.smoke_changes
    only = STUDY.partition("  - {backbone")[0] + "  - {predictions: theirs.csv}\n"
    with pytest.raises(SpecError, match="every candidate is read from a file"):
        make_smoke_version(study_of(tmp_path, only))


METADATA = """\
name: births
data: {recordings: births.csv, outcome: pH<=7.15, size: 32, clean: {window: {length_s: 120, max_missing: 1}}}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - {metadata: [weeks]}
  - {baseline: ctg-features, metadata: [weeks]}
  - {backbone: test_resnet, weights: random, frozen: true, recipe: logistic, name: network}
  - {fuse: [metadata, network], mode: ensemble, name: mean}
shift: {dropout_s: [30]}
"""


def test_no_bundle_is_proposed_of_an_average_with_metadata(tmp_path: Path) -> None:
    study = study_of(tmp_path, METADATA)
    swept = ("mean · size 32", True), ("metadata · page 1 (metadata)", True), ("network · size 32", False)
    for first, led in (("mean", True), ("metadata (metadata)", True), ("network", False), *swept):
        written = SimpleNamespace(leaderboard=SimpleNamespace(rows=[SimpleNamespace(values=[first])]))
        assert study_parts._is_led_by_table(study, written) == led  # type: ignore[arg-type]


def test_metadata_are_a_candidate_and_join_features_and_networks(tmp_path: Path) -> None:
    """Weeks that tell the outcome of two births in three are answered right as often, whatever the traces show."""
    lines = ["path,rate_hz,outcome.pH,about.weeks"]
    for number in range(16):
        trace = 140 + np.random.default_rng(number).normal(0, 3, 150)
        (tmp_path / f"{number}.csv").write_text("FHR,UC\n" + "\n".join(f"{a:.1f},10" for a in trace))
        lines.append(f"{number}.csv,1,{7.3 if number % 2 else 7.0},{38 + 2 * (number % 2) if number % 3 else 39}")
    (tmp_path / "births.csv").write_text("\n".join(lines))
    store = run(tmp_path, METADATA)
    found: dict[str, list[Any]] = {}
    for one in store.runs():
        found.setdefault(one.candidate_name, []).append(one.load_predictions())
    assert list(found) == ["metadata", "ctg-features + metadata", "network", "mean"]
    weeks = {f"{number}": 38 + 2 * (number % 2) if number % 3 else 39 for number in range(16)}
    for predictions in found["metadata"]:
        by_weeks: dict[int, set[float]] = {}
        for row, name in enumerate(predictions.ids.tolist()):
            by_weeks.setdefault(weeks[name.partition("@")[0]], set()).add(float(predictions.logits[row, 0]))
        assert all(len(answers) == 1 for answers in by_weeks.values()), "equal metadata, equal answers"
    for member, other, mean in zip(found["metadata"], found["network"], found["mean"], strict=True):
        both = [np.exp(p.logits) / np.exp(p.logits).sum(1, keepdims=True) for p in (member, other, mean)]
        np.testing.assert_allclose(both[2], (both[0] + both[1]) / 2, atol=1e-5)
    for one in store.runs():
        clean = one.load_predictions()
        assert clean is not None
        (shifted,) = load_shift_answers(store.folder, one.key, clean.logits).values()
        assert np.array_equal(shifted, clean.logits) == (one.candidate_name == "metadata"), "lost samples change no weeks"
    cost = next(one.record["cost"] for one in store.runs() if one.candidate_name == "mean")
    assert cost["macs"] is None and cost["parameters"] > 0
    with pytest.raises(SpecError, match=r"'mean' averages 'metadata', which has no network \(metadata\), and a bundle"):
        open_finished_study(store.folder, lambda event: None).planned_runs("mean")
    before = {r.key for r in plan(tmp_path, METADATA).runs}
    (tmp_path / "births.csv").write_text("\n".join(lines).replace(",38", ",37"))
    changed = {r.key for r in plan(tmp_path, METADATA).runs}
    network = {r.key for r in plan(tmp_path, METADATA).runs if r.candidate.name == "network"}
    assert before & changed == network, "what is stated enters the keys of those that read it alone"
