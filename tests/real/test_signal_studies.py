"""Real recordings as datasets: counts equal their README, faults are found, and studies run to predictions."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.core.spec import validate_as
from phoropter.data.inspect import detect_data_spec
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.deploy.bundle import load_bundle
from phoropter.deploy.predict import predict_paths
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

pytestmark = pytest.mark.real


def unpacked(real_data: Path, to: Path, name: str) -> Path:
    with tarfile.open(real_data / f"{name}.tar.gz") as archive:
        archive.extractall(to, filter="data")
    return to / name


@pytest.fixture(scope="module")
def ctu(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(real_data, tmp_path_factory.mktemp("ctu"), "ctu-uhb-ctgdb")


@pytest.fixture(scope="module")
def eegmat(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(real_data, tmp_path_factory.mktemp("eegmat"), "eegmat-ecg")


@pytest.fixture(scope="module")
def mitdb(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(real_data, tmp_path_factory.mktemp("mitdb"), "mitdb")


@pytest.mark.parametrize(("rule", "count"), [("pH<=7.05", 40), ("pH<7.15", 95), ("pH<7.20", 161)])
def test_births_are_labelled_as_the_readme_counts(ctu: Path, rule: str, count: int) -> None:
    dataset = open_dataset(validate_as(DataSpec, {"ctu": ctu, "outcome": rule, "clean": {"window": {"max_missing": 1}}}))
    assert len(dataset) == 502 and dataset.class_counts[1] == count and len(set(dataset.groups)) == 502  # type: ignore[arg-type]


def test_the_four_recordings_without_a_heartbeat_stop_a_study_or_are_listed(eegmat: Path) -> None:
    with pytest.raises(DataError, match="Subject02_1: no heartbeat in the ECG"):
        open_dataset(validate_as(DataSpec, {"eegmat": eegmat}))
    dataset = open_dataset(validate_as(DataSpec, {"eegmat": eegmat, "on_bad_input": "skip"}))
    assert {p.where for p in dataset.problems} == {"Subject02_1", "Subject13_1", "Subject20_2", "Subject35_2"}
    assert dataset.classes == ("rest", "task") and len(set(dataset.groups)) == 28  # type: ignore[arg-type]
    everything = open_dataset(validate_as(DataSpec, {"eegmat": eegmat, "require_r_peaks": False}))
    assert len(set(everything.recordings)) == 56 and not everything.problems  # type: ignore[arg-type]


def test_beat_counts_equal_the_readme(mitdb: Path) -> None:
    dataset = open_dataset(validate_as(DataSpec, {"mitdb": mitdb, "task": "symbols"}))
    edge = 7
    for symbol, expected in {"N": 9180, "R": 2563, "V": 2154, "A": 1547, "/": 1542, "F": 374}.items():
        assert expected - edge <= dataset.class_counts[dataset.classes.index(symbol)] <= expected
    assert len(set(dataset.groups)) == 8  # type: ignore[arg-type]


def test_folders_are_recognised(ctu: Path, eegmat: Path, mitdb: Path) -> None:
    assert [detect_data_spec(folder).source for folder in (ctu, eegmat, mitdb)] == ["ctu", "eegmat", "mitdb"]


def test_a_record_that_is_cut_short_stops_or_is_listed(ctu: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(1001, 1007):
        for ending in ("hea", "dat"):
            shutil.copy(ctu / f"{number}.{ending}", few)
    (few / "1003.dat").write_bytes((few / "1003.dat").read_bytes()[:-100])
    spec = validate_as(DataSpec, {"ctu": few, "outcome": "pH<7.22"})
    with pytest.raises(DataError, match=r"1003.dat: its header says .* cut short"):
        open_dataset(spec)
    dataset = open_dataset(spec.with_changes(on_bad_input="skip"))
    assert ["1003" in p.where for p in dataset.problems] == [True] and "1003" not in set(dataset.recordings)  # type: ignore[arg-type]


STUDIES = {
    "eegmat": "data: {eegmat: FOLDER, on_bad_input: skip, size: 48, max_samples: 200}\n"
    "protocol: {split: stratified-group-k-fold, folds: 2}",
    "ctu": "data: {ctu: FOLDER, outcome: pH<7.2, size: 48, max_samples: 80}\nprotocol: {split: stratified-k-fold, folds: 2}",
    "mitdb": "data: {mitdb: FOLDER, size: 48, max_samples: 200}\nprotocol: {split: stratified-group-k-fold, folds: 2}",
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_to_predictions(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: {name}\n{STUDIES[name].replace('FOLDER', str(request.getfixturevalue(name)))}\n"
        "recipe: {preset: scratch, epochs: 1}\ncandidates: [{name: cnn, backbone: test_resnet, weights: random}]\n"
    )
    store = execute_study(read_study(file)[0], tmp_path / "out", lambda event: None, options=ComputeOptions("cpu", threads=1))
    found = [r.load_predictions() for r in store.runs()]
    assert len(found) == 2 and not store.read_failures()
    groups = [set(p.groups) for p in found if p is not None and p.groups is not None]
    assert len(groups) == 2 and not groups[0] & groups[1]
    assert all(p is not None and np.isfinite(p.logits).all() for p in found)

    # One held-out recording after another, as a file: read, cut, drawn and answered as in the study.
    kept = next(r for r in store.runs() if r.bundle_folder)
    held_out, bundle = kept.load_predictions(), load_bundle(store.folder)
    assert held_out is not None and bundle.folder == kept.bundle_folder
    stored = dict(zip(held_out.ids.tolist(), held_out.logits, strict=True))
    some = sorted({i.split("@")[0] for i in stored})[:3]
    files = [
        next(f for f in request.getfixturevalue(name).glob("*.*") if f.stem == s and f.suffix in (".hea", ".edf")) for s in some
    ]
    expected = predict_paths(bundle, files, device="cpu")
    now = dict(zip(expected.dataset.ids.tolist(), expected.logits, strict=True))
    compared = [i for i in stored if i.split("@")[0] in some]
    assert compared and set(compared) <= set(now)
    np.testing.assert_allclose([now[i] for i in compared], [stored[i] for i in compared], rtol=0, atol=1e-6)
