"""What the other side is made of: the loader and the network as one would otherwise write them; and pictures for each network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _pictures import folder_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Goals = tuple[tuple[str, int, float], ...]  # name of a network, side in pixels, the least ratio


def networks(goals: Goals, count: int) -> Iterator[tuple[str, int, float, Path]]:
    """Each network, its side and its goal, and a folder of `count` pictures that lasts as long as its turn."""
    for name, side, goal in goals:
        with tempfile.TemporaryDirectory() as at:
            yield name, side, goal, folder_of("intel.tar", count, (100, 100), Path(at) / "pictures")


def loader_of(folder: Path, side: int, batch: int, *, training: bool, scale: Any = (MEAN, STD)) -> Any:
    """Pictures decoded, resized and normalised one by one; for training mirrored half of the time, in random order."""
    import torch
    from torch.utils.data import DataLoader

    from phoropter.models import timm_compat

    v2, datasets = timm_compat.import_torchvision("transforms.v2"), timm_compat.import_torchvision("datasets")
    steps = [v2.Resize((side, side)), *([v2.RandomHorizontalFlip()] if training else []), v2.PILToTensor()]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*scale)])
    return DataLoader(datasets.ImageFolder(folder, transform), batch_size=batch, shuffle=training, num_workers=0)


def options_of(name: str, side: int) -> dict[str, int]:
    """What timm must be told besides a network's name for pictures of this side."""
    return {"img_size": side} if "vit" in name else {}


def network_of(name: str, side: int, classes: int) -> Any:
    from phoropter.models import timm_compat

    return timm_compat.import_timm().create_model(name, num_classes=classes, **options_of(name, side))
