"""Trains a candidate of a finished study on all rows of the study, by its recipe, after what it needs: its members, its teacher.

Where the study selected the epoch on validation rows, there are none now: training ends after the median of the selected epochs,
under the same schedule of the learning rate.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median_high

import numpy as np
import torch

from phoropter.data.splits.protocol import Split
from phoropter.refit.finished_study import FinishedStudy
from phoropter.refit.made_classifier import MadeClassifier, average_models, read_member_weights
from phoropter.study.compute import drive_training, open_pixels
from phoropter.study.plan import PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.records.run_record import save_bundle
from phoropter.study.side_runs.tuned_run import choose_for_all_rows
from phoropter.training.distillation import Teacher, digest_classifier
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.loop.precision import resolve_autocast_dtype


class FullTrainer:
    """Trains candidates on all rows, each once.

    work: an empty folder for bundles that warm-started fusions begin with
    epochs: candidate → epochs it was trained for, filled as they are trained
    """

    def __init__(self, study: FinishedStudy, device: torch.device, work: Path, on_progress: ProgressCallback) -> None:
        self.study, self.device, self.work, self.on_progress = study, device, work, on_progress
        self.epochs: dict[str, int] = {}
        self._trained: dict[str, tuple[PlannedRun, TrainedRun]] = {}

    def make_classifier(self, name: str) -> MadeClassifier:
        """The classifier of a candidate; of an average, its members, each trained on all rows. Raises what `fit` raises.

        Members that were chosen by weights have the mean of their weights over the runs of the study; one without is left out.
        """
        runs = self.study.planned_runs(name)
        candidate = runs[0].candidate
        names = tuple(self.study.find_needs(runs[0]).values()) if candidate.is_ensemble else (name,)
        weights = self._average_weights(runs)
        names = tuple(each for each in names if each in weights or not weights)
        parts = [self.train_on_all(each) for each in names]
        run = replace(parts[0][0], candidate=candidate)
        seen = run.split.train if any(part.candidate.recipe.phases for part, _ in parts) else run.split.train[:0]
        models = [trained.model.cpu().eval() for _, trained in parts]
        model = average_models(models, [weights[each] for each in names if weights])
        return MadeClassifier(run, model, tuple(part.candidate for part, _ in parts), seen, dict(self.epochs))

    def _average_weights(self, runs: list[PlannedRun]) -> dict[str, float]:
        """Of a candidate that chooses among its members: member → its mean weight over the runs, where that is above 0."""
        found: dict[str, float] = {}
        for run in runs:
            for key, weight in read_member_weights(self.study.store.run(run.key)).items():
                name = self.study.planned.by_key[key].candidate.name
                found[name] = found.get(name, 0.0) + weight / len(runs)
        return found

    def train_on_all(self, name: str) -> tuple[PlannedRun, TrainedRun]:
        """The run of a candidate that is trained, on all rows, and its classifier. Raises what `fit` raises."""
        if name not in self._trained:
            runs = self.study.planned_runs(name)
            needed = {need: self.train_on_all(of_study) for need, of_study in self.study.find_needs(runs[0]).items()}
            run = replace(runs[0], candidate=choose_for_all_rows(runs), split=join_splits(runs), keep_bundle=True)
            self._trained[name] = run, self._train_run(run, runs, needed)
        return self._trained[name]

    def _train_run(self, run: PlannedRun, runs: list[PlannedRun], needed: dict[str, tuple[PlannedRun, TrainedRun]]) -> TrainedRun:
        candidate, recipe = run.candidate, run.candidate.recipe
        last = median_best_epoch(self.study, runs) if recipe.checkpoint == "best-val" and recipe.phases else None
        if recipe.phases:
            self.epochs[candidate.name] = last or recipe.total_epochs
        teacher = candidate.distillation and needed.get(candidate.distillation.teacher)
        task = TrainingTask(
            candidate=candidate,
            split=run.split,
            dataset=run.image_set.dataset,
            pixels=open_pixels(run.image_set, self.study.cache, self.on_progress),
            device=self.device,
            cache=self.study.cache,
            weights_base=self.study.planned.study.base,
            teacher=self._make_teacher(*teacher, run) if teacher else None,
            member_bundles=tuple(self._save_member(*needed[member]) for member in candidate.members),
            last_epoch=last,
        )
        title = f"{task.candidate.name} · {task.split.name}"
        self.on_progress(ProgressEvent("start", title))
        return drive_training(task, title, self.on_progress)

    def _make_teacher(self, run: PlannedRun, trained: TrainedRun, student: PlannedRun) -> Teacher:
        recipe, hashes = run.candidate.recipe, run.image_set.dataset.hashed_ids
        distillation = student.candidate.distillation
        return Teacher(
            name=run.candidate.name,
            identity=digest_classifier(trained.model),
            load_model=lambda: trained.model,
            trained_on=hashes[run.split.train] if recipe.phases else hashes[:0],
            dtype=resolve_autocast_dtype(recipe, self.device),
            keep_logits=distillation is not None and distillation.loss not in ("hard", "token"),
        )

    def _save_member(self, run: PlannedRun, trained: TrainedRun) -> Path:
        folder = self.work / run.key
        if not folder.exists():
            save_bundle(folder, run, trained)
        return folder


def join_splits(runs: list[PlannedRun]) -> Split:
    """One split whose training rows are all rows that some split of the study trains, validates or tests on, in their order.

    Its seed is that of the first split. External rows are in it too: they are labelled rows of the study.
    """
    parts = [
        rows for run in runs for rows in (run.split.train, run.split.val, run.split.test, run.split.external) if rows is not None
    ]
    first = runs[0].split
    rows = np.unique(np.concatenate(parts))
    return Split(first.seed, 0, 0, 1, "all rows", rows, np.empty(0, dtype=np.int64))


def median_best_epoch(study: FinishedStudy, runs: list[PlannedRun]) -> int:
    """The median of the epochs selected on validation rows in the runs of the study, of every bag where there are several."""
    epochs: list[int] = []
    for run in runs:
        record = study.store.run(run.key).record
        epochs += (record.get("bags") or {}).get("best_epochs") or [record["choice"]["epoch"]]
    return int(median_high(epochs))
