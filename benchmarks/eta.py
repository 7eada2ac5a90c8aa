"""How good the time left is: what the bar of a running study said, against what it then took.

    python -m benchmarks.eta [--data ../shared/data] [--only scenes]

Three studies are run by the command line's own code with an empty cache, so that no speed is known: frozen networks of several
sizes with solved heads, small networks trained in full, and both with a fusion. Every second the estimate is noted with the
time; at the end each is divided by the time that was really left. The first minute and the last FEW_SECONDS seconds, in which
no number is shown, are left out. It is wall time: a neighbour on the machine that comes or goes is an error of the estimate.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

from phoropter.core.durations import FEW_SECONDS
from phoropter.study.display.time_left import TimeLeft
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions

OUT = Path(__file__).parent / "results" / "eta.json"
WARM_UP_S = 60.0
STUDIES = {
    "frozen": """\
name: frozen
data: {digits: true, size: 224, max_samples: 1600}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
candidates:
  - {backbone: mobilenetv3_small_100, weights: random, frozen: true, recipe: logistic}
  - {backbone: mobilenetv2_100, weights: random, frozen: true, recipe: logistic}
  - {backbone: resnet18, weights: random, frozen: true, recipe: probe}
  - {backbone: vit_tiny_patch16_224, weights: random, frozen: true, recipe: logistic}
  - {backbone: resnet50, weights: random, frozen: true, recipe: logistic}
""",
    "trained": """\
name: trained
data: {digits: true, size: 32, max_samples: 300}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
recipe: {preset: scratch, epochs: 80}
candidates:
  - {backbone: test_resnet, weights: random}
  - {backbone: test_vit, weights: random, size: 32}
  - {backbone: test_efficientnet, weights: random}
""",
    "mixed": """\
name: mixed
data: {digits: true, size: 64, max_samples: 240}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
candidates:
  - {name: probe, backbone: resnet18, weights: random, frozen: true, recipe: logistic}
  - {name: cnn, backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 60}}
  - {name: mobile, backbone: mobilenetv2_100, weights: random, recipe: {preset: scratch, epochs: 24}}
  - {name: both, fuse: [cnn, mobile], mode: ensemble}
""",
}


def follow_study(text: str) -> tuple[float, list[tuple[float, float]]]:
    """Seconds that a study took, and (second, estimate of the seconds left) once a second."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "study.yaml").write_text(text, encoding="utf-8")
        left, noted, ended = TimeLeft(), list[tuple[float, float]](), threading.Event()
        lock, began = threading.Lock(), time.monotonic()

        def take(event: ProgressEvent) -> None:
            with lock:
                left.follow_event(event)

        def note_estimates() -> None:
            while not ended.wait(1.0):
                with lock:
                    said = left.estimate_seconds()
                if said is not None:
                    noted.append((time.monotonic() - began, said))

        watcher = threading.Thread(target=note_estimates)
        watcher.start()
        try:
            execute_study(read_study(folder / "study.yaml")[0], folder / "out", take, 1, ComputeOptions("cpu"), folder / "cache")
        finally:
            ended.set()
            watcher.join()
        return time.monotonic() - began, noted


def describe_errors(took: float, noted: list[tuple[float, float]]) -> dict[str, float]:
    """Quantiles of estimate / truth after the first minute, and the share of them within a factor of 1.5."""
    ratios = [said / (took - at) for at, said in noted if at >= WARM_UP_S and said >= FEW_SECONDS and took - at >= FEW_SECONDS]
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95]) if ratios else (np.nan,) * 3
    within = float(np.mean([1 / 1.5 <= r <= 1.5 for r in ratios])) if ratios else float("nan")
    return {"seconds": took, "estimates": len(ratios), "low": low, "middle": middle, "high": high, "within_1_5": within}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=STUDIES)
    asked = parser.parse_args()
    print("study      took     estimates   ratio 5 %, median, 95 %   within a factor of 1.5")
    for name in [asked.only] if asked.only else STUDIES:
        row = describe_errors(*follow_study(STUDIES[name]))
        quantiles = f"{row['low']:.2f}  {row['middle']:.2f}  {row['high']:.2f}"
        print(f"{name:9}  {row['seconds']:5.0f} s  {row['estimates']:8}   {quantiles:>24}   {row['within_1_5']:.0%}", flush=True)
        known = json.loads(OUT.read_text()) if OUT.exists() else {}
        OUT.write_text(json.dumps({**known, name: row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
