"""Rows of a study for a bundle that came out of it: never rows that the measured model has met."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import StoreError
from phoropter.deploy.examples import read_examples
from phoropter.deploy.export.inputs import find_proof_inputs
from phoropter.deploy.export.proof import MAX_INPUTS, ProofInputs, compute_reference
from phoropter.deploy.predict import Bundle
from phoropter.refit.finished_study import open_finished_study
from phoropter.refit.held_out import BundleRows, find_bundle_rows
from phoropter.results.store import Store
from phoropter.training.candidates.refit_record import RefitRecord
from phoropter.training.trained_on import trained_ids

Refit = Callable[..., RefitRecord]


def find_rows(folder: Path, bundle: Bundle) -> BundleRows:
    return find_bundle_rows(open_finished_study(folder, lambda event: None), bundle, lambda event: None)


def bundles_of(store: Store, name: str) -> list[Path]:
    return [run.bundle_folder for run in store.runs() if run.candidate_name == name and run.bundle_folder]


def test_a_models_own_run_gives_rows_that_it_has_not_met(shapes: Store) -> None:
    for folder in bundles_of(shapes, "vit"):
        bundle = ph.load(folder)
        place = find_rows(shapes.folder, bundle)
        assert place.own is not None and place.own.key == folder.parent.name
        assert "summary" not in vars(place.study)  # for which every predictions file would be read, and nobody asks
        rows, dataset = place.find_measured_rows(), place.own.image_set.dataset
        test = place.own.split.test
        assert rows.measured is bundle and np.array_equal(rows.test, place.pixels.batch(test))
        assert np.array_equal(rows.labels, dataset.labels[test]) and len(rows.calibration) == len(place.own.split.train)
        assert not np.isin(dataset.hashed_ids[test], trained_ids(folder, dataset)).any()
        held_out = shapes.run(place.own.key).load_predictions()
        assert held_out is not None
        logits = compute_reference(bundle, ProofInputs(rows.test, ""), None).logits
        np.testing.assert_allclose(logits[: len(test)], held_out.logits, atol=1e-5)
        assert {s.tobytes() for s in place.find_proof_inputs().squares} == {s.tobytes() for s in rows.test}


@pytest.mark.parametrize("name", ["solved", "average"])
def test_a_bundle_that_has_met_every_row_is_measured_by_a_model_of_one_run(
    shapes: Store, refit: Refit, tmp_path: Path, name: str
) -> None:
    refit(shapes, tmp_path / "bundle", name)
    place = find_rows(shapes.folder, ph.load(tmp_path / "bundle"))
    rows = place.find_measured_rows()
    met = set().union(*(run.split.train.tolist() for run in place.runs))
    assert place.own is None and len(place.find_proof_inputs().squares) == 24 and len(rows.calibration) == len(met)
    held_out = shapes.run(place.runs[0].key).load_predictions()
    assert held_out is not None and rows.measured.refit is None and "has met every row" in rows.source
    found = compute_reference(rows.measured, ProofInputs(rows.test, ""), None).probabilities
    np.testing.assert_allclose(found[: len(rows.test)], held_out.probabilities, atol=1e-5)


def test_another_study_and_other_data_are_refused(shapes: Store, signals: dict[str, Store], refit: Refit, tmp_path: Path) -> None:
    (folder, *_) = bundles_of(signals["people"], "cnn")
    with pytest.raises(StoreError, match=r"did not come out of the study in .*, which has no candidate 'cnn'"):
        find_rows(shapes.folder, ph.load(folder))
    refit(shapes, tmp_path / "bundle", "vit")
    bundle: Any = ph.load(tmp_path / "bundle")
    other = bundle.refit.evidence.with_changes(fingerprint="another")
    with pytest.raises(StoreError, match="whose rows are others"):
        find_rows(shapes.folder, replace(bundle, refit=bundle.refit.with_changes(evidence=other)))


def test_without_a_kept_model_the_loss_of_int8_cannot_be_measured(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    refit(shapes, tmp_path / "bundle", "vit")
    bare = shutil.copytree(shapes.folder, shapes.folder.parent / "bare")
    for folder in bare.glob("runs/*/bundle"):
        shutil.rmtree(folder)
    place = find_rows(bare, ph.load(tmp_path / "bundle"))
    with pytest.raises(StoreError, match=r"kept no model of 'vit', and the bundle has met every row.*save_models: first"):
        place.find_measured_rows()


def test_examples_of_recordings_are_inputs_to_compare_on(signals: dict[str, Store], refit: Refit, tmp_path: Path) -> None:
    refit(signals["people"], tmp_path / "bundle", "cnn", examples=2)
    bundle = ph.load(tmp_path / "bundle")
    found = find_proof_inputs(bundle, [])
    logits = compute_reference(bundle, found, None).logits
    known = np.concatenate([example.logits for example in read_examples(bundle.folder)])
    assert len(found.squares) == min(len(known), MAX_INPUTS) and found.source == "examples in the bundle"
    assert all(np.abs(known - row).max(axis=1).min() < 1e-4 for row in logits)
