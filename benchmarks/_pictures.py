"""Pictures the benchmarks read: real ones where PHOROPTER_TEST_DATA has them, else photographs' like made on the fly."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10


def folder_of(archive: str, count: int, shape: tuple[int, int], folder: Path) -> Path:
    """`count` JPEG files in ten class folders, from the archive, else of (height, width) made up; the folder they are in."""
    found = Path(os.environ.get("PHOROPTER_TEST_DATA", "")) / archive
    pictures = _archived(found) if found.is_file() else _made(shape)
    for i, picture in enumerate(islice(pictures, count)):
        place = folder / f"class{i % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").write_bytes(picture)
    print(f"{count} pictures {'of ' + archive if found.is_file() else 'made up: PHOROPTER_TEST_DATA has no ' + archive}")
    return folder


def _archived(archive: Path) -> Iterator[bytes]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg")):
                yield tar.extractfile(member).read()  # type: ignore[union-attr]


def _made(shape: tuple[int, int]) -> Iterator[bytes]:
    """Smooth fields with a little noise, at JPEG quality 80: about as many bytes a pixel as photographs."""
    import io

    rng = np.random.default_rng(0)
    height, width = shape
    while True:
        rough = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 10, (height, width, 3))
        picture = Image.fromarray(np.clip(np.asarray(rough) + noise, 0, 255).astype(np.uint8))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        yield file.getvalue()
