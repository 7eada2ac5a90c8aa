"""Small pictures on disk, made for each test; nothing is ever remembered of a file that changed a moment ago."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


@pytest.fixture
def draw() -> Draw:
    """draw(path, seed=0, size=(20, 30)): a picture of its own at a path, in the format of its suffix."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def zoo(tmp_path: Path, draw: Draw) -> Path:
    """A folder with three cats and two dogs."""
    for seed, name in enumerate(("cat/a.png", "cat/b.png", "cat/c.png", "dog/a.png", "dog/b.png")):
        draw(tmp_path / "zoo" / name, seed)
    return tmp_path / "zoo"
