"""A study of images that your own code makes or loads: arrays of images, labels and groups are passed as they are."""

from __future__ import annotations

import sys

import numpy as np

import phoropter as ph


def make_shapes(subjects: int = 8, each: int = 12) -> tuple[np.ndarray, list[str], list[str]]:
    """(N, 32, 32) uint8 squares and discs in noise, N labels and N subjects, each subject with a brightness of their own."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    images, labels, groups = [], [], []
    for subject in range(subjects):
        brightness = rng.uniform(60, 200)
        for i in range(each):
            cy, cx = rng.integers(10, 22, 2)
            shape = (abs(y - cy) < 6) & (abs(x - cx) < 6) if i % 2 else (y - cy) ** 2 + (x - cx) ** 2 < 49
            images.append(np.where(shape, brightness, rng.normal(120, 25, (32, 32))).clip(0, 255).astype(np.uint8))
            labels.append("square" if i % 2 else "disc")
            groups.append(f"subject {subject}")
    return np.array(images), labels, groups


if __name__ == "__main__":
    study = ph.Study(
        name="shapes",
        data=ph.in_memory(make_shapes(), size=32),  # without options: data=make_shapes()
        candidates=[ph.finetune("test_resnet", weights="random")],
        recipe={"preset": "scratch", "epochs": 6, "lr": 0.003, "batch_size": 16},
        protocol=ph.GroupKFold(4),  # no subject on both sides
    )
    results = study.run(sys.argv[1] if len(sys.argv) > 1 else "runs/shapes", device="cpu", quiet=True)
    print(results.to_dataframe()[["fold", "accuracy"]].to_string(index=False))
