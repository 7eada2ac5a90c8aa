"""`phoropter export` as it is typed: on inputs, on rows of the study, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import phoropter as ph
from phoropter.cli import main
from phoropter.deploy.export import exporters
from phoropter.results.store import Store
from small_pictures import draw_dark_and_light, run_small_study

STUDY = """\
name: shapes
data: {folder: pictures, size: 48}
protocol: {split: hold-out, test_size: 0.5}
recipe: {preset: scratch, epochs: 2}
candidates: [{name: net, backbone: test_resnet, weights: random, size: 32}]
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study in `out`, and its pictures."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 8)
    run_small_study(folder, STUDY)
    return folder


@pytest.fixture
def bundle(shapes: Path) -> Path:
    (run,) = Store(shapes / "out").runs()
    assert run.bundle_folder is not None
    return run.bundle_folder


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_a_file_from_the_command_line_predicts_what_the_bundle_does(shapes: Path, bundle: Path, tmp_path: Path) -> None:
    """By the exporter that is asked first."""
    done = export(bundle, "-o", tmp_path / "m.onnx", "--inputs", shapes / "pictures")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Written by dynamo and compared with the bundle on 16 inputs")
    doing = done.stderr.splitlines()
    assert doing[0].startswith("the bundle answered 16 inputs (") and doing[1].startswith("writing the network as model.onnx")
    model, files = ph.load(bundle), sorted((shapes / "pictures").rglob("*.png"))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"squares": model.preprocess([Image.open(f) for f in files]).numpy()})
    np.testing.assert_allclose(found, model.predict(files, device="cpu").probabilities, atol=1e-5)


def test_rows_of_the_study_prove_a_file_and_measure_int8(
    shapes: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
    done = export(bundle, "-o", tmp_path / "m.onnx", "--study", shapes / "out", "--int8", "--most", "1")
    assert done.exit_code == 0, done.output
    assert "8 inputs (test rows of its run of the study shapes)" in done.output and "int8 (static): accuracy" in done.stdout
    assert "int8: calibrated on 8 training rows, its loss measured on 8 held-out rows" in done.stderr.splitlines()
    said = json.loads((tmp_path / "m.onnx.json").read_text())
    assert said["inputs"]["count"] == said["int8"]["n_rows"] == 8
    (run,) = Store(shapes / "out").runs()
    held_out = run.load_predictions()
    assert held_out is not None
    assert said["int8"]["losses"][0]["before"] == pytest.approx((held_out.logits.argmax(1) == held_out.labels).mean())


def test_what_is_missing_or_without_effect_is_told_in_one_line(shapes: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    into = ("--into-bundle", "--inputs", shapes / "pictures")
    for arguments, sentence in (
        ((), "has no examples to compare the file on; pass --study DIR"),
        (("--int8",), "--int8: it is calibrated and measured on rows of the study; pass --study DIR"),
        (("--most", "0.1", "--inputs", shapes), "--most: it bounds the loss by int8"),
        (("--study", shapes / "out", "--inputs", shapes), "--inputs: the file is compared on rows of --study"),
        (("--inputs", shapes / "pictures", "--views", "ten-crop"), "without center_crop, and ten-crop needs one"),
        (into, "say where the file goes: -o FILE.onnx, or --into-bundle, one of the two"),
    ):
        refused = export(bundle, "-o", out, *arguments)
        assert refused.exit_code == 2 and sentence in refused.output and refused.output.count("\n") == 1, refused.output
    for more in (("--int8",), ("--views", "flip"), ("--layout", "triton")):
        refused = export(bundle, *into, *more)
        assert refused.exit_code == 2 and "--into-bundle: the file in a bundle computes in float32" in refused.output
    assert "say where the file goes" in export(bundle, "--inputs", shapes / "pictures").output
    assert not list(tmp_path.iterdir()) and not (bundle / "model.onnx").exists()
