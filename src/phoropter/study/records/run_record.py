"""Fills the folder of a finished run: predictions, history, thumbnails of wrong and right answers, bundle, and record.json."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import PhoropterError, StoreError, cut_message
from phoropter.core.extensions import describe_code
from phoropter.core.files import digest, digest_array, digest_file
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.positive_class import find_positive
from phoropter.data.recordings.bundle_view import get_bundle_view
from phoropter.models import classifier as classifiers
from phoropter.models.backbones import BackboneModule
from phoropter.results.judged_answers import find_confused_rows, judge_answers
from phoropter.results.metrics.custom import Metric
from phoropter.results.metrics.probabilities import average_probabilities
from phoropter.results.metrics.registry import compute_metrics
from phoropter.results.positive_class import is_first_of_two, reorder_classes
from phoropter.results.store import Predictions, Run, RunWriter
from phoropter.study.plan import PlannedRun
from phoropter.study.records.convergence_record import describe_convergence
from phoropter.study.records.cost_record import describe_average_cost, describe_run_cost
from phoropter.study.records.selection_record import SelectedMembers
from phoropter.study.records.study_record import collect_versions, describe_machine
from phoropter.study.records.thumbnails import encode_thumbnail
from phoropter.training.branch_ablation import ablate_branches
from phoropter.training.costs.peak_memory import PeakMemory
from phoropter.training.distillation import digest_classifier
from phoropter.training.fit import TrainedRun
from phoropter.training.trained_on import initial_bundles, write_trained_on

MAX_MISTAKES = 12  # images of the most confident mistakes kept with each run
MAX_PAIRS, MAX_OF_PAIR = 6, 2  # and of the most frequent confusions of the run, the surest wrong answers of each
MAX_RIGHT = 4  # images of the most confident right answers kept with each run, of as many classes


def write_trained_run(
    folder: RunWriter,
    run: PlannedRun,
    fitted: TrainedRun,
    metrics: tuple[str | Metric, ...],
    started: datetime,
    *,
    needed_by_others: bool = False,
) -> dict[str, Any]:
    """Fills the folder of a trained run; returns its record. needed_by_others: whether other runs need its bundle."""
    began = time.monotonic()
    with PeakMemory(fitted.task.device, trim=False) as peak:
        held_out = _make_predictions(run, fitted, run.split.test)
    predict_seconds = time.monotonic() - began
    folder.write_predictions(held_out)
    for part, rows in (("validation", run.split.val), ("external", run.split.external)):
        if rows is not None and len(rows):
            folder.write_predictions(_make_predictions(run, fitted, rows), part)
    folder.write_history(fitted.history)
    folder.write_pictures(encode_examples(held_out, run.split.test, fitted.task.pixels))
    if run.keep_bundle or needed_by_others:
        save_bundle(folder.folder / "bundle", run, fitted)
    record = _make_record(run, fitted, describe_run_cost(run, fitted, predict_seconds, peak.bytes), started)
    if run.candidate.fusion:
        record["branches"] = ablate_branches(fitted, run.split.train, run.split.test)
    if convergence := describe_convergence(fitted):
        record["convergence"] = convergence
    if fitted.bagging_info:
        record["bags"] = fitted.bagging_info
    if fitted.distillation_info:
        record["distillation"] = {**fitted.distillation_info, "key": run.needs[-1]}
    if fitted.logistic_info:
        record["logistic"] = fitted.logistic_info
    record["metrics"] = compute_scores(run, metrics, held_out)
    record["digests"]["predictions"] = digest_file(folder.folder / "predictions.npz")
    folder.write_record(record)
    return record


def describe_training(run: PlannedRun) -> dict[str, Any]:
    """What a bundle records of its training: the candidate, and what prepares new images or recordings alike."""
    view, database = get_bundle_view(run.image_set.dataset), run.image_set.data.database
    return {
        "candidate": run.candidate.plain(),
        "split": run.split.content_key(run.image_set.dataset),
        "data": run.image_set.data.plain(),
        "database": database and describe_code(database),
        "recording_view": view and view.plain(),
    }


def save_bundle(folder: Path, run: PlannedRun, fitted: TrainedRun) -> None:
    """Saves the trained classifier, the rows it has seen, and what prepares new inputs."""

    def add_seen_rows(bundle: Path) -> None:
        if run.candidate.recipe.phases:
            before = [path for _, path in initial_bundles(run.candidate, fitted.task.weights_base)]
            write_trained_on(bundle, run.image_set.dataset, run.seen_rows, before)

    classifiers.save_classifier(fitted.model, folder, training=describe_training(run), add_files=add_seen_rows)


def write_averaged_run(
    folder: RunWriter,
    run: PlannedRun,
    members: list[Run],
    pixels: Pixels,
    metrics: tuple[str | Metric, ...],
    started: datetime,
    selected: SelectedMembers | None = None,
) -> dict[str, Any]:
    """Fills the folder of an average of finished runs, computed from their predictions; returns its record.

    selected: the weights of the members, where they were chosen
    """
    weights = selected.list_weights(run.candidate.members) if selected else []
    parts: dict[str, Predictions] = {}
    for part in ("predictions", "validation", "external"):
        predictions = [p for m in members if (p := m.load_predictions(part)) is not None]
        if len(predictions) == len(members):
            parts[part] = average_member_predictions(predictions, weights)
            folder.write_predictions(parts[part], part)
    held_out = parts["predictions"]
    folder.write_history([])
    folder.write_pictures(encode_examples(held_out, run.split.test, pixels))
    record = {
        **describe_run(run, started),
        "cost": describe_average_cost([m.record["cost"] for m in members], len(held_out.ids), selected),
        "choice": {"epoch": 0, "by": "last"},
        "digests": {
            "dataset": run.image_set.dataset.fingerprint,
            "members": list(run.needs),
            "predictions": digest_file(folder.folder / "predictions.npz"),
        },
        "branches": _ablate_members(run, [p for m in members if (p := m.load_predictions()) is not None], held_out, weights),
        **({"selection": selected.describe()} if selected else {}),
        "metrics": compute_scores(run, metrics, held_out),
        "versions": collect_versions(),
        "machine": members[0].record["machine"],
    }
    folder.write_record(record)
    return record


def average_member_predictions(predictions: list[Predictions], weights: Sequence[float] = ()) -> Predictions:
    """Members' predictions of the same rows → the log of their mean probabilities, and their features concatenated.

    weights: of the members; empty: all are equal. Raises StoreError when the rows differ.
    """
    first = predictions[0]
    for other in predictions[1:]:
        if not np.array_equal(first.ids, other.ids):
            raise StoreError("the members of an average were tested on different rows; delete their runs and run the study again")
    logits = average_probabilities([p.logits for p in predictions], weights, first.is_multi_label)
    features = [p.features for p in predictions if p.features is not None]
    complete = len(features) == len(predictions)
    return replace(first, logits=logits, features=np.concatenate(features, axis=1) if complete else None)


def _ablate_members(
    run: PlannedRun, predictions: list[Predictions], ensemble: Predictions, weights: Sequence[float]
) -> list[dict[str, Any]]:
    """Accuracy of each member alone and of the ensemble without it, as `ablate_branches` gives it for a fusion.

    None where no other member counts.
    """
    rows = []
    for i, name in enumerate(run.candidate.members):
        left = [j for j in range(len(predictions)) if j != i and (not weights or weights[j] > 0)]
        others = (
            average_member_predictions([predictions[j] for j in left], [weights[j] for j in left if weights]) if left else None
        )
        rows.append(
            {
                "name": name,
                "accuracy": _compute_accuracy(predictions[i]),
                "without": None if others is None else _compute_accuracy(others),
                "fused": _compute_accuracy(ensemble),
                **({"weight": weights[i]} if weights else {}),
            }
        )
    return rows


def _compute_accuracy(predictions: Predictions) -> float:
    return judge_answers(predictions).accuracy


def _make_predictions(run: PlannedRun, fitted: TrainedRun, rows: NDArray[np.int64]) -> Predictions:
    logits, features = fitted.predict_held_out(rows)
    return gather_predictions(run.image_set.dataset, rows, logits, features if run.is_first else None)


def gather_predictions(
    dataset: Dataset, rows: NDArray[np.int64], logits: NDArray[np.float32], features: NDArray[np.float16] | None
) -> Predictions:
    """(n, C) logits of (n,) rows with what the dataset knows of them, as a run's folder keeps it."""
    return Predictions(
        dataset.ids[rows],
        dataset.labels[rows],
        logits,
        None if dataset.groups is None else dataset.groups[rows],
        None if dataset.sites is None else dataset.sites[rows],
        None if dataset.spans is None else dataset.spans[rows],
        features,
        dataset.recordings[rows] if dataset.recordings is not None and dataset.groups_several_recordings else None,
    )


def compute_scores(run: PlannedRun, metrics: tuple[str | Metric, ...], held_out: Predictions) -> dict[str, float | None]:
    """Of two classes, with the positive one last, as reports compute them."""
    image_set = run.image_set
    if is_first_of_two(image_set.dataset.classes, find_positive(image_set.dataset, image_set.data.positive)):
        held_out = reorder_classes(held_out, (1, 0))
    scores = compute_metrics(metrics, held_out.labels, held_out.probabilities)
    return {name: None if np.isnan(value) else float(value) for name, value in scores.items()}


def encode_examples(held_out: Predictions, rows: NDArray[np.int64], pixels: Pixels) -> dict[str, bytes]:
    """Sample id → JPEG of the rows misclassified with the highest probability, in all and of each frequent confusion, and of the
    surest right answer of some classes.
    """
    judged = judge_answers(held_out)
    surest = np.argsort(-judged.confidence, kind="stable")
    wrong, right = surest[~judged.is_right[surest]], surest[judged.is_right[surest]]
    _, first = np.unique(held_out.labels[right], axis=0, return_index=True)  # the surest of each class
    confused: dict[tuple[int, int], NDArray[np.int64]] = {}
    if not held_out.is_multi_label:
        n_classes = held_out.logits.shape[1]
        confused = find_confused_rows(wrong, held_out.labels, judged.predicted, n_classes, MAX_PAIRS, MAX_OF_PAIR)
    shown = np.concatenate([wrong[:MAX_MISTAKES], *confused.values(), right[np.sort(first)][:MAX_RIGHT]])
    shown = np.array(list(dict.fromkeys(shown.tolist())), np.int64)
    images = pixels.batch(rows[shown]) if len(shown) else ()
    return {str(held_out.ids[row]): encode_thumbnail(image) for row, image in zip(shown, images, strict=True)}


def _make_record(run: PlannedRun, fitted: TrainedRun, cost: dict[str, Any], started: datetime) -> dict[str, Any]:
    recipe = run.candidate.recipe
    chosen = fitted.best_epoch if recipe.checkpoint == "best-val" else recipe.total_epochs
    return {
        **describe_run(run, started),
        **cost,
        "choice": {"epoch": chosen, "by": recipe.checkpoint},
        "precision": fitted.precision,
        **_describe_batch_parts(fitted),
        "shown_at": [branch.side for branch in fitted.model.branches],
        "digests": {"dataset": run.image_set.dataset.fingerprint, **compute_weight_digests(fitted)},
        "versions": collect_versions(),
        "machine": describe_machine(fitted.task.device),
    }


def _describe_batch_parts(fitted: TrainedRun) -> dict[str, int]:
    """How many processes trained it, where they were several; and the rows of a micro-batch, where memory was short."""
    group = fitted.task.group
    return {
        **({"processes": group.size} if group is not None else {}),
        **({"micro_batch": fitted.micro_batch} if fitted.micro_batch else {}),
    }


# Digests of the tensors of frozen backbones: hundreds of heads share one, and hashing it takes longer than training a head.
_frozen_digests: WeakKeyDictionary[BackboneModule, list[str]] = WeakKeyDictionary()


def compute_weight_digests(fitted: TrainedRun) -> dict[str, Any]:
    """Digests of a classifier's weights before and after training; those of a frozen backbone are computed once."""
    model, frozen = fitted.model, fitted.task.candidate.frozen
    after: list[str] = []
    for branch in model.branches:
        if frozen and branch not in _frozen_digests:
            _frozen_digests[branch] = _digest_tensors(branch)
        after += _frozen_digests[branch] if frozen else _digest_tensors(branch)
    known = fitted.initial_weight_digests if frozen and len(fitted.initial_weight_digests) == len(model.branches) else None
    return {
        "weights_before": list(fitted.initial_weight_digests),
        "weights_after": digest(after + _digest_tensors(model.head)),
        "classifier": digest_classifier(model, known),
    }


def _digest_tensors(module: torch.nn.Module) -> list[str]:
    return [digest_array(v.detach().cpu().float().numpy()) for v in module.state_dict().values()]


def describe_run(run: PlannedRun, started: datetime) -> dict[str, Any]:
    """The part of a record that is known from the plan."""
    split = run.split
    return {
        "key": run.key,
        "candidate": {**run.candidate.plain(), "description": run.candidate.description},
        "settings": run.settings,
        **run.describe_role(),
        **({} if run.tuning is None else {"tuning": run.tuning}),
        "needs": list(run.needs),
        "seed": split.seed,
        "split": {
            "name": split.name,
            "repeat": split.repeat,
            "fold": split.fold,
            "folds": split.folds,
            "key": split.content_key(run.image_set.dataset),
            "n_train": len(split.train),
            "n_test": len(split.test),
            "n_validation": 0 if split.val is None else len(split.val),
            "n_external": 0 if split.external is None else len(split.external),
        },
        "recipe": run.candidate.recipe.plain(),
        "classes": list(run.image_set.dataset.classes),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_failure(run: PlannedRun, error: BaseException) -> dict[str, Any]:
    return {
        "candidate": run.candidate.name,
        "split": run.split.name,
        "seed": run.split.seed,
        "error": first_error_line(error),
        "kind": type(error).__name__,
        "trace": [] if isinstance(error, PhoropterError) else traceback.format_exception(error)[-12:],
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def first_error_line(error: BaseException) -> str:
    """The first line of the message; of an error in somebody's code, with its kind and the line of code that raised it."""
    text = cut_message(error)
    if isinstance(error, (PhoropterError, RuntimeError, ValueError, MemoryError)):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
