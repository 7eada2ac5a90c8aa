"""Pictures that come from your own code: save them once as an npz with groups, and any study can name it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import phoropter as ph


def make(path: Path, subjects: int = 8, each: int = 12) -> None:
    """Squares and discs of random grey, drawn for several subjects, each with a brightness of their own."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    images, labels, groups = [], [], []
    for subject in range(subjects):
        brightness = draw.uniform(60, 200)
        for i in range(each):
            cy, cx = draw.integers(10, 22, 2)
            shape = (abs(y - cy) < 6) & (abs(x - cx) < 6) if i % 2 else (y - cy) ** 2 + (x - cx) ** 2 < 49
            images.append(np.where(shape, brightness, draw.normal(120, 25, (32, 32))).clip(0, 255).astype(np.uint8))
            labels.append("square" if i % 2 else "disc")
            groups.append(f"subject {subject}")
    np.savez(path, images=np.array(images), labels=np.array(labels), groups=np.array(groups))


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/shapes")
    folder.mkdir(parents=True, exist_ok=True)
    make(folder / "shapes.npz")
    study = ph.Study(
        name="shapes",
        data=ph.npz(folder / "shapes.npz", size=32),
        candidates=[ph.finetune("test_resnet", weights="random")],
        recipe={"preset": "scratch", "epochs": 6, "lr": 0.003, "batch_size": 16},
        protocol=ph.GroupKFold(4),  # no subject on both sides
    )
    print(study.run(folder / "out", device="cpu", quiet=True).table()[["fold", "accuracy"]].to_string(index=False))
