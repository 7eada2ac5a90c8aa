"""What an Explanation writes: numbers that are read back, figures of the right size, colour where the map is high."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import phoropter as ph
from phoropter.deploy.explain.explained_parts import BranchMap
from phoropter.deploy.explain.explanation import Explanation, scale_to_one
from phoropter.signals.simulate import ecg_simulate
from small_recordings import PEOPLE


def made(**fields: object) -> Explanation:
    heat = np.zeros((32, 32), np.float32)
    heat[4:12, 20:28] = 1
    shown = np.full((32, 32, 3), 120, np.uint8)
    branches = {"one": BranchMap(heat, 2.0, 0.75, "grad-cam", "layer4"), "two": BranchMap(heat.T, 1.0, 0.25, "rollout", "all")}
    values = {
        **{"name": "a/b.png", "map": heat, "raw_max": 0.8, "target": 1, "classes": ("cat", "dog"), "method": "grad-cam"},
        **{"probabilities": np.array([0.7, 0.3]), "shown": shown, "seen": (0, 0, 32, 32), "branches": branches},
    }
    return Explanation(**{**values, **fields})  # type: ignore[arg-type]


def test_the_overlay_colours_where_the_map_is_high_and_leaves_the_rest() -> None:
    picture = np.asarray(made().overlay()).astype(int)
    assert picture.shape == (32, 32, 3)
    outside = picture[20:, :16]
    assert (outside == 120).all()
    inside = picture[5:11, 21:27]
    assert (np.ptp(inside, axis=2) > 60).all(), "a map of 1 is in colour"
    flat = np.asarray(made(map=np.zeros((32, 32), np.float32)).overlay())
    assert (flat == 120).all()


def test_numbers_are_read_back_as_they_are(tmp_path: Path, explained_bundles: dict[str, Path]) -> None:
    one = made()
    with np.load(one.to_npz(tmp_path / "one.npz"), allow_pickle=False) as read:
        assert np.array_equal(read["map"], one.map) and read["classes"].tolist() == ["cat", "dog"] and read["target"] == 1
        assert read["branches"].tolist() == ["one", "two"] and read["weights"].tolist() == [0.75, 0.25]
        assert np.array_equal(read["branch_maps"][1], one.branches["two"].map) and "time_s" not in read
    recorded = ph.load(explained_bundles["people"]).explain(ecg_simulate(PEOPLE)[0], device="cpu")[0]
    assert recorded.window is not None and recorded.window.axes.row_hz is not None
    with np.load(recorded.to_npz(tmp_path / "two.npz"), allow_pickle=False) as read:
        assert np.array_equal(read["samples"][0], recorded.window.signals["ECG"]) and read["units"].tolist() == ["mV"]
        assert np.array_equal(read["time_map"], recorded.time_map) and read["time_s"][0] == recorded.window.start_s
        assert read["row_hz"].shape == read["column_s"].shape == (32,) and read["channels"].tolist() == ["ECG"]


@pytest.mark.parametrize("kind", ["picture", "recording"])
def test_figures_are_written_whole_as_png_and_svg(kind: str, tmp_path: Path, explained_bundles: dict[str, Path]) -> None:
    if kind == "picture":
        explanation, words = made(), 4
    else:
        explanation, words = ph.load(explained_bundles["people"]).explain(ecg_simulate(PEOPLE)[0], device="cpu")[0], 2
    with Image.open(explanation.to_png(tmp_path / "one.png")) as image:
        assert image.format == "PNG" and min(image.size) > 250
    tree = ElementTree.parse(explanation.to_svg(tmp_path / "one.svg"))
    panels = [g for g in tree.iter() if g.get("id", "").startswith("axes_")]
    assert len(panels) == words
    first = (tmp_path / "one.svg").read_bytes()
    assert explanation.to_svg(tmp_path / "again.svg").read_bytes() == first, "the same explanation is the same file"


def test_a_map_of_nothing_stays_nothing() -> None:
    scaled, highest = scale_to_one(np.zeros((4, 4)))
    assert highest == 0 and not scaled.any()
    scaled, highest = scale_to_one(np.array([0.0, 5.0]))
    assert highest == 5 and scaled.tolist() == [0, 1]
