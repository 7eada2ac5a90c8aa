"""Peak memory of `phoropter run` on three frozen MobileNets at 224 pixels and 360 pictures, against its target of 1.2 GiB.

    python benchmarks/study_memory.py

The resident sizes of the command and of its processes are sampled from outside, so that nothing the command measures of itself
counts. The weights are random: memory does not depend on them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _sides import figure, one_thread, write

GIB = 1024**3
GOAL_GIB = 1.2
NETWORKS = ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100")
COUNT, SIDE = 360, 224
STUDY = """\
name: memory
data: {{folder: {folder}, size: {side}}}
protocol: {{split: stratified-k-fold, folds: 5, seeds: [0]}}
candidates:
{candidates}
"""


def main() -> None:
    one_thread(__file__)
    with tempfile.TemporaryDirectory() as at:
        root = Path(at)
        make_pictures(root / "pictures")
        lines = [f"  - {{name: {n}, backbone: {n}, weights: random, frozen: true, recipe: probe}}" for n in NETWORKS]
        peak, seconds = watch_run(STUDY.format(folder=root / "pictures", side=SIDE, candidates="\n".join(lines)), root)
    print(f"peak {peak / GIB:.2f} GiB in {seconds:.0f} s")
    claim = f"peak memory of a study of three frozen MobileNets, {COUNT} pictures at {SIDE} px, in units of 1.2 GiB (at most 1)"
    sides = f"{peak / GIB:.2f} GiB", f"{GOAL_GIB:g} GiB"
    write("study_memory", [figure(claim, [peak / GIB / GOAL_GIB], 1.0, *sides, seconds=round(seconds, 1))])


def watch_run(text: str, root: Path) -> tuple[int, float]:
    """Runs the study of this text in a process of its own → most resident bytes of all its processes together, seconds."""
    import psutil

    study = root / "memory.yaml"
    study.write_text(text)
    began = time.monotonic()
    command = [sys.executable, "-m", "phoropter", "run", str(study), "-o", str(root / "runs")]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "PHOROPTER_CACHE": str(root / "cache")})
    peak, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(p.memory_info().rss for p in (watched, *watched.children(recursive=True))))
        time.sleep(0.05)
    assert process.returncode == 0
    return peak, time.monotonic() - began


def make_pictures(folder: Path, count: int = COUNT) -> None:
    """JPEG files of smooth noise in six classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        file = folder / f"class{i % 6}" / f"{i:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (15, 15, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=90)


if __name__ == "__main__":
    main()
