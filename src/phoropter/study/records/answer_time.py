"""How long a trained classifier takes to answer: from stored pictures to probabilities, as `phoropter predict` does it.

Measured once for each candidate, with the model in memory and warm. Starting Python and loading a bundle are left out; of
recordings, reading the file is.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import DataError
from phoropter.data.images.decode_pool import decode_shards
from phoropter.data.images.pixels import InMemoryPixels
from phoropter.models.inference.folded_norms import fold_norms
from phoropter.results.metrics.probabilities import softmax
from phoropter.study.plan import PlannedRun
from phoropter.training.fit import TrainedRun
from phoropter.training.loop.precision import resolve_autocast_dtype
from phoropter.training.predict import predict_from_pixels

ANSWER_BATCHES = (1, 32)
BUDGET_S = 0.4  # repeats of one batch end after it; the median is kept
MAX_REPEATS = 3


def measure_answer_seconds(run: PlannedRun, fitted: TrainedRun) -> dict[str, float | None]:
    """`answer_seconds_1` and `answer_seconds_32`: seconds from 1 and 32 stored pictures to their probabilities, all together.

    None where a picture can no longer be read, or there are not as many. Held-out rows come first.
    """
    found: dict[str, float | None] = {}
    if fitted.task.candidate.stores_features:  # as in deploy/predict.py
        fitted = replace(fitted, model=fold_norms(fitted.model))
    for count in ANSWER_BATCHES:
        name, rows = f"answer_seconds_{count}", _choose_rows(run, count)
        try:
            if not found:
                answer_rows(run, fitted, rows)  # the first answer includes what is set up once
            found[name] = round(_time_answers(run, fitted, rows), 6) if len(rows) == count else None
        except (DataError, OSError):
            found[name] = None
    return found


def _choose_rows(run: PlannedRun, count: int) -> NDArray[np.int64]:
    others = np.setdiff1d(np.arange(len(run.image_set.dataset), dtype=np.int64), run.split.test)
    return np.concatenate([run.split.test, others])[:count]


def _time_answers(run: PlannedRun, fitted: TrainedRun, rows: NDArray[np.int64]) -> float:
    taken: list[float] = []
    while len(taken) < MAX_REPEATS and sum(taken) < BUDGET_S:
        began = time.perf_counter()
        answer_rows(run, fitted, rows)
        taken.append(time.perf_counter() - began)
    return median(taken)


def answer_rows(run: PlannedRun, fitted: TrainedRun, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) rows → (n, C) probabilities, from the stored pictures. Raises DataError for one that cannot be read."""
    task, image_set = fitted.task, run.image_set
    square = image_set.data.square_resize(image_set.image_size)
    shards = list(decode_shards(image_set.dataset.select_rows(rows), square, 0, count_usable_cores()))
    for shard in shards:
        if shard.bad_rows:
            raise DataError(shard.bad_rows[0][1])
    pixels = InMemoryPixels(np.concatenate([shard.squares for shard in shards]))
    recipe = task.candidate.recipe
    # As in deploy/predict.py: the features of a frozen candidate were computed in float32
    dtype = torch.float32 if task.candidate.stores_features else resolve_autocast_dtype(recipe, task.device)
    everything = np.arange(len(pixels), dtype=np.int64)
    return softmax(predict_from_pixels(fitted.model, pixels, everything, task.device, recipe.tta, dtype)[0])
