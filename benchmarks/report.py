"""The report over 1,200 runs × 3,000 predictions: under 12 s and under 1 GiB.

8 backbones × 5 augmentations × 10 folds × 3 seeds, 30,000 pictures in 10 classes, once as pictures by themselves (30,000
independent units) and once of 300 people (300). The folder is made here through Store alone, with the history, the record and the
pictures of mistakes a run leaves, and taken away at the end. Then `phoropter report` is run on it in a process of its own, from a
cold interpreter to the last file written, with all cores; its time on the wall, its processor time and its peak memory are
reported. There is no other side: the ratio is the limit over what was measured, so that 1 is the goal.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from _sides import THREADS, figure, machine, one_thread, versions, write
from phoropter.core.seeds import named_generator
from phoropter.results.store import Predictions, Store

BACKBONES = ("alexnet", "vgg19", "resnet50", "efficientnet_b0", "vit_base", "deit_base", "swin_base", "coatnet_0")
AUGMENTS = ("none", "cutout", "slit-cutout", "cutmix", "slit-cutmix")
FOLDS, SEEDS, ROWS, PEOPLE = 10, (0, 1, 2), 30_000, 300
CLASSES = tuple(f"class {i}" for i in range(10))
LIMIT_S, LIMIT_BYTES, TURNS = 12.0, 2**30, 3


def make(folder: Path, grouped: bool) -> Store:
    """A results folder as `run` leaves it."""
    store = Store(folder)
    labels = np.arange(ROWS, dtype=np.int64) % len(CLASSES)
    ids = np.array([f"photographs/{i:06d}.jpg" for i in range(ROWS)])
    people = np.array([f"person {i:03d}" for i in range(PEOPLE)])[named_generator(0, "people").integers(0, PEOPLE, ROWS)]
    plan = list(_plan())
    store.write_study(
        {
            "name": "large",
            "study": {
                "name": "large",
                "data": {"folder": "photographs"},
                "protocol": {"split": "stratified-k-fold", "folds": FOLDS, "seeds": list(SEEDS)},
                "candidates": list(BACKBONES),
                "sweep": {"recipe.augment": list(AUGMENTS)},
                "metrics": ["accuracy", "macro_f1"],
            },
            "text": "name: large\n",
            "scale": None,
            "dataset": {
                "name": "large",
                "fingerprint": "0" * 32,
                "rows": ROWS,
                "classes": list(CLASSES),
                "problems": [],
                "notes": [],
            }
            | {"counts": [ROWS // 10] * 10, "groups": PEOPLE if grouped else None, "sites": None, "size": 224},
            "plan": plan,
            "versions": versions(),
            "machine": {
                "processor": machine(),
                "cores": os.cpu_count(),
                "memory_gib": 8,
                "device": "cpu",
                "system": sys.platform,
            },
            "command": "phoropter run large.yaml",
        }
    )
    for item in plan:
        fold_of = named_generator(0, "folds", item["seed"]).permutation(PEOPLE if grouped else ROWS) % FOLDS
        rows = np.flatnonzero((fold_of[np.unique(people, return_inverse=True)[1]] if grouped else fold_of) == item["fold"])
        _write(store, item, rows, ids, labels, people if grouped else None)
    return store


def _plan() -> Iterator[dict[str, Any]]:
    for seed in SEEDS:
        for fold in range(FOLDS):
            for backbone in BACKBONES:
                for augment in AUGMENTS:
                    name = f"{backbone} · augment {augment}"
                    key = f"{abs(int(named_generator(0, name, seed, fold).integers(0, 2**63))):032x}"
                    where = {"repeat": 0, "fold": fold, "folds": FOLDS, "split": f"fold {fold + 1}, seed {seed}"}
                    sizes = {"n_train": ROWS - ROWS // FOLDS, "n_test": ROWS // FOLDS}
                    yield {"key": key, "candidate": name, "seed": seed, **where, **sizes, "settings": {"recipe.augment": augment}}


def _write(store: Store, item: dict[str, Any], rows: Any, ids: Any, labels: Any, people: Any) -> None:
    draw = named_generator(1, item["key"])
    quality = (
        1.5 + (BACKBONES.index(item["candidate"].partition(" · ")[0]) + AUGMENTS.index(item["settings"]["recipe.augment"])) / 8
    )
    logits = draw.normal(0, 1, (len(rows), len(CLASSES))).astype(np.float32)
    logits[np.arange(len(rows)), labels[rows]] += np.float32(quality)
    with store.create_run(item["key"]) as run:
        run.write_predictions(Predictions(ids[rows], labels[rows], logits, None if people is None else people[rows]))
        run.write_history(
            {
                "epoch": e,
                "phase": "all",
                "learning_rate": 1e-4,
                "train_loss": 2 / e,
                "train_accuracy": 1 - 0.5 / e,
                "seconds": 1.0,
            }
            for e in range(1, 11)
        )
        wrong = np.flatnonzero(logits.argmax(1) != labels[rows])[:12]
        run.write_pictures({str(name): _PICTURE for name in ids[rows][wrong]})
        backbone = item["candidate"].partition(" · ")[0]
        run.write_record(
            {
                "key": item["key"],
                "candidate": {
                    "name": item["candidate"],
                    "description": backbone,
                    "backbones": [{"name": backbone}],
                    "frozen": False,
                },
                "settings": item["settings"],
                "seed": item["seed"],
                "split": {k: item[k] for k in ("repeat", "fold", "folds", "n_train", "n_test")}
                | {"name": item["split"], "key": "0" * 32, "n_validation": 0, "n_external": 0},
                "recipe": {"preset": "finetune", "batch_size": 32, "phases": [{"train": "all", "epochs": 10, "lr": 1e-4}]},
                "classes": list(CLASSES),
                "metrics": {},
                "cost": {"parameters": 25e6, "trainable": 25e6, "macs": 4e9, "train_seconds": 60.0, "predict_seconds": 1.0}
                | {"predict_images_per_s": 3000.0, "peak_memory_bytes": 10**9, "epochs": 10},
                "choice": {"epoch": 10, "by": "last"},
                "digests": {"dataset": "0" * 32, "predictions": "1" * 32},
                "versions": versions(),
                "machine": {"processor": "made up", "cores": 2, "memory_gib": 8, "device": "cpu", "system": "Linux"},
                "started": "2026-01-02T03:04:05+00:00",
                "finished": "2026-01-02T03:14:05+00:00",
            }
        )


def _jpeg() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(named_generator(0, "picture").integers(0, 256, (8, 8, 3)).astype(np.uint8)).resize((112, 112)).save(
        buffer, "JPEG"
    )
    return buffer.getvalue()


_PICTURE = _jpeg()


def reported(folder: Path) -> dict[str, float]:
    """`phoropter report` in a process of its own: seconds on the wall, of the processor, and peak bytes."""
    code = "import sys; from phoropter.cli import main; main(['report', sys.argv[1]])"
    every_core = {name: value for name, value in os.environ.items() if name not in THREADS}
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.DEVNULL, env=every_core)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the report ended with {child.returncode}")
    seconds = time.perf_counter() - began
    return {"wall": seconds, "processor": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * 1024}


def rows_of(name: str, turns: list[dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Time and memory, each as the limit over what was measured."""
    for what, key, limit, unit, size in (
        ("processor time", "processor", LIMIT_S, "s", 1),
        ("time on the wall", "wall", LIMIT_S, "s", 1),
        ("peak memory", "bytes", LIMIT_BYTES, "MiB", 2**20),
    ):
        claim = f"report over 1,200 runs × 3,000 predictions, {name}: {what}"
        ours = f"{statistics.median(t[key] for t in turns) / size:,.1f} {unit}"
        yield figure(claim, [limit / t[key] for t in turns], 1.0, ours, f"limit {limit / size:,.0f} {unit}")


if __name__ == "__main__":
    one_thread(__file__)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, grouped in (("30,000 independent pictures", False), ("300 people", True)):
            folder = Path(temporary) / ("people" if grouped else "pictures")
            make(folder, grouped)
            reported(folder)  # the first reading also warms the disk's cache
            found += rows_of(name, [reported(folder) for _ in range(TURNS)])
    write("report", found)
