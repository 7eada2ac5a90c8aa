"""An exported file opened again: any number of squares, its classes, and other files refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from made_bundles import SIDE, draw_squares, make_bundle, make_reference

from phoropter.core.errors import WeightsError
from phoropter.deploy.export import exporters
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.metadata import describe_exported
from phoropter.deploy.export.onnx_file import LEVELS, open_onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    bundle = make_bundle(folder / "b", temperature=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
        metadata = describe_exported(bundle, None)
        exporters.export_proved(lambda: ExportedClassifier(bundle), make_reference(bundle), metadata, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("level", LEVELS)
def test_a_file_predicts_any_number_of_squares_at_every_level(exported: Path, level: str) -> None:
    model, squares = open_onnx(exported, level=level, threads=1), draw_squares(11)
    logits, probabilities = model(squares)
    assert model.classes == ("a", "b", "c") and model.side == SIDE and logits.shape == (11, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([model(squares[i : i + 1]).logits for i in range(11)]), logits, atol=1e-5)


def test_squares_of_another_type_or_side_are_refused(exported: Path) -> None:
    model = open_onnx(exported)
    for wrong in (draw_squares(2).astype(np.float32), draw_squares(2, SIDE + 1)):
        with pytest.raises(ValueError, match=r"expected uint8 \(N, \*\(3, 20, 20\)\)"):
            model(wrong)


def test_what_phoropter_did_not_write_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=r"noise\.onnx cannot be run by ONNX Runtime"):
        open_onnx(tmp_path / "noise.onnx")
    proto = onnx.load(exported)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "bare.onnx")
    with pytest.raises(WeightsError, match="was not written by phoropter export"):
        open_onnx(tmp_path / "bare.onnx")
