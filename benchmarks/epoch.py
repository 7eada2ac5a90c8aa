"""An epoch of full fine-tuning, against a plain loop of timm, torchvision and a DataLoader: same network, batch and threads.

    python benchmarks/epoch.py [PICTURES, default 192]

Ours: the preset `finetune` on stored pictures. Theirs: ImageFolder, Resize, flip and Normalize of torchvision v2, a DataLoader,
AdamW and cosine rate, `loss.backward()`, `optimizer.step()`, as timm's and torchvision's guides write it. Weights are random on
both sides: they change no time. The two take turns epoch by epoch in one process, on one core; the first epoch of each is not
counted.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _pictures import CLASSES, folder_of
from _sides import in_turns, one_thread, row, write

GOALS = (("mobilenetv3_small_100", 96, 1.5), ("vit_tiny_patch16_224", 96, 1.1), ("resnet18", 64, 1.0))
BATCH, TURNS = 32, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loader_of(folder: Path, side: int, flip: bool, shuffle: bool, batch: int = BATCH, scale: Any = (MEAN, STD)) -> Any:
    """The usual way to pictures: decoded, resized and normalised one by one."""
    import torch
    from torch.utils.data import DataLoader

    from phoropter.models import vision

    v2, datasets = vision.torchvision("transforms.v2"), vision.torchvision("datasets")
    steps = [v2.Resize((side, side)), *([v2.RandomHorizontalFlip()] if flip else []), v2.PILToTensor()]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*scale)])
    return DataLoader(datasets.ImageFolder(folder, transform), batch_size=batch, shuffle=shuffle, num_workers=0)


def network_of(name: str, side: int, classes: int) -> Any:
    from phoropter.models import vision

    options = {"img_size": side} if "vit" in name else {}
    return vision.timm().create_model(name, num_classes=classes, **options)


def theirs(name: str, side: int, folder: Path, epochs: int) -> Callable[[], None]:
    import torch

    network = network_of(name, side, CLASSES)
    loader = loader_of(folder, side, flip=True, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    loss_of = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        network.train()
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(network(pictures), labels)
            loss.backward()
            optimizer.step()
            rate.step()

    return epoch


def ours(name: str, side: int, folder: Path, cache: Path, epochs: int) -> Callable[[], None]:
    import numpy as np
    import torch

    from phoropter.data.folders import open_folder
    from phoropter.data.pixels import prepare
    from phoropter.data.protocols import Split
    from phoropter.training.entries import candidates_of
    from phoropter.training.fit import Task, fit
    from phoropter.training.loop import Tick
    from phoropter.training.presets import recipe_of

    dataset, pixels = prepare(open_folder(folder), side, cache=cache)
    every = np.arange(len(dataset), dtype=np.int64)
    recipe = recipe_of({"preset": "finetune", "epochs": epochs, "batch": BATCH})
    candidate = candidates_of([{"backbone": name, "weights": "random", "size": side}], recipe)[0]
    split = Split(0, 0, 0, 1, "all", every, every[:0])
    going = fit(Task(candidate, split, dataset, pixels, torch.device("cpu"), cache))

    def epoch() -> None:
        while isinstance(next(going), Tick):
            pass

    return epoch


def main() -> None:
    one_thread(__file__)
    import torch

    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 192
    rows = []
    for name, side, goal in GOALS:
        with tempfile.TemporaryDirectory() as at:
            folder = folder_of("intel.tar", count, (100, 100), Path(at) / "pictures")
            sides = ours(name, side, folder, Path(at) / "cache", TURNS + 2), theirs(name, side, folder, TURNS + 2)
            turns = in_turns(*sides, TURNS)
        rows.append(row(f"full fine-tuning epoch, {name} at {side} px", turns, goal, count, "pictures"))
        print(rows[-1]["claim"], rows[-1]["ratio"], flush=True)
    write("epoch", rows)


if __name__ == "__main__":
    main()
