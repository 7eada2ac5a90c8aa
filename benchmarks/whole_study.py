"""A study of 4 frozen candidates × 5 folds on 360 pictures, on the wall, against the networks' passes and one import of torch.

    python benchmarks/whole_study.py [TURNS, default 3]

Ours: `phoropter run`, from JPEG files to the page, with an empty cache. Theirs: a process that imports torch and timm and shows
each network all 360 pictures once, in inference mode, channels-last, in batches of 16, from tensors in memory: nothing is
decoded, trained, measured, tested or written. Both use all cores. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _sides import figure, run_process, write
from study_memory import COUNT, SIDE, make_pictures

GOAL = 1.3  # at most
NETWORKS = ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "resnet18")
STUDY = """\
name: whole
data: {folder: pictures, size: SIDE}
protocol: {split: stratified-k-fold, folds: 5, seeds: [0]}
candidates:
"""
BARE = """\
import torch
from phoropter.models import timm_compat
timm = timm_compat.import_timm()
pictures = torch.rand(16, 3, {side}, {side}).contiguous(memory_format=torch.channels_last)
with torch.inference_mode():
    for name in {networks}:
        network = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
        for start in range(0, {count}, 16):
            network(pictures[: {count} - start])
"""


def run_study(networks: tuple[str, ...], side: int) -> tuple[float, float]:
    """The complete study, with nothing in the cache. Seconds as of `run_process`."""
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        make_pictures(folder / "pictures")
        lines = [f"  - {{name: {n}, backbone: {n}, weights: random, frozen: true, recipe: probe}}\n" for n in networks]
        (folder / "study.yaml").write_text(STUDY.replace("SIDE", str(side)) + "".join(lines))
        return run_process(["-m", "phoropter", "run", "study.yaml", "-o", "out"], folder)


def run_bare(networks: tuple[str, ...], side: int) -> tuple[float, float]:
    """The networks alone. Seconds as of `run_process`."""
    with tempfile.TemporaryDirectory() as at:
        return run_process(["-c", BARE.format(networks=networks, side=side, count=COUNT)], Path(at))


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    pairs = [(run_study(NETWORKS, SIDE), run_bare(NETWORKS, SIDE)) for _ in range(turns)]
    walls, used = ([(ours[i], theirs[i]) for ours, theirs in pairs] for i in (0, 1))
    middle = sorted(walls, key=lambda pair: pair[0] / pair[1])[len(walls) // 2]
    processor = sorted(ours / theirs for ours, theirs in used)[len(used) // 2]
    claim = f"{len(NETWORKS)} frozen networks × 5 folds, {COUNT} pictures at {SIDE} px, in their passes and one import (at most)"
    ratios = [ours / theirs for ours, theirs in walls]
    sides = f"{middle[0]:.1f} s", f"{middle[1]:.1f} s"
    write("whole_study", [figure(claim, ratios, GOAL, *sides, processor_ratio=round(processor, 3))])


if __name__ == "__main__":
    main()
