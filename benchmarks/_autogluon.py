"""AutoGluon MultiModal as the other side of a training from files; _autogluon_fit.py says what it is told.

It needs other versions of much than phoropter does, and so an environment of its own (`pip install autogluon.multimodal` in one),
whose Python is named. Processor seconds of the whole process are counted, its imports and its table of networks with them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from _sides import run_counted

FIT = Path(__file__).parent / "_autogluon_fit.py"


@dataclass(frozen=True)
class AutoGluon:
    """One network trained by AutoGluon, with the Python of its environment. at: a folder for what it writes"""

    python: Path
    name: str
    side: int
    batch: int
    at: Path
    epochs: int

    def spend_on(self, pictures: Path) -> float:
        """Processor seconds of training on a folder with the parts `train` and `validation`. Raises SystemExit where it fails."""
        words = (FIT, pictures, self.name, self.side, self.batch, self.epochs, self.at / "written")
        done, seconds = run_counted([self.python, *map(str, words)], env=os.environ | {"HF_HUB_OFFLINE": "1"}, cwd=pictures)
        shutil.rmtree(self.at / "written", ignore_errors=True)
        if done.returncode:
            last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise SystemExit(
                f"--autogluon {self.python}: expected to train {self.name} and stopped with '{last}'; give the Python of an "
                "environment with autogluon.multimodal, or leave --autogluon out"
            )
        return seconds
