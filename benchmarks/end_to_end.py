"""From the command to the metrics and the page: `phoropter run` against timm's own train.py or AutoGluon, all from JPEG files.

    python benchmarks/end_to_end.py (--timm PATH | --autogluon PYTHON) [PICTURES, default 2000] [--only NETWORK]

PATH is a checkout of pytorch-image-models, PYTHON that of an environment with autogluon.multimodal. Each side is one command in a
process of its own: two epochs over four fifths of the pictures (AdamW, cosine rate, resizing and flip, batch 32, random weights),
and one fifth is judged. Ours reads the files, decodes them once, trains, predicts, and writes run folder, leaderboard, figures
and page (`split: predefined`); the script reads them in every epoch, validates after the last one and writes a summary and a
checkpoint. AutoGluon reads them in every epoch, too, validates after each and keeps the best (_autogluon.py). Processor seconds
on one thread, imports and all; our cache is empty in every turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _autogluon import AutoGluon
from _pictures import CLASSES, folder_of
from _sides import Turns, one_thread, row, run_counted, write
from _timm_script import Script, script_in

GOALS = (("mobilenetv3_small_100", 96, 1.4), ("vit_tiny_patch16_224", 96, 1.1), ("resnet18", 64, 1.0))
Other = Callable[[str, int, Path, Path], Callable[[Path], float]]  # network, side, pictures, a folder → seconds spent on parts
BATCH, EPOCHS, TURNS, JUDGED = 32, 2, 3, 5  # every fifth picture is judged
STUDY = """\
name: end-to-end
data: {folder: ours, size: SIDE}
protocol: {split: predefined, seeds: [0]}
recipe: {preset: finetune, epochs: EPOCHS, batch_size: BATCH}
candidates:
  - {backbone: NETWORK, weights: random, size: SIDE}
"""


def lay_out_parts(pictures: Path, folder: Path) -> None:
    """The pictures as each side expects them: `ours` with train and test, `theirs` with train and validation."""
    for number, picture in enumerate(sorted(pictures.rglob("*.jpg"), key=lambda file: int(file.stem))):
        judged = number // CLASSES % JUDGED == 0
        for side, part in (("ours", "test" if judged else "train"), ("theirs", "validation" if judged else "train")):
            place = folder / side / part / picture.parent.name
            place.mkdir(parents=True, exist_ok=True)
            os.link(picture, place / picture.name)


def spend_on_study(folder: Path, name: str, side: int) -> float:
    """Processor seconds of `phoropter run` from nothing kept. Raises SystemExit where it fails."""
    words = {"SIDE": side, "EPOCHS": EPOCHS, "BATCH": BATCH, "NETWORK": name}
    text = STUDY
    for word, value in words.items():
        text = text.replace(word, str(value))
    (folder / "study.yaml").write_text(text)
    for kept in ("out", "cache"):
        shutil.rmtree(folder / kept, ignore_errors=True)
    command = [sys.executable, "-m", "phoropter", "run", "study.yaml", "-o", "out", "-j", "1"]
    done, seconds = run_counted(command, cwd=folder, env=os.environ | {"PHOROPTER_CACHE": str(folder / "cache")})
    if done.returncode or not (folder / "out" / "report" / "index.html").is_file():
        raise SystemExit(f"phoropter run ended with {done.returncode}: {done.stderr[-2000:]}")
    return seconds


def measured(other: Other, count: int, only: str | None, against: str) -> Iterator[dict[str, Any]]:
    for name, side, goal in GOALS:
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as at:
            folder = Path(at)
            pictures = folder_of("intel.tar", count, (100, 100), folder / "pictures")
            lay_out_parts(pictures, folder)
            spend = other(name, side, pictures, folder / "other")
            seconds = []
            for turn in range(TURNS):
                if turn % 2:
                    theirs = spend(folder / "theirs")
                    seconds.append((spend_on_study(folder, name, side), theirs))
                else:
                    seconds.append((spend_on_study(folder, name, side), spend(folder / "theirs")))
            claim = f"two epochs of {name} at {side} px over {count:,} pictures, from the command to metrics and page{against}"
            yield row(claim, Turns(tuple(a for a, _ in seconds), tuple(b for _, b in seconds)), None if against else goal)


def main() -> None:
    one_thread(__file__)
    parser = argparse.ArgumentParser(description="From the command to metrics and page, ours and timm's train.py or AutoGluon.")
    parser.add_argument("pictures", nargs="?", type=int, default=2000, help="of both parts (default 2000)")
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--timm", type=Path, metavar="PATH", help="a checkout of pytorch-image-models")
    side.add_argument("--autogluon", type=Path, metavar="PYTHON", help="of an environment with autogluon.multimodal")
    parser.add_argument("--only", metavar="NETWORK", help="one of the networks")
    asked = parser.parse_args()

    def by_script(name: str, side: int, pictures: Path, at: Path) -> Callable[[Path], float]:
        return Script(script_in(asked.timm), name, side, BATCH, CLASSES, pictures, at, EPOCHS).spend_on

    def by_autogluon(name: str, side: int, pictures: Path, at: Path) -> Callable[[Path], float]:
        return AutoGluon(asked.autogluon, name, side, BATCH, at, EPOCHS).spend_on

    if asked.timm:
        write("end_to_end", measured(by_script, asked.pictures, asked.only, ""))
    else:
        write("end_to_end_autogluon", measured(by_autogluon, asked.pictures, asked.only, ", against AutoGluon"))


if __name__ == "__main__":
    main()
