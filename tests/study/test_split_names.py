"""One run key, one result: what a split is called decides nothing, whichever draws a run makes inside its training part."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.data.splits.protocol import write_folds_file
from phoropter.results.store import Store
from phoropter.study.load import load_study
from phoropter.study.spec import read_study
from small_pictures import draw_dark_and_light, run_small_study
from small_study import all_predictions

# Every kind of candidate with draws inside the training part: penalties of a solved and of a stacked head on inner folds, members
# chosen on inner folds and in bags of rows, rows left out once and in bags, values tuned on inner folds.
STUDY = """\
name: NAME
data: {manifest: PLACE/rows.csv, size: 32}
protocol: {PROTOCOL, seeds: [0]}
recipe: {preset: probe, epochs: 1, batch_size: 8}
save_models: none
candidates:
  - {name: solved, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
  - {name: other, backbone: test_vit, weights: random, size: 32, frozen: true, recipe: logistic}
  - {name: stacked, mode: logits, fuse: [solved, other], frozen: true, recipe: logistic}
  - {name: chosen, mode: select, fuse: [solved, other]}
  - {name: undersampled, backbone: test_resnet, weights: random, frozen: true, recipe: {imbalance: {undersample: 1}}}
  - {name: bagged, backbone: test_resnet, weights: random, frozen: true, recipe: {imbalance: {undersample: 1, n_bags: 2}}}
tune: {recipe.lr: [1e-3, 1e-1], folds: 2, candidates: [undersampled]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 pictures of 12 people, each of whom has two dark ones and a light one."""
    folder = tmp_path_factory.mktemp("names")
    draw_dark_and_light(folder, 24, greys=(60, 90), noise=120)
    rows = [f"{kind}/{i}.png,{kind},p{i % 12}" for kind, count in (("dark", 24), ("light", 12)) for i in range(count)]
    (folder / "rows.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    return folder


def run_study(place: Path, name: str, protocol: str) -> Store:
    (place / name).mkdir()
    text = STUDY.replace("NAME", name).replace("PLACE", str(place)).replace("PROTOCOL", protocol)
    return run_small_study(place / name, text)


def test_equal_splits_of_other_names_give_the_same_bytes(place: Path) -> None:
    own = run_study(place, "own", "split: stratified-group-k-fold, folds: 2")
    study = read_study(place / "own/study.yaml")[0]
    write_folds_file(load_study(study)[0].image_set.dataset, study.protocol, place / "folds.csv")
    theirs = run_study(place, "theirs", f"split: file, folds_file: {place}/folds.csv")
    names = [{run.record["split"]["name"] for run in store.runs()} for store in (own, theirs)]
    assert not names[0] & names[1]
    assert all_predictions(own) == all_predictions(theirs)
