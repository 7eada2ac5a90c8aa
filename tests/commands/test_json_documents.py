"""--json: one document a command, of its schema, with the numbers that other readers find, and nothing else on stdout."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from phoropter.cli import main
from phoropter.commands.json_documents import make_plain
from phoropter.commands.json_shapes import DOCUMENTS
from phoropter.models import catalog
from phoropter.report.render.table import IntervalBounds, MeanStd
from phoropter.results.store import Store

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 80}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: probe, epochs: 2}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, frozen: true}
  - {name: vit, backbone: test_vit, weights: random, frozen: true}
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def read(name: str, *arguments: object) -> Any:
    """The document of a command: standard output in full, checked against its shape and its JSON Schema."""
    result = call(name, *arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    DOCUMENTS[name].model_validate_json(result.stdout)
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="schemathesis, which brings this validator, is not installed")
    jsonschema_rs.validator_for(DOCUMENTS[name].model_json_schema()).validate(document)
    return document


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("json") / "tiny.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture(scope="module")
def results(study: Path) -> Path:
    """A finished study, run once for all tests here."""
    folder = study.parent / "out"
    assert call("run", study, "-o", folder, "--device", "cpu", "--set", "protocol.seeds=[1]").exit_code == 0
    return folder


def test_a_plan(study: Path, tmp_path: Path) -> None:
    (part,) = read("plan", study, "-o", tmp_path / "new")["parts"]
    assert (part["name"], part["runs"], part["missing"], part["splits"]) == ("tiny", 4, 4, 2)
    assert [c["name"] for c in part["candidates"]] == ["cnn", "vit"] and part["data"]["rows"] == 80
    assert sum(part["data"]["classes"].values()) == 80 and part["refused"] is None
    assert sum(c["seconds"] for c in part["candidates"]) == pytest.approx(part["estimate"]["seconds"])


def test_a_setting_changes_the_plan(study: Path, tmp_path: Path) -> None:
    document = read("plan", study, "-o", tmp_path / "new", "--set", "protocol.seeds=[0, 1]", "--set", "candidates.0.name=net")
    assert document["parts"][0]["runs"] == 8 and document["parts"][0]["candidates"][0]["name"] == "net"


def test_a_mistake_is_one_line_on_standard_error(study: Path) -> None:
    result = call("plan", study, "--json", "--set", "recipe.epoch=3")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("phoropter: --set recipe.epoch=3: unknown key 'epoch' in recipe; did you mean 'epochs'")


def test_a_finished_study(results: Path) -> None:
    document = read("status", results)
    assert (document["runs"], document["done"], document["failed"], document["running"]) == (4, 4, [], [])
    assert document["candidates"][0] == {"name": "cnn", "done": 2, "running": 0, "failed": 0, "missing": 0}
    assert "--set protocol.seeds=[1]" in Store(results).study["text"]


def test_a_report(results: Path) -> None:
    document = read("report", results)
    assert Path(document["page"]).is_file() and document["conclusion"]
    with (Path(document["page"]).parent / "tables" / "leaderboard.csv").open(encoding="utf-8") as file:
        written = list(csv.reader(file))
    assert [row[0] for row in document["leaderboard"]] == [row[0] for row in written[1:]]
    assert document["columns"][0]["kind"] == "text" and {len(row) for row in document["leaderboard"]} == {
        len(document["columns"])
    }


def test_predictions(results: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.full((32, 32, 3), 60 * (name == "b"), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    bundle = next(results.glob("runs/*/bundle"))
    document = read("predict", bundle, tmp_path, "-o", tmp_path / "p.csv")
    assert [row["id"] for row in document["rows"]] == ["a.png", "b.png"] and document["recordings"] == []
    assert document["left_out"][0]["where"].endswith("c.png") and document["files"] == [str(tmp_path / "p.csv")]
    for row, line in zip(document["rows"], csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())), strict=True):
        assert row["answer"] == line["class"] == max(row["probabilities"], key=row["probabilities"].get)
        assert {k: pytest.approx(float(line[f"p_{k}"]), abs=1e-8) for k in row["probabilities"]} == row["probabilities"]
    both = call("predict", bundle, tmp_path, "-o", "-", "--json")
    assert both.exit_code == 2 and "both write to standard output" in both.stderr


def test_data_at_a_path(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for number in range(3):
            Image.fromarray(np.full((8, 10, 3), 20 * number + (kind == "dog"), np.uint8)).save(tmp_path / kind / f"{number}.png")
    document = read("inspect", tmp_path)
    assert (document["source"], document["rows"], document["classes"]) == ("folder", 6, {"cat": 3, "dog": 3})
    assert document["sizes"] == {"10x8": 6} and document["groups"] is None


def test_networks_studies_and_the_installation() -> None:
    (network,) = read("backbones", "test_resnet")["backbones"]
    assert network["parameters"] == catalog.find_architecture("test_resnet").parameters and network["side"] == 160
    studies = {study["name"]: study for study in read("studies")["studies"]}
    assert studies["digits"]["parts"][0]["candidates"][0] == "small CNN" and "2 cores" in studies["digits"]["time"]
    doctor = read("doctor")
    assert {"python", "torch", "timm"} <= set(doctor["versions"]) and doctor["devices"][0] == "cpu"


def test_values_that_json_has_not() -> None:
    assert make_plain(MeanStd(0.5, float("nan"))) == {"mean": 0.5, "std": None}
    assert make_plain(IntervalBounds(0.1, float("inf"))) == {"low": 0.1, "high": None}
    assert make_plain({"a": {2, 1}, "b": (np.float64(1.5), np.int64(2))}) == {"a": ["1", "2"], "b": [1.5, 2]}
