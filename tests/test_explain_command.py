"""`phoropter explain` and `predict --explain`: a folder of maps from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from phoropter.cli import main
from phoropter.core.storage.csv_cells import read_csv_rows
from phoropter.deploy.explain.class_maps import MapMethod
from phoropter.deploy.explain.map_files import MapFormat
from phoropter.explain_command import METHODS
from small_pictures import draw_dark_and_light, run_small_study

STUDY = """\
name: shapes
data: {folder: pictures, size: 64}
protocol: {split: hold-out, test_size: 0.5}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: vit, backbone: test_vit, weights: random}]
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dark_and_light(folder / "pictures", 4, size=(64, 64))
    run_small_study(folder, STUDY)
    return folder


def test_a_folder_of_maps_is_written(shapes: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    flags = ("--target", "light", "--method", "grad-cam", "--layer", "blocks.2", "--write", "svg", "--device", "cpu")
    done = call("explain", shapes / "out", shapes / "pictures" / "dark", bad, "-o", tmp_path / "maps", *flags)
    assert done.exit_code == 0 and "left out:" in done.output and "(4 explained)" in done.output, done.output
    rows = read_csv_rows(tmp_path / "maps" / "explanations.csv")
    assert [r["explained"] for r in rows] == ["light"] * 4 and {r["method"] for r in rows} == {"grad-cam"}
    assert len(list((tmp_path / "maps").glob("*.svg"))) == 4 and not list((tmp_path / "maps").glob("*.png"))


def test_predict_writes_maps_beside_its_table(shapes: Path, tmp_path: Path) -> None:
    done = call(
        "predict",
        shapes / "out",
        shapes / "pictures",
        "-o",
        tmp_path / "p.csv",
        "--explain",
        tmp_path / "maps",
        "--device",
        "cpu",
    )
    assert done.exit_code == 0, done.output
    table = {r["id"]: r["class"] for r in read_csv_rows(tmp_path / "p.csv")}
    assert {r["id"]: r["class"] for r in read_csv_rows(tmp_path / "maps" / "explanations.csv")} == table and len(table) == 8
    again = call("predict", shapes / "out", shapes / "pictures", "--explain", tmp_path / "maps")
    assert again.exit_code == 2 and "exists already; give a new folder for the maps" in again.output


def test_flags_that_contradict_each_other_are_refused(shapes: Path, tmp_path: Path) -> None:
    paths = (shapes / "out", shapes / "pictures", "-o", tmp_path / "maps", "--device", "cpu")
    for flags, words in (
        (("--layer", "blocks.1", "--layer", "blocks.2"), "one name for a single network"),
        (("--layer", "resnet=layer4"), "'resnet' is no branch"),
        (("--write", "csv"), "the map of a picture is no table"),
        (("--target", "lihgt"), "did you mean 'light'?"),
        (("--method", "rollout", "--layer", "blocks.1"), "method rollout reads all blocks of test_vit"),
    ):
        done = call("explain", *paths, *flags)
        assert done.exit_code == 2 and words in done.output, done.output
    assert not (tmp_path / "maps").exists()


def test_the_choices_of_the_command_are_those_of_the_package() -> None:
    assert get_args(MapMethod) == METHODS
    written = next(p for p in main.commands["explain"].params if p.name == "formats").type
    assert tuple(written.choices) == get_args(MapFormat)  # type: ignore[attr-defined]
