"""Rows of a finished study for a bundle that came out of it: held-out ones to compare an exported file on, and for int8.

int8 needs training rows to calibrate by, and a model of the study with rows that it has not met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.core.extensions import collect_extensions
from phoropter.core.seeds import random_permutation
from phoropter.data.images.pixels import Pixels
from phoropter.deploy.export.int8 import MeasuredRows
from phoropter.deploy.export.proof import MAX_INPUTS, ProofInputs
from phoropter.deploy.predict import Bundle
from phoropter.models.classifier import load_classifier
from phoropter.models.weights.weight_files import read_sidecar_json
from phoropter.refit.finished_study import FinishedStudy
from phoropter.refit.made_classifier import average_models, find_kept_folders, list_answering_runs, read_member_weights
from phoropter.results.store import Store
from phoropter.study.compute import open_pixels
from phoropter.study.plan import PlannedRun
from phoropter.study.progress import ProgressCallback

CALIBRATION_ROWS = 128
MAX_TEST_ROWS = 5000  # on which a loss is known to a few tenths of a point, and which fit into memory
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BundleRows:
    """A bundle's place in its study.

    runs: those of its candidate, in the order of the splits · own: the run whose model it is; None for one made after the study
    """

    study: FinishedStudy
    bundle: Bundle
    runs: Sequence[PlannedRun]
    own: PlannedRun | None
    pixels: Pixels

    def find_proof_inputs(self) -> ProofInputs:
        """At most MAX_INPUTS held-out rows of the study, as it stored them; of a run's own model, rows that it has not met."""
        runs = self.runs if self.own is None else [self.own]
        rows = self._draw_rows(np.unique(np.concatenate([run.split.test for run in runs])), MAX_INPUTS)
        what = "test rows of its run" if self.own else "rows held out in some run"
        return ProofInputs(self.pixels.batch(rows), f"{what} of the study {self.study.planned.study.name}")

    def find_measured_rows(self) -> MeasuredRows:
        """What the loss of int8 is measured with. Raises StoreError where the study kept no model of the candidate."""
        if self.own is not None:
            run, measured, whose = self.own, self.bundle, "test rows of its run, which this model has not met"
        else:
            run, measured = self._load_kept_model()
            whose = (
                f"test rows of {run.split.name}, on the study's model of that run, quantised by the same procedure, because this "
                "classifier has met every row"
            )
        dataset, test = run.image_set.dataset, self._draw_rows(run.split.test, MAX_TEST_ROWS)
        met = np.unique(np.concatenate([r.split.train for r in ([run] if self.own else self.runs)]))
        return MeasuredRows(
            calibration=self.pixels.batch(self._draw_rows(met, CALIBRATION_ROWS)),
            measured=measured,
            training=self.pixels.batch(self._draw_rows(run.split.train, CALIBRATION_ROWS)),
            test=self.pixels.batch(test),
            labels=dataset.labels[test],
            units=None if dataset.groups is None else dataset.groups[test],
            source=whose,
        )

    def _draw_rows(self, rows: Rows, count: int) -> Rows:
        """At most `count` of the rows, the same ones every time, ascending."""
        hashes = self.runs[0].image_set.dataset.hashed_ids
        return np.sort(rows[random_permutation(hashes[rows], "export")[:count]])

    def _load_kept_model(self) -> tuple[PlannedRun, Bundle]:
        """The first run of the candidate whose model was kept (of an average, the models of its members), as a bundle."""
        store = Store(self.study.store.folder)
        found = find_kept_folders(store, [(run.key, list_answering_runs(store.run(run.key))) for run in self.runs])
        if found is None:
            raise StoreError(
                f"--int8: the study in {self.study.store.folder} kept no model of '{self.runs[0].candidate.name}', and the "
                "bundle has met every row, so that its loss cannot be measured; run the study with save_models: first into a new "
                "folder"
            )
        (key, kept), planned = found, self.study.planned.by_key
        candidates = tuple(planned[part].candidate for part, _ in kept)
        models = [load_classifier(folder, list(collect_extensions(planned[part].candidate))) for part, folder in kept]
        members = candidates if len(candidates) > 1 else ()
        model = average_models(models, list(read_member_weights(store.run(key)).values()))
        of_run = replace(
            self.bundle, folder=kept[0][1], spec=model.spec, candidate=candidates[0], members=members, refit=None, model=model
        )
        return planned[key], of_run


def find_bundle_rows(study: FinishedStudy, bundle: Bundle, on_progress: ProgressCallback) -> BundleRows:
    """The place of a bundle in a study. Raises StoreError for a bundle of another study or of other data."""
    folder, name = study.store.folder, bundle.candidate.name if bundle.refit is None else bundle.refit.evidence.candidate
    runs = study.planned_runs(name)
    strange = f"--study: the bundle {bundle.folder} did not come out of the study in {folder}"
    if not runs:
        raise StoreError(f"{strange}, which has no candidate '{name}'; give the results folder of its own study")
    dataset, own = runs[0].image_set.dataset, None
    if bundle.refit is None:
        split = _read_split_key(bundle.folder)
        own = next((run for run in runs if run.split.content_key(run.image_set.dataset) == split), None)
    if own is None if bundle.refit is None else bundle.refit.evidence.fingerprint != dataset.fingerprint:
        raise StoreError(f"{strange}, whose rows are others; give the results folder of its own study")
    return BundleRows(study, bundle, runs, own, open_pixels(runs[0].image_set, study.cache, on_progress))


def _read_split_key(folder: Path) -> str:
    return str((read_sidecar_json(folder / "bundle.json").get("training") or {}).get("split", ""))
