"""From stored images to a batch: memory-mapped, streamed, or resident on the device; and the memory this takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.spec import validate_as
from phoropter.data.images import memmap, streaming
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.pixels import Pixels
from phoropter.data.sources.folder import open_folder
from phoropter.training import malloc
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.batches import gpu_pixels
from phoropter.training.batches.gpu_pixels import copy_all_to_device, load_pictures_on_device
from phoropter.training.batches.loading import PixelLoader
from phoropter.training.candidates.recipe import Recipe

CPU = torch.device("cpu")
STEPS: list[Any] = [
    [{"random-resized-crop": {"size": 112}}, "hflip"],
    ["hflip", {"random-crop": {"padding": 3}}, "cutmix"],
    "mixup",
    [],
]


def augmentation(steps: Any) -> Augmentation | None:
    return Augmentation(validate_as(Recipe, {"augment": steps}).augment, 3) if steps else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in two classes."""
    at = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(12):
        place = at / f"class{i % 2}" / f"{i}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (140, 160, 3), dtype=np.uint8)).save(place)
    return at


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepare_pixels(open_folder(folder), 128, cache=tmp_path_factory.mktemp("stored"))


def literal(pictures: NDArray[np.uint8], boxes: Any, mirrored: Any, size: int) -> torch.Tensor:
    """Resized crops and flips, plane by plane and one after another."""
    out = []
    for picture, (top, left, height, width), flip in zip(pictures, boxes, mirrored, strict=True):
        piece = torch.from_numpy(picture[:, top : top + height, left : left + width].copy())[None]
        seen = torch.nn.functional.interpolate(piece.contiguous(), (size, size), mode="bilinear", antialias=True)[0]
        out.append(seen.flip(-1) if flip else seen)
    return torch.stack(out)


def test_resized_crops_and_flips_equal_a_literal_implementation(stored: Any) -> None:
    from phoropter.training.augmentation.ops import AUGMENTATION_OPS
    from phoropter.training.augmentation.randomness import AugmentationDraws

    dataset, pixels = stored
    made = augmentation(STEPS[0])
    assert made is not None
    rows = np.array([5, 0, 11, 3, 7, 1])
    draws = AugmentationDraws(dataset.hashed_ids[rows], 3, 2, 0)
    shapes = [(128, 128), (112, 112)]
    boxes, mirrored = (
        AUGMENTATION_OPS[s.kind].draw_parameters(s, draws, shape) for s, shape in zip(made.steps, shapes, strict=True)
    )
    assert 0 < mirrored.sum() < 6
    batch = PixelLoader(dataset, pixels, made, CPU).batch(rows, 2, 0)
    assert torch.equal(batch.inputs, literal(pixels.batch(rows), boxes, mirrored[:, 0], 112))  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", STEPS, ids=str)
def test_a_streamed_set_gives_the_batches_of_a_stored_one(
    stored: Any, folder: Path, tmp_path: Path, steps: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PHOROPTER_PIXELS_BUDGET", "100")
    kept, streamed = prepare_pixels(open_folder(folder), 128, cache=tmp_path)
    assert isinstance(streamed, streaming.StreamedPixels)
    streamed.capacity = 2  # what stays in memory
    rows = np.array([3, 8, 1, 10, 4])
    for epoch in range(2):
        one = PixelLoader(stored[0], stored[1], augmentation(steps), CPU).batch(rows, epoch, 1)
        other = PixelLoader(kept, streamed, augmentation(steps), CPU).batch(rows, epoch, 1)
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.labels, other.labels)  # type: ignore[arg-type]
        assert len(streamed._recent_squares) <= 2


@pytest.mark.parametrize("steps", STEPS, ids=str)
def test_images_resident_on_the_device_are_the_same_images(stored: Any, steps: Any, monkeypatch: Any) -> None:
    """Resident on the CPU here, where the addressing is the same. For batched ops: tests/training/augmentation."""
    dataset, pixels = stored
    monkeypatch.setattr(gpu_pixels, "CHUNK_BYTES", 5 * 3 * 128 * 128)  # in three parts
    whole = copy_all_to_device(pixels, CPU)
    assert torch.equal(whole, torch.from_numpy(pixels.batch(np.arange(12))))
    rows = np.array([3, 8, 1, 10, 4])
    plain = PixelLoader(dataset, pixels, augmentation(steps), CPU).batch(rows, 1, 0)
    monkeypatch.setattr(gpu_pixels, "resident_pictures", lambda *_: whole)
    held = load_pictures_on_device(pixels, rows, CPU)
    made = augmentation(steps)
    again = held if made is None else made.apply(held, dataset.hashed_ids[rows], 1, 0).pictures
    assert torch.equal(plain.inputs, again)  # type: ignore[arg-type]


def test_only_a_gpu_keeps_a_set_resident(stored: Any) -> None:
    assert gpu_pixels.resident_pictures(stored[1], CPU) is None
    assert torch.equal(
        load_pictures_on_device(stored[1], np.array([2, 2]), CPU), torch.from_numpy(stored[1].batch(np.array([2, 2])))
    )


def in_memory(file: Path) -> int:
    """Bytes of a mapped file that count as this process's memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0] and ":" not in line.split(" ", 1)[0]:
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_that_were_read_are_released_and_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (64, 3, 256, 256), dtype=np.uint8)
    bytes_.tofile(tmp_path / "pixels.u8")
    pixels = Pixels(tmp_path / "pixels.u8", (64, 3, 256, 256), "x")
    monkeypatch.setattr(memmap, "ADVISE_ABOVE_BYTES", 0)
    every = np.arange(64)
    views = pixels.read_each(every)
    assert np.array_equal(np.stack(views), bytes_)
    assert in_memory(pixels.file) == bytes_.nbytes
    monkeypatch.setattr(memmap, "RESIDENT_BYTES", 0)
    assert np.array_equal(pixels.batch(every[:1]), bytes_[:1])
    assert in_memory(pixels.file) < bytes_.nbytes // 2  # the system maps a picture and what lies beside it
    assert np.array_equal(np.stack(views), bytes_)  # the same addresses


def test_an_allocator_set_by_the_user_stays(monkeypatch: Any) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert malloc.tune_malloc.__wrapped__() is False
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    assert malloc.tune_malloc.__wrapped__() in (True, False)
