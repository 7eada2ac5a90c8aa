"""A results folder → one self-contained page (report/document.py), its tables and figures as files, and a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import phoropter
from phoropter.core.files import write_text
from phoropter.report import comparisons, conclusion, leaks, provenance
from phoropter.report.card import card
from phoropter.report.document import Document, Notice, places
from phoropter.report.evidence import Evidence
from phoropter.report.reading import gather
from phoropter.report.section import Findings
from phoropter.report.sections import sections
from phoropter.report.table import one_line
from phoropter.results.store import Store


def write_report(folder: Path | str, out: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Reports the study in `folder`; the path of the page.

    out: a folder (default: `report` in the study's), or a file ending in .html, whose tables and figures then lie in a folder of
    the same name without the ending · progress: called with (runs read, runs to read)

    Raises StoreError when the folder holds no finished run, DiskError when the report cannot be written.
    """
    store = Store(folder)
    evidence = gather(store, progress)
    findings = Findings(store, evidence, comparisons.compare(store, evidence))
    said, beside = conclusion.conclusion(evidence, findings.comparisons)
    page, files = places(store.folder / "report", out)
    document = Document(
        str(evidence.study.get("name", evidence.folder.name)),
        facts(evidence),
        notices(evidence),
        said,
        beside,
        sections(findings),
        _closing(evidence),
    )
    write_text(files / "model-card.md", card(findings))
    return document.write(page, files)


def facts(evidence: Evidence) -> str:
    """One line under the title: what on, how, how much."""
    dataset = evidence.study.get("dataset") or {}
    name = str(dataset.get("name") or "")
    words = [f"{dataset.get('rows', 0):,} rows in {len(evidence.classes)} classes"]
    if name and name != evidence.study.get("name"):
        words[0] = f"{name}: {words[0]}"
    if dataset.get("groups"):
        words[0] += f", {_count(dataset['groups'], 'group')}"
    if len(dataset.get("sites") or ()) > 1:
        words[0] += f", {len(dataset['sites']):,} sites"
    words += [
        provenance.protocol_words(evidence),
        f"{_count(len(evidence.entrants), 'candidate')}",
        _count(evidence.finished, "run"),
    ]
    return one_line(" · ".join(words))


def notices(evidence: Evidence) -> list[Notice]:
    """What was scaled down, what is missing, and what the protocol let through."""
    found = []
    if evidence.study.get("scale"):
        lines = [f"{line[:1].upper()}{line[1:]}." for line in map(str, evidence.study["scale"])]
        found.append(Notice("This is a small stand-in for the study. What was changed:", tuple(map(one_line, lines))))
    missing = evidence.planned - evidence.finished
    asked: tuple[str, ...] = ()
    if missing:
        found.append(_partial(evidence, missing))
    if evidence.grouped and evidence.protocol.get("allow_group_overlap"):
        line = "Rows of one group may stand on both sides of a split, as the study asked: new groups will likely fare worse."
        asked = ("groups", "windows")
        found.append(Notice("Groups overlap.", (line, *map(one_line, leaks.grave(evidence, asked)))))
    if grave := leaks.grave(evidence, but=asked):
        found.append(Notice("The splits let something through.", tuple(map(one_line, grave))))
    return found


def _partial(evidence: Evidence, missing: int) -> Notice:
    failed = len(evidence.failures)
    lines = [f"{evidence.finished:,} of {_count(evidence.planned, 'run')} {'is' if evidence.finished == 1 else 'are'} finished."]
    lines += [f"{_count(failed, 'run')} failed; the reasons stand at the end of this page."] if failed else []
    lines += [f"{_count(missing - failed, 'run')} not computed yet: run the study again to go on."] if missing > failed else []
    incomplete = [e.name for e in evidence.entrants if not e.complete]
    placed = " and they are placed last" if any(e.complete for e in evidence.entrants) else ""
    lines += [f"Incomplete: {_some(incomplete)}. Their figures stand on fewer splits{placed}."] if incomplete else []
    lines += [f"Without any finished run, and so not on this page: {_some(evidence.absent)}."] if evidence.absent else []
    return Notice("This study is not complete.", tuple(map(one_line, lines)))


def _some(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _closing(evidence: Evidence) -> str:
    made = f"Made by phoropter {phoropter.__version__} from the predictions of {_count(evidence.finished, 'run')}."
    return (
        f"{made} Files that are linked lie beside this page in tables and figures, and a model card of the first "
        "candidate in model-card.md."
    )
