"""Predictions of a bundle for new files: the logits of its study, what is written, and what is refused or listed."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import phoropter
from phoropter.cli import main
from phoropter.core.errors import DataError, WeightsError
from phoropter.core.extensions import trust_code
from phoropter.data.dataset import UNLABELLED
from phoropter.deploy.bundle import load_bundle
from phoropter.deploy.predict import Bundle, make_square_predictor, predict_paths
from phoropter.deploy.predictions import BundlePredictions, predict_files
from phoropter.deploy.tables import write_predictions
from phoropter.results.store import Predictions, Store
from phoropter.signals.recording import Recording
from phoropter.signals.simulate import ctg_simulate, ecg_simulate
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from small_pictures import run_small_study
from small_recordings import BIRTHS, CTG_STUDY, ECG_STUDY, PEOPLE

ECG = (
    ECG_STUDY
    + """\
recipe: {preset: scratch, epochs: 2}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""
)
CTG = (
    CTG_STUDY
    + """\
candidates:
  - name: cnn
    backbone: test_resnet
    weights: random
    frozen: true
    recipe: {preset: probe, epochs: 2, imbalance: {undersample: 1, n_bags: 2}}
metrics: [roc_auc]
"""
)
PICTURES = """\
name: shapes
data: {folder: pictures, size: 48, resize: pad}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 1}
candidates:
  - {name: plain, backbone: test_resnet, weights: random}
  - {name: flipped, backbone: test_vit, weights: random, recipe: {tta: flip}}
  - name: ten
    backbone: test_resnet
    weights: random
    recipe: {tta: ten-crop, center_crop: 32, augment: {random-crop: {size: 32}}}
  - {name: probe, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 1}}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """A study of simulated people, and the same people as CSV files with a manifest."""
    folder = tmp_path_factory.mktemp("people")
    return run_small_study(folder, ECG), write_manifest(folder / "files", ecg_simulate(PEOPLE))


@pytest.fixture(scope="module")
def births(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("births")
    return run_small_study(folder, CTG), write_manifest(folder / "files", ctg_simulate(BIRTHS))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    draw = np.random.default_rng(0)
    for kind, grey in (("dark", 60), ("light", 190)):
        (folder / "pictures" / kind).mkdir(parents=True)
        for i in range(8):
            noise = draw.integers(0, 60, (30 + 5 * i, 50, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(grey)).save(folder / "pictures" / kind / f"{i}.png")
    return run_small_study(folder, PICTURES), folder / "pictures"


def write_manifest(folder: Path, recordings: list[Recording]) -> Path:
    """A manifest, a CSV file for each recording, and its labels where it has any."""
    folder.mkdir()
    lines = ["path,rate_hz,subject,site,spans,outcome.pH"]
    for r in recordings:
        rows = "\n".join(",".join(f"{v:.9g}" for v in moment) for moment in r.samples.T)
        (folder / f"{r.id}.csv").write_text(f"{','.join(r.channels)}\n{rows}\n")
        spans = "\n".join(f"{s.start},{s.stop},{s.label}" for s in r.spans)
        if spans:
            (folder / f"{r.id}-spans.csv").write_text(f"start,stop,label\n{spans}\n")
        named = f"{r.id}-spans.csv" if spans else ""
        lines.append(f"{r.id}.csv,{r.rate_hz:g},{r.subject},{r.site},{named},{r.outcome.get('pH', '')}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def load_kept(store: Store, candidate: str | None = None) -> tuple[Bundle, Predictions]:
    """The bundle a study saved, and its run's predictions for the held-out rows."""
    found = next(r for r in store.runs() if r.bundle_folder and candidate in (None, r.candidate_name))
    held_out = found.load_predictions()
    assert held_out is not None and found.bundle_folder is not None
    return load_bundle(found.bundle_folder), held_out


def select_subjects(manifest: Path, subjects: set[str]) -> Path:
    """A manifest of only these subjects, beside the given one."""
    header, *lines = manifest.read_text().splitlines()
    out = manifest.with_name(f"only-{'-'.join(sorted(subjects))[:40]}.csv")
    out.write_text("\n".join([header, *(line for line in lines if line.split(",")[2] in subjects)]) + "\n")
    return out


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_a_prediction_does_not_import_torchs_compiler(pictures: tuple[Store, Path]) -> None:
    """Which takes longer than torch itself: neither the libraries, nor the building of the network, nor its pass ask for it."""
    store, folder = pictures
    bundles = [str(load_kept(store, name)[0].folder) for name in ("plain", "flipped")]
    code = (
        f"import sys\nfrom phoropter.cli import main\nfor bundle in {bundles}:\n"
        f"    main(['predict', bundle, {str(folder / 'dark' / '0.png')!r}], standalone_mode=False)\n"
        "print(sorted({'torch._dynamo', 'sympy', 'sklearn', 'pandas', 'scipy.stats', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("0.png") == 2 and done.stdout.endswith("\n[]\n")


# --- the same logits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["people", "births"])
def test_recordings_as_files_get_exactly_the_logits_of_the_study(name: str, request: pytest.FixtureRequest) -> None:
    """Through reading, cleaning, cutting, rendering, storing and the network: bit for bit, given the same batch."""
    store, manifest = request.getfixturevalue(name)
    bundle, held_out = load_kept(store)
    assert held_out.groups is not None
    predictions = predict_paths(bundle, [select_subjects(manifest, set(held_out.groups.tolist()))], device="cpu")
    assert sorted(predictions.dataset.ids.tolist()) == sorted(held_out.ids.tolist()) and len(held_out.ids) > 10
    place = {name: row for row, name in enumerate(predictions.dataset.ids.tolist())}
    rows = [place[name] for name in held_out.ids.tolist()]
    assert np.array_equal(predictions.logits[rows], held_out.logits)
    assert (predictions.dataset.labels[rows] == held_out.labels).all()


@pytest.mark.parametrize("candidate", ["plain", "flipped", "ten", "probe"])
def test_images_of_a_folder_get_the_logits_of_the_study(pictures: tuple[Store, Path], candidate: str) -> None:
    """With every kind of test-time augmentation, frozen or not; images are resized as in the study."""
    store, folder = pictures
    bundle, held_out = load_kept(store, candidate)
    predictions = predict_paths(bundle, [folder], device="cpu")
    place = {name: row for row, name in enumerate(predictions.dataset.ids.tolist())}
    assert len(place) == 16 and predictions.classes == ("dark", "light")
    rows = [place[name] for name in held_out.ids.tolist()]
    np.testing.assert_allclose(predictions.logits[rows], held_out.logits, rtol=0, atol=1e-6)
    alone = predict_paths(bundle, [folder / held_out.ids[0]], device="cpu")
    np.testing.assert_allclose(alone.logits[0], held_out.logits[0], rtol=0, atol=1e-5)


def test_a_bagged_run_is_recorded_as_one(births: tuple[Store, Path]) -> None:
    for made in births[0].runs():
        assert made.record["recipe"]["imbalance"]["n_bags"] == made.record["bags"]["count"] == 2
        assert made.record["bags"]["rows"][0] == made.record["bags"]["rows"][1] <= made.record["split"]["n_train"]
        assert "2 bags averaged" in made.record["candidate"]["description"]
    assert len(load_bundle(births[0].folder).model.branches) == 2


# --- what is predicted and written -------------------------------------------------------------------------------------------


def test_a_file_without_labels_is_cut_from_beginning_to_end(people: tuple[Store, Path]) -> None:
    store, manifest = people
    bundle, _ = load_kept(store)
    file = manifest.parent / "sim01.csv"
    seconds = (len(file.read_text().splitlines()) - 1) / 100
    predictions = predict_paths(bundle, [file], device="cpu")
    assert len(predictions.logits) == seconds // 5 and (predictions.dataset.labels == -1).all()
    assert predictions.dataset.spans is not None and predictions.dataset.spans[0].tolist() == [0, 5]


def test_the_tables_hold_every_probability_and_the_mean_of_each_recording(people: tuple[Store, Path], tmp_path: Path) -> None:
    store, manifest = people
    predictions = predict_paths(load_kept(store)[0], [manifest], device="cpu")
    windows, recordings = (rows_of(f) for f in write_predictions(predictions, tmp_path / "predictions.csv"))
    assert [row["id"] for row in windows] == predictions.dataset.ids.tolist() and len(recordings) == 4
    found = np.array([[float(row[f"p_{name}"]) for name in predictions.classes] for row in windows])
    np.testing.assert_allclose(found, predictions.probabilities, atol=1e-8)
    assert [row["class"] for row in windows] == [predictions.classes[k] for k in found.argmax(1)]
    assert {row["label"] for row in windows} == set(predictions.classes) and windows[0]["subject"] == "sim01"
    for row in recordings:
        mine = found[[w["recording"] == row["recording"] for w in windows]]
        assert int(row["windows"]) == len(mine)
        np.testing.assert_allclose([float(row[f"p_{name}"]) for name in predictions.classes], mine.mean(0), atol=1e-8)


def test_a_manifest_with_labels_in_some_rows_only_is_predicted(people: tuple[Store, Path]) -> None:
    """Training refuses it; to predict, no label is needed."""
    store, manifest = people
    bundle, _ = load_kept(store)
    header, *lines = manifest.read_text().splitlines()
    half = manifest.with_name("half-labelled.csv")
    half.write_text("\n".join([header, *lines[:1], lines[1].replace(lines[1].split(",")[4], "")]) + "\n")
    predictions = predict_paths(bundle, [half], device="cpu")
    recordings = predictions.dataset.recordings
    assert recordings is not None and len(np.unique(recordings)) == 2
    unlabelled = np.unique(recordings[predictions.dataset.labels == UNLABELLED])
    assert unlabelled.tolist() == [lines[1].split(".")[0]]


def test_rows_the_bundle_was_trained_on_are_noted(people: tuple[Store, Path]) -> None:
    store, manifest = people
    bundle, held_out = load_kept(store)
    assert held_out.groups is not None
    everybody = predict_paths(bundle, [manifest], device="cpu")
    trained = len(everybody.logits) - len(held_out.ids)
    assert any(f"{trained} of {len(everybody.logits)} have ids of rows" in note for note in everybody.notes)
    unseen = predict_paths(bundle, [select_subjects(manifest, set(held_out.groups.tolist()))], device="cpu")
    assert not any("have ids of rows" in note for note in unseen.notes)


def test_the_command_prints_and_writes(pictures: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = pictures
    bundle = load_kept(store, "plain")[0].folder
    arguments = ["predict", str(bundle), str(folder / "dark"), "-o", str(tmp_path / "predictions.csv"), "--device", "cpu"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "0.png" in result.output and "total: " in result.output
    rows = rows_of(tmp_path / "predictions.csv")
    assert len(rows) == 8 and set(rows[0]) == {"id", "class", "p_dark", "p_light"}
    assert not (tmp_path / "predictions-recordings.csv").exists()


# --- what is refused or listed ------------------------------------------------------------------------------------------


def predict_leniently(bundle: Bundle, *paths: Path, bad: Any = "skip") -> BundlePredictions:
    return predict_paths(bundle, paths, device="cpu", on_bad_input=bad)


def test_a_bad_image_stops_or_is_listed(pictures: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = pictures
    bundle, _ = load_kept(store, "plain")
    shutil.copy(folder / "dark" / "1.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    predictions = predict_leniently(bundle, tmp_path)
    assert predictions.dataset.ids.tolist() == ["good.png"] and [p.where for p in predictions.problems] == ["bad.png"]
    assert predictions.problems[0].what.startswith("not a picture")  # the file is named once
    with pytest.raises(DataError, match=r"bad\.png.*on-bad-input skip"):
        predict_leniently(bundle, tmp_path, bad="stop")
    (tmp_path / "good.png").unlink()
    with pytest.raises(DataError, match=r"^bad\.png: not a picture that can be read"):
        predict_leniently(bundle, tmp_path)
    (tmp_path / "worse.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of its 2 inputs can be read; the first: bad\.png: not a picture"):
        predict_leniently(bundle, tmp_path)


def bad_recordings(folder: Path) -> dict[str, str]:
    """File → the problem that its reading gives."""
    rows = (folder / "sim01.csv").read_text().splitlines()
    made = {
        "other.csv": ("\n".join(["EEG", *rows[1:]]), "channel 'ECG' is missing"),
        "short.csv": ("\n".join(rows[:300]), "2.99 s is shorter than one window of 5 s"),
        "empty.csv": ("ECG\n" + "\n" * 700, "no channel has a finite sample"),
        "damaged.csv": ('ECG\n"1\n2', "it cannot be read as a table"),
    }
    for name, (text, _) in made.items():
        (folder / name).write_text(text)
    (folder / "fast.csv").write_text("path,rate_hz\nsim01.csv,250\n")
    return {name: what for name, (_, what) in made.items()} | {
        "fast.csv": "its rate is 250 Hz and the classifier was trained at 100"
    }


def test_bad_recordings_stop_or_are_listed(people: tuple[Store, Path], tmp_path: Path) -> None:
    store, manifest = people
    bundle, _ = load_kept(store)
    shutil.copy(manifest.parent / "sim01.csv", tmp_path)
    for name, what in bad_recordings(tmp_path).items():
        with pytest.raises(DataError) as refused:
            predict_leniently(bundle, tmp_path / name, bad="stop")
        assert what in str(refused.value) and len(str(refused.value).splitlines()) == 1
        predictions = predict_leniently(bundle, manifest.parent / "sim02.csv", tmp_path / name)
        assert len(predictions.problems) == 1 and what in str(predictions.problems[0])
        assert set(predictions.dataset.recordings.tolist()) == {"sim02"}  # type: ignore[union-attr]


def test_two_files_of_one_id_stop_or_are_listed_and_one_file_twice_is_one(people: tuple[Store, Path], tmp_path: Path) -> None:
    store, manifest = people
    bundle, _ = load_kept(store)
    twin = shutil.copy(manifest.parent / "sim01.csv", tmp_path)
    file = manifest.parent / "sim01.csv"
    with pytest.raises(DataError, match="have the same id"):
        predict_leniently(bundle, file, Path(twin), bad="stop")
    assert len(predict_leniently(bundle, file, Path(twin)).problems) == 1
    assert not predict_leniently(bundle, file, file, bad="stop").problems


@pytest.mark.parametrize(
    ("field", "message"),
    [(None, "does not record how it was trained"), ("recording_view", "does not record how its recordings become images")],
)
def test_a_bundle_that_records_too_little_is_refused(
    people: tuple[Store, Path], tmp_path: Path, field: Any, message: str
) -> None:
    folder = shutil.copytree(load_kept(people[0])[0].folder, tmp_path / "bundle")
    text = json.loads((folder / "bundle.json").read_text())
    text["training"] = None if field is None else {**text["training"], field: None}
    (folder / "bundle.json").write_text(json.dumps(text))
    with pytest.raises(WeightsError, match=message):
        load_bundle(folder)


def test_a_folder_that_is_no_bundle_is_refused_naming_those_there_are(
    pictures: tuple[Store, Path], people: tuple[Store, Path], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="with 4 bundles of single runs; make the one to use by `phoropter refit"):
        load_bundle(pictures[0].folder)
    assert load_bundle(people[0].folder).folder == load_kept(people[0])[0].folder
    with pytest.raises(WeightsError, match="is no bundle"):
        load_bundle(tmp_path)
    with pytest.raises(DataError, match="there is nothing at"):
        predict_leniently(load_bundle(people[0].folder), tmp_path / "nowhere.csv")


def test_a_study_of_recordings_in_memory_keeps_a_bundle_that_predicts_files(people: tuple[Store, Path], tmp_path: Path) -> None:
    dataset = phoropter.from_recordings(ecg_simulate(PEOPLE), size=32, window={"step_s": 5}, channel="ECG")
    study = phoropter.Study(
        name="in-memory",
        data=dataset,
        protocol={"split": "stratified-group-k-fold", "folds": 2},
        recipe={"preset": "scratch", "epochs": 2},
        candidates=[{"name": "cnn", "backbone": "test_resnet", "weights": "random"}],
    )
    study.run(tmp_path / "out", device="cpu", quiet=True)
    store, manifest = Store(tmp_path / "out"), people[1]
    bundle, held_out = load_kept(store)
    assert held_out.groups is not None
    predictions = predict_paths(bundle, [select_subjects(manifest, set(held_out.groups.tolist()))], device="cpu")
    place = {name: row for row, name in enumerate(predictions.dataset.ids.tolist())}
    rows = [place[name] for name in held_out.ids.tolist()]
    np.testing.assert_allclose(predictions.logits[rows], held_out.logits, rtol=0, atol=1e-6)


def read_walk(file: Path) -> Recording:
    """Reads `p1-calm.npy`: subject and label are in its name."""
    subject, label = file.stem.split("-")
    return Recording(file.stem, subject, np.load(file)[None].astype(np.float32), ("acc",), ("g",), 50.0, label=label)


def test_a_bundle_of_the_users_own_database_predicts_its_files(tmp_path: Path) -> None:
    for seed in range(8):
        np.save(tmp_path / f"p{seed // 2}-{('calm', 'fast')[seed % 2]}.npy", np.random.default_rng(seed).normal(size=1000))
    walks = phoropter.Database("walks", read_file=read_walk, pattern="*.npy")
    study = phoropter.Study(
        name="walks",
        data=phoropter.recordings(tmp_path, database=walks, size=32, representation="trace"),
        protocol={"split": "stratified-group-k-fold", "folds": 2},
        recipe={"preset": "scratch", "epochs": 1},
        candidates=[{"name": "cnn", "backbone": "test_resnet", "weights": "random"}],
    )
    study.run(tmp_path / "out", device="cpu", quiet=True)
    held_out = load_kept(Store(tmp_path / "out"))[1]
    bundle = load_bundle(tmp_path / "out", [walks])
    predictions = predict_paths(bundle, [tmp_path], device="cpu")
    place = {name: row for row, name in enumerate(predictions.dataset.ids.tolist())}
    rows = [place[name] for name in held_out.ids.tolist()]
    np.testing.assert_allclose(predictions.logits[rows], held_out.logits, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match=r"a recording should end in \.csv.*by the Database 'walks' of its own: say --trust-code"):
        predict_paths(load_bundle(tmp_path / "out"), [tmp_path / "p0-calm.npy"], device="cpu")
    changed = phoropter.Database("walks", read_file=read_walk, pattern="*-*.npy")
    with pytest.raises(WeightsError, match="was saved with other code of the database 'walks'"):
        load_bundle(tmp_path / "out", [changed])


WALKS_MODULE = """
import numpy as np
import phoropter as ph

def read_walk(file):
    subject, label = file.stem.split("-")
    return ph.Recording(file.stem, subject, np.load(file)[None].astype(np.float32), ("acc",), ("g",), 50.0, label=label)

WALKS = ph.Database("walks", read_file=read_walk, pattern="*.npy")
"""


def test_the_command_line_predicts_files_of_a_named_database_if_its_code_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "walks_database.py").write_text(WALKS_MODULE)
    (tmp_path / "walks").mkdir()
    for seed in range(8):
        np.save(tmp_path / f"walks/p{seed // 2}-{('calm', 'fast')[seed % 2]}.npy", np.random.default_rng(seed).normal(size=1000))
    study = tmp_path / "walks.yaml"
    study.write_text(
        "name: walks\n"
        "data: {recordings: walks, database: 'walks_database:WALKS', size: 32, representation: trace}\n"
        "protocol: {split: stratified-group-k-fold, folds: 2}\n"
        "recipe: {preset: scratch, epochs: 1}\n"
        "candidates: [{name: cnn, backbone: test_resnet, weights: random}]\n"
    )
    out, file = tmp_path / "out", tmp_path / "walks" / "p0-calm.npy"
    predict = ["predict", str(out), str(file), "--device", "cpu"]
    try:
        with trust_code(tmp_path):
            (part,) = read_study(study)
            execute_study(part, out, lambda event: None, options=ComputeOptions("cpu"))
        done = CliRunner().invoke(main, [*predict, "--trust-code"], catch_exceptions=False)
        assert done.exit_code == 0 and "p0-calm" in done.output
        refused = CliRunner().invoke(main, predict)
        assert refused.exit_code == 2 and "by the Database 'walks' of its own: say --trust-code" in refused.output
    finally:
        sys.modules.pop("walks_database", None)


def test_standard_output_holds_the_table_alone_and_missing_paths_are_listed(pictures: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = pictures
    bundle = load_kept(store, "plain")[0].folder
    (tmp_path / "empty").mkdir()
    paths = [str(folder / "dark"), str(tmp_path / "gone.png"), str(tmp_path / "empty")]
    arguments = ["predict", str(bundle), *paths, "-o", "-", "--device", "cpu"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert result.exit_code == 0 and len(rows) == 8 and all(row["id"].endswith(".png") for row in rows)
    assert "left out: " in result.stderr and "gone.png: there is nothing" in result.stderr
    assert "empty: there is no image in this folder" in result.stderr
    refused = CliRunner().invoke(main, [*arguments, "--on-bad-input", "stop"])
    assert refused.exit_code == 2 and "there is nothing at" in refused.output
    unknown = CliRunner().invoke(main, [*arguments[:5], "-o", "table.xlsx"])
    assert unknown.exit_code == 2 and "predictions are written as" in unknown.output


def test_progress_counts_every_row_once(pictures: tuple[Store, Path]) -> None:
    store, folder = pictures
    seen: list[tuple[int, int]] = []
    bundle = load_kept(store, "plain")[0]
    by_torch = make_square_predictor(bundle, torch.device("cpu"))
    predict_files(bundle, by_torch, [folder], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (16, 16)
