"""From stored pictures to the normalised batch a network sees, against ImageFolder with torchvision's transforms, per core.

    python benchmarks/pixels.py

Ours: PixelTap from the memory-mapped file, then the normalisation of the classifier. Theirs, the quickest of four: torchvision v2
on Pillow pictures or on tensors, each normalised one by one as v2's examples have it, or a batch at a time as timm's loader does;
from JPEG files, as it is done, and beside that from pictures that are decoded and in memory already. Crops are of the same kind.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _pictures import folder_of
from _sides import in_turns, one_thread, row, timed, write

CLAIMS: tuple[dict[str, Any], ...] = (
    {
        "claim": "224 px resized crop + flip + normalise",
        "archive": "imagenet-sample-images.tar",
        "shape": (256, 340),
        "count": 256,
        "stored": 256,
        "seen": 224,
        "batch": 32,
        "augment": [{"resized-crop": {"size": 224}}, "flip"],
        "goal": 4.0,
    },
    {
        "claim": "224 px random crop of 256 + flip + normalise",
        "archive": "imagenet-sample-images.tar",
        "shape": (256, 340),
        "count": 256,
        "stored": 256,
        "seen": 224,
        "batch": 32,
        "augment": [{"crop": {"size": 224}}, "flip"],
        "goal": 6.5,
    },
    {
        "claim": "32 px shown at 64 px, padded crop + flip + normalise",
        "archive": "cifar10.tar.gz",
        "shape": (32, 32),
        "count": 2048,
        "stored": 64,
        "seen": 64,
        "batch": 128,
        "augment": [{"crop": {"padding": 8}}, "flip"],
        "goal": 8.0,
    },
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(claim: dict[str, Any], folder: Path, cache: Path) -> Callable[[], None]:
    import numpy as np
    import torch

    from phoropter.core.spec import check
    from phoropter.data.folders import open_folder
    from phoropter.data.pixels import prepare
    from phoropter.models import backbones
    from phoropter.models.spec import BackboneSpec
    from phoropter.training.augment import Augmentation
    from phoropter.training.batches import PixelTap
    from phoropter.training.recipe import Recipe

    dataset, pixels = prepare(open_folder(folder), claim["stored"], cache=cache)
    augmentation = Augmentation(check(Recipe, {"augment": claim["augment"]}).augment, seed=0)
    tap = PixelTap(dataset, pixels, augmentation, torch.device("cpu"))
    network = backbones.build(BackboneSpec(name="resnet18", weights="random", size=claim["seen"]), seed=0)
    rows = np.random.default_rng(0).permutation(len(dataset))

    def epoch() -> None:
        with torch.no_grad():
            for index, start in enumerate(range(0, len(rows), claim["batch"])):
                batch = tap.batch(rows[start : start + claim["batch"]], 0, index)
                network.prepare(batch.inputs)  # type: ignore[arg-type]

    return epoch


def theirs(claim: dict[str, Any], folder: Path, decoded: bool) -> dict[str, Callable[[], None]]:
    """What one would otherwise write, in four ways."""
    import torch
    from torch.utils.data import DataLoader

    from phoropter.models import vision

    v2, datasets = vision.torchvision("transforms.v2"), vision.torchvision("datasets")
    files = datasets.ImageFolder(folder)
    held = [files.loader(path) for path, _ in files.samples] if decoded else None
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    kind = claim["claim"]
    if "resized" in kind:
        shaped = [v2.RandomResizedCrop(claim["seen"], antialias=True)]
    elif "256" in kind:
        shaped = [v2.Resize(256), v2.RandomCrop(224)]
    else:
        shaped = [v2.Resize(64), v2.RandomCrop(64, padding=8)]
    shaped.append(v2.RandomHorizontalFlip())
    alone = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]

    class Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, steps: list[Any]) -> None:
            self.transform = v2.Compose(steps)

        def __len__(self) -> int:
            return len(files.samples)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            path, label = files.samples[i]
            return self.transform(held[i] if held else files.loader(path)), label

    def epoch(steps: list[Any], at_once: bool) -> Callable[[], None]:
        loader = DataLoader(Pictures(steps), batch_size=claim["batch"], shuffle=True, num_workers=0)

        def run() -> None:
            for pictures, _ in loader:
                if at_once:
                    pictures.float().sub_(mean).div_(std)

        return run

    tensor = v2.PILToTensor()
    return {
        "Pillow pictures": epoch([*shaped, tensor, *alone], at_once=False),
        "tensors": epoch([tensor, *shaped, *alone], at_once=False),
        "Pillow pictures, normalised a batch at a time": epoch([*shaped, tensor], at_once=True),
        "tensors, normalised a batch at a time": epoch([tensor, *shaped], at_once=True),
    }


def quickest(ways: dict[str, Callable[[], None]]) -> tuple[str, Callable[[], None]]:
    """The one of least processor time, of two calls each after a warm-up."""
    seconds = {}
    for name, way in ways.items():
        way()
        seconds[name] = min(timed(way), timed(way))
    name = min(seconds, key=lambda n: seconds[n])
    return name, ways[name]


def main() -> None:
    one_thread(__file__)
    import torch

    torch.set_num_threads(1)
    rows = []
    for claim in CLAIMS:
        with tempfile.TemporaryDirectory() as at:
            folder = folder_of(claim["archive"], claim["count"], claim["shape"], Path(at) / "pictures")
            mine = ours(claim, folder, Path(at) / "cache")
            for decoded, goal, said in ((False, claim["goal"], "JPEG files"), (True, None, "decoded pictures in memory")):
                way, theirs_way = quickest(theirs(claim, folder, decoded))
                turns = in_turns(mine, theirs_way)
                rows.append(row(f"{claim['claim']}, from {said}", turns, goal, claim["count"], "pictures", way=way))
                print(rows[-1]["claim"], rows[-1]["ratio"], way, flush=True)
    write("pixels", rows)


if __name__ == "__main__":
    main()
