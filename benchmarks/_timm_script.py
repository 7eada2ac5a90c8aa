"""timm's own train.py, from a checkout of pytorch-image-models, as the other side of an epoch of training.

It is told to do what the plain loop does: network, pictures, batch, AdamW, cosine rate by step, resizing and flip, nothing else,
no label smoothing. The rest is as it comes (its loader normalises a batch at a time). It runs as a process of its own, in which
timm is the checkout's where that has one. Two runs of equally many epochs are measured, one over a single batch, one over that
batch and the pictures: their difference is the pictures alone. Start-up, validation (of one picture) and checkpoints are in both.

Today's script asks its loader for persistent workers, also where there is none, and then stops; its loader is told not to. It
validates after the last epoch alone where it can be told so.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from _sides import run_counted
from _usual import MEAN, STD, options_of

EPOCHS = 8
# timm does not import where torchvision's compiled operators do not load, unless models/timm_compat.py has been there first.
LOADABLE = "from phoropter.models import timm_compat; timm_compat.import_timm(); "
LOADABLE += "import timm.data as data; create = data.create_loader; "
LOADABLE += "data.create_loader = lambda *given, **named: create(*given, **{'persistent_workers': False, **named}); "
START = f"import runpy, sys; {LOADABLE}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def script_in(checkout: Path) -> Path:
    """The train.py of a checkout. Raises SystemExit where there is none, or none that can be told to use the processor."""
    script = checkout / "train.py"
    if not script.is_file():
        raise SystemExit(
            f"--timm {checkout}: expected a checkout of pytorch-image-models, a folder with train.py in it, and there is no "
            f"{script}; give the folder git cloned, or leave --timm out"
        )
    if "--device" not in script.read_text(encoding="utf-8"):
        raise SystemExit(
            f"--timm {checkout}: expected a train.py that takes --device, and this one is older; check out a release of timm 1.0 "
            "or later, or leave --timm out"
        )
    return script


@dataclass(frozen=True)
class Script:
    """timm's train.py on one network: `epoch()` gives processor seconds of an epoch over the pictures of `folder`.

    at: a folder for the two sets of pictures, each with one to validate on, and for what the script writes
    epochs: of each call of the script
    """

    file: Path
    name: str
    side: int
    batch: int
    classes: int
    folder: Path
    at: Path
    epochs: int = EPOCHS

    def epoch(self) -> float:
        short, long = self.at / "short", self.at / "long"
        if not self.at.exists():
            pictures = sorted(self.folder.rglob("*.jpg"), key=lambda picture: int(picture.stem))
            for root, shown in ((short, pictures[: self.batch]), (long, [*pictures, *pictures[: self.batch]])):
                for i, picture in enumerate(shown):
                    _copy(picture, root / "train" / picture.parent.name / f"{i}.jpg")
                _copy(pictures[0], root / "validation" / pictures[0].parent.name / "0.jpg")
        return (self.spend_on(long) - self.spend_on(short)) / self.epochs

    def spend_on(self, pictures: Path) -> float:
        """Processor seconds of the whole script over a folder with the parts `train` and `validation`."""
        command = [sys.executable, "-c", START, str(self.file), *self._options(pictures)]
        path = os.pathsep.join([str(self.file.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        done, seconds = run_counted(command, env=os.environ | {"PYTHONPATH": path})
        shutil.rmtree(self.at / "written", ignore_errors=True)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise SystemExit(
                f"--timm {self.file.parent}: train.py was expected to train {self.name} and stopped with '{last}'; check out a "
                "release that fits the installed torch, or leave --timm out"
            )
        return seconds

    def _options(self, pictures: Path) -> list[str]:
        given = {
            "data-dir": pictures,
            "model": self.name,
            "num-classes": self.classes,
            "input-size": (3, self.side, self.side),
            "mean": MEAN,
            "std": STD,
            "batch-size": self.batch,
            "opt": "adamw",
            "lr": 1e-4,
            "min-lr": 0,
            "weight-decay": 0.05,
            "sched": "cosine",
            "epochs": self.epochs,
            "warmup-epochs": 0,
            "scale": (1, 1),
            "ratio": (1, 1),
            "hflip": 0.5,
            "color-jitter": 0,
            "train-interpolation": "bilinear",
            "smoothing": 0,
            "workers": 0,
            "device": "cpu",
            "log-interval": 10_000,
            "checkpoint-hist": 1,
            "output": self.at / "written",
        }
        options = ["--sched-on-updates"]
        for option, value in given.items():
            options += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
        if "--val-interval" in self.file.read_text(encoding="utf-8"):
            options += ["--val-interval", str(self.epochs)]
        own = [f"{key}={value}" for key, value in options_of(self.name, self.side).items()]
        return [*options, *(["--model-kwargs", *own] if own else [])]


def _copy(picture: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, to)
