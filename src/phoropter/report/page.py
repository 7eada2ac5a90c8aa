"""A results folder → one self-contained page (report/document.py), its tables and figures as files, and a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import phoropter
from phoropter.core.files import write_text
from phoropter.report import conclusion
from phoropter.report.model_card import build_model_card
from phoropter.report.render.document import Document, Notice, resolve_output_paths
from phoropter.report.render.table import one_line
from phoropter.report.sections import leakage, provenance
from phoropter.report.sections.order import build_sections
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.findings import ReportInput
from phoropter.report.summary.model import StudySummary
from phoropter.results.store import Store


def write_report(folder: Path | str, out: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Reports the study in `folder`; the path of the page.

    out: a folder (default: `report` in the study's), or a file ending in .html, whose tables and figures then lie in a folder of
    the same name without the ending · progress: called with (runs read, runs to read)

    Raises StoreError when the folder holds no finished run, DiskError when the report cannot be written.
    """
    store = Store(folder)
    evidence = collect_summary(store, progress)
    findings = ReportInput(store, evidence, compare.compare_candidates(store, evidence))
    said, beside = conclusion.write_conclusion(evidence, findings.comparisons)
    page, files = resolve_output_paths(store.folder / "report", out)
    document = Document(
        str(evidence.study.get("name", evidence.folder.name)),
        study_subtitle(evidence),
        collect_notices(evidence),
        said,
        beside,
        build_sections(findings),
        _footer_text(evidence),
    )
    write_text(files / "model-card.md", build_model_card(findings))
    return document.write(page, files)


def study_subtitle(evidence: StudySummary) -> str:
    """One line under the title: what on, how, how much."""
    dataset = evidence.study.get("dataset") or {}
    name = str(dataset.get("name") or "")
    words = [f"{dataset.get('rows', 0):,} rows in {len(evidence.classes)} classes"]
    if name and name != evidence.study.get("name"):
        words[0] = f"{name}: {words[0]}"
    if dataset.get("groups"):
        words[0] += f", {_count_with_noun(dataset['groups'], 'group')}"
    if len(dataset.get("sites") or ()) > 1:
        words[0] += f", {len(dataset['sites']):,} sites"
    words += [
        provenance.describe_protocol(evidence),
        f"{_count_with_noun(len(evidence.candidates), 'candidate')}",
        _count_with_noun(evidence.n_finished, "run"),
    ]
    return one_line(" · ".join(words))


def collect_notices(evidence: StudySummary) -> list[Notice]:
    """What was scaled down, what is missing, and what the protocol let through."""
    found = []
    if evidence.study.get("scale"):
        lines = [f"{line[:1].upper()}{line[1:]}." for line in map(str, evidence.study["scale"])]
        found.append(Notice("This is a small stand-in for the study. What was changed:", tuple(map(one_line, lines))))
    missing = evidence.n_planned - evidence.n_finished
    asked: tuple[str, ...] = ()
    if missing:
        found.append(_incomplete_notice(evidence, missing))
    if evidence.has_groups and evidence.protocol_config.get("allow_group_overlap"):
        line = "Rows of one group may stand on both sides of a split, as the study asked: new groups will likely fare worse."
        asked = ("groups", "windows")
        found.append(Notice("Groups overlap.", (line, *map(one_line, leakage.severe_findings(evidence, asked)))))
    if grave := leakage.severe_findings(evidence, but=asked):
        found.append(Notice("The splits let something through.", tuple(map(one_line, grave))))
    return found


def _incomplete_notice(evidence: StudySummary, missing: int) -> Notice:
    failed = len(evidence.failures)
    lines = [
        f"{evidence.n_finished:,} of {_count_with_noun(evidence.n_planned, 'run')} {'is' if evidence.n_finished == 1 else 'are'} finished."
    ]
    lines += [f"{_count_with_noun(failed, 'run')} failed; the reasons stand at the end of this page."] if failed else []
    lines += (
        [f"{_count_with_noun(missing - failed, 'run')} not computed yet: run the study again to go on."]
        if missing > failed
        else []
    )
    incomplete = [e.name for e in evidence.candidates if not e.is_complete]
    placed = " and they are placed last" if any(e.is_complete for e in evidence.candidates) else ""
    lines += [f"Incomplete: {_join_names(incomplete)}. Their figures stand on fewer splits{placed}."] if incomplete else []
    lines += (
        [f"Without any finished run, and so not on this page: {_join_names(evidence.missing_candidates)}."]
        if evidence.missing_candidates
        else []
    )
    return Notice("This study is not complete.", tuple(map(one_line, lines)))


def _join_names(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count_with_noun(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _footer_text(evidence: StudySummary) -> str:
    made = f"Made by phoropter {phoropter.__version__} from the predictions of {_count_with_noun(evidence.n_finished, 'run')}."
    return (
        f"{made} Files that are linked lie beside this page in tables and figures, and a model card of the first "
        "candidate in model-card.md."
    )
