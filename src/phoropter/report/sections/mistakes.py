"""The most confident mistakes, with their pictures where the runs kept them, as a list on the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from markupsafe import Markup

from phoropter.report.render.table import one_line
from phoropter.report.summary.model import CandidateResults, Mistake
from phoropter.results.store import Store

MAX_JPEG_BYTES = 60_000  # bytes; a picture that is no thumbnail stays out of the page
_JPEG_MAGIC = b"\xff\xd8\xff"


def mistakes_gallery(store: Store, entrant: CandidateResults, classes: Sequence[str]) -> Markup | None:
    """None where the candidate made no mistake or no picture of one was kept."""
    pictures = {key: store.run(key).load_pictures() for key in {m.run for m in entrant.mistakes}}
    shown = [(m, pictures[m.run].get(m.id)) for m in entrant.mistakes]
    if not any(jpeg for _, jpeg in shown):
        return None
    items = Markup("\n").join(_mistake_item(m, jpeg, classes) for m, jpeg in shown if jpeg)
    return Markup('<ul class="gallery">\n{}\n</ul>').format(items)


def _mistake_item(mistake: Mistake, jpeg: bytes, classes: Sequence[str]) -> Markup:
    true, answered = one_line(classes[mistake.true_class]), one_line(classes[mistake.predicted_class])
    where = one_line(mistake.id)
    if mistake.group is not None:
        where = f"{one_line(mistake.group)} · {where}" if mistake.group not in where else where
    if mistake.time_span is not None:
        where += f" · {mistake.time_span[0]:,.1f} to {mistake.time_span[1]:,.1f} s"
    alt = f"{true}, taken for {answered}"
    return Markup(
        '<li><figure><img src="{}" alt="{}"><figcaption><b>{}</b> taken for <b>{}</b>, {}\u00a0% sure<br>{}</figcaption>'
        "</figure></li>"
    ).format(jpeg_data_uri(jpeg), alt, true, answered, f"{mistake.confidence * 100:.1f}", where)


def jpeg_data_uri(jpeg: bytes) -> str:
    """A data URI; of what is no small JPEG, nothing."""
    if not jpeg.startswith(_JPEG_MAGIC) or len(jpeg) > MAX_JPEG_BYTES:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
