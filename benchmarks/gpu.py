"""On a GPU, in ten minutes: fine-tuning beside timm's script, feature passes, a probe study, a distilled epoch, the CUDA tests.

    python benchmarks/gpu.py [--timm PATH] [--seconds 570] [--only PART ...]
    python benchmarks/gpu.py --device cpu --tiny          # the same code at a size for any machine, which writes no results

Each part is a process of its own with a limit of its own; what it finds is in results/gpu.json before the next begins, so that a
part that fails or takes too long costs itself alone. Parts that are not reached are named at the end.

Fine-tuning is the preset `finetune` in bf16 on pictures made up, of the side the network wants: the second epoch counts, with
everything in it (batches, augmentation, optimiser, sums). The share is multiply-adds × 2 × 3 a picture, forward and backward,
over the rate of one large bf16 product of matrices measured on the same chip. With `--timm PATH`, a checkout of
pytorch-image-models, each network alone is also trained by timm's own train.py on the same chip: as many pictures of the same
side as JPEG files, bf16, channels last, a worker per processor, flip alone. The mean rate that it prints for its last epoch is
set beside ours; `ratio` says how many times faster ours is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _ours import classifier_of
from _pictures import folder_of
from _sides import RESULTS, versions
from _timm_script import START, script_in
from _usual import MEAN, STD

CLASSES = 10
TESTS = Path(__file__).parents[1] / "tests"
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured: networks and pairs that are fine-tuned, pictures of a side, batch, side of the bf16 product."""

    networks: tuple[tuple[str, ...], ...] = (
        ("resnet50",),
        ("vit_base_patch16_224",),
        ("swin_base_patch4_window7_224",),
        ("resnet50", "efficientnet_b0"),
    )
    teacher: str = "vit_base_patch16_224"
    pictures: int = 4096
    side: int = 224
    batch: int = 128
    folds: int = 10
    seeds: int = 3
    product: int = 8192
    tests: tuple[str, ...] = (str(TESTS),)


TINY = Size(
    (("test_resnet",), ("test_resnet", "test_vit")),
    "test_vit",
    pictures=24,
    side=32,
    batch=8,
    folds=2,
    seeds=2,
    product=64,
    tests=(str(TESTS / "training" / "augmentation" / "test_device_arrays.py"),),
)


@dataclass(frozen=True)
class Bench:
    """Where a part computes. folder: lasts as long as the part · script: timm's train.py · peak: operations a second of bf16"""

    size: Size
    device: Any
    folder: Path
    script: Path | None = None
    peak: float = 0.0


# ------------------------------------------------------------------------------------------------------------------ the parts


def measure_peak(bench: Bench, products: int = 30) -> list[Row]:
    """Operations a second of a square bf16 product, the best of three."""
    import torch

    side = bench.size.product
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(4):
        _wait(bench.device)
        began = time.perf_counter()
        for _ in range(products):
            a @ b
        _wait(bench.device)
        rates.append(2 * side**3 * products / (time.perf_counter() - began))
    return [make_row("one bf16 product of matrices", f"{max(rates[1:]) / 1e12:,.3f} TFLOP/s", peak=max(rates[1:]))]


def fine_tune(bench: Bench, names: tuple[str, ...]) -> list[Row]:
    """Pictures a second of one network, or of a fused pair, and of timm's script."""
    from phoropter.training.costs.classifier_cost import measure_cost

    size, parts = bench.size, [{"backbone": n, "weights": "random", "size": bench.size.side} for n in names]
    candidate = parts[0] if len(parts) == 1 else {"fuse": parts, "mode": "logits"}
    run, speed = train_to_end(make_task(bench, make_pictures(bench), candidate, "finetune"))
    operations = 2 * 3 * (measure_cost(run.model, size.side).macs or 0)
    share = round(speed * operations / bench.peak, 3) if bench.peak else None
    row = make_row(f"fine-tuning {' + '.join(names)} at {size.side} px, batch {size.batch}", rate_words(speed), share=share)
    if bench.script is not None and len(names) == 1:
        folder_of("none", size.pictures, (size.side, size.side), bench.folder / "train")
        folder_of("none", CLASSES, (size.side, size.side), bench.folder / "validation")
        theirs = timm_rate(bench, names[0])
        row |= {"ratio": round(speed / theirs, 3), "theirs": f"{rate_words(theirs)} (timm's train.py)"}
    return [row]


def extract(bench: Bench) -> list[Row]:
    """Pictures a second of the second of two feature passes."""
    from phoropter.training.feature_cache import extract_features

    dataset, pixels = make_pictures(bench)
    rows = []
    for name in dict.fromkeys(names[0] for names in bench.size.networks):
        model = classifier_of(name, pixels.size, dataset.classes).to(bench.device)
        seconds = []
        for turn in range(2):
            began = time.perf_counter()
            extract_features(model, pixels, bench.folder / f"{name} {turn}", bench.device)
            seconds.append(time.perf_counter() - began)
        rows.append(make_row(f"feature pass, {name} at {pixels.size} px", rate_words(len(dataset) / seconds[-1])))
    return rows


def compute_probe_study(bench: Bench) -> list[Row]:
    """Seconds of a whole study: pictures decoded, one pass, folds × seeds heads, run folders."""
    import numpy as np

    import phoropter as ph

    size = bench.size
    count, name = max(size.pictures, CLASSES * size.folds), size.networks[0][0]
    images = np.random.default_rng(0).integers(0, 256, (count, size.side, size.side, 3), dtype=np.uint8)
    np.savez(bench.folder / "pictures.npz", images=images, labels=np.arange(count) % CLASSES)
    study = ph.Study(
        name="probe",
        data={"npz": str(bench.folder / "pictures.npz"), "size": size.side},
        candidates=[{"backbone": name, "weights": "random", "size": size.side, "frozen": True}],
        protocol={"split": "stratified-k-fold", "folds": size.folds, "seeds": list(range(size.seeds))},
        recipe="probe",
    )
    began = time.perf_counter()
    done = len(study.run(bench.folder / "study", device=str(bench.device), quiet=True).runs)
    seconds = time.perf_counter() - began
    if done != size.folds * size.seeds:
        raise SystemExit(f"gpu: {done} of {size.folds * size.seeds} runs of the probe study are there, so its time means nothing")
    words = f"{size.folds} × {size.seeds} probe study of {count:,} pictures at {size.side} px, {name}"
    return [make_row(words, f"{seconds:.1f} s")]


def distil(bench: Bench) -> list[Row]:
    """Pictures a second of a student whose teacher's logits are in the cache, beside those without a teacher."""
    import numpy as np

    from phoropter.models import classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec
    from phoropter.training import fit as room
    from phoropter.training.distillation import Teacher, digest_classifier

    room.check_teacher_accuracy = lambda *_: {}  # type: ignore[attr-defined]  # random weights would fail, and cost the same
    size, student = bench.size, bench.size.networks[0][0]
    common, pictures = {"weights": "random", "size": size.side}, make_pictures(bench)
    plain = make_task(bench, pictures, {"backbone": student, **common}, "cnn-distil")
    entry = {"student": student, "teacher": size.teacher, "loss": "soft", **common}
    taught = make_task(bench, pictures, entry, "cnn-distil")
    spec = BackboneSpec(name=size.teacher, weights="random", size=size.side)
    model = classifier.build_classifier(
        ClassifierSpec(backbones=(spec,), classes=plain.dataset.classes, picture=size.side), seed=0
    )
    teacher = Teacher(size.teacher, digest_classifier(model), lambda: model, np.array([], np.uint64))
    without, with_teacher = train_to_end(plain)[1], train_to_end(replace(taught, teacher=teacher))[1]
    words = f"an epoch of {student} taught by {size.teacher} from the cache, in epochs without a teacher"
    row = make_row(words, f"{rate_words(with_teacher)} with, {rate_words(without)} without")
    return [row | {"ratio": round(without / with_teacher, 3)}]


def run_tests(bench: Bench) -> list[Row]:
    """How many of the CUDA tests pass."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *bench.size.tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout.splitlines()[-1])}
    if not counts:
        raise SystemExit(f"gpu: pytest said '{(done.stdout + done.stderr).strip().splitlines()[-1]}'")
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    return [make_row("the CUDA tests", ", ".join(f"{n} {word}" for word, n in counts.items())) | {"failed": failed}]


# --------------------------------------------------------------------------------------------------------- what they are made of


def make_pictures(bench: Bench) -> tuple[Any, Any]:
    """Pictures of noise in ten classes, as a dataset and its pixels."""
    import numpy as np

    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.sources.arrays import from_arrays

    count, side = bench.size.pictures, bench.size.side
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return prepare_pixels(from_arrays(images, np.arange(count) % CLASSES), side, cache=bench.folder)


def make_task(bench: Bench, pictures: tuple[Any, Any], candidate: dict[str, Any], preset: str) -> Any:
    """A candidate on all pictures for two epochs."""
    import numpy as np

    from phoropter.data.splits.protocol import Split
    from phoropter.training.candidates.candidate_entry import parse_candidates
    from phoropter.training.candidates.presets import parse_recipe
    from phoropter.training.fit import TrainingTask

    dataset, pixels = pictures
    recipe = parse_recipe({"preset": preset, "epochs": 2, "batch_size": bench.size.batch, "precision": "bf16"})
    every = np.arange(len(dataset), dtype=np.int64)
    split = Split(0, 0, 0, 1, "all", every, every[:0])
    return TrainingTask(parse_candidates([candidate], recipe)[0], split, dataset, pixels, bench.device, bench.folder)


def train_to_end(task: Any) -> tuple[Any, float]:
    """The finished run, and the pictures a second of its last epoch."""
    from phoropter.training.fit import fit

    rows: list[Row] = []
    going = fit(task)
    while True:
        try:
            step = next(going)
        except StopIteration as done:
            return done.value, rows[-1]["images_per_s"]
        if isinstance(step, dict):
            rows.append(step)


def timm_rate(bench: Bench, name: str) -> float:
    """Pictures a second in the last epoch of timm's train.py over the JPEG files of a folder with `train` and `validation`."""
    assert bench.script is not None
    side, workers = bench.size.side, os.cpu_count() or 1
    given = {
        **{"data-dir": bench.folder, "model": name, "num-classes": CLASSES, "input-size": (3, side, side)},
        **{"mean": MEAN, "std": STD, "batch-size": bench.size.batch, "opt": "adamw", "lr": 1e-4, "weight-decay": 0.05},
        **{"epochs": 3, "warmup-epochs": 0, "scale": (1, 1), "ratio": (1, 1), "hflip": 0.5, "color-jitter": 0, "smoothing": 0},
        **{"workers": workers, "amp-dtype": "bfloat16", "log-interval": 1, "checkpoint-hist": 1},
        **{"device": bench.device, "output": bench.folder / "written"},
    }
    options = ["--amp", "--channels-last", "--pin-mem"]
    for option, value in given.items():
        options += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    path = os.pathsep.join([str(bench.script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", START, str(bench.script), *options]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    rates = re.findall(r"Train: (\d+) .*?Time: .*?\([\d.]+s, +([\d.]+)/s\)", done.stderr + done.stdout)
    if done.returncode or not rates:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise SystemExit(f"--timm {bench.script.parent}: train.py was expected to train {name} and stopped with '{last}'")
    return float(rates[-1][1])


def make_row(claim: str, ours: str, share: float | None = None, peak: float | None = None) -> Row:
    said = {"claim": claim, "ratio": None, "share": share, "goal": None, "spread": None, "ours": ours, "theirs": None}
    return {**said, **({} if peak is None else {"peak": peak}), "date": datetime.date.today().isoformat(), "versions": versions()}


def rate_words(speed: float) -> str:
    return f"{speed:,.0f} pictures/s"


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------------------- one part after another


def list_parts(size: Size) -> dict[str, tuple[Callable[[Bench], list[Row]], int]]:
    """Name → what it measures, and the seconds it may take; the first is what shares are of."""
    parts: dict[str, tuple[Callable[[Bench], list[Row]], int]] = {"peak": (measure_peak, 40)}
    for names in size.networks:
        parts["+".join(names)] = (lambda bench, names=names: fine_tune(bench, names), 100)  # type: ignore[misc]
    parts |= {"features": (extract, 80), "probe": (compute_probe_study, 90), "distil": (distil, 90), "tests": (run_tests, 200)}
    return parts


def measure_all(asked: argparse.Namespace, size: Size, into: Path) -> list[Row]:
    """Every part in a process of its own, as far as the time allows; writes `into` after each."""
    ends, kept, left_out, peak = time.monotonic() + asked.seconds, [], [], 0.0
    for name, (_, limit) in list_parts(size).items():
        if asked.only and name not in ("peak", *asked.only):
            continue
        found = into.with_suffix(f".{name}.json")
        options = ["--device", asked.device, "--part", name, "--into", str(found), "--peak", str(peak), *["--tiny"] * asked.tiny]
        options += ["--timm", str(asked.timm)] if asked.timm else []
        rest = min(limit, ends - time.monotonic())
        reason = "no time was left"
        if rest > 5:
            reason = run_part([sys.executable, __file__, *options], rest)
        if not found.exists():
            left_out.append(f"{name} ({reason})")
            continue
        rows = json.loads(found.read_text(encoding="utf-8"))
        found.unlink()
        peak = next((row["peak"] for row in rows if "peak" in row), peak)
        for row in rows:
            share = "" if row["share"] is None else f" = {100 * row['share']:.1f} % of {peak / 1e12:,.3g} TFLOP/s"
            ratio = "" if row["ratio"] is None else f" ({row['ratio']:.3f} ×{', ' + row['theirs'] if row['theirs'] else ''})"
            print(f"{row['claim']:70} {row['ours']}{share}{ratio}", flush=True)
        kept += [row | {"bf16_peak_tflops": round(peak / 1e12, 1)} for row in rows]
        into.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"not measured: {', '.join(left_out)}" if left_out else "all parts were measured", flush=True)
    return kept


def run_part(command: list[str], seconds: float) -> str:
    """Runs a part; says why it found nothing, where it did not."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with what it has started, which would hold the GPU's memory
        process.communicate()
        return f"it took more than {seconds:.0f} s"
    return (errors.strip() or out.strip() or "it said nothing").splitlines()[-1]


def compute_part(asked: argparse.Namespace, size: Size) -> None:
    """The side of the process of one part: writes its rows."""
    import torch

    device = torch.device(asked.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, device, Path(folder), script_in(asked.timm) if asked.timm else None, asked.peak)
        rows = list_parts(size)[asked.part][0](bench)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    asked.into.write_text(json.dumps([row | {"machine": machine} for row in rows]), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning, feature passes, studies and tests on a GPU, in ten minutes.")
    parser.add_argument("--timm", type=Path, metavar="PATH", help="a checkout of pytorch-image-models")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try it")
    parser.add_argument("--tiny", action="store_true", help="small networks and few pictures, to try it: writes no results")
    parser.add_argument("--seconds", type=float, default=570.0, help="after which no part begins or goes on")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="of the parts: " + ", ".join(list_parts(Size())))
    for hidden, kind in (("--part", str), ("--into", Path), ("--peak", float)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    size = TINY if asked.tiny else Size()
    if asked.part:
        compute_part(asked, size)
        return
    import torch

    if asked.timm:
        script_in(asked.timm)  # which refuses what it is not
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("gpu: no CUDA device here, so nothing was measured")
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        measure_all(asked, size, Path(aside) / "gpu.json" if asked.tiny else RESULTS / "gpu.json")


if __name__ == "__main__":
    main()
