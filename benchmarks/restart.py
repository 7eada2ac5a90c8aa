"""A study killed in the middle, again and again, and restarted: how much of its work is done twice.

A child process runs a small study (a network trained on four splits, a frozen one with four heads, pictures to be decoded) and
says what it does, line by line. Once it runs to its end; once it is killed with SIGKILL at four places (after decoding, within a
network's second epoch, two epochs later, when the heads begin) and started again each time. Counted in both: pictures decoded,
pictures shown to the frozen backbone, epochs and runs finished. A checkpoint is written after every step, and an epoch is told
once it is kept: a kill costs a step.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _sides import figure, write

STUDY = """\
name: killed
data: {digits: true, size: 32, max_samples: 400}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0, 1]}
recipe: {preset: scratch, epochs: 4}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: probe, backbone: test_vit, weights: random, frozen: true}
"""
CHILD = """\
import sys
from pathlib import Path
from phoropter.study.executors import execute_study
from phoropter.study.worker import ComputeOptions
from phoropter.study.spec import read_study

def say(event):
    if event.kind in ("decoding", "features", "epoch", "start", "done"):
        print(event.kind, event.done, event.total, event.title.replace(" ", "_"), flush=True)

folder = Path(sys.argv[1])
study = read_study(folder / "study.yaml")[0]
execute_study(study, folder / "out", say, options=ComputeOptions("cpu", 1, 0.0), cache=folder / "cache")
"""
KILLS = (("start", 1), ("epoch", 1), ("epoch", 3), ("start heads", 1))  # after the n-th such line of a child


def child(folder: Path, kill: tuple[str, int] | None) -> list[list[str]]:
    """The lines of one child, killed a moment after the line asked for."""
    running = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    lines, seen = [], 0
    for text in running.stdout:
        lines.append(text.split())
        heads = lines[-1][0] == "start" and lines[-1][-1].endswith("heads")
        seen += kill is not None and (kill[0] == lines[-1][0] or (kill[0] == "start heads" and heads))
        if kill is not None and seen == kill[1]:
            time.sleep(0.2)
            running.kill()
            lines += [rest.split() for rest in running.stdout if rest.endswith("\n")]
            break
    running.wait()
    return lines


def work(lines: list[list[str]]) -> Counter[str]:
    """What was done, in pictures, epochs and runs."""
    done: Counter[str] = Counter()
    at = {"decoding": 0, "features": 0}
    for what, so_far, total, *_ in lines:
        if what in at:
            number = int(so_far)
            done[what] += number - at[what] if number > at[what] else number
            at[what] = 0 if number == int(total) else number
        elif what in ("epoch", "done"):
            done[what] += 1
    return done


def main() -> None:
    counts = []
    for kills in ((), KILLS):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            (folder / "study.yaml").write_text(STUDY)
            counts.append(sum((work(child(folder, kill)) for kill in (*kills, None)), Counter()))
    once, killed = counts
    rows = []
    for what, words in (("decoding", "pictures decoded"), ("features", "pictures asked"), ("epoch", "epochs"), ("done", "runs")):
        claim = f"a study killed {len(KILLS)} times and restarted: {words}, times those of one run"
        rows.append(figure(claim, [killed[what] / once[what]], 1.0, f"{killed[what]} {words}", f"{once[what]} {words}"))
    write("restart", rows)


if __name__ == "__main__":
    main()
