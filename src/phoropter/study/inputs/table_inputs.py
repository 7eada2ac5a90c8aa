"""The features and the predictions that runs without a network share: a file is parsed once for a study, not for each run."""

from __future__ import annotations

from pathlib import Path

from phoropter.core.files import digest
from phoropter.data.images.pixels import Pixels
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.training.tables.metadata_features import join_metadata, load_metadata
from phoropter.training.tables.prediction_file import FoldPredictions, read_fold_predictions
from phoropter.training.tables.row_features import RowFeatures, compute_row_features


class TableInputs:
    """Loads what runs of a plan read, when the first of them asks for it."""

    def __init__(self, planned: Plan, cache: Path, on_progress: ProgressCallback) -> None:
        self.planned, self.cache, self.on_progress = planned, cache, on_progress
        self._features: dict[str, RowFeatures] = {}  # of one candidate at a time: they may be large
        self._folds: dict[str, FoldPredictions] = {}  # key of a run → what the file of its candidate says of its split

    def load_features(self, run: PlannedRun, pixels: Pixels) -> RowFeatures:
        """The features of all rows by the table of a run's candidate, as an array that nobody may write to."""
        table, image_set = run.candidate.table, run.image_set
        assert table is not None

        def report_progress(done: int, total: int) -> None:
            self.on_progress(ProgressEvent("features", run.candidate.name, done, total))

        name = digest([table.identity(), image_set.identity])
        if name not in self._features:
            base = self.planned.study.base
            dataset, own = image_set.dataset, None
            if table.baseline is not None or table.features is not None:
                own = compute_row_features(table, dataset, pixels, self.cache, base, report_progress)
            features = join_metadata(own, load_metadata(table, image_set.data, dataset, base))
            features.values.flags.writeable = False
            self._features = {name: features}
        return self._features[name]

    def load_fold(self, run: PlannedRun) -> FoldPredictions:
        """What the file of a run's candidate says of its split. Raises what `read_fold_predictions` raises."""
        table = run.candidate.table
        assert table is not None
        if run.key not in self._folds:
            alike = [r for r in self.planned.runs if r.candidate is run.candidate and r.image_set is run.image_set]
            found = read_fold_predictions(table, run.image_set.dataset, [r.split for r in alike], self.planned.study.base)
            self._folds.update(zip((r.key for r in alike), found, strict=True))
        return self._folds[run.key]
