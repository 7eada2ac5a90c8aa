"""A results folder → one self-contained page (render/document.py), its tables and figures as files, and a model card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import phoropter
from phoropter.core.files import write_text
from phoropter.core.processes.garbage import collecting_seldom
from phoropter.core.processes.side_by_side import call_side_by_side, can_fork
from phoropter.report import conclusion
from phoropter.report.clinical_sentences import clinical_sentences
from phoropter.report.custom_section import SectionFunction, build_custom_sections
from phoropter.report.model_card import build_model_card
from phoropter.report.reliability import describe_reliability
from phoropter.report.render.document import Document, Notice, resolve_output_paths
from phoropter.report.render.kept_report import WrittenReport
from phoropter.report.render.section import Section
from phoropter.report.render.svg import load_drawing
from phoropter.report.render.table import one_line
from phoropter.report.render.wording import count_with_noun, list_names
from phoropter.report.sections.candidates.leaderboard import leaderboard_table
from phoropter.report.sections.claim_sentences import describe_claim
from phoropter.report.sections.order import select_builders
from phoropter.report.sections.predictions.mistakes_file import MISTAKES_FILE, write_mistakes_file
from phoropter.report.sections.study import leakage, provenance
from phoropter.report.sections.study.controls import describe_failed_controls
from phoropter.report.sections.study.statement import STATEMENT_FILE, build_statement
from phoropter.report.summary import compare
from phoropter.report.summary.clinical.collect import collect_clinical_results
from phoropter.report.summary.collect import collect_with_contributions
from phoropter.report.summary.controls.control_results import ControlResult, collect_controls
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.questions import answer_questions
from phoropter.report.summary.report_input import ReportInput
from phoropter.report.top_group import find_top_group
from phoropter.results.positive_class import open_results

_OVERLAP_KINDS = ("groups", "windows")  # findings that a study with allow_group_overlap expects


def write_report(
    folder: Path | str,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    sections: Sequence[SectionFunction] = (),
) -> Path:
    """Reports the study in `folder` and returns the path of the page.

    Arguments and errors are those of `read_report_input` and `create_report`.
    """
    return create_report(read_report_input(folder, progress), out, sections).page


@collecting_seldom()
def create_report(inputs: ReportInput, out: Path | None = None, sections: Sequence[SectionFunction] = ()) -> WrittenReport:
    """Reports a study that was read: writes the page, and its tables, figures and model card beside it.

    out:      a folder (default: `report` in the study's folder), or a file ending in .html, whose tables and figures then lie in
              a folder of the same name without the ending
    sections: sections of your own, shown before Provenance; each is called with a `ReportInput` and returns a `Section` or None

    Raises DiskError when the report cannot be written, and SpecError when a section of your own fails or repeats the id of
    another.
    """
    store, summary, comparisons = inputs.store, inputs.summary, inputs.comparisons
    found = clinical_sentences(summary, inputs.clinical, find_top_group(summary, comparisons).leader.name)
    sentences, small_print = conclusion.write_conclusion(summary, comparisons, inputs.answers, found)
    sentences = [*describe_claim(summary, inputs.answers), *sentences]
    page, files = resolve_output_paths(store.folder / "report", out)
    mistakes = None if summary.is_multi_label else partial(write_mistakes_file, inputs, files / "tables" / MISTAKES_FILE)
    beside = mistakes if mistakes and not sections else None
    *own, last = _build_sections(inputs, beside)
    document = Document(
        str(summary.study.get("name", summary.folder.name)),
        study_subtitle(summary),
        collect_notices(summary, inputs.controls),
        sentences,
        small_print,
        [*own, *build_custom_sections(sections, inputs, [*own, last]), last],
        _footer_text(summary),
        describe_reliability(inputs),
    )
    if mistakes and not beside:  # nothing is written before a section of the user's own is accepted
        mistakes()
    write_text(files / "model-card.md", build_model_card(inputs))
    write_text(files / STATEMENT_FILE, build_statement(inputs))
    said = tuple(map(one_line, (*sentences, *small_print)))
    return WrittenReport(document.write(page, files), leaderboard_table(summary), said)


def _build_sections(inputs: ReportInput, beside: Callable[[], None] | None) -> list[Section]:
    """The sections. beside: done meanwhile, first of all because it takes longest"""
    tasks: list[Callable[[], Section | None]] = [partial(build, inputs) for build in select_builders(inputs)]
    if beside is not None:
        tasks.insert(0, beside)
    if can_fork():
        load_drawing()
    return [section for section in call_side_by_side(tasks) if section is not None]


@collecting_seldom()
def read_report_input(folder: Path | str, progress: Callable[[int, int], None] | None = None) -> ReportInput:
    """Everything that the page of a results folder is made of.

    progress: called with (runs read, runs to read). Raises StoreError when the folder holds no finished run.
    """
    store = open_results(folder)
    summary, contributions = collect_with_contributions(store, progress)
    shared = compare.SharedContributions(store, summary, contributions)
    comparisons = compare.compare_candidates(store, summary, shared)
    answers = answer_questions(store, summary, comparisons.design, shared)
    clinical, controls = collect_clinical_results(store, summary), collect_controls(store, summary)
    return ReportInput(store, summary, comparisons, answers, clinical, controls)


def study_subtitle(summary: StudySummary) -> str:
    """One line under the title: dataset, protocol, number of candidates and runs."""
    dataset = summary.study.get("dataset") or {}
    name = str(dataset.get("name") or "")
    classes = f"with {len(summary.classes)} labels" if summary.is_multi_label else f"in {len(summary.classes)} classes"
    data = f"{dataset.get('rows', 0):,} rows {classes}"
    if name and name != summary.study.get("name"):
        data = f"{name}: {data}"
    if dataset.get("groups"):
        data += f", {summary.group_word.count(dataset['groups'])}"
    if len(dataset.get("sites") or ()) > 1:
        data += f", {summary.site_word.count(len(dataset['sites']))}"
    parts = [
        data,
        provenance.describe_protocol(summary),
        count_with_noun(len(summary.candidates), "candidate"),
        count_with_noun(summary.n_finished, "run"),
    ]
    return one_line(" · ".join(parts))


def collect_notices(summary: StudySummary, controls: tuple[ControlResult, ...] = ()) -> list[Notice]:
    """What was scaled down, what is missing, which leakage the audit found, and which negative controls show one."""
    notices = []
    if summary.study.get("scale"):
        lines = [f"{line[:1].upper()}{line[1:]}." for line in map(str, summary.study["scale"])]
        notices.append(Notice("This is a smoke version of the study. What was changed:", tuple(map(one_line, lines))))
    missing = summary.n_planned - summary.n_finished
    if missing:
        notices.append(_incomplete_notice(summary, missing))
    expected: tuple[str, ...] = ()
    if summary.has_groups and summary.protocol_config.get("allow_group_overlap"):
        expected = _OVERLAP_KINDS
        word = summary.group_word
        line = (
            f"Rows of one {word.singular} may be in both training and test sets, as the study allows. Expect lower accuracy on "
            f"new {word.plural}."
        )
        findings = leakage.severe_findings(summary, kinds=expected)
        notices.append(Notice(f"{word.plural.capitalize()} overlap.", (line, *map(one_line, findings))))
    if findings := leakage.severe_findings(summary, exclude=expected):
        notices.append(Notice("The audit found leakage.", tuple(map(one_line, findings))))
    if failed := describe_failed_controls(controls, summary):
        notices.append(Notice("A negative control is better than guessing.", tuple(map(one_line, failed))))
    return notices


def _incomplete_notice(summary: StudySummary, missing: int) -> Notice:
    failed, done = len(summary.failures), summary.n_finished
    lines = [f"{done:,} of {count_with_noun(summary.n_planned, 'run')} {'is' if done == 1 else 'are'} finished."]
    if failed:
        lines.append(f"{count_with_noun(failed, 'run')} failed; the reasons are at the end of this page.")
    if missing > failed:
        open_ = missing - failed
        lines.append(
            f"{count_with_noun(open_, 'run')} {'is' if open_ == 1 else 'are'} not computed yet: run the study again to continue."
        )
    incomplete = [c.name for c in summary.candidates if not c.is_complete]
    if incomplete:
        placed = ", and they rank last" if any(c.is_complete for c in summary.candidates) else ""
        lines.append(f"Incomplete: {list_names(incomplete)}. Their results come from fewer splits{placed}.")
    if summary.missing_candidates:
        lines.append(f"Without a finished run, and so not on this page: {list_names(summary.missing_candidates)}.")
    return Notice("This study is not complete.", tuple(map(one_line, lines)))


def _footer_text(summary: StudySummary) -> str:
    runs = count_with_noun(summary.n_finished, "run")
    return (
        f"Made by phoropter {phoropter.__version__} from the predictions of {runs}. Linked files are in the folders tables and "
        "figures beside this page; model-card.md describes the first candidate."
    )
