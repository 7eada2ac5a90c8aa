"""A results folder made through Store alone: candidates of known skill, so that reports can be tested before anything is trained.

Every row has a difficulty and, where there are groups, every group an offset, both shared by all candidates; a candidate is right
with probability sigmoid(logit(accuracy) − difficulty − offset). Wrong answers go to a neighbouring class.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from phoropter.core.seeds import named_generator, seed_of
from phoropter.results.store import Predictions, RunWriter, Store

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FOUR = {
    "resnet18": 0.93,
    "resnet18 + vit_tiny_patch16_224": 0.955,
    "vit_tiny_patch16_224": 0.90,
    "mobilenetv3_small_100 frozen": 0.80,
}


@dataclass(frozen=True)
class Made:
    """What to make: see the fields. `accuracies` maps the name of a candidate to about its accuracy."""

    accuracies: Mapping[str, float] = field(default_factory=lambda: FOUR)
    classes: Sequence[str] = DIGITS
    rows: int = 500
    groups: int = 0
    sites: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1)
    folds: int = 5
    spans: bool = False
    features: int = 0
    collapsed: bool = False
    pictures: int = 4
    external: int = 0
    validation: int = 0
    validation_history: bool = False
    epochs: int = 6
    missing: int = 0
    failed: int = 0
    shuffled: bool = False
    overlap: bool = False
    split: str = ""
    scale: Sequence[str] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics: Sequence[str] = ("accuracy", "macro_f1")
    audit: Sequence[Mapping[str, Any]] | None = None
    audit_pictures: Sequence[str] = ()
    branches: bool = False
    taught: Mapping[str, str] = field(default_factory=dict)
    screening: Sequence[Mapping[str, Any]] = ()
    margin: float | None = None
    contrasts: Sequence[Mapping[str, Any]] = ()
    unit_words: Mapping[str, str] = field(default_factory=dict)
    one_class: bool = False  # of all rows of a group
    positive: str = ""
    study_keys: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    name: str = "digits"
    seed: int = 0


@dataclass(frozen=True)
class World:
    """The rows: ids, labels, groups, sites (each (n,)), and how hard each row is."""

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    difficulty: NDArray[np.float64]
    groups: NDArray[np.str_] | None
    sites: NDArray[np.str_] | None


def make_study(folder: Path, made: Made = Made()) -> Store:
    """Writes the folder; the last `missing` runs of the plan are not there, the `failed` before them left a note."""
    store = Store(folder)
    world = _world(made)
    plan = [
        {
            "key": _key(name, seed, fold, made.seed, str(made.overlap), made.rows, made.folds),
            "candidate": name,
            "seed": seed,
            "repeat": r,
            "fold": fold,
            "folds": made.folds,
            "split": f"repeat {r + 1}, fold {fold + 1} of {made.folds}",
            "n_train": int((_folds(made, world, seed) != fold).sum()),
            "n_test": int((_folds(made, world, seed) == fold).sum()),
            "settings": dict(made.settings.get(name, {})),
        }
        for r, seed in enumerate(made.seeds)
        for fold in range(made.folds)
        for name in made.accuracies
    ]
    store.write_study(_description(made, world, plan))
    if made.audit_pictures:
        (folder / "audit").mkdir()
        RunWriter(folder / "audit").write_pictures({name: _jpeg(name, 0) for name in made.audit_pictures})
    done = len(plan) - made.missing - made.failed
    for item in plan[:done]:
        with store.hold_lease(item["key"]) as mine, store.create_run(item["key"]) as run:
            assert mine
            _write_run(run, made, world, item)
    for item in plan[done : done + made.failed]:
        note = {
            "candidate": item["candidate"],
            "split": item["split"],
            "seed": item["seed"],
            "kind": "DivergedError",
            "trace": [],
        }
        store.record_failure(item["key"], {**note, "error": "the loss left the finite numbers at step 41 of epoch 3"})
    return store


def _write_run(run: RunWriter, made: Made, world: World, item: Mapping[str, Any]) -> None:
    rows = np.flatnonzero(_folds(made, world, item["seed"]) == item["fold"])
    predictions = _predictions(made, world, item, rows)
    run.write_predictions(predictions)
    if made.external:
        outside = _world(made, made.external, "external")
        run.write_predictions(_predictions(made, outside, item, np.arange(made.external)), "external")
    if made.validation:
        inner = _world(made, made.validation, "validation")
        run.write_predictions(_predictions(made, inner, item, np.arange(made.validation)), "validation")
    run.write_history(_history(made, item))
    if made.pictures:
        wrong = np.flatnonzero(predictions.logits.argmax(1) != predictions.labels)
        sure = wrong[np.argsort(-predictions.probabilities.max(1)[wrong], kind="stable")][: made.pictures]
        right = np.flatnonzero(predictions.logits.argmax(1) == predictions.labels)
        right = right[np.argsort(-predictions.probabilities.max(1)[right], kind="stable")]
        _, first = np.unique(predictions.labels[right], return_index=True)
        shown = [*sure, *right[np.sort(first)][: made.pictures]]
        run.write_pictures({str(predictions.ids[i]): _jpeg(str(predictions.ids[i]), int(predictions.labels[i])) for i in shown})
    name = str(item["candidate"])
    scale = 1 + seed_of(name) % 20
    run.write_record(
        {
            "key": item["key"],
            "candidate": {
                "name": name,
                "description": f"{name}: trained everything for {made.epochs} epochs; pretrained",
                "backbones": [{"name": part} for part in name.removesuffix(" frozen").split(" + ")],
                "frozen": name.endswith("frozen"),
            },
            "seed": item["seed"],
            "split": {k: item[k] for k in ("repeat", "fold", "folds", "n_train", "n_test")}
            | {
                "name": item["split"],
                "key": _key("split", item["seed"], item["fold"], made.seed),
                "n_validation": made.validation,
                "n_external": made.external,
            },
            "recipe": {"preset": "finetune", "batch_size": 32, "phases": [{"train": "all", "epochs": made.epochs, "lr": 1e-4}]}
            | dict(made.recipe),
            "classes": list(made.classes),
            "metrics": {"accuracy": float((predictions.logits.argmax(1) == predictions.labels).mean())},
            "settings": dict(made.settings.get(name, {})),
            "cost": {
                "parameters": 1_200_000 * scale,
                "trainable": 1_200_000 * scale,
                "macs": 90_000_000 * scale,
                "train_seconds": 3.1 * scale + 0.1 * item["fold"],
                "predict_seconds": 0.2 * scale,
                "predict_images_per_s": 4000 / scale,
                "peak_memory_bytes": 60_000_000 * scale,
                "epochs": made.epochs,
            },
            "choice": {"epoch": made.epochs, "by": "last"},
            **({"branches": _branches(name, item)} if made.branches and " + " in name else {}),
            **({"distillation": _distillation(made.taught[name], item)} if name in made.taught else {}),
            "digests": {"dataset": "0" * 32, "predictions": "1" * 32},
            "versions": VERSIONS,
            "machine": MACHINE,
            "started": "2026-01-02T03:04:05+00:00",
            "finished": f"2026-01-02T03:{10 + item['fold']:02d}:05+00:00",
        }
    )


def _branches(name: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first branch is worth something, the others nothing."""
    fused = 0.9 + 0.01 * item["fold"]
    return [
        {"name": part, "accuracy": 0.8 + 0.02 * item["fold"], "without": fused - (0.1 if i == 0 else 0.0), "fused": fused}
        for i, part in enumerate(name.split(" + "))
    ]


def _distillation(teacher: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """As study/records/run_record.py writes it: teacher logits computed in the first fold and cached in the others."""
    fold = int(item["fold"])
    check = {"accuracy": 0.9 + 0.013 * fold, "chance": 0.3 + 0.002 * fold, "rows": 200}
    return {"teacher": teacher, "accuracy_check": check, "seconds": 0.25 if fold else 8.0, "bytes": 3_000_000 + 40_000 * fold}


def _world(made: Made, rows: int | None = None, part: str = "internal") -> World:
    rows = rows or made.rows
    rng = named_generator(made.seed, "world", part)
    labels = rng.permutation(np.arange(rows) % len(made.classes)).astype(np.int64)
    groups = sites = None
    difficulty = rng.normal(0, 1, rows)
    if made.groups:
        member = rng.integers(0, made.groups, rows)
        groups = np.array([f"{part[0]}{g + 1:02d}" for g in range(made.groups)])[member]
        difficulty += rng.normal(0, 0.8, made.groups)[member]
        labels = rng.permutation(np.arange(made.groups) % len(made.classes))[member] if made.one_class else labels
        if made.sites:
            sites = np.array([made.sites[g % len(made.sites)] for g in range(made.groups)])[member]
    elif made.sites:
        sites = np.array(made.sites)[rng.integers(0, len(made.sites), rows)]
    ids = np.array([f"{part}/{i:05d}.png" for i in range(rows)])
    return World(ids, labels, difficulty, groups, sites)


def _folds(made: Made, world: World, seed: int) -> NDArray[np.int64]:
    """(n,) the fold each row is tested in; groups stay together."""
    rng = named_generator(made.seed, "folds", seed)
    if world.groups is None or made.overlap:
        return np.asarray(rng.permutation(np.arange(len(world.ids)) % made.folds))
    names, member = np.unique(world.groups, return_inverse=True)
    return np.asarray(rng.permutation(np.arange(len(names)) % made.folds)[member])


def _predictions(made: Made, world: World, item: Mapping[str, Any], rows: NDArray[np.int64]) -> Predictions:
    name, classes = str(item["candidate"]), len(made.classes)
    rng = named_generator(made.seed, "answers", name, int(item["seed"]), int(item["fold"]), len(world.ids))
    labels = world.labels[rows]
    if made.shuffled:
        answer = rng.integers(0, classes, len(rows))
    else:
        p = made.accuracies[name]
        right = rng.random(len(rows)) < 1 / (1 + np.exp(-1.25 * np.log(p / (1 - p)) + world.difficulty[rows]))
        answer = np.where(right, labels, (labels + rng.integers(1, min(3, classes), len(rows))) % classes)
    logits = rng.normal(0, 1, (len(rows), classes))
    logits[np.arange(len(rows)), answer] = logits.max(1) + rng.gamma(2.0, 1.2, len(rows))
    features = None
    if made.features:
        centres = named_generator(made.seed, "centres").normal(0, 1, (classes, made.features))
        features = (centres[answer] + rng.normal(0, 0.7, (len(rows), made.features))).astype(np.float16) * (not made.collapsed)
    return Predictions(
        ids=world.ids[rows],
        labels=labels,
        logits=logits.astype(np.float32),
        groups=None if world.groups is None else world.groups[rows],
        sites=None if world.sites is None else world.sites[rows],
        spans=np.stack([rows * 2.0, rows * 2.0 + 5.0], 1) if made.spans else None,
        features=features,
    )


def _history(made: Made, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    rng = named_generator("history", str(item["candidate"]), int(item["seed"]), int(item["fold"]))
    top = made.accuracies[str(item["candidate"])]
    return [
        {
            "epoch": e,
            "phase": "all",
            "learning_rate": 1e-4 * (1 - (e - 1) / made.epochs),
            "train_loss": float(2.2 * np.exp(-e / 2) + 0.1 + rng.normal(0, 0.02)),
            "train_accuracy": float(min(1.0, top * (1 - 0.6 * np.exp(-e / 1.5)) + rng.normal(0, 0.006))),
            "seconds": 1.5,
            "images_per_s": 260.0,
            **(
                {
                    "validation_loss": float(1.9 * np.exp(-e / 2.2) + 0.2 + rng.normal(0, 0.02)),
                    "validation_accuracy": float(top * (1 - 0.5 * np.exp(-e / 1.5)) + rng.normal(0, 0.006)),
                }
                if made.validation_history
                else {}
            ),
        }
        for e in range(1, made.epochs + 1)
    ]


def _description(made: Made, world: World, plan: list[dict[str, Any]]) -> dict[str, Any]:
    counts = [int((world.labels == i).sum()) for i in range(len(made.classes))]
    return {
        "name": made.name,
        "study": {
            "name": made.name,
            "data": {"folder": "pictures"},
            "protocol": {
                "split": made.split or ("group-k-fold" if made.groups else "stratified-k-fold"),
                "folds": made.folds,
                "seeds": list(made.seeds),
                "allow_group_overlap": made.overlap,
            },
            "recipe": {"preset": "finetune"},
            "candidates": list(made.accuracies),
            "sweep": {},
            "metrics": list(made.metrics),
            **made.study_keys,
            **({"equivalence_margin": made.margin} if made.margin else {}),
            **({"about": {"source": "made up", "published": dict(made.published)}} if made.published else {}),
        },
        "text": f"name: {made.name}\ndata: {{folder: pictures}}\nprotocol: {{split: stratified-k-fold, folds: {made.folds}}}\n",
        "scale": None if made.scale is None else list(made.scale),
        "dataset": {
            "name": made.name,
            "fingerprint": hashlib.blake2b(repr(made.seed).encode(), digest_size=16).hexdigest(),
            "rows": made.rows,
            "classes": list(made.classes),
            "counts": counts,
            "positive": made.positive or None,
            "groups": made.groups or None,
            "sites": list(made.sites) or None,
            **made.unit_words,
            "size": 32,
            "notes": ["Made by the tests; no such pictures exist."],
            "problems": [],
        },
        "plan": plan,
        **({"audit": list(made.audit)} if made.audit is not None else {}),
        **({"screening": list(made.screening)} if made.screening else {}),
        **({"contrasts": list(made.contrasts)} if made.contrasts else {}),
        "versions": VERSIONS,
        "machine": MACHINE,
        "command": f"phoropter run {made.name}.yaml",
    }


def _key(*names: str | int) -> str:
    return hashlib.blake2b(repr(names).encode(), digest_size=16).hexdigest()


def _jpeg(name: str, label: int) -> bytes:
    """64 × 64, a digit over a tint of its own."""
    tint = seed_of(name)
    image = Image.new("RGB", (64, 64), (60 + tint % 120, 60 + tint // 7 % 120, 60 + tint // 49 % 120))
    ImageDraw.Draw(image).text((22, 8), str(label), fill=(250, 245, 230), font_size=44)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return file.getvalue()


VERSIONS = {"phoropter": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "timm": "1.0.28", "numpy": "2.4.6"}
MACHINE = {"processor": "a made-up processor", "cores": 2, "memory_gib": 23.4, "device": "cpu", "system": "Linux"}
