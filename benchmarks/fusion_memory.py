"""Peak memory of `phoropter run` that trains a fused pair of MobileNets at 224 pixels in batches of 32, against its target.

    python benchmarks/fusion_memory.py

With `grad_checkpointing: true` in the recipe, and without it for comparison: the same steps on the same pictures, to the same
predictions. Memory is sampled from outside as in study_memory.py; beside it stands what `plan` said beforehand.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _sides import figure, one_thread, write
from study_memory import GIB, SIDE, make_pictures, watch_run

GOAL_GIB = 3.5
COUNT, BATCH = 120, 32
STUDY = """\
name: fusion-memory
data: {{folder: {folder}, size: {side}}}
protocol: {{split: hold-out, test_size: 0.2, seeds: [0]}}
candidates:
  - fuse: [{{backbone: mobilenetv1_100, weights: random}}, {{backbone: mobilenetv2_100, weights: random}}]
    recipe: {{preset: finetune, epochs: 1, batch_size: {batch}, grad_checkpointing: {on}}}
"""


def main() -> None:
    one_thread(__file__)
    measured, planned, predicted = {}, {}, {}
    with tempfile.TemporaryDirectory() as at:
        make_pictures(Path(at) / "pictures", COUNT)
        for on in ("true", "false"):
            root = Path(at) / on
            root.mkdir()
            text = STUDY.format(folder=Path(at) / "pictures", side=SIDE, batch=BATCH, on=on)
            measured[on] = watch_run(text, root)
            said = subprocess.run(
                [sys.executable, "-m", "phoropter", "plan", "memory.yaml"], cwd=root, capture_output=True, text=True, check=True
            )
            planned[on] = (re.findall(r"memory on a processor: at most about ([0-9.]+ GiB)", said.stdout) or ["nothing"])[0]
            predicted[on] = [file.read_bytes() for file in sorted((root / "runs").rglob("predictions.npz"))]
    assert predicted["true"] == predicted["false"] and len(predicted["true"]) == 1
    (peak, seconds), (plain, plain_seconds) = measured["true"], measured["false"]
    claim = f"peak memory of training two fused MobileNets, {SIDE} px, batch {BATCH}, in units of {GOAL_GIB} GiB (at most 1)"
    sides = (
        f"{peak / GIB:.2f} GiB in {seconds:.0f} s (plan: {planned['true']})",
        f"without grad_checkpointing {plain / GIB:.2f} GiB in {plain_seconds:.0f} s (plan: {planned['false']})",
    )
    write("fusion_memory", [figure(claim, [peak / GIB / GOAL_GIB], 1.0, *sides)])


if __name__ == "__main__":
    main()
