"""A bundle becomes a file with a report, or neither: names that are refused, wrong files, int8 that loses too much, Triton."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import draw_squares, make_bundle, make_classifier

from phoropter.core.errors import DiskError, MissingExtraError, SpecError, StoreError, WeightsError
from phoropter.core.files import digest_file
from phoropter.deploy.export import export, exporters
from phoropter.deploy.export.export import ExportOptions, check_export_target, export_bundle
from phoropter.deploy.export.int8 import MeasuredRows
from phoropter.deploy.export.onnx_file import open_onnx
from phoropter.deploy.export.proof import ProofInputs
from phoropter.deploy.predict import Bundle
from phoropter.models.inference import onnx_exporter
from phoropter.results.metrics.probabilities import softmax

INPUTS = ProofInputs(draw_squares(9), "drawn squares")


@pytest.fixture(autouse=True)
def _quicker_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})


def measured_rows(bundle: Bundle, measured: Bundle | None = None) -> MeasuredRows:
    """Rows that the measured model answers right, so that each change of int8 is a loss."""
    model, test = measured or bundle, draw_squares(40, seed=3)
    with torch.no_grad():
        labels = model.model(torch.from_numpy(test)).argmax(1).numpy()
    return MeasuredRows(draw_squares(24, seed=1), model, draw_squares(24, seed=2), test, labels, None, "made rows")


def test_a_file_and_its_report_appear_together(tmp_path: Path) -> None:
    bundle, out = make_bundle(tmp_path / "b", temperature=2.0), tmp_path / "new" / "m.onnx"
    report = export_bundle(bundle, out, INPUTS, ExportOptions(views="flip"))
    assert sorted(p.name for p in out.parent.iterdir()) == ["m.onnx", "m.onnx.json"]
    said = json.loads((tmp_path / "new" / "m.onnx.json").read_text())
    assert said["digest"] == digest_file(out) and said["bytes"] == out.stat().st_size
    assert said["exporter"] == "tracing" and said["opset"] >= 17 and said["int8"] is None
    assert said["inputs"] == {"count": 9, "source": "drawn squares"} and said["batches"] == [1, 2, 7]
    assert 0 <= said["difference"]["probability"] < 1e-5 and said["difference"]["answers"] == 0
    assert "compared with the bundle on 9 inputs (drawn squares), in batches of 1, 2 and 7" in report.describe()[0]
    squares = torch.from_numpy(INPUTS.squares)
    with torch.no_grad():
        mirrored = [softmax(bundle.model(view).numpy()) for view in (squares, squares.flip(-1))]
    found = open_onnx(out)
    np.testing.assert_allclose(np.exp(found(INPUTS.squares).logits), np.mean(mirrored, axis=0), atol=1e-5)
    assert found.metadata["exporter"] == "tracing" and found.metadata["preprocessing"]["inside"]["views"] == ["flip"]


def test_a_wrong_file_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = exporters.EXPORTERS["tracing"]

    def make_faulty(graph: Any, file: Path) -> None:
        graph.members[0].head.get_submodule("head").last.bias[0] += 0.01
        right(graph, file)

    monkeypatch.setattr(exporters, "EXPORTERS", {"faulty": make_faulty})
    bundle = make_bundle(tmp_path / "b")
    for options in (ExportOptions(), ExportOptions("triton")):
        out = tmp_path / "new" / ("m.onnx" if options.layout == "file" else "scenes")
        with pytest.raises(WeightsError, match=r"so there is none \(faulty: a probability differs by"):
            export_bundle(bundle, out, INPUTS, options)
    assert not (tmp_path / "new").exists()


def test_triton_gets_a_folder_with_the_model_its_report_and_the_configuration(tmp_path: Path) -> None:
    out = tmp_path / "repository" / "scenes"
    export_bundle(make_bundle(tmp_path / "b"), out, INPUTS, ExportOptions("triton"))
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert files == ["1/model.onnx", "1/model.onnx.json", "config.pbtxt"]
    assert 'name: "scenes"' in (out / "config.pbtxt").read_text()
    assert open_onnx(out / "1" / "model.onnx")(INPUTS.squares).logits.shape == (9, 3)


def test_int8_of_a_bundle_that_has_not_met_the_rows_is_measured_on_itself(tmp_path: Path) -> None:
    bundle, out = make_bundle(tmp_path / "b"), tmp_path / "m.onnx"
    rows = measured_rows(bundle)
    report = export_bundle(bundle, out, INPUTS, ExportOptions(most=1), rows)
    assert report.int8 is not None and report.int8.losses[0].before == 1
    answers = open_onnx(out)(rows.test).probabilities.argmax(1)
    assert report.int8.losses[0].after == pytest.approx((answers == rows.labels).mean())
    said = json.loads((tmp_path / "m.onnx.json").read_text())["int8"]
    assert said["kind"] == "static" and said["source"] == "made rows" and said["losses"][0]["metric"] == "accuracy"
    assert report.describe()[-1] == f"The int8 file answers {report.changed_inputs} of the 9 inputs otherwise than the bundle."
    assert "points lost (95 % interval" in report.describe()[1]


def test_int8_of_a_bundle_that_has_met_every_row_is_measured_on_a_model_of_the_study(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", temperature=2.0)
    other = make_bundle(tmp_path / "other", make_classifier(seed=4))
    rows = measured_rows(bundle, other)
    report = export_bundle(bundle, tmp_path / "m.onnx", INPUTS, ExportOptions(most=1), rows)
    assert report.int8 is not None and report.int8.losses[0].before == 1  # right for the other model, whose labels these are
    with torch.no_grad():
        own = bundle.model(torch.from_numpy(rows.test)).argmax(1).numpy()
    found = open_onnx(tmp_path / "m.onnx")(rows.test).probabilities.argmax(1)
    assert (found == own).mean() > 0.8 > (rows.labels == own).mean()  # and the file is the bundle's


def test_int8_that_loses_too_much_leaves_nothing(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    wrong = replace(measured_rows(bundle), training=np.zeros((8, 3, 20, 20), np.uint8))  # ranges of black squares fit no other
    with pytest.raises(WeightsError, match=r"more than the 1 points of --most 0\.01, so there is no file"):
        export_bundle(bundle, tmp_path / "m.onnx", INPUTS, ExportOptions(), wrong)
    assert not list(tmp_path.glob("m.onnx*"))


def test_names_and_flags_that_cannot_be_are_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match=r"m\.pb ends in neither \.onnx nor \.pt2"):
        check_export_target(tmp_path / "m.pb", ExportOptions(), int8=False)
    with pytest.raises(SpecError, match=r"a \.pt2 file computes in float32"):
        check_export_target(tmp_path / "m.pt2", ExportOptions(), int8=True)
    for name in ("m.onnx", "n.onnx.json"):
        (tmp_path / name).write_text("old")
        with pytest.raises(StoreError, match=f"{name} exists already"):
            check_export_target(tmp_path / name.removesuffix(".json"), ExportOptions(), int8=False)
    with pytest.raises(DiskError, match="a folder is needed there"):
        check_export_target(tmp_path / "m.onnx" / "m.onnx", ExportOptions(), int8=False)
    monkeypatch.setattr(onnx_exporter, "find_spec", lambda package: None)
    check_export_target(tmp_path / "m.pt2", ExportOptions(), int8=False)
    with pytest.raises(MissingExtraError, match=r"needs the package onnx, .*phoropter\[deploy\]"):
        check_export_target(tmp_path / "new.onnx", ExportOptions(), int8=False)


def test_a_disk_that_fills_up_at_the_last_moment_leaves_neither_file_nor_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, report: Any) -> None:
        path.write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_json", fail)
    with pytest.raises(DiskError):
        export_bundle(make_bundle(tmp_path / "b"), tmp_path / "m.onnx", INPUTS, ExportOptions())
    assert not list(tmp_path.glob("*m.onnx*"))


def test_weights_beyond_one_file_are_refused_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, larger = make_bundle(tmp_path / "b"), make_bundle(tmp_path / "c", make_classifier(), make_classifier(seed=1))
    size = 4 * sum(p.numel() for p in bundle.model.parameters())
    with monkeypatch.context() as patch:
        patch.setattr(export, "compute_reference", None)  # nobody calls it
        for limit, rows in ((size - 1, None), (size, measured_rows(bundle, larger))):
            patch.setattr(exporters, "MAX_ONNX_BYTES", limit)
            for out, layout in ((tmp_path / "m.onnx", "file"), (tmp_path / "scenes", "triton")):
                with pytest.raises(SpecError, match=r"an ONNX file holds 2 GB; export to a \.pt2 file"):
                    export_bundle(bundle, out, INPUTS, ExportOptions(layout), rows)  # type: ignore[arg-type]
                assert not out.exists()
    monkeypatch.setattr(exporters, "MAX_ONNX_BYTES", 100)
    export_bundle(bundle, tmp_path / "m.pt2", INPUTS, ExportOptions())
    assert (tmp_path / "m.pt2").is_file()
