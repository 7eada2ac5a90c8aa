"""10 folds × 3 seeds of head training, 20 epochs: features asked once, against the frozen backbone in every epoch of every run.

    python benchmarks/features_once.py [DIGITS, default 300, at least 110]

Scikit-learn's digits at 96 pixels, MobileNetV2 (pretrained where `PHOROPTER_TEST_DATA` holds its weights, else random ones from a
file; the time is the same), a linear head, batch 64, AdamW. Ours is the whole of it from stored pictures: the backbone built, the
feature pass, thirty heads, in an empty cache. The other side is what scripts do: pictures in memory, the backbone in eval mode
under `no_grad`, its features into the head, batch after batch. It is measured over one epoch of one run after a warm-up and
counted 20 × 30 times, for every epoch does the same. One thread each. fixed_views.py is the same with augmented pictures.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _sides import Turns, one_thread, row, timed, write

GOAL = 100.0
BACKBONE, WEIGHTS = "mobilenetv2_100", "mobilenetv2_100.tf_in1k.safetensors"
EPOCHS, RUNS, SIDE, BATCH, CLASSES = 20, 30, 96, 64, 10
TURNS = 3


def digits_shown() -> int:
    """How many digits the user asks for."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else 300


def tasks(count: int, folder: Path, cache: Path, **recipe_keys: Any) -> list[Any]:
    """10 folds × 3 seeds of one frozen candidate by the preset `probe`, changed by some keys; features go into `cache`."""
    import torch

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.spec import DataSpec, open_dataset
    from phoropter.data.splits.protocol import make_splits
    from phoropter.data.splits.spec import KFold
    from phoropter.training.candidates.candidate_entry import parse_candidates
    from phoropter.training.candidates.presets import PRESETS
    from phoropter.training.fit import TrainingTask

    dataset, pixels = prepare_pixels(open_dataset(DataSpec(digits=True, max_samples=count)), SIDE, cache=folder)
    recipe = {"preset": "probe", "epochs": EPOCHS, "batch_size": BATCH, **recipe_keys}
    entry = {"backbone": BACKBONE, "weights": str(weights_in(folder)), "size": SIDE, "frozen": True, "recipe": recipe}
    (candidate,) = parse_candidates([entry], PRESETS["probe"])
    made = make_splits(dataset, KFold(10, seeds=[0, 1, 2]))
    assert len(made) == RUNS
    return [TrainingTask(candidate, split, dataset, pixels, torch.device("cpu"), cache) for split in made]


def weights_in(folder: Path) -> Path:
    """A file of weights, so that all seeds share them, as pretrained ones are shared."""
    import safetensors.torch
    import torch

    from phoropter.models.timm_compat import import_timm

    given = Path(os.environ.get("PHOROPTER_TEST_DATA", "")) / "weights" / WEIGHTS
    if given.is_file():
        return given
    made = folder / WEIGHTS
    if not made.exists():
        torch.manual_seed(0)
        safetensors.torch.save_file(import_timm().create_model(BACKBONE).state_dict(), made)
    return made


def ours(count: int, folder: Path, **recipe_keys: Any) -> None:
    """All thirty runs, in an empty cache."""
    from phoropter.training.frozen.batched_fit import fit_batched

    cache = folder / "empty"
    shutil.rmtree(cache, ignore_errors=True)
    fit_batched(tasks(count, folder, cache, **recipe_keys))


def theirs(task: Any, batches_of: Callable[[Any, Any], Any]) -> Callable[[], None]:
    """One epoch of one run, ready to be timed. batches_of: (n, 3, S, S) uint8, (n,) labels → a loader of normalised batches"""
    import torch

    from phoropter.training.fit import build_model

    backbone = build_model(task).branches[0].body.eval()
    rows = task.split.train
    batches = batches_of(torch.from_numpy(task.pixels.batch(rows)), torch.from_numpy(task.dataset.labels[rows]))
    with torch.no_grad():
        width = backbone(next(iter(batches))[0]).shape[1]
    head = torch.nn.Linear(width, CLASSES)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def epoch() -> None:
        for x, y in batches:
            with torch.no_grad():
                features = backbone(x)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features), y).backward()
            optimizer.step()

    return epoch


def in_memory(pictures: Any, labels: Any) -> Any:
    """Pictures normalised beforehand, which nothing changes from epoch to epoch."""
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(pictures.float().div_(127.5).sub_(1), labels), batch_size=BATCH, shuffle=True)


def compared(claim: str, goal: float | None, mine: Callable[[], None], epoch: Callable[[], None]) -> dict[str, Any]:
    """All of our thirty runs against one epoch of theirs, counted as often as they have epochs."""
    mine(), epoch()
    seconds = [(timed(mine), EPOCHS * RUNS * timed(epoch)) for _ in range(TURNS)]
    return row(claim, Turns(tuple(a for a, _ in seconds), tuple(b for _, b in seconds)), goal)


def measured(count: int, folder: Path) -> dict[str, Any]:
    epoch = theirs(tasks(count, folder, folder)[0], in_memory)
    claim = "10 folds x 3 seeds of head training, 20 epochs, features once"
    return compared(claim, GOAL, lambda: ours(count, folder), epoch)


if __name__ == "__main__":
    one_thread(__file__)
    with tempfile.TemporaryDirectory() as folder:
        write("features_once", [measured(digits_shown(), Path(folder))])
