"""`phoropter refit`: from the results folder of a study to a bundle for use."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from phoropter.core.errors import StoreError
from phoropter.refit.evidence import describe_refit
from phoropter.refit.finished_study import FinishedStudy, open_finished_study
from phoropter.refit.train_all import FullTrainer
from phoropter.report.summary.model import CandidateResults
from phoropter.study.progress import ProgressCallback
from phoropter.study.records.run_record import save_bundle
from phoropter.training.candidates.refit_record import RefitRecord


def refit_candidate(
    folder: Path, out: Path, candidate: str | None, device: torch.device, on_progress: ProgressCallback
) -> RefitRecord:
    """Writes the bundle of a candidate (None: the leaderboard's first) of a finished study, trained anew on all of its rows.

    Raises StoreError for an unfinished study, another version of its data, or an `out` that exists; SpecError for a candidate
    that is not there; and what training raises. Nothing is written unless it is complete.
    """
    if out.exists():
        raise StoreError(f"{out} exists already; give the bundle a new name")
    study = open_finished_study(folder, on_progress)
    return _refit_on_all(study, study.find_candidate(candidate), out, device, on_progress)


def _refit_on_all(
    study: FinishedStudy, candidate: CandidateResults, out: Path, device: torch.device, on_progress: ProgressCallback
) -> RefitRecord:
    with tempfile.TemporaryDirectory(prefix="phoropter-refit-") as work:
        trainer = FullTrainer(study, device, Path(work), on_progress)
        run, trained = trainer.train_on_all(candidate.name)
        rows = len(run.split.train)
        record = describe_refit(study, candidate, n_rows=rows, epochs=trainer.epochs)
        save_bundle(out, run, trained, record)
    return record
