"""Most confident errors of the first candidate, with the thumbnails that the runs kept."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from markupsafe import Markup

from phoropter.report.render.section import Section
from phoropter.report.render.table import (
    one_line,
)
from phoropter.report.summary.model import (
    CandidateResults,
    Mistake,
)
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

MAX_JPEG_BYTES = 60_000  # a larger picture is not a thumbnail and is left out of the page
_JPEG_MAGIC = b"\xff\xd8\xff"


def mistakes_section(inputs: ReportInput) -> Section | None:
    """None where the candidate made no errors or no thumbnails of them were kept."""
    first = inputs.summary.candidates[0]
    gallery = mistakes_gallery(inputs.store, first, inputs.summary.classes)
    if gallery is None:
        return None
    text = f"Held-out images that {first.name} misclassified with the highest confidence. Some of them may be mislabelled."
    return Section("mistakes", "Most confident errors", (text,), (gallery,))


def mistakes_gallery(store: Store, candidate: CandidateResults, classes: Sequence[str]) -> Markup | None:
    """None where the candidate made no errors or no thumbnails of them were kept."""
    pictures = {key: store.run(key).load_pictures() for key in {m.run for m in candidate.mistakes}}
    shown = [(m, pictures[m.run].get(m.id)) for m in candidate.mistakes]
    if not any(jpeg for _, jpeg in shown):
        return None
    items = Markup("\n").join(_mistake_item(m, jpeg, classes) for m, jpeg in shown if jpeg)
    return Markup('<ul class="gallery">\n{}\n</ul>').format(items)


def _mistake_item(mistake: Mistake, jpeg: bytes, classes: Sequence[str]) -> Markup:
    true, predicted = one_line(classes[mistake.true_class]), one_line(classes[mistake.predicted_class])
    where = one_line(mistake.id)
    if mistake.group is not None:
        where = f"{one_line(mistake.group)} · {where}" if mistake.group not in where else where
    if mistake.time_span is not None:
        where += f" · {mistake.time_span[0]:,.1f} to {mistake.time_span[1]:,.1f} s"
    alt = f"{true}, predicted as {predicted}"
    return Markup(
        '<li><figure><img src="{}" alt="{}"><figcaption><b>{}</b> predicted as <b>{}</b>, {}\u00a0% confidence<br>{}</figcaption>'
        "</figure></li>"
    ).format(jpeg_data_uri(jpeg), alt, true, predicted, f"{mistake.confidence * 100:.1f}", where)


def jpeg_data_uri(jpeg: bytes) -> str:
    """A data URI, or an empty string if the bytes are not a small JPEG."""
    if not jpeg.startswith(_JPEG_MAGIC) or len(jpeg) > MAX_JPEG_BYTES:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
