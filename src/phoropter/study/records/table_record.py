"""Fills the folder of a run without a network: a classifier of features, or the predictions of another tool."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest_file
from phoropter.data.images.pixels import Pixels
from phoropter.results.metrics.custom import Metric
from phoropter.results.store import Predictions, RunWriter
from phoropter.study.plan import PlannedRun
from phoropter.study.records import run_record
from phoropter.study.records.study_record import collect_versions, describe_machine
from phoropter.training.costs.pass_cost import PassCost
from phoropter.training.tables.row_features import BLOCK_ROWS, RowFeatures
from phoropter.training.tables.table_fit import FittedTable


def write_table_run(
    folder: RunWriter,
    run: PlannedRun,
    fitted: FittedTable,
    features: RowFeatures | None,
    pixels: Pixels,
    metrics: tuple[str | Metric, ...],
    started: datetime,
    *,
    peak_bytes: int,
) -> dict[str, Any]:
    """Fills the folder of such a run; returns its record. features: that it is a classifier of; None of other kinds."""
    began = time.monotonic()
    held_out = _make_table_predictions(run, fitted, run.split.test)
    seconds = time.monotonic() - began
    folder.write_predictions(held_out)
    for part, rows in (("validation", run.split.val), ("external", run.split.external)):
        if rows is not None and len(rows) and fitted.can_predict(rows):
            folder.write_predictions(_make_table_predictions(run, fitted, rows), part)
    folder.write_history(fitted.history)
    folder.write_pictures(run_record.encode_examples(held_out, run.split.test, pixels))
    table = run.candidate.table
    record = {
        **run_record.describe_run(run, started),
        "cost": _describe_table_cost(run, fitted, features, seconds, peak_bytes),
        "choice": {"epoch": fitted.choice[0], "by": fitted.choice[1]},
        "digests": {
            "dataset": run.image_set.dataset.fingerprint,
            "predictions": digest_file(folder.folder / "predictions.npz"),
            **({"file": table.digest} if table is not None and table.digest else {}),
        },
        **fitted.info,
        **_describe_pass(run, features),
        "metrics": run_record.compute_scores(run, metrics, held_out),
        "versions": collect_versions(),
        "machine": describe_machine(fitted.device),
    }
    folder.write_record(record)
    return record


def _make_table_predictions(run: PlannedRun, fitted: FittedTable, rows: NDArray[np.int64]) -> Predictions:
    return run_record.gather_predictions(run.image_set.dataset, rows, fitted.predict_held_out(rows), None)


def _describe_pass(run: PlannedRun, features: RowFeatures | None) -> dict[str, Any]:
    """The pass over all rows in which features were measured, which a sum over runs counts once."""
    if features is None or not features.seconds or run.candidate.table is None:
        return {}
    cost = PassCost(
        seconds=round(features.seconds, 6), images=len(features.values), batch=BLOCK_ROWS, peak_memory_bytes=0, device="cpu"
    )
    return {"feature_passes": {f"{run.candidate.table.baseline} of {run.image_set.dataset.fingerprint}": cost.model_dump()}}


def _describe_table_cost(
    run: PlannedRun, fitted: FittedTable, features: RowFeatures | None, seconds: float, peak_bytes: int
) -> dict[str, Any]:
    """As of a network, features measured once and shared by all runs: a run has the share of its rows.

    Empty for imported predictions, whose costs nobody knows.
    """
    if fitted.parameters is None:
        return {}
    each = 0.0 if features is None else features.seconds / max(len(features.values), 1)
    train_pass, predict_pass = each * len(run.split.train), each * len(run.split.test)
    return {
        "parameters": fitted.parameters,
        "trainable": fitted.parameters,
        "train_seconds": round(fitted.train_seconds + train_pass, 3),
        "predict_seconds": round(seconds + predict_pass, 3),
        "train_pass_seconds": round(train_pass, 3),
        "predict_pass_seconds": round(predict_pass, 3),
        "predict_images_per_s": round(len(run.split.test) / max(seconds + predict_pass, 1e-9), 1),
        "peak_memory_bytes": peak_bytes,
        "epochs": len(fitted.history),
    }
