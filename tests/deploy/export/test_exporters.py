"""Each exporter's file is run before it is kept: with trained batch norms, and with faults planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from made_bundles import make_bundle, make_classifier, make_reference

from phoropter.core.errors import SpecError, WeightsError
from phoropter.deploy.export import exporters
from phoropter.deploy.export.exporters import EXPORTERS, check_weight_bytes, export_proved, measure_levels
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.metadata import describe_exported
from phoropter.deploy.export.onnx_file import open_onnx

trace = EXPORTERS["tracing"]


def export(bundle: Any, file: Path) -> Any:
    return export_proved(lambda: ExportedClassifier(bundle), make_reference(bundle), describe_exported(bundle, None), file)


@pytest.mark.parametrize("name", ["dynamo", "tracing"])
def test_batch_norms_with_statistics_of_training_are_exported_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Both exporters fold them into the convolutions; where means are 0 and variances 1, as in new networks, any way works."""
    monkeypatch.setattr(exporters, "EXPORTERS", {name: EXPORTERS[name]})
    bundle = make_bundle(tmp_path / "b", make_classifier({"name": "test_resnet", "size": 32}))
    proved = export(bundle, tmp_path / "m.onnx")
    assert (proved.exporter, proved.failed) == (name, {}) and 0 < proved.difference.probability < 1e-5
    proto = onnx.load(tmp_path / "m.onnx")
    assert not [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    noted = proto.SerializeToString()
    assert b"site-packages" not in noted and b".py" not in noted


def make_faulty(graph: ExportedClassifier, file: Path) -> None:
    """Folds a batch norm as the exporters once did: by a variance that is not the trained one."""
    norm = next(m for m in graph.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.running_var is not None
    norm.running_var.mul_(1.1)
    trace(graph, file)


def raise_fault(graph: ExportedClassifier, file: Path) -> None:
    file.write_bytes(b"half")
    raise RuntimeError("no such operator\nand more")


def test_a_wrong_export_is_not_kept_and_the_next_exporter_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "EXPORTERS", {"faulty": make_faulty, "broken": raise_fault, "tracing": trace})
    bundle = make_bundle(tmp_path / "b")
    proved = export(bundle, tmp_path / "m.onnx")
    assert proved.exporter == "tracing" and list(proved.failed) == ["faulty", "broken"]
    assert "a probability differs by" in proved.failed["faulty"]
    assert proved.failed["broken"] == "RuntimeError: no such operator"
    assert measure_levels(tmp_path / "m.onnx", make_reference(bundle)).is_small


def test_where_no_exporter_is_right_there_is_no_file_and_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "EXPORTERS", {"faulty": make_faulty, "broken": raise_fault})
    with pytest.raises(WeightsError, match=r"no exporter wrote a file .* \(faulty: a probability .*; broken: RuntimeError"):
        export(make_bundle(tmp_path / "b"), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_fault_that_shows_at_one_level_of_optimisation_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "EXPORTERS", {"tracing": trace})
    bundle = make_bundle(tmp_path / "b")
    export(bundle, tmp_path / "m.onnx")

    def open_faulty(file: Path, *, level: str) -> Any:
        model = open_onnx(file, level=level)
        return model if level != "extended" else lambda squares: (model(squares)[0], model(squares)[1][:, ::-1])

    monkeypatch.setattr(exporters, "open_onnx", open_faulty)
    assert not measure_levels(tmp_path / "m.onnx", make_reference(bundle)).is_small


def test_weights_are_counted_as_the_file_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(10, 4).half()  # 44 numbers, which the file holds in float32
    monkeypatch.setattr(exporters, "MAX_ONNX_BYTES", 44 * 4)
    check_weight_bytes(model)
    monkeypatch.setattr(exporters, "MAX_ONNX_BYTES", 44 * 4 - 1)
    with pytest.raises(SpecError, match=r"an ONNX file holds 2 GB; export to a \.pt2 file"):
        check_weight_bytes(model)
