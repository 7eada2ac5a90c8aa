"""The models that a study trained, one of each of its splits: loaded where the study kept them, else trained again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from phoropter.core.extensions import Extension, collect_extensions
from phoropter.models.classifier import Classifier, load_classifier
from phoropter.refit.finished_study import FinishedStudy
from phoropter.refit.made_classifier import MadeClassifier, average_models, read_member_weights
from phoropter.results.metrics.probabilities import to_probabilities
from phoropter.results.store import Store
from phoropter.study.compute import Computation
from phoropter.study.plan import PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.training.candidates.refit_record import FoldModels

_NO_CHECKPOINTS_S = 1e9


class FoldCollector:
    """Collects the models of a candidate's runs; those of an average are its members' models."""

    def __init__(self, study: FinishedStudy, device: torch.device, on_progress: ProgressCallback) -> None:
        self.study, self.on_progress = study, on_progress
        self.store = Store(study.store.folder)  # in which classes have the order of the models
        self.computation = Computation(study.planned, self.store, study.cache, device, _NO_CHECKPOINTS_S, on_progress)
        self.kept, self.differences = 0, list[float]()

    def average_folds(self, name: str) -> MadeClassifier:
        """The average of all models of a candidate. Raises WeightsError for a damaged bundle, and what training raises."""
        own = self.study.planned_runs(name)
        members = self.study.find_needs(own[0]).values() if own[0].candidate.is_ensemble else ()
        runs = [run for member in members for run in self.study.planned_runs(member)] or own
        weights = {k: w for run in own for k, w in read_member_weights(self.store.run(run.key)).items()}
        runs = [run for run in runs if run.key in weights or not weights]
        models = [self._find_model(run) for run in runs]
        largest = max(self.differences, default=None)
        return MadeClassifier(
            own[0],
            average_models(models, [weights[run.key] for run in runs if weights]),
            tuple(run.candidate for run in runs),
            seen_rows=_join_rows([run.seen_rows for run in runs if run.candidate.recipe.phases]),
            fold_models=FoldModels(kept=self.kept, retrained=len(self.differences), difference=largest),
        )

    def _find_model(self, run: PlannedRun) -> Classifier:
        code: list[Extension] = list(collect_extensions(run.candidate))
        bundle = self.store.run(run.key).bundle_folder
        if bundle is not None:
            self.kept += 1
            return load_classifier(bundle, code)
        self.on_progress(ProgressEvent("start", f"{run.title}, again because its model was not kept"))
        trained = self.computation.retrain_run(run)
        self.computation.delete_unneeded_bundles(run)
        recorded = self.store.run(run.key).load_predictions()
        if recorded is not None:
            again = to_probabilities(trained.predict_held_out(run.split.test)[0], recorded.is_multi_label)
            self.differences.append(float(np.abs(again - recorded.probabilities).max()))
        return trained.model.cpu().eval()


def _join_rows(parts: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
