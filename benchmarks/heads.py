"""Thirty heads on cached features: one batched program against one by one with a DataLoader.

10 folds × 3 seeds of scikit-learn's digits, features of a frozen MobileNetV3 (random weights; 1,024 wide), 20 epochs, batch 64,
AdamW with a cosine, as most scripts would write it. Both sides begin from the same stored features, use one thread, and are timed
by the processor time they take, in alternating turns after a warm-up. The linear head and the dense-128 head.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from phoropter.core.seeds import seed_of
from phoropter.data.pixels import prepare
from phoropter.data.protocols import KFold, splits
from phoropter.data.spec import digits, open_dataset
from phoropter.training.cache import frozen_features
from phoropter.training.candidate import candidates_of
from phoropter.training.fit import Task, build
from phoropter.training.recipe import PRESETS
from phoropter.training.together import fit_together

TURNS = 3
GOAL = 12.0


def tasks(head: str, folder: Path) -> list[Task]:
    """10 folds × 3 seeds of one frozen candidate; one seed's weights serve all, so that each side reads the same features."""
    dataset, pixels = prepare(open_dataset(digits()), 32, cache=folder)
    entry = {
        "backbone": "mobilenetv3_small_100",
        "weights": "random",
        "size": 32,
        "frozen": True,
        "head": head,
        "recipe": "probe",
    }
    (candidate,) = candidates_of([entry], PRESETS["probe"])
    made = splits(dataset, KFold(10, seeds=[0, 1, 2]))
    return [Task(candidate, split, dataset, pixels, torch.device("cpu"), folder) for split in made]


def theirs(made: list[Task], head: str, features: dict[int, Any]) -> float:
    """One by one, as a script would; mean held-out accuracy."""
    scores = []
    for task in made:
        torch.manual_seed(seed_of(task.split.seed, task.split.fold))
        stored = torch.from_numpy(np.array(features[task.split.seed]))
        labels = torch.from_numpy(task.dataset.labels)
        rows = torch.from_numpy(task.split.train)
        loader = DataLoader(TensorDataset(stored[rows], labels[rows]), batch_size=64, shuffle=True)
        width = stored.shape[1]
        layers = [torch.nn.Linear(width, 10)]
        if head == "dense":
            layers = [torch.nn.Linear(width, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)]  # type: ignore[list-item]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20 * len(loader))
        for _ in range(20):
            for x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                scheduler.step()
        with torch.no_grad():
            test = torch.from_numpy(task.split.test)
            scores.append((model(stored[test]).argmax(1) == labels[test]).double().mean().item())
    return float(np.mean(scores))


def ours(made: list[Task]) -> float:
    """All at once; mean held-out accuracy."""
    scores = []
    for task, outcome in zip(made, fit_together(made), strict=True):
        logits = outcome.answers(task.split.test)[0]  # type: ignore[union-attr]
        scores.append(np.mean(logits.argmax(1) == task.dataset.labels[task.split.test]))
    return float(np.mean(scores))


def seconds(work: Callable[[], float]) -> tuple[float, float]:
    began = time.process_time()
    score = work()
    return time.process_time() - began, score


def measured(head: str, folder: Path) -> dict[str, Any]:
    made = tasks(head, folder)
    features = {t.split.seed: frozen_features(build(t), t.pixels, folder, t.device)[0] for t in made[::10]}
    ours(made[:2])
    theirs(made[:1], head, features)
    turns = [(seconds(lambda: ours(made)), seconds(lambda: theirs(made, head, features))) for _ in range(TURNS)]
    ratios = sorted(b[0] / a[0] for a, b in turns)
    mine, others = statistics.median(a[0] for a, _ in turns), statistics.median(b[0] for _, b in turns)
    print(f"{head}: ours {mine:.2f} s, one by one {others:.2f} s, ratio {statistics.median(ratios):.1f} (goal {GOAL:.0f})")
    print(f"    held-out accuracy {turns[0][0][1]:.3f} and {turns[0][1][1]:.3f}")
    return {
        "claim": f"30 {head} heads on cached features, mini-batch training, against one by one with a DataLoader",
        "ratio": round(statistics.median(ratios), 2),
        "goal": GOAL,
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
        "ours": f"{mine:.2f} s of processor time",
        "theirs": f"{others:.2f} s of processor time",
        "machine": "1 of 2 cores",
        "date": date.today().isoformat(),
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "phoropter")},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(head, Path(folder)) for head in ("linear", "dense")]
    target = Path(__file__).parent / "results" / "heads.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
