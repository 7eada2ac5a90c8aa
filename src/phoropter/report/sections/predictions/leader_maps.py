"""Where the leader looked: maps of its most confident mistakes and of typical right answers, computed by refit/leader_maps.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from phoropter.core.errors import StoreError
from phoropter.core.files import digest
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json
from phoropter.report.render.section import Section
from phoropter.report.render.table import one_line
from phoropter.report.render.wording import list_names
from phoropter.report.sections.predictions.mistakes import answer_text, bold_answer, jpeg_data_uri, place_text
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.run_folder import read_image_archive

MAPS_FOLDER, MAPS_FILE, MAP_PICTURES = "maps", "maps.json", "pictures.npz"
MAP_BUDGET = 1_500_000  # characters of pictures on the page


class MappedRow(CacheShape):
    """A held-out row: its names in the results, whether its answer was wrong or right, and whether evidence was found at all.

    span: seconds in its recording · method: how the map was made
    """

    id: str
    kind: Literal["wrong", "right"]
    true: str
    predicted: str
    confidence: float
    method: str
    evidence: bool
    group: str | None = None
    span: tuple[float, float] | None = None


class LeaderMaps(CacheShape):
    """maps.json: of which candidate and split, and the rows; or the reason why there are none.

    source: what they were computed from, as `identify_maps_source` gives it; empty in folders made before it was written
    may_pass: whether the reason may be gone another day, as where the data are away
    """

    candidate: str
    source: str = ""
    split: str = ""
    rows: tuple[MappedRow, ...] = ()
    reason: str = ""
    may_pass: bool = False


def identify_maps_source(summary: StudySummary) -> str:
    """A digest of what the maps of the leader depend on: its runs and the order of the classes. Run keys stand for contents."""
    leader = summary.candidates[0]
    return digest([leader.name, sorted(run.key for run in leader.runs), list(summary.classes)])


def has_current_maps(folder: Path, summary: StudySummary) -> bool:
    """Whether a results folder has the maps of this leader and these runs, or a reason that stays why there are none."""
    found = _read_sound_maps(folder / MAPS_FOLDER)
    return found is not None and not found[0].may_pass and found[0].source == identify_maps_source(summary)


def await_maps(folder: Path) -> bool:
    """Whether a results folder has no maps for a reason that may pass, so that its page may be another without another run."""
    found = read_cache_json(folder / MAPS_FOLDER / MAPS_FILE, LeaderMaps)
    return found is not None and found.may_pass


def _read_sound_maps(maps: Path) -> tuple[LeaderMaps, dict[str, bytes]] | None:
    """The maps of a folder and their pictures; None where they are missing or damaged, so that a run computes them again."""
    found = read_cache_json(maps / MAPS_FILE, LeaderMaps)
    try:
        jpegs = read_image_archive(maps / MAP_PICTURES)
    except StoreError:
        return None
    pictured = {name.partition("-")[0] for name in jpegs}
    return (found, jpegs) if found and pictured >= {str(i) for i in range(len(found.rows))} else None


def leader_maps_section(inputs: ReportInput) -> Section | None:
    """None where nothing has been computed; a sentence where it could not be."""
    folder, title = inputs.store.folder / MAPS_FOLDER, "Where the leader looked"
    if not (folder / MAPS_FILE).exists():
        return None
    sound = _read_sound_maps(folder)
    again = "`phoropter report --maps` computes them."
    if sound is None:
        return Section("maps", title, (f"The maps in the results folder are damaged; {again}",), ())
    found, jpegs = sound
    name, leader = one_line(found.candidate), inputs.summary.candidates[0].name
    if found.reason:
        return Section("maps", title, (f"There are no maps of {name}: {one_line(found.reason)}.",), ())
    methods = list_names(sorted({row.method for row in found.rows}))
    text = (
        f"Held-out rows of one run of {name} ({one_line(found.split)}), with the place of the evidence for its answer in colour "
        f"({methods}). A map says where something was seen, not what, nor that the answer is right."
    )
    older = f"{name} led when these were computed, and {one_line(leader)} does now; {again}"
    paragraphs = (text,) if found.candidate == leader else (older, text)
    return Section("maps", title, paragraphs, tuple(_iter_galleries(found, jpegs)))


def _iter_galleries(found: LeaderMaps, jpegs: dict[str, bytes]) -> Iterator[Markup]:
    """Mistakes and right answers, as far as the budget goes."""
    budget = MAP_BUDGET
    pictures = [[jpeg for key, jpeg in jpegs.items() if key.startswith(f"{i}-")] for i in range(len(found.rows))]
    shape = "pairs" if any(len(of_row) > 1 for of_row in pictures) else "figures"
    for kind, head in (("wrong", "Most confident mistakes"), ("right", "Typical right answers, of median confidence")):
        items = [_map_item(row, of_row) for row, of_row in zip(found.rows, pictures, strict=True) if row.kind == kind]
        budget -= sum(map(len, items))
        if items and budget >= 0:
            shown = Markup("\n").join(items)
            yield Markup('<h3>{}</h3>\n<ul class="gallery {}">\n{}\n</ul>').format(head, shape, shown)


def _map_item(row: MappedRow, jpegs: list[bytes]) -> Markup:
    """The pictures side by side, and below them what was true, what was answered, and where the row is from."""
    true, predicted = one_line(row.true), one_line(row.predicted)
    answer = answer_text(true, predicted)
    what = ("picture as the network was shown it", "evidence") if len(jpegs) > 1 else ("trace and evidence along time",)
    shown = Markup("").join(
        Markup('<img src="{}" alt="{}">').format(jpeg_data_uri(jpeg), f"{answer}: {about}")
        for jpeg, about in zip(jpegs, what, strict=False)
    )
    words, where = bold_answer(true, predicted, true == predicted), place_text(row.id, row.group, row.span)
    nothing = "" if row.evidence else "; no evidence was found"
    return Markup(
        '<li><figure><div class="{}">{}</div><figcaption>{}, {}\u00a0% confidence{}<br>{}</figcaption></figure></li>'
    ).format("pair" if len(jpegs) > 1 else "", shown, words, f"{row.confidence * 100:.1f}", nothing, where)
