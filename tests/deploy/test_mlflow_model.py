"""A bundle as an MLflow model: what MLflow calls gives the bundle's probabilities; with MLflow itself where it is installed."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import phoropter as ph
from phoropter.core.errors import DataError
from phoropter.deploy.mlflow_model import PyfuncModel, _load_pyfunc, write_mlmodel
from phoropter.deploy.predict import open_bundle
from phoropter.signals.recording import Recording
from phoropter.signals.simulate import ecg_simulate
from phoropter.training.candidates.refit_record import RefitRecord
from small_pictures import draw_dark_and_light, run_small_study
from small_recordings import ECG_STUDY, PEOPLE

NET = "candidates: [{name: net, backbone: test_resnet, weights: random}]\nrecipe: {preset: scratch, epochs: 1}\n"
PICTURES = "name: shapes\ndata: {folder: pictures, size: 48}\nprotocol: {split: hold-out, test_size: 0.5}\n" + NET


def make_bundle(folder: Path, text: str) -> Path:
    """The bundle of a study's only kept run, with its MLmodel."""
    store = run_small_study(folder, text)
    bundle = next(run.bundle_folder for run in store.runs() if run.bundle_folder)
    assert bundle is not None
    write_mlmodel(bundle, open_bundle(bundle))
    return bundle


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 4)
    return make_bundle(folder, PICTURES), sorted((folder / "pictures").rglob("*.png"))


def test_pictures_come_as_bytes_or_as_text(pictures: tuple[Path, list[Path]]) -> None:
    bundle, files = pictures
    expected = ph.load(bundle).predict(files, device="cpu").probabilities
    raw = [file.read_bytes() for file in files]
    for model in (_load_pyfunc(str(bundle)), _load_pyfunc(str(bundle / "MLmodel"))):
        for column in (raw, [base64.b64encode(r).decode() for r in raw]):
            table = model.predict(pd.DataFrame({"image": column}, index=range(5, 5 + len(files))))
            np.testing.assert_allclose(table[["p_dark", "p_light"]].to_numpy(), expected, atol=1e-5)
            assert table["class"].tolist() == [("dark", "light")[k] for k in expected.argmax(1)] and table.index[0] == 5
    many = [raw[k % len(raw)] for k in range(12)]  # more than ten, whose names would sort otherwise
    found = _load_pyfunc(str(bundle)).predict(pd.DataFrame({"image": many}))
    np.testing.assert_allclose(found[["p_dark", "p_light"]].to_numpy(), expected[np.arange(12) % len(raw)], atol=1e-5)
    assert _load_pyfunc(str(bundle)).predict(pd.DataFrame({"image": []})).columns.tolist() == ["class", "p_dark", "p_light"]
    with pytest.raises(DataError, match="has no column 'image'"):
        PyfuncModel(ph.load(bundle)).predict(pd.DataFrame({"path": ["/etc/passwd"]}))
    with pytest.raises(DataError, match="row-0"):
        PyfuncModel(ph.load(bundle)).predict(pd.DataFrame({"image": [b"no picture"]}))


def test_recordings_come_as_the_text_of_a_table(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, ECG_STUDY + NET)
    recording: Recording = ecg_simulate(PEOPLE)[0]
    text = "ECG\n" + "".join(f"{v}\n" for v in recording.samples[recording.channels.index("ECG")])
    (tmp_path / "row.csv").write_text(text)
    windows = ph.load(bundle).predict(tmp_path / "row.csv", device="cpu").probabilities
    table = _load_pyfunc(str(bundle)).predict(pd.DataFrame({"csv": [text, text]}))
    assert len(windows) > 1 and len(table) == 2
    np.testing.assert_allclose(table.iloc[1, 1:].to_numpy(float), windows.mean(axis=0), atol=1e-6)
    model = ph.load(bundle)
    for rule, votes in (("vote", np.eye(3)[windows.argmax(axis=1)]), ("top-2", windows[np.argsort(-windows[:, 1])[:2]])):
        refit = RefitRecord.model_construct(aggregation=rule, positive_class=model.classes[1], temperature=1.0)
        table = PyfuncModel(replace(model, refit=refit)).predict(pd.DataFrame({"csv": [text]}))
        np.testing.assert_allclose(table.iloc[0, 1:].to_numpy(float), votes.mean(axis=0), atol=1e-6)
    with pytest.raises(DataError, match="row 0 is a manifest, which names files of this machine"):
        _load_pyfunc(str(bundle)).predict(pd.DataFrame({"csv": [f"path,rate_hz\n{tmp_path / 'row.csv'},250\n"]}))


@pytest.mark.filterwarnings("default")
@pytest.mark.nightly  # importing mlflow alone takes seconds
def test_mlflow_loads_the_bundle(pictures: tuple[Path, list[Path]]) -> None:
    pyfunc = pytest.importorskip("mlflow.pyfunc", reason="mlflow is not installed (pip install 'phoropter[track]')")
    bundle, files = pictures
    table = pyfunc.load_model(str(bundle)).predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))
    expected = ph.load(bundle).predict(files, device="cpu").probabilities
    np.testing.assert_allclose(table[["p_dark", "p_light"]].to_numpy(), expected, atol=1e-5)
