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
    last = "recipe: {preset: scratch, checkpoint: last}"
    members = (
        f"{{name: x, backbone: test_resnet, weights: random, {last}}}, {{name: y, backbone: test_vit, weights: random, {last}}}"
    )
    text = STUDY.split("candidates")[0] + "recipe: {preset: scratch, checkpoint: best-val}\n"
    text += f"candidates: [{members}, {{fuse: [x, y], mode: ensemble}}]\n"
    assert len(load_study(written(tmp_path, text))[0].candidates) == 3


PROBE = STUDY.split("candidates")[0] + "candidates: [{name: x, backbone: test_resnet, weights: random, frozen: true}]\n"


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("head.hidden: [64, 128]", "hidden belongs to head dense"),
        ("head.dropout_at: [input, hidden]", "dropout_at belongs to a head with dropout|dropout_at belongs to head dense"),
        ("fusion.hidden: [12, 24]", "no candidate has a fusion of its own"),
        ("distillation.alpha: [0, 1]", "no candidate has a distillation of its own"),
    ],
)
def test_a_sweep_that_changes_nothing_is_refused(tmp_path: Path, sweep: str, reason: str) -> None:
    with pytest.raises(SpecError, match=f"line 5: the sweep over {sweep.partition(':')[0]} changes nothing: ({reason})"):
        load_study(written(tmp_path, PROBE + f"sweep: {{{sweep}}}\n"))


def test_a_swept_option_multiplies_only_the_candidates_that_read_it(tmp_path: Path) -> None:
    variants = load_study(written(tmp_path, PROBE + "sweep: {head.kind: [linear, dense], head.hidden: [64, 256]}\n"))
    made = [(c.name, c.head.kind, c.head.hidden) for v in variants for c, _ in v.candidates.values()]
    assert made == [
        ("x · kind linear", "linear", 128),
        ("x · kind linear", "linear", 128),
        ("x · kind dense, hidden 64", "dense", 64),
        ("x · kind dense, hidden 256", "dense", 256),
    ]
    assert variants[0].candidates["x"][0].identity() == variants[1].candidates["x"][0].identity()
