"""An epoch that trains the last blocks from a kept frozen part, against the share of the network's arithmetic that they are.

    python benchmarks/last_blocks.py [PICTURES, default 96]

Ours: a phase `train: last-N`, whose frozen part was computed once before the first epoch. Theirs: the same recipe and batches
with `train: all`, times the share of the trained blocks and what stands behind them in the multiply-adds of one picture. The
ratio is how many times that share an epoch takes, and 1.15 at most is asked for. `prefix_epochs` says what computing the frozen
part once took, in epochs of `train: all`. Weights are random: they change no time. The two take turns epoch by epoch in one
process, on one core; the first epoch of each is not counted.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _ours import epochs_of
from _pictures import folder_of
from _sides import figure, in_turns, one_thread, timed, write

ASKED = (("vit_tiny_patch16_224", 224, 2), ("vit_tiny_patch16_224", 224, 6), ("resnet18", 128, 2))
BATCH, TURNS, GOAL = 32, 5, 1.15


def recipe_of(part: str) -> dict[str, Any]:
    phases = [{"train": part, "epochs": TURNS + 2, "lr": 1e-4}]
    return {"preset": "scratch", "batch_size": BATCH, "phases": phases}


def share_of(name: str, side: int, count: int) -> float:
    """Multiply-adds of the last blocks and what is behind them, as a share of the network's."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from phoropter.models.backbones import build_backbone
    from phoropter.models.fine_tuning.last_blocks import split_backbone
    from phoropter.models.spec import BackboneSpec

    backbone = build_backbone(BackboneSpec(name=name, weights="random", size=side), seed=0)
    split = split_backbone(backbone, count)
    assert split is not None
    counted = []
    for network in (split.forward_frozen, backbone):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, side, side))
        counted.append(counter.get_total_flops())
    return 1 - counted[0] / counted[1]


def measured(count: int) -> Iterator[dict[str, Any]]:
    for name, side, blocks in ASKED:
        share = share_of(name, side, blocks)
        with tempfile.TemporaryDirectory() as at:
            folder = folder_of("none.tar", count, (side, side), Path(at) / "pictures")
            cache = Path(at) / "cache"
            last = epochs_of(name, side, folder, cache, recipe_of(f"last-{blocks}"))
            whole = epochs_of(name, side, folder, cache, recipe_of("all"))
            with_prefix = timed(last)  # the first epoch, which computes what is kept
            whole()
            turns = in_turns(last, whole, TURNS, warm=False)
        once = (with_prefix - sorted(turns.ours)[TURNS // 2]) / sorted(turns.theirs)[TURNS // 2]
        taken = [mine / (other * share) for mine, other in zip(turns.ours, turns.theirs, strict=True)]
        claim = f"epoch of the last {blocks} blocks of {name} at {side} px, in shares of an epoch of all ({share:.3f})"
        said = f"{sorted(turns.ours)[TURNS // 2]:.2f} s", f"all {sorted(turns.theirs)[TURNS // 2]:.2f} s"
        yield figure(claim, taken, GOAL, *said, prefix_epochs=round(once, 2))


if __name__ == "__main__":
    one_thread(__file__)
    write("last_blocks", measured(max(2, int(sys.argv[1]) // BATCH if len(sys.argv) > 1 else 3) * BATCH))
