"""`cost` and `feature_passes` of a run's record: size, seconds, memory, and the time to an answer.

A backbone that is frozen sees each image once, in one pass that all runs share. What one run would have needed of it by itself is
part of its seconds: its training rows (and validation rows) in training, its held-out rows in prediction. `feature_passes` lists
the passes, so that a sum over runs can count each of them once instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phoropter.study.plan import PlannedRun
from phoropter.study.records.answer_time import ANSWER_BATCHES, measure_answer_seconds
from phoropter.study.records.selection_record import SelectedMembers
from phoropter.training.costs.classifier_cost import measure_cost
from phoropter.training.costs.pass_cost import PassCost, collect_pass_costs
from phoropter.training.fit import TrainedRun
from phoropter.training.predict import inference_batch

_SUMMED = ("parameters", "trainable", "train_seconds", "predict_seconds", "train_pass_seconds", "predict_pass_seconds")


def describe_run_cost(run: PlannedRun, fitted: TrainedRun, predict_seconds: float, prediction_peak: int) -> dict[str, Any]:
    """The fields `cost` and `feature_passes` of a record, and `inference_batch`.

    predict_seconds, prediction_peak: what predicting the held-out rows took, in seconds and bytes, without the backbones' pass
    """
    size = measure_cost(fitted.model, run.image_set.image_size)
    clean = collect_pass_costs(fitted.features or ())
    learnt = collect_pass_costs(array for view in fitted.learnt_features for array in view)
    passes = {**clean, **learnt}
    n_test, n_val = len(run.split.test), 0 if run.split.val is None else len(run.split.val)
    train_pass = _seconds_per_image(learnt) * len(run.split.train) + _seconds_per_image(clean) * n_val
    predict_pass = _seconds_per_image(clean) * n_test
    cost: dict[str, Any] = {
        "parameters": size.parameters,
        "trainable": size.trainable + fitted.adapter_parameters,
        "macs": size.macs,
        "train_seconds": round(fitted.train_seconds + train_pass, 3),
        "predict_seconds": round(predict_seconds + predict_pass, 3),
        "train_pass_seconds": round(train_pass, 3),
        "predict_pass_seconds": round(predict_pass, 3),
        "predict_images_per_s": round(n_test / max(predict_seconds + predict_pass, 1e-9), 1),
        "peak_memory_bytes": max(prediction_peak, fitted.peak_memory_bytes, *(p.peak_memory_bytes for p in passes.values())),
        "epochs": run.candidate.recipe.total_epochs,
    }
    if run.is_first:
        cost |= measure_answer_seconds(run, fitted)
    described = {"cost": cost, "inference_batch": inference_batch(fitted.model, fitted.task.device)}
    return described | ({"feature_passes": {name: p.model_dump() for name, p in passes.items()}} if passes else {})


def _seconds_per_image(passes: Mapping[str, PassCost]) -> float:
    return sum(p.seconds_per_image for p in passes.values())


def describe_average_cost(
    costs: Sequence[Mapping[str, Any]], n_test: int, selected: SelectedMembers | None = None
) -> dict[str, Any]:
    """`cost` of an average of finished runs, from theirs: the sums, the largest peak, and no epoch of its own.

    selected: where the members were chosen, by fits that count as training
    Empty where a member was imported, whose costs nobody knows.
    """
    if not all(costs):
        return {}
    cost: dict[str, Any] = {name: sum(c.get(name, 0) for c in costs) for name in _SUMMED}
    cost["train_seconds"] += selected.seconds if selected else 0.0
    known_macs = [c["macs"] for c in costs if c.get("macs") is not None]  # a member without a network has none
    cost["macs"] = sum(known_macs) if len(known_macs) == len(costs) else None
    cost["predict_images_per_s"] = round(n_test / max(cost["predict_seconds"], 1e-9), 1)
    cost["peak_memory_bytes"] = max(c["peak_memory_bytes"] for c in costs)
    for name in (f"answer_seconds_{count}" for count in ANSWER_BATCHES):
        known = [c[name] for c in costs if c.get(name) is not None]
        cost |= {name: round(sum(known), 6)} if len(known) == len(costs) else {}
    return {**cost, "epochs": 0}
