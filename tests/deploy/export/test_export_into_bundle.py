"""An ONNX file in a bundle: whole and within its bound, or the bundle is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_bundles import draw_squares, make_bundle

from phoropter.core.errors import StoreError, WeightsError
from phoropter.core.storage.sealed_json import read_sealed_json
from phoropter.deploy.export import export_into_bundle as door
from phoropter.deploy.export import exporters
from phoropter.deploy.export.bundled_export import make_export_predictor, read_bundled_export
from phoropter.deploy.export.export_into_bundle import export_into_bundle
from phoropter.deploy.export.proof import ProofInputs
from phoropter.deploy.predict import Bundle
from phoropter.models.weights.bundle_files import raise_on_bundle_damage

INPUTS = ProofInputs(draw_squares(9), "drawn squares")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
    return make_bundle(tmp_path / "bundle", temperature=1.7)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_said_of_the_file_is_true(bundle: Bundle) -> None:
    before = contents_of(bundle.folder)
    export = export_into_bundle(bundle, INPUTS)
    assert read_bundled_export(bundle.folder) == export and (export.n_inputs, export.views) == (9, ("none",))
    raise_on_bundle_damage(bundle.folder)
    after = contents_of(bundle.folder)
    assert sorted(after) == sorted([*before, "model.onnx"]) and after["model.safetensors"] == before["model.safetensors"]
    assert export.probability <= 1e-5 and export.exporter == "tracing" and export.versions["onnxruntime"]
    import torch

    from phoropter.data.images.pixels import InMemoryPixels
    from phoropter.deploy.predict import make_square_predictor

    squares = InMemoryPixels(draw_squares(40, seed=3))  # others than those of the proof, in several batches
    by_torch = make_square_predictor(bundle, torch.device("cpu"))(squares)
    assert abs(make_export_predictor(bundle, export)(squares) - by_torch).max() < 1e-4


def test_a_bundle_that_has_one_is_left_as_it_is(bundle: Bundle) -> None:
    export_into_bundle(bundle, INPUTS)
    before = contents_of(bundle.folder)
    with pytest.raises(StoreError, match="holds an ONNX file already"):
        export_into_bundle(bundle, INPUTS)
    assert contents_of(bundle.folder) == before


def test_a_file_beyond_its_bound_and_an_interruption_leave_a_sound_bundle(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents_of(bundle.folder)
    with monkeypatch.context() as patch:
        patch.setattr(door, "MAX_BUNDLED_DIFFERENCE", -1.0)
        with pytest.raises(WeightsError, match=r"expected at most -1 of one in a bundle, so there is none"):
            export_into_bundle(bundle, INPUTS)
    assert contents_of(bundle.folder) == before
    with monkeypatch.context() as patch:
        patch.setattr(door, "write_sealed_json", lambda path, content: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_into_bundle(bundle, INPUTS)
    raise_on_bundle_damage(bundle.folder)
    assert read_bundled_export(bundle.folder) is None, "an unlisted file is nobody's"
    assert export_into_bundle(bundle, INPUTS) == read_bundled_export(bundle.folder)


def test_a_bundle_without_checksums_is_refused(bundle: Bundle) -> None:
    import json

    content = read_sealed_json(bundle.folder / "bundle.json", WeightsError)
    del content["files"]
    (bundle.folder / "bundle.json").write_text(json.dumps({**content, "format": 1}))
    with pytest.raises(StoreError, match="of an earlier version, without checksums"):
        export_into_bundle(bundle, INPUTS)
