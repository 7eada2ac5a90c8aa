"""A pass over a frozen backbone, against eval mode and `no_grad`: same network, pictures and threads.

    python benchmarks/feature_pass.py [PICTURES, default 256] [files | arithmetic | onnxruntime]

Ours: `extract_features`, from stored pictures to the features on disk.
files:      theirs is a DataLoader over ImageFolder, the network in eval mode under `no_grad` in batches of 64, the features
            gathered in memory, as most scripts do; and beside that, without a goal, the same from pictures that are decoded,
            normalised and in memory already
arithmetic: five networks at 224 pixels; theirs is timm's network in inference mode on normalised pictures in memory, in batches
            of 16: contiguous, as most write it, and in the layout channels-last
onnxruntime: the same by `feature_engine: onnxruntime`; writing the network as ONNX, once for a pass whatever its length, is left
            out and printed
The features agree; that is checked first.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
from _ours import classifier_of
from _sides import in_turns, one_thread, row, write
from _usual import loader_of, network_of, networks

GOALS = (("mobilenetv3_small_100", 96, 1.4), ("vit_tiny_patch16_224", 96, 1.15), ("resnet18", 64, 1.0))
ARITHMETIC = (  # goals against contiguous, against channels-last
    ("mobilenetv2_100", 2.0, 1.4),
    ("efficientnet_b0", 2.0, 1.4),
    ("resnet18", 1.3, 1.1),
    ("vit_small_patch16_224", 1.0, 1.0),
    ("convnext_tiny", 1.0, 1.0),
)
BATCH, TURNS = 64, 5
SIDE, EAGER_BATCH, TOLERANCE = 224, 16, 1e-4  # the last: of a feature, relative to the largest


def ours(name: str, side: int, folder: Path, cache: Path) -> Callable[[], Any]:
    import torch

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.sources.folder import open_folder
    from phoropter.training.feature_cache import extract_features

    dataset, pixels = prepare_pixels(open_folder(folder), side, cache=cache)
    model = classifier_of(name, side, dataset.classes)
    again = itertools.count()

    def features() -> Any:
        return extract_features(model, pixels, cache / f"pass{next(again)}", torch.device("cpu"))[0]

    features.backbone = model.branches[0]  # type: ignore[attr-defined]
    return features


def theirs(network: Any, batches: Any) -> Callable[[], Any]:
    import torch

    def features() -> Any:
        network.eval()
        with torch.no_grad():
            return torch.cat([network(pictures) for pictures, _ in batches]).numpy()

    return features


def measured(count: int) -> Iterator[dict[str, Any]]:
    import torch

    for name, side, goal, folder in networks(GOALS, count):
        mine = ours(name, side, folder, folder.parent / "cache")
        network = network_of(name, side, 0)
        backbone = mine.backbone  # type: ignore[attr-defined]
        network.load_state_dict(backbone.body.state_dict())
        loader = loader_of(folder, side, BATCH, training=False, scale=(backbone.mean, backbone.std))
        a, b = torch.from_numpy(mine().copy()), torch.from_numpy(theirs(network, loader)())
        nearest = torch.nn.functional.cosine_similarity(a, b).min()  # resampling is another, by a grey level or so
        if a.shape != b.shape or nearest < 0.9:
            raise SystemExit(f"{name}: the two sides have not computed the same features ({nearest:.3f})")
        for said, batches, aim in (("from JPEG files", loader, goal), ("from tensors in memory", list(loader), None)):
            turns = in_turns(mine, theirs(network, batches), TURNS, warm=False)
            yield row(f"feature pass, {name} at {side} px, {said}", turns, aim, count, "pictures")


def written_once(name: str) -> Any:
    """A context within which the first pass makes the ONNX branch of all."""
    from phoropter.models.inference.onnx_branch import make_onnx_branch

    made = list[Any]()

    def make_once(backbone: Any) -> Any:
        if not made:
            began = time.perf_counter()
            made.append(make_onnx_branch(backbone))
            print(f"{name}: written as ONNX and compared in {time.perf_counter() - began:.1f} s")
        return made[0]

    return mock.patch("phoropter.training.feature_cache.make_onnx_branch", make_once)


def arithmetic(count: int, engine: Any = "torch") -> Iterator[dict[str, Any]]:
    import numpy as np
    import torch

    from phoropter.data.images.pixels import InMemoryPixels
    from phoropter.training.feature_cache import extract_features

    squares = np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    for name, *goals in ARITHMETIC:
        model = classifier_of(name, SIDE, ("a", "b"))
        network = network_of(name, SIDE, 0).eval()
        network.load_state_dict(model.branches[0].body.state_dict())
        pictures = model.branches[0].preprocess(torch.from_numpy(squares))

        def eager(layout: Any, network: Any = network, pictures: Any = pictures) -> Callable[[], Any]:
            batches = [batch.contiguous(memory_format=layout) for batch in pictures.split(EAGER_BATCH)]

            def features() -> Any:
                network.to(memory_format=layout)
                with torch.inference_mode():
                    return torch.cat([network(batch) for batch in batches]).numpy()

            return features

        with tempfile.TemporaryDirectory() as at, written_once(name):
            again = itertools.count()

            def mine(model: Any = model, at: str = at, again: Any = again) -> Any:
                cache = Path(at) / f"pass{next(again)}"
                return extract_features(model, InMemoryPixels(squares), cache, torch.device("cpu"), engine=engine)[0]

            for said, layout, goal in zip(
                ("contiguous", "channels-last"), (torch.contiguous_format, torch.channels_last), goals, strict=True
            ):
                theirs_now = eager(layout)
                expected = theirs_now()
                if np.abs(mine() - expected).max() > TOLERANCE * np.abs(expected).max():
                    raise SystemExit(f"{name}: the two sides have not computed the same features")
                turns = in_turns(mine, theirs_now, TURNS, warm=False)
                how = "" if engine == "torch" else f" by {engine}"
                yield row(f"feature pass{how}, {name} at {SIDE} px, against eager {said}", turns, goal, count, "pictures")


def main() -> None:
    one_thread(__file__)
    count, parts = int(sys.argv[1]) if len(sys.argv) > 1 else 256, sys.argv[2:] or ["files", "arithmetic", "onnxruntime"]
    sides: dict[str, Callable[[int], Iterator[dict[str, Any]]]] = {
        "files": measured,
        "arithmetic": arithmetic,
        "onnxruntime": partial(arithmetic, engine="onnxruntime"),
    }
    write("feature_pass", itertools.chain.from_iterable(sides[part](count) for part in parts))


if __name__ == "__main__":
    main()
