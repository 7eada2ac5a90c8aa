"""On a GPU: how much of its rate in bf16 fine-tuning reaches, features a second, and a whole 10 × 3 probe study.

    python benchmarks/gpu.py [--timm PATH]

Fine-tuning is the preset `finetune` in bf16 on pictures made up, of the side the network wants: the second epoch counts, with
everything in it (batches, augmentation, optimiser, sums). The share is multiply-adds × 2 × 3 a picture, forward and backward,
over the rate of one large bf16 product of matrices measured beside it on the same chip. Without a CUDA device it says so.
`share` is that share, or absent.

With `--timm PATH`, a checkout of pytorch-image-models, each network alone is also trained by timm's own train.py on the same
chip: as many pictures of the same side as JPEG files, bf16, channels last, a worker per processor, flip alone. The mean rate that
it prints for its last epoch is set beside ours; `ratio` says how many times faster ours is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _pictures import folder_of
from _sides import RESULTS, versions
from _timm_script import START, script_in
from _usual import MEAN, STD

FINETUNED: tuple[tuple[str, ...], ...] = (
    ("resnet50",),
    ("vit_base_patch16_224",),
    ("swin_base_patch4_window7_224",),
    ("resnet50", "efficientnet_b0"),
)
CLASSES = 10


def peak_rate(device: Any, side: int = 8192, products: int = 30) -> float:
    """Operations a second of a square bf16 product, the best of three."""
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(4):
        _wait(device)
        began = time.perf_counter()
        for _ in range(products):
            a @ b
        _wait(device)
        rates.append(2 * side**3 * products / (time.perf_counter() - began))
    return max(rates[1:])


def made_up(count: int, side: int, folder: Path) -> tuple[Any, Any]:
    """`count` pictures of noise in ten classes, as a dataset and its pixels."""
    import numpy as np

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.sources.arrays import from_arrays

    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return prepare_pixels(from_arrays(images, np.arange(count) % CLASSES), side, cache=folder)


def finetuning(names: tuple[str, ...], material: tuple[Any, Any], batch: int, folder: Path, device: Any) -> tuple[float, float]:
    """(pictures a second in the second epoch, operations a picture)."""
    import numpy as np

    from phoropter.data.splits.protocol import Split
    from phoropter.training.candidates.candidate_entry import parse_candidates
    from phoropter.training.candidates.presets import parse_recipe
    from phoropter.training.costs.classifier_cost import measure_cost
    from phoropter.training.fit import TrainingTask, fit
    from phoropter.training.loop.training_loop import StepProgress

    dataset, pixels = material
    parts = [{"backbone": name, "weights": "random", "size": pixels.size} for name in names]
    candidate: dict[str, Any] = parts[0] if len(parts) == 1 else {"fuse": parts, "mode": "logits"}
    recipe = parse_recipe({"preset": "finetune", "epochs": 2, "batch_size": batch, "precision": "bf16"})
    every = np.arange(len(dataset), dtype=np.int64)
    split = Split(0, 0, 0, 1, "all", every, every[:0])
    going = fit(TrainingTask(parse_candidates([candidate], recipe)[0], split, dataset, pixels, device, folder))
    rows: list[dict[str, Any]] = []
    while True:
        try:
            step = next(going)
        except StopIteration as done:
            macs = measure_cost(done.value.model, pixels.size).macs or 0
            return rows[-1]["images_per_s"], 2 * 3 * macs
        if not isinstance(step, StepProgress):
            rows.append(step)


def timm_rate(script: Path, name: str, folder: Path, side: int, batch: int) -> float:
    """Pictures a second in the last epoch of timm's train.py over the JPEG files of a folder with `train` and `validation`."""
    given = {
        **{"data-dir": folder, "model": name, "num-classes": CLASSES, "input-size": (3, side, side), "mean": MEAN, "std": STD},
        **{"batch-size": batch, "opt": "adamw", "lr": 1e-4, "weight-decay": 0.05, "epochs": 3, "warmup-epochs": 0},
        **{"scale": (1, 1), "ratio": (1, 1), "hflip": 0.5, "color-jitter": 0, "smoothing": 0, "workers": os.cpu_count() or 1},
        **{"amp-dtype": "bfloat16", "log-interval": 1, "checkpoint-hist": 1, "output": folder / "written"},
    }
    options = ["--amp", "--channels-last", "--pin-mem"]
    for option, value in given.items():
        options += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", START, str(script), *options]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    rates = re.findall(r"Train: (\d+) .*?Time: .*?\([\d.]+s, +([\d.]+)/s\)", done.stderr + done.stdout)
    if done.returncode or not rates:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise SystemExit(f"--timm {script.parent}: train.py was expected to train {name} and stopped with '{last}'")
    return float(rates[-1][1])


def feature_pass(name: str, material: tuple[Any, Any], folder: Path, device: Any) -> float:
    """Pictures a second of the second of two passes."""
    import torch

    from phoropter.models import classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec
    from phoropter.training.feature_cache import extract_features

    dataset, pixels = material
    backbone = BackboneSpec(name=name, weights="random", size=pixels.size)
    model = classifier.build_classifier(
        ClassifierSpec(backbones=(backbone,), classes=dataset.classes, picture=pixels.size), seed=0
    )
    model = model.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
    seconds = []
    for turn in range(2):
        began = time.perf_counter()
        extract_features(model, pixels, folder / f"{name} {turn}", device)
        seconds.append(time.perf_counter() - began)
    return len(dataset) / seconds[-1]


def probe_study(name: str, count: int, side: int, folds: int, seeds: int, folder: Path, device: str) -> float:
    """Seconds of a whole study: pictures decoded, one pass, folds × seeds heads, run folders."""
    import numpy as np

    import phoropter as ph

    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    np.savez(folder / "pictures.npz", images=images, labels=np.arange(count) % CLASSES)
    study = ph.Study(
        name="probe",
        data={"npz": str(folder / "pictures.npz"), "size": side},
        candidates=[{"backbone": name, "weights": "random", "size": side, "frozen": True}],
        protocol={"split": "stratified-k-fold", "folds": folds, "seeds": list(range(seeds))},
        recipe="probe",
    )
    began = time.perf_counter()
    done = len(study.run(folder / "study", device=device, quiet=True).runs)
    seconds = time.perf_counter() - began
    if done != folds * seeds:
        raise SystemExit(f"gpu: {done} of {folds * seeds} runs of the probe study are there, so its time means nothing")
    return seconds


def measured(device: Any, finetuned: tuple[tuple[str, ...], ...], count: int, side: int, batch: int, peak: float) -> list[Any]:
    """The rows of the results, computed on a device."""
    rows = []
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        material = made_up(count, side, folder)
        for names in finetuned:
            speed, operations = finetuning(names, material, batch, folder, device)
            share = round(speed * operations / peak, 3)
            rows.append(_row(f"fine-tuning {' + '.join(names)} at {side} px, batch {batch}", share, f"{speed:,.0f} pictures/s"))
        for name in dict.fromkeys(names[0] for names in finetuned):
            rows.append(
                _row(
                    f"feature pass, {name} at {side} px", None, f"{feature_pass(name, material, folder, device):,.0f} pictures/s"
                )
            )
    return rows


def _row(claim: str, share: float | None, ours: str) -> dict[str, Any]:
    said = {"claim": claim, "ratio": None, "share": share, "goal": None, "spread": None, "ours": ours, "theirs": None}
    return {**said, "date": datetime.date.today().isoformat(), "versions": versions()}


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def beside_timm(rows: list[dict[str, Any]], script: Path, count: int, side: int, batch: int) -> None:
    """Sets timm's figure beside ours in the rows of fine-tuned networks."""
    with tempfile.TemporaryDirectory() as at:
        folder_of("none", count, (side, side), Path(at) / "train")
        folder_of("none", CLASSES, (side, side), Path(at) / "validation")
        for names in FINETUNED:
            if len(names) > 1:
                continue
            (row,) = (r for r in rows if r["claim"].startswith(f"fine-tuning {names[0]} at"))
            theirs = timm_rate(script, names[0], Path(at), side, batch)
            ours = float(row["ours"].split()[0].replace(",", ""))
            row |= {"ratio": round(ours / theirs, 3), "theirs": f"{theirs:,.0f} pictures/s (timm's train.py)"}
            print(f"{row['claim']}: {row['ours']} against {row['theirs']}: {row['ratio']:.2f} ×", flush=True)


def main(arguments: list[str] | None = None) -> None:
    import torch

    parser = argparse.ArgumentParser(description="Fine-tuning, feature passes and a probe study on a GPU.")
    parser.add_argument("--timm", type=Path, metavar="PATH", help="a checkout of pytorch-image-models")
    asked = parser.parse_args(arguments)
    script = script_in(asked.timm) if asked.timm else None
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here, so nothing was measured")
        return
    device = torch.device("cuda")
    peak = peak_rate(device)
    rows = measured(device, FINETUNED, count=4096, side=224, batch=128, peak=peak)
    with tempfile.TemporaryDirectory() as at:
        seconds = probe_study("resnet50", 4096, 224, 10, 3, Path(at), "cuda")
    rows.append(_row("10 × 3 probe study of 4,096 pictures at 224 px, resnet50", None, f"{seconds:.1f} s"))
    if script:
        beside_timm(rows, script, 4096, 224, 128)
    for r in rows:
        r |= {"machine": torch.cuda.get_device_name(device), "bf16_peak_tflops": round(peak / 1e12, 1)}
        share = "" if r["share"] is None else f" = {100 * r['share']:.1f} % of {peak / 1e12:,.0f} TFLOP/s"
        print(f"{r['claim']:70} {r['ours']}{share}", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
