"""Every key that a candidate accepts acts: changing it changes what is trained, how, or the answers; else it is refused.

Tiny networks of one convolution are trained on 60 digits for two epochs, once as a base and once for each changed key. The table
of changes is complete: a key that is added to a spec fails here until it has a change of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from phoropter.core.errors import SpecError
from phoropter.core.files import digest, digest_array
from phoropter.core.spec import Spec
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.classifier import save_classifier
from phoropter.models.spec import Backbone, BackboneSpec, FusionSpec, HeadSpec
from phoropter.training.candidates.candidate import Candidate, DistillationSpec
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.entry import CandidateEntry
from phoropter.training.candidates.fine_tuning.lora_spec import LoraSpec
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import ImbalanceSpec, LossSpec, OptimizerSpec, Recipe, ScheduleSpec
from phoropter.training.fit import TrainedRun, TrainingTask, predict_rows
from phoropter.training.train import train_candidate

torch.set_num_threads(1)
CPU = torch.device("cpu")


def build_small(stride: int = 4) -> nn.Module:
    """(B, 3, s, s) → (B, 6, …) map."""
    return nn.Sequential(nn.Conv2d(3, 6, 5, stride=stride), nn.BatchNorm2d(6), nn.ReLU())


SMALL = Backbone("small", build=build_small, width=6)
OTHER = Backbone("other", build=build_small, width=6)
STUDY = {"preset": "finetune", "epochs": 2, "batch_size": 8, "lr": 0.01}
HEADS = {"preset": "probe", "epochs": 2, "batch_size": 8, "lr": 0.05}
KINDS: dict[str, dict[str, Any]] = {
    "trained": {"backbone": SMALL, "recipe": STUDY},
    "frozen": {"backbone": SMALL, "frozen": True, "recipe": HEADS},
    "solved": {"backbone": SMALL, "frozen": True, "recipe": {"preset": "logistic"}},
    "fused": {"fuse": [SMALL, OTHER], "recipe": STUDY},
    "concatenated": {"fuse": [SMALL, OTHER], "mode": "concat", "recipe": STUDY},
    "frozen fusion": {"fuse": [SMALL, OTHER], "frozen": True, "recipe": HEADS},
    "solved fusion": {"fuse": [SMALL, OTHER], "frozen": True},
    "solved concatenation": {"fuse": [SMALL, OTHER], "mode": "concat", "frozen": True},
    "ensemble": {"fuse": [SMALL, OTHER], "mode": "ensemble", "recipe": STUDY},
    "warm": {"fuse": [SMALL, OTHER], "warm_start": True, "recipe": STUDY},
    "student": {"student": SMALL, "teacher": OTHER, "recipe": STUDY, "alpha": 0.6},
}
# Key of a spec → changes, each (what both have, what the changed one has besides); of a recipe inside `recipe`.
ENTRY: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "size": [({}, {"size": 24})],
    "mean": [({}, {"mean": [0.1, 0.2, 0.3]})],
    "std": [({}, {"std": [0.1, 0.2, 0.3]})],
    "options": [({}, {"options": {"stride": 3}})],
    "seed": [({}, {"seed": 3})],
    "frozen": [({}, {"frozen": True})],
    "head": [({}, {"head": "dense"}), ({}, {"head": {"kind": "linear", "dropout": 0.5}})],
    "HeadSpec.hidden": [({"head": "dense"}, {"head": {"kind": "dense", "hidden": 9}})],
    "HeadSpec.dropout": [({"head": "dense"}, {"head": {"kind": "dense", "dropout": 0.5}})],
    "HeadSpec.dropout_at": [
        ({"head": {"kind": "dense", "dropout": 0.5}}, {"head": {"kind": "dense", "dropout": 0.5, "dropout_at": "hidden"}})
    ],
    "mode": [({}, {"mode": "concat"})],
    "start": [({}, {"start": "random"})],
    "hidden": [({}, {"hidden": 7})],
    "dropout": [({}, {"dropout": 0.5})],
    "aux_loss_weight": [({}, {"aux_loss_weight": 2.0})],
    "warm_start": [({}, {"warm_start": True})],
    "loss": [({}, {"loss": word}) for word in ("soft", "hard+soft", "token")],
    "alpha": [({}, {"alpha": 0.2})],
    "temperature": [({"loss": "soft"}, {"temperature": 5.0}), ({}, {"temperature": 5.0})],
    "teacher_views": [({}, {"teacher_views": word}) for word in ("cycled", "unaugmented")],
    "n_teacher_views": [({"teacher_views": "cycled"}, {"n_teacher_views": 1}), ({}, {"n_teacher_views": 1})],
}
RECIPE: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "preset": [({}, {"preset": "sonic"})],
    "phases": [({}, {"phases": [{"train": "all", "epochs": 1, "lr": 0.02}]})],
    "Phase.train": [
        ({"phases": [{"epochs": 2, "lr": 0.02}]}, {"phases": [{"train": "head", "epochs": 2, "lr": 0.02}]}),
        ({"phases": [{"epochs": 2, "lr": 0.02}]}, {"phases": [{"train": "last-1", "epochs": 2, "lr": 0.02}]}),
    ],
    "Phase.epochs": [({"phases": [{"epochs": 2, "lr": 0.02}]}, {"phases": [{"epochs": 1, "lr": 0.02}]})],
    "Phase.lr": [({"phases": [{"epochs": 2, "lr": 0.02}]}, {"phases": [{"epochs": 2, "lr": 0.03}]})],
    "Phase.head_lr": [({"phases": [{"epochs": 2, "lr": 0.02}]}, {"phases": [{"epochs": 2, "lr": 0.02, "head_lr": 0.2}]})],
    "Phase.branch_lr": [
        ({"phases": [{"epochs": 2, "lr": 0.02}]}, {"phases": [{"epochs": 2, "lr": 0.02, "branch_lr": {"small": 0.2}}]})
    ],
    "optimizer": [({}, {"optimizer": "sgd"}), ({}, {"optimizer": "adam"})],
    "OptimizerSpec.kind": [({}, {"optimizer": "sgd"})],
    "OptimizerSpec.weight_decay": [({}, {"optimizer": {"weight_decay": 0.5}})],
    "OptimizerSpec.momentum": [
        ({"optimizer": "sgd"}, {"optimizer": {"kind": "sgd", "momentum": 0.5}}),
        ({}, {"optimizer": {"momentum": 0.5}}),
        ({"schedule": "one-cycle", "optimizer": "sgd"}, {"optimizer": {"kind": "sgd", "momentum": 0.5}}),
    ],
    "OptimizerSpec.nesterov": [({"optimizer": "sgd"}, {"optimizer": {"kind": "sgd", "nesterov": True}})],
    "OptimizerSpec.betas": [
        ({}, {"optimizer": {"betas": [0.9, 0.5]}}),
        ({"optimizer": "sgd"}, {"optimizer": {"kind": "sgd", "betas": [0.9, 0.5]}}),
        ({"schedule": "one-cycle"}, {"optimizer": {"betas": [0.5, 0.999]}}),
    ],
    "OptimizerSpec.decay_norms": [
        ({"optimizer": {"weight_decay": 0.5}}, {"optimizer": {"weight_decay": 0.5, "decay_norms": True}})
    ],
    "schedule": [({}, {"schedule": "constant"})],
    "ScheduleSpec.kind": [({}, {"schedule": "one-cycle"})],
    "ScheduleSpec.warmup": [({}, {"schedule": {"warmup": 0.6}})],
    "ScheduleSpec.warmup_steps": [({}, {"schedule": {"warmup_steps": 7}})],
    "ScheduleSpec.min_lr_ratio": [
        ({}, {"schedule": {"min_lr_ratio": 0.7}}),
        ({"schedule": "constant"}, {"schedule": {"kind": "constant", "min_lr_ratio": 0.7}}),
    ],
    "ScheduleSpec.planned_epochs": [({}, {"schedule": {"planned_epochs": 50}})],
    "ScheduleSpec.pct_start": [({"schedule": "one-cycle"}, {"schedule": {"kind": "one-cycle", "pct_start": 0.6}})],
    "ScheduleSpec.step_size": [({"schedule": "step"}, {"schedule": {"kind": "step", "step_size": 1}})],
    "ScheduleSpec.gamma": [
        ({"schedule": {"kind": "step", "step_size": 1}}, {"schedule": {"kind": "step", "step_size": 1, "gamma": 0.5}})
    ],
    "loss": [({}, {"loss": "focal"})],
    "LossSpec.kind": [({}, {"loss": "focal"})],
    "LossSpec.gamma": [({"loss": "focal"}, {"loss": {"kind": "focal", "gamma": 5.0}}), ({}, {"loss": {"gamma": 5.0}})],
    "LossSpec.smoothing": [({}, {"loss": {"smoothing": 0.3}})],
    "LossSpec.class_weights": [({}, {"loss": {"class_weights": {"3": 4.0}}})],
    "batch_size": [({}, {"batch_size": 12})],
    "grad_accum_steps": [({}, {"grad_accum_steps": 2})],
    "grad_clip": [({}, {"grad_clip": 1e-3})],
    "augment": [({}, {"augment": "vflip"})],
    "center_crop": [({}, {"center_crop": 16})],
    "tta": [({}, {"tta": "flip"})],
    "imbalance": [({}, {"imbalance": {"undersample": 0.5}})],
    "ImbalanceSpec.undersample": [({}, {"imbalance": {"undersample": 0.5}})],
    "ImbalanceSpec.resample_each_epoch": [
        ({"imbalance": {"undersample": 0.5}}, {"imbalance": {"undersample": 0.5, "resample_each_epoch": True}})
    ],
    "ImbalanceSpec.n_bags": [({"imbalance": {"undersample": 0.5}}, {"imbalance": {"undersample": 0.5, "n_bags": 2}})],
    "ImbalanceSpec.stratified_batches": [({}, {"imbalance": {"stratified_batches": True}})],
    "ema": [({}, {"ema": 0.9})],
    "precision": [({}, {"precision": "bf16"})],
    "checkpoint": [({"schedule": "constant", "lr": 0.3}, {"checkpoint": "best-val"})],
    "l2_penalties": [({}, {"l2_penalties": [3.0]})],
    "inner_folds": [({"l2_penalties": [3.0, 0.3, 0.03, 0.003, 1e-4]}, {"inner_folds": 5}), ({}, {"inner_folds": 5})],
    "feature_dtype": [({}, {"feature_dtype": "float16"})],
    "feature_engine": [({}, {"feature_engine": "onnxruntime"})],
    "cached_views": [({"augment": "hflip"}, {"cached_views": 1})],
    # These networks of the user's own do not tell their layers; that the keys act: tests/training/fine_tuning
    "layer_decay": [({}, {"layer_decay": 0.5})],
    "drop_path": [({}, {"drop_path": 0.5})],
    "lora": [({}, {"lora": {"rank": 4}})],
    **{f"LoraSpec.{k}": [({"lora": {}}, {"lora": {k: v}})] for k, v in (("rank", 4), ("alpha", 2.0), ("layers", "mlp"))},
}
# Without a change above, and why
EXEMPT = {
    # Tested in test_table_spec.py, tests/training/tables and tests/study/test_tables.py
    **dict.fromkeys(("baseline", "features", "predictions", "metadata", "classifier", "columns"), "they train no network"),
    "name": "for readers",
    **dict.fromkeys(("backbone", "fuse", "of", "student", "teacher", "recipe"), "which networks and recipe: what a candidate is"),
    "weights": "which network: tests/models/test_backbones.py",
    "channels_last": "memory layout, the same numbers up to rounding",
    **dict.fromkeys(("compile", "grad_checkpointing"), "how the same numbers are computed"),
    **dict.fromkeys(("BackboneSpec.name", "BackboneSpec.custom"), "which network"),
    "BackboneSpec.pooling": "of timm's networks: tests/models/test_backbones.py",
    "Candidate.members": "found, not written",
}


@cache
def material() -> tuple[Any, Any, Any]:
    """60 digits of all classes at 24 pixels, and a split of them with a validation part."""
    folder = Path(tempfile.mkdtemp())
    dataset, pixels = prepare_pixels(open_dataset(DataSpec(digits=True, max_samples=60)), 24, cache=folder)
    return dataset, pixels, (make_splits(dataset, KFold(3, seeds=[0], val_size=0.2))[0], folder)


def complete_training(task: TrainingTask) -> TrainedRun:
    training = train_candidate(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


class Outcomes:
    """Name of a candidate → its trained run, each trained once; of an ensemble, those of its members."""

    def __init__(self, candidates: list[Candidate]) -> None:
        self.candidates = {c.name: c for c in candidates}
        self.runs: dict[str, TrainedRun] = {}

    def digest_outcome(self, name: str) -> str:
        """A digest of the trained weights, the history and the answers of a candidate."""
        candidate = self.candidates[name]
        if candidate.is_ensemble:
            return digest([self.digest_outcome(member) for member in candidate.members])
        run = self.train(name)
        rows = run.task.split.test
        logits, features = predict_rows(run, rows)
        history = [[row["epoch"], row["phase"], row["train_loss"], row.get("validation_loss")] for row in run.history]
        return digest([digest_array(logits), digest_array(features), history, run.best_epoch])

    def train(self, name: str) -> TrainedRun:
        if name not in self.runs:
            candidate = self.candidates[name]
            dataset, pixels, (split, folder) = material()
            bundles = tuple(self._save_bundle(member) for member in candidate.members)
            task = TrainingTask(candidate, split, dataset, pixels, CPU, folder, member_bundles=bundles)
            self.runs[name] = complete_training(task)
        return self.runs[name]

    def _save_bundle(self, name: str) -> Path:
        folder = Path(tempfile.mkdtemp()) / "bundle"
        save_classifier(self.train(name).model, folder)
        return folder


def outcome_of(entry: dict[str, Any]) -> str:
    """The digest of the first candidate that the entry makes. Raises SpecError where it is refused.

    Of a student, of what enters its run key, which leaves out what has no effect: tests/training/test_distillation.py trains.
    """
    candidates = parse_candidates([entry], parse_recipe(None))
    if candidates[0].distillation:
        return digest(candidates[0].identity())
    return Outcomes(candidates).digest_outcome(candidates[0].name)


def with_recipe(entry: dict[str, Any], *patches: dict[str, Any]) -> dict[str, Any]:
    """The entry with keys of its recipe changed; phases take the place of `epochs` and `lr`, a preset that of everything."""
    recipe = dict(entry.get("recipe") or {})
    for patch in patches:
        recipe |= patch
        if "phases" in patch:
            recipe = {k: v for k, v in recipe.items() if k not in ("epochs", "lr")}
    return {**entry, "recipe": recipe}


# Kinds for which the keys of the recipe are tried; the others are trained by the same code, or train nothing themselves
OWN_RECIPE = ("trained", "frozen", "solved")
_known: dict[str, str | None] = {}  # entry → digest of its outcome; None: refused


def made_pairs(kind: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(key, base entry, changed entry) of every change on this kind of candidate."""
    entry = KINDS[kind]
    for key, changes in ENTRY.items():
        for both, more in changes:
            yield key, {**entry, **both}, {**entry, **both, **more}
    for key, changes in RECIPE.items() if kind in OWN_RECIPE else ():
        for both, more in changes:
            yield f"recipe.{key}", with_recipe(entry, both), with_recipe(entry, both, more)


# The phases of a frozen candidate train its head, whatever they name
INERT = {("frozen", "recipe.Phase.train")}


def outcome_or_refusal(entry: dict[str, Any]) -> str | None:
    if repr(entry) not in _known:
        try:
            _known[repr(entry)] = outcome_of(entry)
        except SpecError:
            _known[repr(entry)] = None
    return _known[repr(entry)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_is_accepted_and_ignored(kind: str) -> None:
    ignored, refused = [], 0
    for key, base, changed in made_pairs(kind):
        if base == changed or (before := outcome_or_refusal(base)) is None:
            continue
        after = outcome_or_refusal(changed)
        refused += after is None
        if after == before and (kind, key) not in INERT:
            ignored.append(key)
    assert ignored == [] and refused > 0


def schema_keys() -> set[str]:
    """Every key that a candidate of a study file may have, nested ones with the name of their spec."""
    flat = set(CandidateEntry.model_fields) | set(Recipe.model_fields)
    nested: tuple[type[Spec], ...] = (HeadSpec, FusionSpec, BackboneSpec, DistillationSpec)
    written_flat = {
        "HeadSpec.kind", *(f"FusionSpec.{k}" for k in ("mode", "start", "hidden", "dropout", "aux_loss_weight")),
        *(f"BackboneSpec.{k}" for k in ("weights", "size", "mean", "std", "options", "seed")),
        *(f"DistillationSpec.{k}" for k in DistillationSpec.model_fields),
    }  # fmt: skip
    parts = (*nested, Phase, OptimizerSpec, ScheduleSpec, LossSpec, ImbalanceSpec, LoraSpec)
    return flat | ({f"{s.__name__}.{k}" for s in parts for k in s.model_fields} - written_flat)


def test_every_key_has_a_change() -> None:
    missing = schema_keys() - set(ENTRY) - set(RECIPE) - set(EXEMPT)
    # Reached by a sweep alone, which tests/study/test_spec.py refuses where nothing reads it
    assert missing == {"FusionSpec.dropout_at"}
