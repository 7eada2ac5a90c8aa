"""What is said of a bundle: its name, what it takes, and its study's estimate in words."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running_server import Made

from phoropter.core.errors import SpecError
from phoropter.data.images.pixels import InMemoryPixels
from phoropter.deploy.bundle import load_bundle
from phoropter.deploy.export import exporters
from phoropter.deploy.export.export_into_bundle import export_into_bundle
from phoropter.deploy.export.proof import ProofInputs
from phoropter.deploy.serve.served_bundle import describe_served_bundle, describe_study_evidence, open_served_bundles
from phoropter.results.metrics.probabilities import softmax
from phoropter.training.candidates.refit_record import StudyFigure


def with_record(made: Made, **changes: Any) -> Any:
    predictor = made.served.predictor
    assert predictor.refit is not None
    return replace(predictor, refit=predictor.refit.with_changes(**changes))


def test_the_estimate_is_told_with_its_interval_and_of_which_rows(pictures: Made) -> None:
    evidence = pictures.served.predictor.refit.evidence  # type: ignore[union-attr]
    figure = StudyFigure(metric="accuracy", value=0.914, low=0.853, high=0.952, method="Wilson")
    predictor = with_record(pictures, evidence=evidence.with_changes(figure=figure, n_runs=5, n_rows=1200))
    first, second, *_ = describe_study_evidence(predictor)
    assert first == (
        "In its study this classifier's recipe reached accuracy 91.4 % (95 % interval 85.3 % to 95.2 %) on 1,200 predictions of "
        "5 models for rows they had not been trained on."
    )
    assert "resemble the study's" in second
    bare = figure.with_changes(metric="cohen_kappa", value=0.5, low=None, high=None)
    told = describe_study_evidence(with_record(pictures, evidence=evidence.with_changes(figure=bare, n_runs=1)))[0]
    assert "0.500 (too few independent units for an interval)" in told and "of one model" in told


def test_calibration_is_claimed_only_where_a_temperature_was_fitted(pictures: Made, ecg: Made) -> None:
    assert any("calibrated" in s for s in describe_study_evidence(with_record(pictures, temperature=0.7)))
    assert not any("calibrated" in s for s in describe_study_evidence(with_record(pictures, temperature=1.0)))
    (alone,) = describe_study_evidence(ecg.served.predictor)
    assert "carries no estimate of its own" in alone and "not calibrated" in alone


def test_what_a_bundle_takes_is_said_in_words(pictures: Made, ecg: Made, ctg: Made) -> None:
    said = {made.served.name: describe_served_bundle(made.served) for made in (pictures, ecg, ctg)}
    assert said["shapes-net"]["takes"].startswith("Pictures: JPEG") and said["shapes-net"]["title"] == "cnn of shapes"
    assert describe_served_bundle(ecg.served)["takes"].startswith("Recordings with the channel ECG at 100 Hz")
    assert describe_served_bundle(ctg.served)["takes"].startswith("Recordings with the channels FHR and UC at 4 Hz")
    assert describe_served_bundle(ecg.served)["classes"] == ["baseline", "stress", "amusement"]


def test_two_bundles_of_one_name_are_told_apart(pictures: Made) -> None:
    one, other = open_served_bundles([pictures.bundle, pictures.bundle], torch.device("cpu"))
    assert (one.name, other.name) == ("shapes-net", "shapes-net-2")
    assert one.predict_squares is not other.predict_squares, "each has batches of its own"


def test_a_bundle_with_an_onnx_file_answers_by_it_on_a_processor(
    pictures: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch does, to 1e-5 in a probability, and says so."""
    monkeypatch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
    draw = np.random.default_rng(0)
    squares = np.clip(draw.integers(0, 256, (20, 3, 1, 1)) + draw.integers(-40, 40, (20, 3, 48, 48)), 0, 255).astype(np.uint8)
    bundle = shutil.copytree(pictures.bundle, tmp_path / "bundle")
    (before,) = open_served_bundles([bundle], torch.device("cpu"))
    export_into_bundle(load_bundle(bundle), ProofInputs(squares[:9], "drawn squares"))
    (served,) = open_served_bundles([bundle], torch.device("cpu"))
    assert before.export is None and served.export is not None
    (said,) = set(describe_served_bundle(served)["reliability"]) - set(describe_served_bundle(before)["reliability"])
    assert said.startswith("Answers are computed by ONNX Runtime from the bundle's own ONNX file")
    by_file, by_torch = (softmax(one.predict_squares(InMemoryPixels(squares))) for one in (served, before))
    np.testing.assert_allclose(by_file, by_torch, atol=1e-5)
    assert np.ptp(by_torch[:, 0]) > 1e-3, "answers differ among the squares"


def test_no_bundle_is_refused() -> None:
    with pytest.raises(SpecError, match="there is no bundle to serve"):
        open_served_bundles([], torch.device("cpu"))
