"""`refit --how folds`: the average of the study's own models, whether the study kept them or they are trained again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import phoropter as ph
from phoropter.models.classifier import load_classifier
from phoropter.refit import fold_models
from phoropter.refit.evidence import describe_evidence
from phoropter.results.store import Store
from phoropter.signals.simulate import ctg_simulate, ecg_simulate
from phoropter.training.candidates.refit_record import RefitRecord
from small_recordings import BIRTHS, PEOPLE

Refit = Callable[..., RefitRecord]
MEMBERS = {"average": ("single", "vit")}


def mean_of_kept_models(store: Store, name: str, pictures: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(N, C): the mean of the probabilities that each bundle kept by the study gives by itself."""
    wanted = MEMBERS.get(name, (name,))
    folders = [r.bundle_folder for r in store.runs() if r.candidate_name in wanted]
    assert len(folders) == 2 * len(wanted) and all(folders)
    return np.asarray(
        np.mean([ph.load(folder).predict(pictures, device="cpu").probabilities for folder in folders if folder], axis=0)
    )


@pytest.mark.parametrize("name", ["single", "solved", "logits", "student", "token", "average"])
def test_the_average_of_the_folds_is_the_mean_of_their_models_on_raw_files(
    shapes: Store, refit: Refit, tmp_path: Path, name: str
) -> None:
    record = refit(shapes, tmp_path / "bundle", name, how="folds")
    model = ph.load(tmp_path / "bundle")
    pictures = shapes.folder.parent / "pictures"
    predicted = model.predict(pictures, device="cpu")
    expected = mean_of_kept_models(shapes, name, pictures)
    np.testing.assert_allclose(np.exp(predicted.logits), expected, rtol=0, atol=1e-6)
    assert record.how == "folds" and record.n_models == len(model.classifier.members) == (4 if name == "average" else 2)
    assert record.fold_models is not None and record.fold_models.kept == record.n_models and not record.fold_models.retrained
    assert record.n_rows == (24 if name in ("single", "average") else 16)  # with validation rows only where they choose the epoch
    assert any(f"{record.n_rows} of 24 have ids of rows" in note for note in predicted.notes)
    assert f"averages the probabilities of the study's own {record.n_models} models" in " ".join(describe_evidence(record))


def test_the_module_gives_what_predict_gives(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    """Where no member has views of its own: one torch module, its members averaged inside."""
    refit(shapes, tmp_path / "bundle", "logits", how="folds")
    model = ph.load(tmp_path / "bundle")
    images = [np.full((40, 60, 3), grey, np.uint8) for grey in (40, 180)]
    logits = model.classifier(model.preprocess(images)).detach().numpy()
    np.testing.assert_allclose(logits, model.predict(images, device="cpu").logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["people", "births"])
def test_the_folds_of_recordings_are_averaged_on_raw_recordings(
    signals: dict[str, Store], refit: Refit, tmp_path: Path, name: str
) -> None:
    """Of networks of electrocardiograms, and of bags of cardiotocograms."""
    recordings = ecg_simulate(PEOPLE) if name == "people" else ctg_simulate(BIRTHS)
    record = refit(signals[name], tmp_path / "bundle", None, how="folds")
    model = ph.load(tmp_path / "bundle")
    predicted = model.predict(recordings, device="cpu", on_bad_input="skip")
    folders = [r.bundle_folder for r in signals[name].runs()]
    each = [ph.load(f).predict(recordings, device="cpu", on_bad_input="skip").probabilities for f in folders if f is not None]
    assert len(each) == record.n_models == 2 and len(predicted.logits) > 10
    np.testing.assert_allclose(np.exp(predicted.logits), np.mean(each, axis=0), rtol=0, atol=1e-6)
    assert len(model.classifier.branches) == (2 if name == "people" else 4)  # two bags in each of two folds


@pytest.mark.parametrize("name", ["single", "warm", "student"])
def test_models_that_were_not_kept_are_trained_again_to_the_same_bits(
    shapes: Store, refit: Refit, tmp_path: Path, name: str
) -> None:
    refit(shapes, tmp_path / "kept", name, how="folds")
    copy = shutil.copytree(shapes.folder.parent, tmp_path / "copy")
    for bundle in (copy / "out" / "runs").glob("*/bundle"):
        shutil.rmtree(bundle)
    store = Store(copy / "out")
    record = refit(store, tmp_path / "again", name, how="folds")
    assert record.fold_models is not None and (record.fold_models.kept, record.fold_models.retrained) == (0, 2)
    assert record.fold_models.difference == 0.0 and "were trained again by their recipe" in " ".join(describe_evidence(record))
    kept, again = (load_classifier(tmp_path / folder).state_dict() for folder in ("kept", "again"))
    assert kept.keys() == again.keys() and all((kept[k] == again[k]).all() for k in kept)


def test_what_a_model_trained_again_predicts_is_held_against_the_study(
    shapes: Store, refit: Refit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(shapes.folder.parent, tmp_path / "copy")
    for bundle in (copy / "out" / "runs").glob("*/bundle"):
        shutil.rmtree(bundle)
    real = fold_models.to_probabilities  # as if other models had been trained
    monkeypatch.setattr(fold_models, "to_probabilities", lambda logits, several: real(logits, several) * 0.75)
    record = refit(Store(copy / "out"), tmp_path / "bundle", "probe", how="folds")
    assert record.fold_models is not None and record.fold_models.difference is not None
    largest = max(p.probabilities.max() for r in shapes.runs() if r.candidate_name == "probe" and (p := r.load_predictions()))
    assert record.fold_models.difference == pytest.approx(largest / 4, rel=1e-6)


def test_a_bundle_of_an_average_names_what_each_member_was_trained_as(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    refit(shapes, tmp_path / "bundle", "average", how="folds")
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert content["format"] == 3 and [m["name"] for m in content["training"]["members"]] == ["single"] * 2 + ["vit"] * 2
