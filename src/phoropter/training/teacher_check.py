"""Whether a teacher has anything to teach: its accuracy on some training rows, measured once and kept in the cache."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from phoropter.core.errors import RunError
from phoropter.core.files import digest, digest_array
from phoropter.core.seeds import random_permutation
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json
from phoropter.results.metrics.ranking import Ranking
from phoropter.training.batches.loading import PixelLoader, Rows
from phoropter.training.distillation import BLOCK_ROWS, Teacher, compute_teacher_logits

ACCURACY_CHECK_ROWS = 256  # training rows on which a teacher's accuracy is checked
MIN_DEVIATIONS_ABOVE_CHANCE = 3.0  # standard deviations of a guesser's accuracy; a teacher below is near chance


def check_teacher_accuracy(teacher: Teacher, loader: PixelLoader, rows: Rows, cache: Path) -> dict[str, float]:
    """The teacher's accuracy on unaugmented images of some training rows, beside that of guessing the most frequent class.

    Of several labels a row it is the mean ROC-AUC of the labels that some of these rows have and some have not, beside a half.
    Raises RunError when it is near chance: its head was drawn anew, say, or its classes are in another order. The result is kept
    in the cache.
    """
    # "exam" names the draw: another name would draw other rows
    some = np.sort(rows[random_permutation(loader.dataset.hashed_ids[rows], "exam")[:ACCURACY_CHECK_ROWS]])
    labels = loader.dataset.labels[some]
    key = digest([teacher.identity, loader.pixels.identity, digest_array(some), digest_array(labels)])
    file = cache / "teacher-logits" / f"accuracy-{key}.json"
    check = read_cache_json(file, TeacherCheck)
    if check is None:
        check = _measure_teacher_accuracy(teacher, replace(loader, augmentation=None), some)
        write_cache_json(file, check)
    deviation = math.sqrt(check.chance * (1 - check.chance) / check.rows)
    if check.accuracy < min(check.chance + MIN_DEVIATIONS_ABOVE_CHANCE * deviation, 1.0):
        found = f"classifies {check.accuracy:.1%} of {check.rows:.0f} training images correctly, and guessing {check.chance:.1%}"
        if loader.dataset.is_multi_label:
            found = f"reaches a mean ROC-AUC of {check.accuracy:.2f} on {check.rows:.0f} training images, and guessing 0.5"
        raise RunError(
            f"the teacher '{teacher.name}' {found}, so it has nothing to teach; see whether its head was drawn anew, or train it "
            "longer"
        )
    return check.model_dump()


class TeacherCheck(CacheShape):
    """A teacher's accuracy on `rows` training rows, beside that of guessing the most frequent class."""

    accuracy: float = Field(ge=0, le=1)
    chance: float = Field(ge=0, le=1)
    rows: float = Field(ge=1)


def _measure_teacher_accuracy(teacher: Teacher, loader: PixelLoader, rows: Rows) -> TeacherCheck:
    model = teacher.load_sound_model().to(loader.device).eval()
    answers = []
    for some in np.split(rows, range(BLOCK_ROWS, len(rows), BLOCK_ROWS)):
        batch = loader.batch(some, 0, 0)
        assert isinstance(batch.inputs, torch.Tensor)
        answers.append(compute_teacher_logits(model, batch.inputs, teacher.dtype))
    logits, labels = np.concatenate(answers), loader.dataset.labels[rows]
    if loader.dataset.is_multi_label:
        areas = [
            Ranking.from_scores(yes, z).area for yes, z in zip(labels.T == 1, logits.T, strict=True) if 0 < yes.sum() < len(yes)
        ]
        return TeacherCheck(accuracy=float(np.mean(areas or [0.5])), chance=0.5, rows=float(len(rows)))
    correct, commonest = int((logits.argmax(1) == labels).sum()), np.bincount(labels).max()
    return TeacherCheck(accuracy=correct / len(rows), chance=float(commonest) / len(rows), rows=float(len(rows)))
