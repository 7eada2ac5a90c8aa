"""What the splits let through: the audit that study/audit.py left in study.json, with its pairs as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from phoropter.core.errors import StoreError
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.table import Column, Table, TableRow, one_line
from phoropter.report.sections.mistakes import jpeg_data_uri
from phoropter.report.summary.findings import ReportInput
from phoropter.report.summary.model import StudySummary
from phoropter.results.store import Run

MAX_PAIRS_SHOWN = 6  # shown of each kind
SEVERITY_LABELS = {"stop": "grave", "warn": "warning", "note": "note"}


def read_audit_findings(evidence: StudySummary) -> list[dict[str, Any]] | None:
    """The findings, the gravest first; None where the study was never audited."""
    found = evidence.study.get("audit")
    return None if found is None else [dict(f) for f in found]


def severe_findings(evidence: StudySummary, kinds: tuple[str, ...] = (), but: tuple[str, ...] = ()) -> list[str]:
    """The words of findings that are more than a note: of these kinds (default: all), but of those."""
    found = [f for f in read_audit_findings(evidence) or () if f["severity"] != "note" and f["kind"] not in but]
    return [f"{f['words']}." for f in found if not kinds or f["kind"] in kinds]


def leakage_section(findings: ReportInput) -> Section:
    """Always there: that nothing was found is a finding too."""
    found = read_audit_findings(findings.summary)
    title = "What the splits let through"
    if found is None:
        return Section("leakage", title, ("No audit is recorded with this study, so nothing is known of leaks.",), ())
    looked = (
        "rows, groups, sites, windows that overlap in time, byte-identical and near-identical pictures, copies by the features "
        "of a network where these are cached, and what was fitted beforehand (scales, teachers, weights that others begin with)"
    )
    searched = [f for f in found if f["kind"] != "not looked for"]
    unsearched = [str(f["words"]) + "." for f in found if f["kind"] == "not looked for"]
    if not searched:
        return Section("leakage", title, (f"Every split was audited for {looked}: nothing was found.", *unsearched), ())
    pictures = _read_pair_images(findings)
    blocks: list[ContentBlock] = [_findings_table(searched)]
    for finding in searched:
        blocks += [pairs] if (pairs := _pair_gallery(finding, pictures)) else []
    files = tuple(_examples_table(f) for f in searched if f.get("examples"))
    text = (f"Every split was audited for {looked}. Counts are of the split with the largest share.", *unsearched)
    return Section("leakage", title, text, tuple(blocks), files)


def _findings_table(found: list[dict[str, Any]]) -> Table:
    columns = (
        Column("Kind"),
        Column("Severity"),
        Column("Rows", "count", "tested rows it concerns, in the worst split"),
        Column("Of", "count", "tested rows of that split"),
        Column("Share", "percent"),
        Column("Splits", "count", "splits that have it"),
        Column("What was found", "words"),
    )
    rows = [
        TableRow(
            (
                str(f["kind"]),
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
    return Table("leakage", "Findings of the leakage audit, the gravest first", columns, tuple(rows), sortable=False)


def _examples_table(finding: Mapping[str, Any]) -> Table:
    """For the files: up to ten examples."""
    columns = (Column("Tested"), Column("Trained on"), Column("In common"))
    rows = tuple(TableRow((*map(str, e[:3]), *[""] * (3 - len(e[:3])))) for e in finding["examples"])
    name = f"leakage-{str(finding['kind']).replace(' ', '-')}"
    return Table(name, f"Examples: {finding['kind']}", columns, rows)


def _read_pair_images(findings: ReportInput) -> dict[str, bytes]:
    """Sample id → JPEG of the pairs; a file that cannot be read costs the pictures, not the report."""
    try:
        return Run(findings.store.folder / "audit").load_pictures()
    except StoreError:
        return {}


def _pair_gallery(finding: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Markup | None:
    """Examples of pairs: both pictures where they were kept, else their names; None of findings that are no pairs."""
    pairs = [e for e in finding["examples"] if len(e) > 1]
    kind = str(finding["kind"])
    if not pairs:
        names = [one_line(str(e[0])) for e in finding["examples"]]
        said = f"Examples of {kind} on both sides: {', '.join(names)}."
        return Markup('<p class="note">{}</p>').format(said) if names else None
    items = Markup("\n").join(_pair_item([str(word) for word in e], pictures, kind == "labels") for e in pairs[:MAX_PAIRS_SHOWN])
    head = Markup("<h3>{}</h3>").format(f"Pairs: {kind}")
    return head + Markup('\n<ul class="gallery pairs">\n{}\n</ul>').format(items)


def _pair_item(example: list[str], pictures: Mapping[str, bytes], labels: bool) -> Markup:
    first, second, *common = (one_line(word) for word in example)
    words = ("one", "other") if labels else ("tested", "trained on")
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
