"""Seconds a person waits for commands on a finished study: `run` again, `report`, `plan`, `status`; a large plan, a prediction.

    python benchmarks/waiting.py [TURNS]

The study has 4 frozen networks × 5 folds on 360 pictures, 20 runs; the large plan 25 candidates × 30 splits. Each command is a
process of its own, as a person starts it; seconds are of the wall and of the processor, the median of the turns. The goals are on
the wall of a quiet machine. Networks are tiny and random: only `predict` meets one, and its time goes into imports.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _sides import figure, run_process, write
from study_memory import make_pictures

STUDY = """\
name: waiting
data: {folder: pictures, size: 64}
protocol: {split: stratified-k-fold, folds: FOLDS, seeds: [SEEDS]}
recipe: logistic
candidates:
CANDIDATES
"""
NETWORKS = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext")
COMMANDS = {  # claim → (arguments, goal in seconds)
    "run of a finished study of 20 runs": (("run", "small.yaml", "-o", "out", "-j", "1"), 2.0),
    "report of 20 runs": (("report", "out"), 3.0),
    "plan of 20 runs": (("plan", "small.yaml", "-o", "out"), None),
    "status of 20 runs": (("status", "out"), 2.0),
    "plan of 25 candidates × 30 splits": (("plan", "large.yaml"), 3.0),
    "predict of one picture, torch": (("predict", "bundle", "pictures/class0/000.jpg", "--engine", "torch"), 4.0),
    "predict of one picture, the bundle's ONNX file": (("predict", "bundle", "pictures/class0/000.jpg", "--engine", "onnx"), 1.2),
}


def write_study(path: Path, folds: int, seeds: int, candidates: list[str]) -> None:
    text = STUDY.replace("FOLDS", str(folds)).replace("SEEDS", ", ".join(map(str, range(seeds))))
    path.write_text(text.replace("CANDIDATES", "\n".join(candidates)))


def run_command(arguments: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    return run_process(["-m", "phoropter", *arguments], folder)


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        make_pictures(folder / "pictures")
        write_study(folder / "small.yaml", 5, 1, [f"  - {{backbone: {n}, weights: random, frozen: true}}" for n in NETWORKS])
        networks = [(f"c{i}", NETWORKS[i % len(NETWORKS)], f"{i + 1}e-4") for i in range(25)]
        many = [
            f"  - {{name: {n}, backbone: {b}, weights: random, recipe: {{preset: probe, lr: {lr}}}}}" for n, b, lr in networks
        ]
        write_study(folder / "large.yaml", 10, 3, many)
        run_command(("run", "small.yaml", "-o", "out", "-j", "1"), folder)
        run_command(("refit", "out", "-o", "bundle", "--layout", "onnx"), folder)
        rows = []
        for claim, (arguments, goal) in COMMANDS.items():
            run_command(arguments, folder)  # which warms the disk, and keeps what a first call keeps
            walls, used = zip(*(run_command(arguments, folder) for _ in range(turns)), strict=True)
            wall, processor = statistics.median(walls), statistics.median(used)
            print(f"{claim}: {wall:.2f} s on the wall, {processor:.2f} s of the processor")
            in_goals = [w / goal for w in walls] if goal else [1.0]
            ours, theirs = f"{wall:.2f} s", f"{goal:g} s" if goal else "no goal"
            rows.append(figure(f"{claim}, in units of its goal", in_goals, 1.0, ours, theirs, processor_s=round(processor, 3)))
    write("waiting", rows)


if __name__ == "__main__":
    main()
