"""10 folds × 3 seeds of head training, 20 epochs: features asked once, against the frozen backbone in every epoch of every run.

300 of scikit-learn's digits at 96 pixels, MobileNetV2 (pretrained where `PHOROPTER_TEST_DATA` holds its weights; the time is the
same without), a linear head, batch 64, AdamW. Ours is the whole of it from stored pictures: the backbone built, the feature pass,
thirty heads, in an empty cache. The other side is what scripts do: pictures in memory, the backbone in eval mode under `no_grad`,
its features into the head, batch after batch. It is measured over one epoch of one run after a warm-up and counted 20 × 30 times,
for every epoch does the same. One thread each.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from _sides import Turns, one_thread, row, timed, write

GOAL = 100.0
EPOCHS, ROWS, SIDE = 20, 300, 96


def tasks(folder: Path, cache: Path) -> list[Any]:
    import torch

    from phoropter.data.pixels import prepare
    from phoropter.data.protocols import KFold, splits
    from phoropter.data.spec import DataSpec, open_dataset
    from phoropter.training.entries import candidates_of
    from phoropter.training.fit import Task
    from phoropter.training.presets import PRESETS

    dataset, pixels = prepare(open_dataset(DataSpec(digits=True, rows=ROWS)), SIDE, cache=folder)
    weights = Path(os.environ.get("PHOROPTER_TEST_DATA", "")) / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    known = {"weights": str(weights) if weights.is_file() else "random"}
    (candidate,) = candidates_of([{"backbone": "mobilenetv2_100", "size": SIDE, "frozen": True, **known}], PRESETS["probe"])
    made = splits(dataset, KFold(10, seeds=[0, 1, 2]))
    return [Task(candidate, split, dataset, pixels, torch.device("cpu"), cache) for split in made]


def ours(folder: Path) -> None:
    from phoropter.training.together import fit_together

    cache = folder / "empty"
    shutil.rmtree(cache, ignore_errors=True)
    fit_together(tasks(folder, cache))


def theirs(task: Any) -> Any:
    """One epoch of one run, ready to be timed."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from phoropter.training.fit import build

    backbone = build(task).branches[0].body.eval()
    rows = task.split.train
    pictures = torch.from_numpy(task.pixels.batch(rows)).float().div_(127.5).sub_(1)
    loader = DataLoader(TensorDataset(pictures, torch.from_numpy(task.dataset.labels[rows])), batch_size=64, shuffle=True)
    with torch.no_grad():
        width = backbone(pictures[:1]).shape[1]
    head = torch.nn.Linear(width, 10)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def epoch() -> None:
        for x, y in loader:
            with torch.no_grad():
                features = backbone(x)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features), y).backward()
            optimizer.step()

    return epoch


def measured(folder: Path, turns: int = 3) -> dict[str, Any]:
    made = tasks(folder, folder)
    epoch = theirs(made[0])
    ours(folder), epoch()
    mine, others = [], []
    for _ in range(turns):
        mine.append(timed(lambda: ours(folder)))
        others.append(EPOCHS * len(made) * timed(epoch))
    return row("10 folds x 3 seeds of head training, 20 epochs, features once", Turns(tuple(mine), tuple(others)), GOAL)


if __name__ == "__main__":
    one_thread(__file__)
    with tempfile.TemporaryDirectory() as folder:
        write("features_once", [measured(Path(folder))])
