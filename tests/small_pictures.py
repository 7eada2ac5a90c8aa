"""A small data set of two kinds of pictures, dark and light, and a study of it that is run in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions


def draw_dark_and_light(
    folder: Path, per_class: int, *, size: tuple[int, int] = (40, 60), greys: tuple[int, int] = (40, 190), noise: int = 60
) -> Path:
    """`folder`/dark and `folder`/light with 0.png, 1.png, … of `size` (height, width): noise above a grey. Returns `folder`."""
    draw = np.random.default_rng(0)
    for kind, grey in zip(("dark", "light"), greys, strict=True):
        (folder / kind).mkdir(parents=True)
        for i in range(per_class):
            pixels = draw.integers(0, noise, (*size, 3), dtype=np.uint8) + np.uint8(grey)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


def run_small_study(folder: Path, text: str) -> Store:
    """Writes `text` as `folder`/study.yaml and computes it into `folder`/out on one thread of the processor; no run may fail."""
    (folder / "study.yaml").write_text(text)
    options = ComputeOptions("cpu", threads=1)
    store = execute_study(read_study(folder / "study.yaml")[0], folder / "out", lambda event: None, options=options)
    assert not store.read_failures(), store.read_failures()
    return store
