"""Draws what a study does to its pictures into its results folder, once, at the end of a run; the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import PhoropterError
from phoropter.core.files import digest
from phoropter.results.shown_treatments import ShownStep, ShownTrace, ShownTreatments, read_treatments, write_treatments
from phoropter.results.store import Store
from phoropter.study.records.thumbnails import encode_jpeg
from phoropter.study.spec import StudySpec
from phoropter.study.treatments.drawn_treatments import DEFAULT_SIDE, DrawnStep, draw_treatments

PICTURE_SIDE = 128  # largest side in pixels of a picture on the page
TRACE_COLUMNS = 160
BYTE_BUDGET = 300_000  # of all pictures and traces; a page has a third more of it, because JPEGs are written in base64
_TRACE_BYTES = 14 * TRACE_COLUMNS  # about what the page needs for a trace
_DIGITS = 4  # of the values of a trace


def keep_treatments(study: StudySpec, store: Store) -> None:
    """Writes them, or the reason why there are none; does nothing where those there are of the same study and data.

    Where a reason was written before, they are tried again: the data may have come back.
    Raises DiskError where they cannot be written.
    """
    facts = store.study.get("dataset") or {}
    source = digest([store.study["study"], facts.get("fingerprint"), BYTE_BUDGET, PICTURE_SIDE])
    known = read_treatments(store.folder)
    if known is not None and known.source == source and not known.reason:
        return
    shown, jpegs = _draw_bounded(study, facts, source)
    write_treatments(store.folder, shown, jpegs)


def _draw_bounded(study: StudySpec, facts: Mapping[str, Any], source: str) -> tuple[ShownTreatments, dict[str, bytes]]:
    """The steps as far as the budget goes, and the titles of the others."""
    try:
        drawn = draw_treatments([study], int(facts.get("size") or DEFAULT_SIDE))
    except PhoropterError as error:  # the runs are done: pictures of the data may be missing, results not
        return ShownTreatments(source=source, reason=str(error)), {}
    steps: list[ShownStep] = []
    jpegs: dict[str, bytes] = {}
    left_out: list[str] = []
    left = BYTE_BUDGET
    for place, step in enumerate(drawn.steps):
        shown, pictures = _encode_step(step, place)
        size = sum(map(len, pictures.values())) + _TRACE_BYTES * len(shown.traces)
        if size > left or left_out:
            left_out.append(step.title)
            continue
        left -= size
        steps.append(shown)
        jpegs |= pictures
    return ShownTreatments(source=source, rows=list(drawn.rows), steps=steps, left_out=left_out), jpegs


def _encode_step(step: DrawnStep, place: int) -> tuple[ShownStep, dict[str, bytes]]:
    from PIL import Image

    pictures = {
        f"{place}-{column}": encode_jpeg(Image.fromarray(picture), PICTURE_SIDE) for column, picture in enumerate(step.pictures)
    }
    traces = [shorten_trace(samples) for samples in step.traces]
    words = {"title": step.title, "about": step.about, "channel": step.channel, "unit": step.unit}
    return ShownStep(**words, traces=traces, pictures=list(pictures)), pictures


def shorten_trace(samples: NDArray[np.floating], columns: int = TRACE_COLUMNS) -> ShownTrace:
    """(n,) samples → the lowest and highest of each of at most `columns` stretches of equal length."""
    pieces = np.array_split(np.asarray(samples, np.float64), min(columns, len(samples)))
    known = [piece[np.isfinite(piece)] for piece in pieces]
    low, high = ([_round_value(choose(piece)) if len(piece) else None for piece in known] for choose in (np.min, np.max))
    return ShownTrace(low=low, high=high)


def _round_value(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
