"""Leakage audit: the findings that study/audit.py recorded in study.json, with thumbnails of its pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from phoropter.core.errors import StoreError
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import (
    Column,
    Table,
    TableRow,
    one_line,
)
from phoropter.report.render.wording import list_names
from phoropter.report.sections.predictions.mistakes import jpeg_data_uri
from phoropter.report.summary.model import (
    StudySummary,
)
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Run

MAX_PAIRS_SHOWN = 6  # of each kind of finding
SEVERITY_LABELS = {"stop": "severe", "warn": "warning", "note": "note"}
SKIPPED = "skipped"  # the kind of a finding that says which check could not be made
_KIND_LABELS = {"near_duplicates": "near-duplicate images", "feature_duplicates": "duplicates in feature space"}


def kind_label(kind: str, summary: StudySummary) -> str:
    """How a kind of finding is called on the page: groups and sites by the study's own words."""
    own = {"groups": summary.group_word.plural, "sites": summary.site_word.plural}
    return {**_KIND_LABELS, **own}.get(kind, kind.replace("_", " "))


def read_audit_findings(summary: StudySummary) -> list[dict[str, Any]] | None:
    """The findings, most severe first; None where the study was not audited."""
    found = summary.study.get("audit")
    return None if found is None else [dict(f) for f in found]


def severe_findings(summary: StudySummary, kinds: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    """Sentences of the findings above a note. kinds: only these (default: all) · exclude: not these."""
    found = [f for f in read_audit_findings(summary) or () if f["severity"] != "note" and f["kind"] not in exclude]
    return [f"{f['words']}." for f in found if not kinds or f["kind"] in kinds]


def leakage_section(inputs: ReportInput) -> Section:
    """Never None: that the audit found nothing is a result too."""
    found = read_audit_findings(inputs.summary)
    title = "Leakage audit"
    if found is None:
        return Section("leakage", title, ("This study has no recorded audit, so nothing is known about leakage.",), ())
    checked = (
        f"{list_names(_checked_units(inputs.summary))} on both sides, windows that overlap in time, identical and "
        "near-duplicate images, duplicates in "
        "the features of a network where these are cached, and anything fitted beforehand (normalisation, "
        "teachers, initial weights)"
    )
    completed = [f for f in found if f["kind"] != SKIPPED]
    skipped = [str(f["words"]) + "." for f in found if f["kind"] == SKIPPED]
    if not completed:
        return Section("leakage", title, (f"Every split was audited for {checked}. Nothing was found.", *skipped), ())
    pictures = _read_pair_images(inputs)
    blocks: list[ContentBlock] = [_findings_table(completed, inputs.summary)]
    for finding in completed:
        blocks += [pairs] if (pairs := _pair_gallery(finding, pictures, inputs.summary)) else []
    files = tuple(_examples_table(f, inputs.summary) for f in completed if f.get("examples"))
    text = (f"Every split was audited for {checked}. Counts are those of the split with the largest share.", *skipped)
    return Section("leakage", title, text, tuple(blocks), files)


def _checked_units(summary: StudySummary) -> list[str]:
    return list(dict.fromkeys(("rows", summary.group_word.plural, summary.site_word.plural)))


def _findings_table(found: list[dict[str, Any]], summary: StudySummary) -> Table:
    columns = (
        Column("Kind"),
        Column("Severity"),
        Column("Rows", "count", "affected test rows, in the worst split"),
        Column("Of", "count", "test rows of that split"),
        Column("Share", "percent"),
        Column("Splits", "count", "affected splits"),
        Column("Finding", "words"),
    )
    rows = [
        TableRow(
            (
                kind_label(str(f["kind"]), summary),
                SEVERITY_LABELS.get(str(f["severity"]), str(f["severity"])),
                int(f["count"]),
                int(f["of"]),
                int(f["count"]) / int(f["of"]) if f["of"] else None,
                int(f["splits"][0]) or None,
                f"{f['words']}.",
            ),
            "plain" if f["severity"] == "note" else "warning",
        )
        for f in found
    ]
    return Table("leakage", "Findings of the leakage audit, most severe first", columns, tuple(rows), sortable=False)


def _examples_table(finding: Mapping[str, Any], summary: StudySummary) -> Table:
    """For the files: up to ten examples."""
    columns = (Column("Test row"), Column("Training row"), Column("In common"))
    rows = tuple(TableRow((*map(str, e[:3]), *[""] * (3 - len(e[:3])))) for e in finding["examples"])
    name = f"leakage-{re.sub(r'[^a-z]+', '-', str(finding['kind']).lower())}"
    return Table(name, f"Examples: {kind_label(str(finding['kind']), summary)}", columns, rows)


def _read_pair_images(inputs: ReportInput) -> dict[str, bytes]:
    """Sample id → JPEG. Empty if the file cannot be read: the report is worth more than its thumbnails."""
    try:
        return Run(inputs.store.folder / "audit").load_pictures()
    except StoreError:
        return {}


def _pair_gallery(finding: Mapping[str, Any], pictures: Mapping[str, bytes], summary: StudySummary) -> Markup | None:
    """Examples as pairs of thumbnails, or of names where no thumbnails were kept; single names for findings without pairs."""
    pairs = [e for e in finding["examples"] if len(e) > 1]
    kind = str(finding["kind"])
    if not pairs:
        names = [one_line(str(e[0])) for e in finding["examples"]]
        text = f"Examples ({kind_label(kind, summary)}): {', '.join(names)}."
        return Markup('<p class="note">{}</p>').format(text) if names else None
    items = Markup("\n").join(
        _pair_item([str(word) for word in e], pictures, kind == "label_conflicts") for e in pairs[:MAX_PAIRS_SHOWN]
    )
    head = Markup("<h3>{}</h3>").format(f"Pairs: {kind_label(kind, summary)}")
    return head + Markup('\n<ul class="gallery pairs">\n{}\n</ul>').format(items)


def _pair_item(example: list[str], pictures: Mapping[str, bytes], labels: bool) -> Markup:
    first, second, *common = (one_line(word) for word in example)
    words = ("first", "second") if labels else ("test", "training")
    shown = [jpeg_data_uri(pictures[e]) for e in example[:2] if e in pictures]
    images = Markup("").join(
        Markup('<img src="{}" alt="{}">').format(source, f"{word}: {name}")
        for source, word, name in zip(shown, words, (first, second), strict=False)
        if source
    )
    beside = Markup('<div class="pair">{}</div>').format(images) if images else ""
    lines = Markup("<b>{}</b> {}<br><b>{}</b> {}").format(words[0], first, words[1], second)
    what = Markup("<br>{}").format(common[0]) if common else ""
    return Markup("<li><figure>{}<figcaption>{}{}</figcaption></figure></li>").format(beside, lines, what)
