"""From stored pictures to the normalised batch a network sees, against ImageFolder with torchvision's transforms, per core.

    python benchmarks/pixels.py [PICTURES, default 256]

Ours: PixelTap from the memory-mapped file, then the normalisation of the classifier. Theirs, the quickest of four: torchvision v2
on Pillow pictures or on tensors, each normalised one by one as v2's examples have it, or a batch at a time as timm's loader does;
from JPEG files, as it is done, and beside that, without a goal, from pictures that are decoded and in memory already. Crops are
of the same kind. The resized crop is measured against timm's own create_loader as well (its RandomResizedCrop on Pillow pictures,
bilinear, flip, no colour jitter, batches normalised by its prefetcher, no workers), without a goal. PICTURES is cut to whole
batches of 32, for timm leaves a broken one out; of those of 32 px eight times as many are shown.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _pictures import folder_of
from _sides import in_turns, one_thread, row, timed, write
from _usual import MEAN, STD

WHOLE = 32
Way = Callable[[], None]  # shows every picture once


@dataclass(frozen=True)
class Pictures:
    """Where they come from, and their (height, width) where they must be made up.

    times: how many times PICTURES are shown in a turn · stored, seen: sides in pixels, in our file and as the network sees them
    """

    archive: str
    shape: tuple[int, int]
    times: int
    stored: int
    seen: int
    batch: int


@dataclass(frozen=True)
class Claim:
    """augment: our steps · usual: torchvision's, from its transforms.v2, before the flip · timm: whether its loader has them"""

    said: str
    goal: float
    pictures: Pictures
    augment: tuple[Any, ...]
    usual: Callable[[Any], list[Any]]
    timm: bool = False


PHOTOGRAPHS = Pictures("imagenet-sample-images.tar", (256, 340), times=1, stored=256, seen=224, batch=WHOLE)
SMALL = Pictures("cifar10.tar.gz", (32, 32), times=8, stored=64, seen=64, batch=4 * WHOLE)
CLAIMS = (
    Claim(
        "224 px resized crop + flip + normalise",
        4.0,
        PHOTOGRAPHS,
        ({"random-resized-crop": {"size": 224}}, "hflip"),
        lambda v2: [v2.RandomResizedCrop(224, antialias=True)],
        timm=True,
    ),
    Claim(
        "224 px random crop of 256 + flip + normalise",
        6.5,
        PHOTOGRAPHS,
        ({"random-crop": {"size": 224}}, "hflip"),
        lambda v2: [v2.Resize(256), v2.RandomCrop(224)],
    ),
    Claim(
        "32 px shown at 64 px, padded crop + flip + normalise",
        8.0,
        SMALL,
        ({"random-crop": {"padding": 8}}, "hflip"),
        lambda v2: [v2.Resize(64), v2.RandomCrop(64, padding=8)],
    ),
)


def ours(claim: Claim, folder: Path, cache: Path) -> Way:
    import numpy as np
    import torch

    from phoropter.core.spec import validate_as
    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.sources.folder import open_folder
    from phoropter.models import backbones
    from phoropter.models.spec import BackboneSpec
    from phoropter.training.augmentation.pipeline import Augmentation
    from phoropter.training.batches.loading import PixelLoader
    from phoropter.training.candidates.recipe import Recipe

    of = claim.pictures
    dataset, pixels = prepare_pixels(open_folder(folder), of.stored, cache=cache)
    augmentation = Augmentation(validate_as(Recipe, {"augment": list(claim.augment)}).augment, seed=0)
    tap = PixelLoader(dataset, pixels, augmentation, torch.device("cpu"))
    network = backbones.build_backbone(BackboneSpec(name="resnet18", weights="random", size=of.seen), seed=0)
    rows = np.random.default_rng(0).permutation(len(dataset))

    def epoch() -> None:
        with torch.no_grad():
            for index, start in enumerate(range(0, len(rows), of.batch)):
                batch = tap.batch(rows[start : start + of.batch], 0, index)
                network.preprocess(batch.inputs)  # type: ignore[arg-type]

    return epoch


def torchvision(claim: Claim, folder: Path, decoded: bool) -> dict[str, Way]:
    """What one would otherwise write, in four ways."""
    import torch
    from torch.utils.data import DataLoader

    from phoropter.models import timm_compat

    v2, datasets = timm_compat.import_torchvision("transforms.v2"), timm_compat.import_torchvision("datasets")
    files = datasets.ImageFolder(folder)
    held = [files.loader(path) for path, _ in files.samples] if decoded else None
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    tensor = v2.PILToTensor()
    shaped = [*claim.usual(v2), v2.RandomHorizontalFlip()]
    alone = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]

    class Transformed(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, steps: list[Any]) -> None:
            self.transform = v2.Compose(steps)

        def __len__(self) -> int:
            return len(files.samples)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            path, label = files.samples[i]
            return self.transform(held[i] if held else files.loader(path)), label

    def epoch(steps: list[Any], at_once: bool) -> Way:
        loader = DataLoader(Transformed(steps), batch_size=claim.pictures.batch, shuffle=True, num_workers=0)

        def run() -> None:
            for pictures, _ in loader:
                if at_once:
                    pictures.float().sub_(mean).div_(std)

        return run

    return {
        "Pillow pictures": epoch([*shaped, tensor, *alone], at_once=False),
        "tensors": epoch([tensor, *shaped, *alone], at_once=False),
        "Pillow pictures, normalised a batch at a time": epoch([*shaped, tensor], at_once=True),
        "tensors, normalised a batch at a time": epoch([tensor, *shaped], at_once=True),
    }


def timm(claim: Claim, folder: Path) -> Way:
    """timm's loader, as its train.py makes it, without workers and colour jitter."""
    import torch

    from phoropter.models import timm_compat

    timm_compat.import_timm()  # first: it makes torchvision loadable
    from timm.data import ImageDataset, create_loader

    loader = create_loader(
        ImageDataset(str(folder)),
        input_size=(3, claim.pictures.seen, claim.pictures.seen),
        batch_size=claim.pictures.batch,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=0,
        device=torch.device("cpu"),
    )

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def quickest(ways: dict[str, Way]) -> tuple[str, Way]:
    """The one of least processor time, of two calls each after a warm-up."""
    seconds = {}
    for name, way in ways.items():
        way()
        seconds[name] = min(timed(way), timed(way))
    name = min(seconds, key=lambda n: seconds[n])
    return name, ways[name]


def measured(count: int) -> Iterator[dict[str, Any]]:
    for claim in CLAIMS:
        shown = count * claim.pictures.times
        with tempfile.TemporaryDirectory() as at:
            folder = folder_of(claim.pictures.archive, shown, claim.pictures.shape, Path(at) / "pictures")
            mine = ours(claim, folder, Path(at) / "cache")
            for decoded, goal, said in ((False, claim.goal, "JPEG files"), (True, None, "decoded pictures in memory")):
                name, way = quickest(torchvision(claim, folder, decoded))
                yield row(f"{claim.said}, from {said}", in_turns(mine, way), goal, shown, "pictures", way=name)
            if claim.timm:
                turns = in_turns(mine, timm(claim, folder))
                yield row(f"{claim.said}, against timm's loader", turns, None, shown, "pictures")


def main() -> None:
    one_thread(__file__)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    write("pixels", measured(max(1, count // WHOLE) * WHOLE))


if __name__ == "__main__":
    main()
