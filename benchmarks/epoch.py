"""An epoch of full fine-tuning, against a plain loop of timm, torchvision and a DataLoader: same network, batch and threads.

    python benchmarks/epoch.py [PICTURES, default 192] [--timm PATH]

Ours: the preset `finetune` on stored pictures. Theirs: ImageFolder, Resize, flip and Normalize of torchvision v2, a DataLoader,
AdamW and cosine rate, `loss.backward()`, `optimizer.step()`, as timm's and torchvision's guides write it. Weights are random on
both sides: they change no time. The two take turns epoch by epoch in one process, on one core; the first epoch of each is not
counted. PICTURES is cut to whole batches of 32.

vit_tiny is measured with `compile: true` on our side as well, against the same plain loop; what compiling cost, the first epoch
less a later one, in processor seconds of this process and of the C++ compilers it starts, stands in that row as `compile_s`.

With `--timm PATH`, a checkout of pytorch-image-models, each network has a further row, without a goal: against timm's own
train.py (_timm_script.py says how). That takes eight minutes more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _ours import epochs_of
from _pictures import CLASSES
from _sides import Turns, in_turns, one_thread, row, timed, write
from _timm_script import Script, script_in
from _usual import loader_of, network_of, networks

GOALS = (("mobilenetv3_small_100", 96, 1.5), ("vit_tiny_patch16_224", 96, 1.1), ("resnet18", 64, 1.0))
COMPILED = "vit_tiny_patch16_224"
BATCH, TURNS, SCRIPT_TURNS = 32, 5, 3
EPOCHS = TURNS + 2  # of the schedule: the turns, one that is not counted, and one that compiles


def theirs(name: str, side: int, folder: Path) -> Callable[[], None]:
    import torch

    network = network_of(name, side, CLASSES)
    loader = loader_of(folder, side, BATCH, training=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader))
    loss_of = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        network.train()
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(network(pictures), labels)
            loss.backward()
            optimizer.step()
            rate.step()

    return epoch


def ours(name: str, side: int, folder: Path, **recipe_keys: Any) -> Callable[[], None]:
    recipe = {"preset": "finetune", "epochs": EPOCHS, "batch_size": BATCH, **recipe_keys}
    return epochs_of(name, side, folder, folder.parent / "cache", recipe)


def compiled(name: str, side: int, folder: Path) -> tuple[Turns, float]:
    """The turns with `compile: true` on our side, and what compiling cost; nothing compiled before is found again."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # more would be processes that do not tell what they spent
        mine = ours(name, side, folder, compile=True)
        began = sum(os.times()[:4])
        mine()
        first = sum(os.times()[:4]) - began
        turns = in_turns(mine, theirs(name, side, folder), TURNS)
    return turns, first - statistics.median(turns.ours)


def against(script: Script) -> Turns:
    """Our epochs in turns with those of timm's own script, which counts its seconds itself."""
    mine = ours(script.name, script.side, script.folder)
    mine()
    seconds = [(timed(mine), script.epoch()) for _ in range(SCRIPT_TURNS)]
    return Turns(tuple(a for a, _ in seconds), tuple(b for _, b in seconds))


def measured(count: int, script: Path | None) -> Iterator[dict[str, Any]]:
    for name, side, goal, folder in networks(GOALS, count):
        claim = f"full fine-tuning epoch, {name} at {side} px"
        turns = in_turns(ours(name, side, folder), theirs(name, side, folder), TURNS)
        yield row(claim, turns, goal, count, "pictures")
        if name == COMPILED:
            turns, cost = compiled(name, side, folder)
            yield row(f"{claim}, compile: true", turns, goal, count, "pictures", compile_s=round(cost, 1))
        if script:
            turns = against(Script(script, name, side, BATCH, CLASSES, folder, folder.parent / "timm"))
            yield row(f"{claim}, against timm's train.py", turns, None, count, "pictures")


def main() -> None:
    one_thread(__file__)
    parser = argparse.ArgumentParser(description="An epoch of full fine-tuning, ours and the usual one.")
    parser.add_argument("pictures", nargs="?", type=int, default=192, help="pictures in an epoch (default 192)")
    parser.add_argument("--timm", type=Path, metavar="PATH", help="a checkout of pytorch-image-models")
    asked = parser.parse_args()
    script = script_in(asked.timm) if asked.timm else None
    write("epoch", measured(max(1, asked.pictures // BATCH) * BATCH, script))


if __name__ == "__main__":
    main()
