"""A bundle answered by its ONNX file: without torch, with torch's answers; and when torch answers all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from phoropter.cli import main
from phoropter.core.errors import SpecError, WeightsError
from phoropter.core.storage.checksums import describe_files
from phoropter.core.storage.sealed_json import read_sealed_json, write_sealed_json
from phoropter.deploy import engines
from phoropter.deploy.engines import open_answering_bundle
from phoropter.deploy.export import exporters
from phoropter.deploy.export.bundled_export import read_bundled_export
from phoropter.deploy.predict import Bundle
from phoropter.deploy.tables import write_predictions
from phoropter.refit.refit import RefitOptions, refit_candidate
from phoropter.signals.simulate import ecg_simulate
from small_pictures import draw_dark_and_light, run_small_study
from small_recordings import ECG_STUDY, PEOPLE

PICTURES = """\
name: shapes
data: {folder: pictures, size: 48, resize: pad}
protocol: {split: hold-out, test_size: 0.5}
recipe: {preset: scratch, epochs: 2, tta: flip}
candidates: [{name: net, backbone: test_resnet, weights: random, size: 32}]
"""
ECG = (
    ECG_STUDY
    + """\
recipe: {preset: scratch, epochs: 2}
candidates: [{name: net, backbone: test_resnet, weights: random}]
"""
)
NOT_LOADED = ("torch", "torchvision", "timm", "onnx", "onnxscript", "pandas", "sklearn", "matplotlib")
SETUP = "import sys\nfrom phoropter.cli import main\n"


@pytest.fixture(scope="module", autouse=True)
def _tracing_alone() -> Iterator[None]:
    """The exporter that takes a second; which one wrote a file changes nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporters, "EXPORTERS", {"tracing": exporters.EXPORTERS["tracing"]})
        yield


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a finished study in `out`, and the refitted `bundle` with its ONNX file."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 8)
    run_small_study(folder, PICTURES)
    done = invoke("refit", folder / "out", "-o", folder / "bundle", "--layout", "onnx")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def bundle(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes / "bundle", tmp_path / "bundle"))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def reseal(bundle: Path, **changes: object) -> None:
    """As whoever wants to deceive would: with a checksum that fits."""
    write_sealed_json(bundle / "bundle.json", {**read_sealed_json(bundle / "bundle.json", WeightsError), **changes})


def test_the_command_answers_without_torch_and_says_so(shapes: Path) -> None:
    """What is written is torch's answer within 1e-5, probabilities of flipped views, a temperature and all."""
    arguments = ["predict", str(shapes / "bundle"), str(shapes / "pictures"), "--json"]
    code = (
        f"{SETUP}main({arguments}, standalone_mode=False)\nsys.stderr.write(repr(sorted(set(sys.modules) & set({NOT_LOADED}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.endswith("[]"), done.stderr
    found = json.loads(done.stdout)
    by_torch = json.loads(invoke(*arguments, "--engine", "torch").stdout)
    assert any("computed by ONNX Runtime from the bundle's own ONNX file" in note for note in found["notes"])
    assert not any("ONNX" in note for note in by_torch["notes"]) and len(by_torch["rows"]) == len(found["rows"]) == 16
    for one, other in zip(found["rows"], by_torch["rows"], strict=True):
        assert (one["id"], one["answer"]) == (other["id"], other["answer"])
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert len({row["probabilities"]["dark"] for row in found["rows"]}) == 16


def test_recordings_windows_thresholds_and_rules_are_those_of_torch(tmp_path: Path) -> None:
    run_small_study(tmp_path, ECG)
    refit_candidate(tmp_path / "out", tmp_path / "bundle", RefitOptions(), torch.device("cpu"), lambda event: None)
    assert read_bundled_export(tmp_path / "bundle") is None
    training = read_sealed_json(tmp_path / "bundle" / "bundle.json", WeightsError)["training"]
    rule = {
        "positive_class": "stress",
        "threshold": 0.4,
        "threshold_level": "recording",
        "aggregation": "vote",
        "temperature": 2.0,
    }
    reseal(tmp_path / "bundle", training={**training, "refit": {**training["refit"], **rule}})
    for one in ecg_simulate(PEOPLE)[:2]:
        np.savetxt(tmp_path / f"{one.id}.csv", one.samples.T, delimiter=",", header=",".join(one.channels), comments="")
    files = sorted(tmp_path.glob("*.csv"))
    (tmp_path / "rates.csv").write_text("path,rate_hz\n" + "".join(f"{f.name},{PEOPLE.rate_hz}\n" for f in files))
    done = invoke("export", tmp_path / "bundle", "--into-bundle", "--study", tmp_path / "out")
    assert done.exit_code == 0, done.output
    written = {}
    for engine in ("onnx", "torch"):
        answering = open_answering_bundle(tmp_path / "bundle", engine, device="cpu")  # type: ignore[arg-type]
        assert isinstance(answering.bundle, Bundle) == (engine == "torch")
        written[engine] = write_predictions(answering.predict_paths([tmp_path / "rates.csv"]), tmp_path / engine / "p.csv")
    assert [f.name for f in written["onnx"]] == ["p.csv", "p-recordings.csv"]
    for one, other in zip(*written.values(), strict=True):
        rows, expected = ([line.split(",") for line in f.read_text().splitlines()] for f in (one, other))
        assert rows[0] == expected[0] and len(rows) == len(expected) > 2
        for cells, theirs in zip(rows[1:], expected[1:], strict=True):
            for name, cell, their in zip(rows[0], cells, theirs, strict=True):
                assert float(cell) == pytest.approx(float(their), abs=1e-5) if name.startswith("p_") else cell == their
    assert "decision" in written["onnx"][1].read_text().splitlines()[0]


def test_a_damaged_file_and_one_of_other_weights_are_refused(bundle: Path) -> None:
    content = read_sealed_json(bundle / "bundle.json", WeightsError)
    size, checksum = content["onnx"]["weights"]
    reseal(bundle, onnx={**content["onnx"], "weights": [size, checksum[::-1]]})
    with pytest.raises(WeightsError, match="was not made of the weights in this bundle"):
        open_answering_bundle(bundle, device="cpu")
    reseal(bundle, onnx=content["onnx"], files={k: v for k, v in content["files"].items() if k != "model.onnx"})
    with pytest.raises(WeightsError, match="was not made of the weights in this bundle"):
        open_answering_bundle(bundle, device="cpu")
    reseal(bundle, files=content["files"])
    assert open_answering_bundle(bundle, device="cpu").export is not None
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    for engine in ("auto", "torch", "onnx"):
        with pytest.raises(WeightsError, match=r"model\.onnx is damaged"):
            open_answering_bundle(bundle, engine, device="cpu")  # type: ignore[arg-type]


def test_a_file_of_another_classifier_is_refused(bundle: Path) -> None:
    """One with a checksum that fits, whose metadata name other classes."""
    import onnx

    proto = onnx.load(bundle / "model.onnx")
    next(p for p in proto.metadata_props if p.key == "classes").value = '["light", "dark"]'
    onnx.save(proto, bundle / "model.onnx")
    content = read_sealed_json(bundle / "bundle.json", WeightsError)
    reseal(bundle, files={**content["files"], "model.onnx": describe_files(bundle)["model.onnx"]})
    with pytest.raises(WeightsError, match="is of another classifier than the bundle"):
        open_answering_bundle(bundle, device="cpu")


def test_a_file_that_names_another_outside_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    """ONNX may keep weights in a second file, which could be any of the disk's."""
    import onnx

    (tmp_path / "secret").write_bytes(b"x" * 64)
    proto = onnx.load(bundle / "model.onnx")
    outside = onnx.TensorProto(
        name="outside", data_type=onnx.TensorProto.FLOAT, dims=[16], data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", "../secret"), ("offset", "0"), ("length", "64")):
        outside.external_data.add(key=key, value=value)
    proto.graph.initializer.append(outside)
    proto.graph.node.append(onnx.helper.make_node("Identity", ["outside"], ["read"]))
    (bundle / "model.onnx").write_bytes(proto.SerializeToString())
    content = read_sealed_json(bundle / "bundle.json", WeightsError)
    reseal(bundle, files={**content["files"], "model.onnx": describe_files(bundle)["model.onnx"]})
    with pytest.raises(WeightsError, match="cannot be run by ONNX Runtime"):
        open_answering_bundle(bundle, device="cpu")


def test_torch_answers_where_the_file_cannot(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(engine: str = "auto", **options: str) -> str:
        answering = open_answering_bundle(bundle, engine, **options)  # type: ignore[arg-type]
        return "torch" if answering.export is None else "onnx"

    assert chosen(device="cpu") == chosen(device="cpu", views="flip") == chosen("onnx") == "onnx"
    assert chosen(device="cpu", views="none") == chosen("torch", device="cpu") == "torch"
    for options, reason in (
        ({"views": "none"}, "averages the views 'flip', and --views is none"),
        ({"device": "mps"}, "--device is mps"),
    ):
        with pytest.raises(SpecError, match=reason):
            chosen("onnx", **options)
    monkeypatch.setattr(engines, "_may_have_gpu", lambda: True)
    assert (chosen(), chosen(device="cpu"), chosen("onnx")) == ("torch", "onnx", "onnx")
    content = json.loads((bundle / "bundle.json").read_text())
    recipe = content["training"]["candidate"]["recipe"]
    training = {
        **content["training"],
        "candidate": {**content["training"]["candidate"], "recipe": {**recipe, "precision": "bf16"}},
    }
    reseal(bundle, training=training)
    assert (chosen(device="cpu"), chosen("onnx")) == ("torch", "onnx")


def test_a_file_that_merely_lies_there_is_not_opened(bundle: Path) -> None:
    content = read_sealed_json(bundle / "bundle.json", WeightsError)
    del content["onnx"], content["files"]["model.onnx"]
    write_sealed_json(bundle / "bundle.json", content)
    (bundle / "model.onnx").write_text("anything")
    assert open_answering_bundle(bundle, device="cpu").export is None
    with pytest.raises(SpecError, match=r"holds no ONNX file, which `phoropter export .* --into-bundle` makes"):
        open_answering_bundle(bundle, "onnx")


def test_maps_are_computed_by_torch(bundle: Path, shapes: Path, tmp_path: Path) -> None:
    picture = shapes / "pictures" / "dark" / "0.png"
    done = invoke("predict", bundle, picture, "--explain", tmp_path / "maps", "--device", "cpu")
    assert done.exit_code == 0 and "ONNX" not in done.output and (tmp_path / "maps").is_dir(), done.output
    refused = invoke("predict", bundle, picture, "--explain", tmp_path / "more", "--engine", "onnx")
    assert refused.exit_code == 2 and "--explain" in refused.output and not (tmp_path / "more").exists()
