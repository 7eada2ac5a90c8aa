"""Maps of a study's leader for the report: where it looked in its most confident mistakes and in typical right answers.

They are computed at the end of a `phoropter run` whose leader has none, or by `phoropter report --maps`, from the bundle of the
leader's first run and rows that this run held out, and lie in the results folder under `maps`: `maps.json`, `pictures.npz`.
The report only reads them. Where they cannot be computed, maps.json has the reason.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, PhoropterError, StoreError
from phoropter.core.extensions import Extension
from phoropter.core.files import atomic_write_folder
from phoropter.core.storage.sealed_json import write_cache_json
from phoropter.data.dataset import Dataset
from phoropter.data.spec import open_dataset
from phoropter.deploy.explain.drawing import draw_explanation
from phoropter.deploy.explain.explain import ExplainOptions, explain_dataset
from phoropter.deploy.explain.explanation import Explanation
from phoropter.deploy.predict import Bundle, open_bundle
from phoropter.refit.made_classifier import average_models, find_kept_folders, list_answering_runs, read_member_weights
from phoropter.report.sections.predictions.leader_maps import (
    MAP_PICTURES,
    MAPS_FILE,
    MAPS_FOLDER,
    LeaderMaps,
    MappedRow,
    identify_maps_source,
)
from phoropter.report.summary.model import StudySummary
from phoropter.results.run_folder import Predictions, Run, write_image_archive
from phoropter.results.store import Store
from phoropter.study.records.study_record import read_base
from phoropter.study.records.thumbnails import encode_jpeg

MAX_WRONG, MAX_RIGHT = 6, 6
SIDE = 168  # largest side of a picture in pixels
Rows = NDArray[np.int64]


def compute_leader_maps(store: Store, summary: StudySummary, extensions: Sequence[Extension] = ()) -> str | None:
    """Computes the maps of the leader of a results folder into its `maps`; returns the reason where that cannot be done.

    store:      as `open_results` gives it · summary: what `collect_summary` read of it
    extensions: the study's own code, where it is not trusted by name
    Raises DiskError where the maps cannot be written.
    """
    leader = summary.candidates[0]
    if summary.is_multi_label:
        return "rows may have several labels, and the maps are of one class each"
    rows: list[MappedRow] = []
    jpegs: dict[str, bytes] = {}
    split, reason, may_pass = "", "", False
    try:
        if kind := leader.table_kind:
            what = "reads samples, not pictures" if leader.reads_samples else f"has no network ({kind})"
            raise StoreError(f"{leader.name} {what}, so that nothing has looked anywhere")
        run, bundle = _open_first_model(store, [r.key for r in leader.runs], leader.name, extensions)
        predictions = run.load_predictions()
        assert predictions is not None
        chosen = choose_rows(predictions)
        at = [row for row, _ in chosen]
        dataset = _open_rows(store, bundle, run, predictions.ids[at])
        answers = [summary.classes[k] for k in predictions.logits[at].argmax(1)]
        for place, found in enumerate(explain_dataset(bundle, dataset, ExplainOptions(answers))):
            if not isinstance(found, Explanation):
                raise DataError(str(found))
            jpegs |= {f"{place}-{name}": jpeg for name, jpeg in _encode_pictures(found).items()}
            rows.append(_describe_row(predictions, *chosen[place], found, summary.classes))
        split = str(run.record["split"]["name"])
    except PhoropterError as error:
        rows, jpegs, reason, may_pass = [], {}, str(error), isinstance(error, DataError)
    source = identify_maps_source(summary)
    maps = LeaderMaps(candidate=leader.name, source=source, split=split, rows=tuple(rows), reason=reason, may_pass=may_pass)
    _write_maps(store.folder, maps, jpegs)
    return reason or None


def choose_rows(predictions: Predictions) -> list[tuple[int, Literal["wrong", "right"]]]:
    """Rows, and whether each is wrong or right: the most confident mistakes, and a typical right answer of each class.

    Typical of a class is the right answer whose probability is the median of its right answers.
    """
    probabilities = predictions.probabilities
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    wrong = order[predicted[order] != predictions.labels[order]][:MAX_WRONG]
    right = []
    for label in np.unique(predictions.labels)[:MAX_RIGHT]:
        of_class = order[(predicted[order] == label) & (predictions.labels[order] == label)]
        if len(of_class):
            right.append(of_class[len(of_class) // 2])
    chosen: list[tuple[int, Literal["wrong", "right"]]] = [(int(row), "wrong") for row in wrong]
    return [*chosen, *((int(row), "right") for row in right)]


def _open_first_model(store: Store, keys: list[str], name: str, extensions: Sequence[Extension]) -> tuple[Run, Bundle]:
    """The first run of a candidate whose model was kept, and the model; of an average, those of its members as one."""
    found = find_kept_folders(store, ((key, list_answering_runs(store.run(key))) for key in keys))
    if found is None:
        raise StoreError(f"the study kept no model of {name} (save_models)")
    key, kept = found
    bundles = [open_bundle(folder, extensions) for _, folder in kept]
    if len(bundles) == 1:
        return store.run(key), bundles[0]
    weights = list(read_member_weights(store.run(key)).values())
    model, members = average_models([b.model for b in bundles], weights), tuple(bundle.candidate for bundle in bundles)
    return store.run(key), replace(bundles[0], spec=model.spec, members=members, model=model)


def _open_rows(store: Store, bundle: Bundle, run: Run, ids: NDArray[np.str_]) -> Dataset:
    """The rows of these ids, of the study's data. Raises DataError where those are not there as they were."""
    dataset = open_dataset(bundle.data, read_base(store.study, store.folder))
    if dataset.fingerprint != run.record["digests"]["dataset"]:
        raise DataError("the data of the study have changed since it ran")
    places = {str(name): row for row, name in enumerate(dataset.ids)}
    return dataset.select_rows(np.array([places[str(name)] for name in ids], np.int64))


def _describe_row(
    predictions: Predictions, row: int, kind: Literal["wrong", "right"], found: Explanation, classes: Sequence[str]
) -> MappedRow:
    return MappedRow(
        id=str(predictions.ids[row]),
        kind=kind,
        true=classes[int(predictions.labels[row])],
        predicted=found.classes[found.target],
        confidence=float(found.probabilities[found.target]),
        method=found.method,
        evidence=bool(found.map.any()),
        group=None if predictions.groups is None else str(predictions.groups[row]),
        span=None if predictions.spans is None else tuple(predictions.spans[row].tolist()),
    )


def _encode_pictures(found: Explanation) -> dict[str, bytes]:
    """shown, map: the picture and the map over it; figure: of recordings, the trace with the map along time."""
    if found.window is not None:
        file = io.BytesIO()
        draw_explanation(found, file, "jpg", dpi=70)
        return {"figure": file.getvalue()}
    return {"shown": encode_jpeg(Image.fromarray(found.shown), SIDE), "map": encode_jpeg(found.overlay(), SIDE)}


def _write_maps(folder: Path, maps: LeaderMaps, jpegs: dict[str, bytes]) -> None:
    """Replaces the maps of the folder."""
    place = folder / MAPS_FOLDER
    shutil.rmtree(place, ignore_errors=True)
    with atomic_write_folder(place) as aside:
        write_image_archive(aside / MAP_PICTURES, jpegs)
        write_cache_json(aside / MAPS_FILE, maps)
