"""Loading a study refuses what its splits cannot give, before an image is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.core.errors import SpecError
from phoropter.study.load import load_study
from phoropter.study.spec import StudySpec, read_study

STUDY = """\
name: t
data: {digits: true, size: 32}
protocol: {split: k-fold, folds: 3}
candidates: [{name: x, backbone: test_resnet, weights: random, recipe: {checkpoint: best-val}}]
"""


def written(folder: Path, text: str) -> StudySpec:
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")[0]


def test_an_epoch_chosen_on_a_validation_part_needs_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"candidate .x.: checkpoint: best-val .*give val_size in protocol, or") as caught:
        load_study(written(tmp_path, STUDY))
    assert "\n" not in str(caught.value) and "study.yaml" in str(caught.value)
    with_val = STUDY.replace("folds: 3", "folds: 3, val_size: 0.2")
    assert all(split.val is not None for split in load_study(written(tmp_path, with_val))[0].splits)
    swept = STUDY.replace("best-val", "last") + "sweep: {recipe.checkpoint: [last, best-val]}\n"
    with pytest.raises(SpecError, match="checkpoint: best-val"):
        load_study(written(tmp_path, swept))


def test_an_ensemble_chooses_no_epoch(tmp_path: Path) -> None:
    members = "{name: x, backbone: test_resnet, weights: random}, {name: y, backbone: test_vit, weights: random}"
    ensemble = "{fuse: [x, y], mode: ensemble, recipe: {checkpoint: best-val}}"
    text = STUDY.split("candidates")[0] + f"candidates: [{members}, {ensemble}]\n"
    assert len(load_study(written(tmp_path, text))[0].candidates) == 3
