"""Whether a results folder already holds all of a study, so that `run` need not load what computes.

    DIR/complete.json    a digest of what was asked, written when a study has ended with every run

It says nothing of the runs themselves, each of which is checked in its folder as always. A study with code of its own, with a
screening, negative controls or corrupted rows is always gone through, and so is a folder that mirrors an object store.
"""

from __future__ import annotations

from pathlib import Path

import phoropter
from phoropter.core.errors import StoreError
from phoropter.core.files import digest
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json
from phoropter.results.shown_treatments import read_treatments
from phoropter.results.store import Store
from phoropter.study.plan import Plan, plan_study
from phoropter.study.records.other_study import study_to_plain
from phoropter.study.spec import StudySpec
from phoropter.study.variants.imported_candidates import add_imported

COMPLETE_FILE = "complete.json"


class _Completion(CacheShape):
    asked: str


def record_completion(study: StudySpec, store: Store, cache: Path) -> None:
    """Notes that all of a study is in the store; does nothing where a run is missing, or where it is always gone through."""
    if not _can_be_told(study, store):
        return
    planned = plan_study(add_imported(study, store.folder), cache)
    if not planned.missing_runs(store):
        write_cache_json(store.folder / COMPLETE_FILE, _Completion(asked=_digest_request(planned)))


def is_complete(study: StudySpec, store: Store, cache: Path) -> bool:
    """Whether the store holds every run of just this study, of these data, noted by this version of phoropter, and treatments.

    A reason why treatments could not be drawn is none: the next run tries again.

    Raises what `plan_study` raises, which `run` would raise too.
    """
    noted, shown = read_cache_json(store.folder / COMPLETE_FILE, _Completion), read_treatments(store.folder)
    if noted is None or shown is None or shown.reason or not _can_be_told(study, store):
        return False
    planned = plan_study(add_imported(study, store.folder), cache)
    return noted.asked == _digest_request(planned) and not planned.missing_runs(store)


def _can_be_told(study: StudySpec, store: Store) -> bool:
    if study.screening or study.controls or study.shift or store.remote is not None:
        return False
    try:
        recorded = store.study
    except StoreError:
        return False
    return not (recorded.get("extensions") or recorded.get("custom_metrics"))


def _digest_request(planned: Plan) -> str:
    study = planned.study
    datasets = [[images.dataset.fingerprint, images.image_size, images.has_settled_rows] for images in planned.image_sets]
    rows = [run.to_plan_row() for run in planned.runs]
    return digest([phoropter.__version__, study_to_plain(study), study.context.text, study.context.smoke_changes, datasets, rows])
