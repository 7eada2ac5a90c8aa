"""Operating points of the positive class: what alarms by a threshold are worth, and curves for choosing one."""

from __future__ import annotations

from phoropter.report.figures.clinical_curves import decision_curve_figure, precision_recall_figure
from phoropter.report.render.section import ContentBlock, FoldedBlocks, Section
from phoropter.report.render.table import INTERVAL_TITLE, CellValue, Column, IntervalBounds, Table, TableRow
from phoropter.report.sections.clinical.positive_words import describe_owner, describe_positive, name_positive
from phoropter.report.summary.clinical.model import ClinicalResults, LevelResults
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.clinical.alarm_statistics import AlarmStatistics, Estimate
from phoropter.results.clinical.operating_points import OperatingPoint
from phoropter.results.intervals.interval_rules import ConfidenceInterval

MAX_CURVES = 4  # candidates whose curves are drawn
_THRESHOLDS = (
    "The threshold of each split was chosen on the held-out answers of the other splits of its repeat, or, where there is one "
    "split, on its inner validation part; never on what it is judged by. So the false alarms reached are not exactly those asked "
    "for. The intervals take the thresholds as they are."
)


def operating_points_section(inputs: ReportInput) -> Section | None:
    """None where the study has no positive class."""
    summary, clinical, level = inputs.summary, inputs.clinical, inputs.clinical.deciding
    if level is None:
        return None
    shown = [c for c in level.candidates if len(c.precision)][:MAX_CURVES]
    of = describe_owner(level)
    blocks: list[ContentBlock] = [points_table(summary, clinical, level), goal_table(clinical, level)]
    if shown:
        prevalence = level.supports[clinical.positive or 0] / max(sum(level.supports), 1)
        blocks.append(precision_recall_figure({c.name: c.precision for c in shown}, prevalence, of))
        blocks.append(decision_curve_figure({c.name: c.decision for c in shown if c.decision is not None}, of))
    for other in reversed(clinical.levels[:-1]):
        tables = (points_table(summary, clinical, other), goal_table(clinical, other))
        blocks.append(FoldedBlocks(f"The same {describe_owner(other)}", tables))
    paragraphs = (f"{describe_positive(summary, clinical)} Answers are {of}.",)
    return Section("operating-points", "Operating points", paragraphs, tuple(blocks), (), (_THRESHOLDS,))


def points_table(summary: StudySummary, clinical: ClinicalResults, level: LevelResults) -> Table:
    """A row for each operating point of the first candidate of the leaderboard."""
    first = level.find_candidate(summary.candidates[0].name)
    counts = level.supports[clinical.positive or 0], sum(level.supports)
    rows = tuple(TableRow((point.title, *_point_cells(point, clinical))) for point in first.points)
    caption = f"Operating points of {first.name}, {describe_owner(level)}"
    note = f"{counts[0]:,} of {level.word.count(counts[1])} are {name_positive(summary, clinical)}."
    if (prevalence := clinical.spec.prevalence) is not None:
        note += f" At prevalence: where {prevalence * 100:.4g} % are positive, as the study states."
    note += _explain_missing(first.points)
    return Table(f"operating-points{_ending(level)}", caption, (Column("Goal"), *_columns(clinical)), rows, note)


def goal_table(clinical: ClinicalResults, level: LevelResults) -> Table:
    """A row for each candidate at the operating point that the study has in mind."""
    rows = []
    for candidate in level.candidates:
        point = candidate.find_point(clinical.goal)
        cells = [None] * len(_columns(clinical)) if point is None else _point_cells(point, clinical)
        rows.append(TableRow((candidate.name, *cells)))
    caption = f"All candidates at {clinical.goal.title}, per {level.word.singular}"
    return Table(f"candidates-at-goal{_ending(level)}", caption, (Column("Candidate"), *_columns(clinical)), tuple(rows))


def _ending(level: LevelResults) -> str:
    return f"-per-{level.level}"


def _columns(clinical: ClinicalResults) -> tuple[Column, ...]:
    names = [
        ("Sensitivity", "of 100 positive, so many are alarmed"),
        ("Specificity", "of 100 others, so many are not"),
        ("PPV", "of 100 alarms, so many are right"),
        ("NPV", "of 100 without alarm, so many are negative"),
        ("Alarms per 100", "of 100 answers, so many are alarms"),
    ]
    if (prevalence := clinical.spec.prevalence) is not None:
        where = f"where the positive class is {prevalence * 100:.4g} % of all"
        names += [("PPV at prevalence", where), ("NPV at prevalence", where)]
    columns: list[Column] = []
    for name, description in names:
        unit = "" if name.startswith("Alarms") else None
        columns += [Column(name, "percent", description, 1, unit), Column(f"{INTERVAL_TITLE} of {name}", "percent", "", 1, unit)]
    for name in ("LR+", "LR\u2212"):
        columns += [Column(name, "number", "likelihood ratio", 2), Column(f"{INTERVAL_TITLE} of {name}", "number", "", 2)]
    return tuple(columns)


def _point_cells(point: OperatingPoint, clinical: ClinicalResults) -> list[CellValue]:
    found: AlarmStatistics = point.statistics
    estimates: list[ConfidenceInterval | Estimate] = [found.sensitivity, found.specificity, found.ppv, found.npv, found.alarms]
    if (prevalence := clinical.spec.prevalence) is not None:
        estimates += [found.ppv_at(prevalence), found.npv_at(prevalence)]
    cells: list[CellValue] = []
    for e in [*estimates, found.positive_ratio, found.negative_ratio]:
        cells += [e.value if isinstance(e, Estimate) else e.estimate, IntervalBounds(e.low, e.high)]
    return cells


def _explain_missing(points: tuple[OperatingPoint, ...]) -> str:
    if any(point.goal is not None for point in points):
        return ""
    return (
        " No other threshold can be chosen without looking at tested rows: there is one split without an inner validation part, "
        "or the same units are tested in every split. Give the protocol folds of whole groups, or val_size."
    )
