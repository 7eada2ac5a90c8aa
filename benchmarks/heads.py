"""Thirty heads on cached features, mini-batch training: one batched program against one by one with a DataLoader.

10 folds × 3 seeds of scikit-learn's digits, 20 epochs, batch 64, AdamW with a cosine, as most scripts would write it: a
TensorDataset of the features, a DataLoader without workers. The backbone's weights lie in a file, so that all seeds share its
features, as with pretrained weights. Widths 512 (ResNet-18), 1,280 (MobileNetV2) and 2,048 (ResNet-50); a linear head, and
dense-128. Both sides begin from the same stored features, neither builds the backbone, and both use one thread. The other side
trains 6 of the 30 heads in each turn and is counted five times: each of its heads costs the same, whatever the others do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from _sides import Turns, one_thread, row, timed, write

GOAL = 12.0
EPOCHS = 20
PART = 5  # the other side trains every fifth head
WIDTHS = {512: "resnet18", 1280: "mobilenetv2_100", 2048: "resnet50"}


def tasks(width: int, head: str, folder: Path) -> list[Any]:
    """10 folds × 3 seeds of one frozen candidate whose weights are a file."""
    import safetensors.torch
    import torch

    from phoropter.data.pixels import prepare
    from phoropter.data.protocols import KFold, splits
    from phoropter.data.spec import digits, open_dataset
    from phoropter.models.vision import timm
    from phoropter.training.entries import candidates_of
    from phoropter.training.fit import Task
    from phoropter.training.presets import PRESETS

    dataset, pixels = prepare(open_dataset(digits()), 32, cache=folder)
    weights = folder / f"{WIDTHS[width]}.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        safetensors.torch.save_file(timm().create_model(WIDTHS[width]).state_dict(), weights)
    entry = {"backbone": WIDTHS[width], "weights": str(weights), "size": 32, "frozen": True, "head": head, "recipe": "probe"}
    (candidate,) = candidates_of([entry], PRESETS["probe"])
    made = splits(dataset, KFold(10, seeds=[0, 1, 2]))
    return [Task(candidate, split, dataset, pixels, torch.device("cpu"), folder) for split in made]


def theirs(made: list[Any], head: str, stored: Any) -> float:
    """One by one, as a script would; mean held-out accuracy."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    right = count = 0
    features = torch.from_numpy(stored)
    for number, task in enumerate(made):
        torch.manual_seed(number)
        labels = torch.from_numpy(task.dataset.labels)
        rows, test = torch.from_numpy(task.split.train), torch.from_numpy(task.split.test)
        loader = DataLoader(TensorDataset(features[rows], labels[rows]), batch_size=64, shuffle=True)
        width = features.shape[1]
        layers: list[torch.nn.Module] = [torch.nn.Linear(width, 10)]
        if head == "dense":
            layers = [torch.nn.Linear(width, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader))
        for _ in range(EPOCHS):
            for x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                scheduler.step()
        with torch.no_grad():
            right += int((model(features[test]).argmax(1) == labels[test]).sum())
        count += len(test)
    return right / count


def ours(made: list[Any], asked: Any) -> float:
    """All at once, from the stored features to thirty classifiers; mean held-out accuracy."""
    from phoropter.training.together import fit_asked

    right = count = 0
    for task, outcome in zip(made, fit_asked(made, asked), strict=True):
        logits = outcome.answers(task.split.test)[0]  # type: ignore[union-attr]
        right += int((logits.argmax(1) == task.dataset.labels[task.split.test]).sum())
        count += len(logits)
    return right / count


def measured(width: int, head: str, folder: Path, turns: int) -> dict[str, Any]:
    import numpy as np

    from phoropter.training.together import ask

    made = tasks(width, head, folder)
    asked = ask(made)
    stored = np.array(asked[0].features[0])
    part = made[::PART]
    scores = {"ours": ours(made, asked), "theirs": theirs(part, head, stored)}  # the warm-up
    mine, others = [], []
    for _ in range(turns):
        mine.append(timed(lambda: ours(made, asked)))
        others.append(PART * timed(lambda: theirs(part, head, stored)))
    print(f"{width} {head}: held-out accuracy {scores['ours']:.3f} (30 heads) and {scores['theirs']:.3f} (6 of them)")
    return row(f"30 {head} heads on {width} cached features, mini-batch", Turns(tuple(mine), tuple(others)), GOAL)


if __name__ == "__main__":
    one_thread(__file__)
    widths = [int(w) for w in sys.argv[1:]] or list(WIDTHS)
    with tempfile.TemporaryDirectory() as folder:
        write("heads", [measured(w, head, Path(folder), 5 if w == 512 else 1) for w in widths for head in ("linear", "dense")])
