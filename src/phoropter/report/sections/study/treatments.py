"""What the networks are shown: a few rows of the data at every step, drawn at the end of a run by study/treatments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from phoropter.report.render.section import Section
from phoropter.report.render.table import one_line
from phoropter.report.render.wording import count_with_noun, list_names
from phoropter.report.sections.predictions.mistakes import jpeg_data_uri, place_text
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.shown_treatments import (
    ShownRow,
    ShownStep,
    ShownTrace,
    ShownTreatments,
    read_treated_pictures,
    read_treatments,
)

_WIDTH, _HEIGHT = 160, 48  # of a trace, in the units of its drawing
_ID, _TITLE = "treatments", "What the networks are shown"


def treatments_section(inputs: ReportInput) -> Section:
    """One sentence where nothing was drawn."""
    found = read_treatments(inputs.store.folder)
    if found is None and "given_predictions" in inputs.store.study:
        return _say_nothing("the predictions were given, and not the data")
    if found is None:
        return _say_nothing("the results folder has none; `phoropter run` draws them where the data are at hand")
    if found.reason:
        return _say_nothing(one_line(found.reason))
    text = (
        f"{count_with_noun(len(found.rows), 'row')} of the data, the same for these data always, at every step on the way to a "
        "network. They were drawn once, at the end of the run, by the code that training uses."
    )
    left = f"Left out, so that the page stays small: {list_names(list(map(one_line, found.left_out)))}." if found.left_out else ""
    jpegs = read_treated_pictures(inputs.store.folder)
    blocks: list[Markup] = [_head_line(found.rows)]
    for channel, group in groupby(found.steps, lambda step: step.channel):
        steps = list(group)
        blocks += _draw_channel(steps, found) if channel else [_picture_line(step, found.rows, jpegs) for step in steps]
    return Section(_ID, _TITLE, (text, left) if left else (text,), tuple(blocks))


def _say_nothing(reason: str) -> Section:
    return Section(_ID, _TITLE, (f"There are no pictures of what is done to the data: {reason}.",), ())


def _head_line(rows: Sequence[ShownRow]) -> Markup:
    """The rows, each above its column."""
    cells = [Markup("<div><b>{}</b><br>{}</div>").format(one_line(r.label), place_text(r.id, None, r.span)) for r in rows]
    return Markup('<div class="treated note">{}</div>').format(Markup("").join(cells))


def _picture_line(step: ShownStep, rows: Sequence[ShownRow], jpegs: dict[str, bytes]) -> Markup:
    shown = [
        Markup('<img src="{}" alt="{}">').format(
            jpeg_data_uri(jpegs.get(name, b"")), f"{one_line(row.id)}: {one_line(step.title)}"
        )
        for name, row in zip(step.pictures, rows, strict=False)
    ]
    return _step_line(step.title, step.about, shown)


def _draw_channel(steps: Sequence[ShownStep], found: ShownTreatments) -> list[Markup]:
    """The traces of a channel, each column at one scale, which is said below the first."""
    columns = list(zip(*(step.traces for step in steps), strict=True))
    scales = [_find_range(traces) for traces in columns]
    said = list_names([f"{low:g} to {high:g}" for low, high in scales])
    unit = f" {one_line(steps[0].unit)}" if steps[0].unit else ""
    lines = []
    for place, step in enumerate(steps):
        shown = [
            _draw_trace(trace, scale, f"{one_line(row.id)}: {one_line(step.channel)}, {one_line(step.title)}")
            for trace, scale, row in zip(step.traces, scales, found.rows, strict=False)
        ]
        about = f"{step.about} The columns go from {said}{unit}." if place == 0 else step.about
        lines.append(_step_line(f"{step.channel}: {step.title}", about, shown))
    return lines


def _step_line(title: str, about: str, cells: Sequence[Markup]) -> Markup:
    return Markup('<figure><div class="treated">{}</div><figcaption><b>{}</b>. {}</figcaption></figure>').format(
        Markup("").join(cells), one_line(title), one_line(about)
    )


def _find_range(traces: Sequence[ShownTrace]) -> tuple[float, float]:
    values = [v for trace in traces for v in (*trace.low, *trace.high) if v is not None] or [0.0]
    return min(values), max(values)


def _draw_trace(trace: ShownTrace, scale: tuple[float, float], alt: str) -> Markup:
    """Up and down through the extremes of every column; lifted where nothing is known."""
    low, high = scale
    spread = (high - low) or 1.0
    words, lifted = [], True
    for place, (lowest, highest) in enumerate(zip(trace.low, trace.high, strict=False)):
        if lowest is None or highest is None:
            lifted = True
            continue
        x = round((place + 0.5) * _WIDTH / len(trace.low))
        for value in (lowest, highest) if place % 2 else (highest, lowest):
            y = round(1 + (_HEIGHT - 2) * (high - value) / spread)
            words.append(f"{'M' if lifted else 'L'}{x} {y}")
            lifted = False
    return Markup(
        '<svg class="trace" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}"><path d="{}"/></svg>'
    ).format(_WIDTH, _HEIGHT, alt, "".join(words))
