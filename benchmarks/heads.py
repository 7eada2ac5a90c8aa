"""Thirty heads on cached features, mini-batch training: one batched program against one by one with a DataLoader.

10 folds × 3 seeds of scikit-learn's digits, 20 epochs, batch 64, AdamW with a cosine, as most scripts would write it: a
TensorDataset of the features, a DataLoader without workers. The backbone's weights lie in a file, so that all seeds share its
features, as with pretrained weights. Widths 512 (ResNet-18), 1,280 (MobileNetV2) and 2,048 (ResNet-50); a linear head, and
dense-128. Then two with dropout: dense-128 on 512, and the small network of SONIC on a frozen fusion of 512 and 1,280
( a dense-128 head a branch, dense-12 on their logits, dropout 0.5 before each). Both sides begin from the same stored
features, neither builds the backbone, and both use one thread. The other side trains 6 of the 30 heads in each turn and is
counted five times: each of its heads costs the same, whatever the others do.

`heads.py 512 dropout fusion` measures these alone.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _sides import Turns, one_thread, row, timed, write

EPOCHS = 20
PART = 5  # the other side trains every fifth head
WIDTHS = {512: "resnet18", 1280: "mobilenetv2_100", 2048: "resnet50"}


@dataclass(frozen=True)
class Case:
    """Heads on the features of networks of these widths; `part`: by which word it is asked for.

    head: linear · dense · dropout: dense, with dropout 0.5 · fusion: the frozen fusion's small network
    """

    part: str
    widths: tuple[int, ...]
    head: str
    claim: str
    goal: float | None = 12.0
    turns: int = 1


CASES = [
    Case(str(width), (width,), head, f"30 {head} heads on {width} cached features, mini-batch", turns=5 if width == 512 else 1)
    for width in WIDTHS
    for head in ("linear", "dense")
] + [
    Case("dropout", (512,), "dropout", "30 dense heads with dropout 0.5 on 512 cached features, mini-batch", None, 3),
    Case("fusion", (512, 1280), "fusion", "30 frozen fusions of 512 and 1,280 cached features, mini-batch", None, 3),
]


def tasks(case: Case, folder: Path) -> list[Any]:
    """10 folds × 3 seeds of one frozen candidate whose weights are a file."""
    import safetensors.torch
    import torch

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.spec import digits, open_dataset
    from phoropter.data.splits.protocol import make_splits
    from phoropter.data.splits.spec import KFold
    from phoropter.models.timm_compat import import_timm
    from phoropter.training.candidates.candidate_entry import parse_candidates
    from phoropter.training.candidates.presets import PRESETS
    from phoropter.training.fit import TrainingTask

    dataset, pixels = prepare_pixels(open_dataset(digits()), 32, cache=folder)
    members = []
    for name in (WIDTHS[width] for width in case.widths):
        weights = folder / f"{name}.safetensors"
        if not weights.exists():
            torch.manual_seed(0)
            safetensors.torch.save_file(import_timm().create_model(name).state_dict(), weights)
        members.append({"backbone": name, "weights": str(weights), "size": 32})
    head = {"kind": "dense", "dropout": 0.5} if case.head == "dropout" else case.head
    lone = {**members[0], "frozen": True, "head": head, "recipe": "probe"}
    sonic = {"start": "random", "hidden": 12, "dropout": 0.5, "head": {"kind": "dense", "dropout": 0.5}}
    entry = {"fuse": members, "frozen": True, "recipe": "probe", **sonic} if case.head == "fusion" else lone
    (candidate,) = parse_candidates([entry], PRESETS["probe"])
    made = make_splits(dataset, KFold(10, seeds=[0, 1, 2]))
    return [TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), folder) for split in made]


def network(case: Case) -> Any:
    """The same head as a script would write it: (B, D) features of each branch → (B, 10) logits."""
    import torch
    from torch import nn

    def dense(width: int, dropout: float) -> list[nn.Module]:
        before = [nn.Dropout(dropout)] if dropout else []
        return [*before, nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 10)]

    class Fusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Sequential(*dense(width, 0.5)) for width in case.widths)
            width = 10 * len(case.widths)
            self.fusing = nn.Sequential(nn.Dropout(0.5), nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, 10))

        def forward(self, *features: torch.Tensor) -> Any:
            return self.fusing(torch.cat([b(x) for b, x in zip(self.branches, features, strict=True)], 1))

    if case.head == "fusion":
        return Fusion()
    if case.head == "linear":
        return nn.Linear(case.widths[0], 10)
    return nn.Sequential(*dense(case.widths[0], 0.5 if case.head == "dropout" else 0.0))


def theirs(made: list[Any], case: Case, stored: list[Any]) -> float:
    """One by one, as a script would; mean held-out accuracy."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    right = count = 0
    features = [torch.from_numpy(each) for each in stored]
    for number, task in enumerate(made):
        torch.manual_seed(number)
        labels = torch.from_numpy(task.dataset.labels)
        rows, test = torch.from_numpy(task.split.train), torch.from_numpy(task.split.test)
        loader = DataLoader(TensorDataset(*(f[rows] for f in features), labels[rows]), batch_size=64, shuffle=True)
        model = network(case)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader))
        for _ in range(EPOCHS):
            for *x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(*x), y).backward()
                optimizer.step()
                scheduler.step()
        model.eval()
        with torch.no_grad():
            right += int((model(*(f[test] for f in features)).argmax(1) == labels[test]).sum())
        count += len(test)
    return right / count


def ours(made: list[Any], asked: Any) -> float:
    """All at once, from the stored features to thirty classifiers; mean held-out accuracy."""
    from phoropter.training.frozen.batched_fit import fit_from_features

    right = count = 0
    for task, outcome in zip(made, fit_from_features(made, asked), strict=True):
        logits = outcome.predict_held_out(task.split.test)[0]  # type: ignore[union-attr]
        right += int((logits.argmax(1) == task.dataset.labels[task.split.test]).sum())
        count += len(logits)
    return right / count


def measured(case: Case, folder: Path) -> dict[str, Any]:
    import numpy as np

    from phoropter.training.frozen.frozen_features import extract_for_tasks

    made = tasks(case, folder)
    asked = extract_for_tasks(made)
    stored = [np.array(each) for each in asked[0].features]
    part = made[::PART]
    scores = {"ours": ours(made, asked), "theirs": theirs(part, case, stored)}  # the warm-up
    mine, others = [], []
    for _ in range(case.turns):
        mine.append(timed(lambda: ours(made, asked)))
        others.append(PART * timed(lambda: theirs(part, case, stored)))
    print(f"{case.claim}: held-out accuracy {scores['ours']:.3f} (30 heads) and {scores['theirs']:.3f} (6 of them)")
    return row(case.claim, Turns(tuple(mine), tuple(others)), case.goal)


if __name__ == "__main__":
    one_thread(__file__)
    parts = sys.argv[1:] or [case.part for case in CASES]
    with tempfile.TemporaryDirectory() as folder:
        write("heads", [measured(case, Path(folder)) for case in CASES if case.part in parts])
