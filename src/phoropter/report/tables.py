"""The tables of a report, made from the evidence: leaderboard, classes, groups, confusions, unseen sites.

What was run, with which settings and which failures, is in `provenance.py`; what differs from what, in `comparisons.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.table import CellValue, Column, ColumnKind, IntervalBounds, MeanStd, Table, TableRow
from phoropter.report.summary.model import (
    CandidateResults,
    GroupAccuracy,
    Ints,
    StudySummary,
    TemperatureScaling,
    finite_mean,
    finite_std,
)
from phoropter.results.metrics import registry, sufficient_sums
from phoropter.results.metrics.by_group import GroupScore, WorstGroups, find_worst_groups
from phoropter.results.metrics.registry import METRICS, Metric

BASELINE_NAME = "always the commonest class"
MAX_OTHER_CANDIDATES = 3  # candidates beside the first in tables of classes and groups on the page; the files have all
MAX_SITE_COLUMNS = 12  # unseen sites with a column of their own


def metric_column(metric: Metric) -> Column:
    """Shares in per cent with a decimal, other metrics with three."""
    better = "higher is better" if metric.higher_is_better else "lower is better"
    explain = f"{better}; mean ± standard deviation over runs"
    return Column(metric.title, "percent" if metric.percent else "number", explain, 1 if metric.percent else 3)


def leaderboard_table(evidence: StudySummary) -> Table:
    """A row a candidate, best first, and the majority class last."""
    published = _published_scores(evidence)
    first, others = (
        metric_column(evidence.ranking_metric),
        [m for m in evidence.metrics[1:] if m not in PROBABILITY_METRICS or m in requested_metrics(evidence)],
    )
    unit = "groups" if evidence.has_groups else "rows"
    columns = [Column("Candidate"), first]
    columns.append(Column("95\u00a0%\u00a0interval", first.kind, f"bootstrap over {unit}, all runs together", first.digits))
    columns += [metric_column(METRICS[m]) for m in others]
    columns += (
        [Column("Published", first.kind, "the figure its source prints; other data, other hands", first.digits)]
        if published
        else []
    )
    costs = [c for c in _COST_COLUMNS if c[0] in ("parameters", "train_seconds")]
    columns += [column for _, column in costs]
    rows = []
    for place, entrant in enumerate(evidence.candidates):
        values: list[CellValue] = [
            _name_with_progress(entrant),
            mean_std_over_runs(entrant, evidence.metrics[0]),
            primary_metric_interval(entrant),
        ]
        values += [mean_std_over_runs(entrant, m) for m in others]
        values += [published.get(entrant.base_name, published.get(entrant.name))] if published else []
        values += [entrant.median_cost(name) for name, _ in costs]
        rows.append(TableRow(tuple(values), "leader" if place == 0 else "plain"))
    base = majority_class_scores(evidence)
    last: list[CellValue] = [BASELINE_NAME, base.get(evidence.metrics[0]), None, *(base.get(m) for m in others)]
    rows.append(TableRow((*last, *[None] * (len(columns) - len(last))), "baseline"))
    note = f"Mean ± standard deviation over runs. The interval is of the mean, by bootstrap over {evidence.n_units:,} {unit}. "
    note += "Training is the median time of a run."
    caption = f"Candidates by {MetricFormat.from_metric(evidence.ranking_metric).inline_title} on held-out data"
    return Table("leaderboard", caption, tuple(columns), tuple(rows), note)


PROBABILITY_METRICS = ("roc_auc", "log_loss", "ece")  # unless the study asks for them, these stand in a table of their own
_COST_COLUMNS = (
    ("parameters", Column("Parameters", "si", "of the whole classifier")),
    ("trainable", Column("Trained", "si", "parameters that are trained")),
    ("macs", Column("Multiply-adds", "si", "for one picture")),
    ("predict_images_per_s", Column("Pictures/s", "count", "when predicting, median over runs")),
    ("train_seconds", Column("Training", "duration", "of one run, median over runs")),
    ("predict_seconds", Column("Predicting", "duration", "the held-out rows of one run, median over runs")),
    ("peak_memory_bytes", Column("Memory", "bytes", "peak, median over runs")),
)


def requested_metrics(evidence: StudySummary) -> tuple[str, ...]:
    """The metrics the study names; the first one where it names none."""
    return tuple(map(str, evidence.study_config.get("metrics") or evidence.metrics[:1]))


def cost_table(evidence: StudySummary) -> Table:
    """What each candidate takes to train, to keep and to ask."""
    rows = tuple(TableRow((e.name, *(e.median_cost(name) for name, _ in _COST_COLUMNS))) for e in evidence.candidates)
    note = (
        "Medians over runs, as measured on the machine named at the end. On a processor, memory is the peak of the whole process."
    )
    return Table("costs", "What each candidate costs", (Column("Candidate"), *(c for _, c in _COST_COLUMNS)), rows, note)


def confidence_table(evidence: StudySummary, mended: Mapping[str, TemperatureScaling]) -> Table:
    """Metrics that read the probabilities, not only the answer. mended: of the first few, by name, where rows were set aside."""
    names = [m for m in evidence.metrics if m in PROBABILITY_METRICS]
    columns = [Column("Candidate"), *(metric_column(METRICS[m]) for m in names)]
    rows: list[list[CellValue]] = [[e.name, *(mean_std_over_runs(e, m) for m in names)] for e in evidence.candidates]
    note = "Calibration error: how far, on average, the confidence of an answer is from how often such answers are right."
    if mended:
        columns += [Column("Temperature", "number", "mean over runs", 2), Column("Error after", "number", "calibration error", 3)]
        rows = [
            [
                *r,
                *(
                    (MeanStd(m.temperature, m.temperature_std), m.calibration_error)
                    if (m := mended.get(str(r[0])))
                    else (None, None)
                ),
            ]
            for r in rows
        ]
        note += " After: with logits divided by a temperature fitted on the inner validation rows of each run."
    rows_of = tuple(TableRow(tuple(r)) for r in rows)
    return Table(
        "confidence", "How well candidates rank, and how well they know how sure they are", tuple(columns), rows_of, note
    )


def _name_with_progress(entrant: CandidateResults) -> str:
    return entrant.name if entrant.is_complete else f"{entrant.name} ({len(entrant.runs)} of {entrant.n_planned} runs)"


def mean_std_over_runs(entrant: CandidateResults, metric: str, external: bool = False) -> MeanStd:
    values = entrant.metric_values(metric, external)
    return MeanStd(finite_mean(values), finite_std(values))


def primary_metric_interval(entrant: CandidateResults) -> IntervalBounds:
    """Of the metric candidates are ranked by."""
    if entrant.replicates is None:
        return IntervalBounds(float("nan"), float("nan"))
    found = entrant.replicates.percentile_interval()
    return IntervalBounds(found.low, found.high)


def _published_scores(evidence: StudySummary) -> dict[str, float]:
    """Candidate → the figure its source prints for the first metric; written as a share or × 100. Of other networks than these
    where the study was made small, and then nothing."""
    figures = {} if evidence.study.get("scale") else (evidence.study_config.get("about") or {}).get("published") or {}
    found: dict[str, float] = {}
    for candidate, by_metric in figures.items():
        value = by_metric.get(evidence.metrics[0])
        if value is not None:
            found[str(candidate)] = float(value) / 100 if evidence.ranking_metric.percent and value > 1 else float(value)
    return found


_LABEL_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_recall",
    "macro_precision",
    "weighted_f1",
    "weighted_recall",
)


def majority_class_scores(evidence: StudySummary) -> dict[str, float]:
    """Metric → its value for whoever always answers the commonest class of the held-out rows; none for metrics of confidence."""
    support = evidence.candidates[0].confusion.sum(axis=1)
    size, shown = len(support), [m for m in evidence.metrics if m in _LABEL_METRICS]
    labels = np.repeat(np.arange(size), support)
    if labels.size * size > 20_000_000:  # thousands of classes: the share alone
        return {"accuracy": float(support.max() / support.sum())}
    certain = np.zeros((labels.size, size))
    certain[:, int(support.argmax())] = 1
    return registry.compute_metrics(shown, labels, certain)


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """(C,) of one candidate, all runs together; answers: held-out rows of the class, once for each run that met them."""

    precision: sufficient_sums.Floats
    recall: sufficient_sums.Floats
    f1: sufficient_sums.Floats
    support: Ints


def compute_class_metrics(confusion: Ints) -> ClassMetrics:
    right, actual, predicted = (a.astype(np.float64) for a in (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)))
    of_class = (sufficient_sums.precision_per_class, sufficient_sums.recall_per_class, sufficient_sums.f1_per_class)
    p, r, f = (of(right, actual, predicted) for of in of_class)
    return ClassMetrics(p, r, f, confusion.sum(axis=1))


def per_class_table(evidence: StudySummary, entrants: Sequence[CandidateResults] | None = None) -> Table:
    """Classes, hardest first for the first candidate: its precision, recall and F1, and the recall of the next few."""
    first, *others = (entrants or evidence.candidates)[: MAX_OTHER_CANDIDATES + 1]
    shares = compute_class_metrics(first.confusion)
    beside = [compute_class_metrics(e.confusion).recall for e in others]
    columns = (
        Column("Class"),
        Column("Answers", "count", "held-out rows of this class, once for each run that met them"),
        Column("Precision", "percent", f"of {first.name}: of its answers with this class, how many are right"),
        Column("Recall", "percent", f"of {first.name}: of this class, how many it finds"),
        Column("F1", "percent", f"of {first.name}"),
        *(Column(f"Recall, {e.name}", "percent") for e in others),
    )
    rows = tuple(
        TableRow(
            (
                evidence.classes[k],
                int(shares.support[k]),
                float(shares.precision[k]),
                float(shares.recall[k]),
                float(shares.f1[k]),
                *(float(recall[k]) for recall in beside),
            )
        )
        for k in np.argsort(shares.recall, kind="stable")
    )
    return Table("per-class", f"Classes, hardest first, as {first.name} sees them", columns, rows, max_html_rows=20)


def all_classes_table(evidence: StudySummary) -> Table:
    """For the files: a row for each candidate and class."""
    kinds: tuple[tuple[str, ColumnKind], ...] = (
        ("Answers", "count"),
        ("Precision", "percent"),
        ("Recall", "percent"),
        ("F1", "percent"),
    )
    rows = []
    for entrant in evidence.candidates:
        s = compute_class_metrics(entrant.confusion)
        rows += [
            TableRow((entrant.name, c, int(s.support[k]), float(s.precision[k]), float(s.recall[k]), float(s.f1[k])))
            for k, c in enumerate(evidence.classes)
        ]
    columns = (Column("Candidate"), Column("Class"), *(Column(n, k) for n, k in kinds))
    return Table("per-class-of-all", "Precision, recall and F1 of every candidate and class", columns, tuple(rows))


def select_group_accuracy(entrant: CandidateResults, what: str) -> GroupAccuracy:
    return entrant.group_accuracy if what == "group" else entrant.site_accuracy


def names_hardest_first(evidence: StudySummary, what: str) -> list[str]:
    """Groups or sites, those first in which the first candidate is right least often."""
    shares = select_group_accuracy(evidence.candidates[0], what)
    return sorted(shares.row_counts, key=lambda name: (shares.accuracy_of(name), name))


def per_group_table(evidence: StudySummary, what: str = "group", everyone: bool = False) -> Table:
    """what: `group` or `site`. A row each: accuracy of the first candidates (or of everyone, for the files)."""
    entrants = evidence.candidates if everyone else evidence.candidates[: MAX_OTHER_CANDIDATES + 1]
    first = select_group_accuracy(entrants[0], what)
    columns = (
        Column(what.capitalize()),
        Column("Answers", "count", "held-out rows, once for each run that met them"),
        *(Column(e.name, "percent", "accuracy") for e in entrants),
    )
    rows = tuple(
        TableRow((name, first.row_counts[name], *(select_group_accuracy(e, what).accuracy_of(name) for e in entrants)))
        for name in names_hardest_first(evidence, what)
    )
    caption = f"Accuracy by {what}, hardest first for {entrants[0].name}"
    return Table(f"per-{what}" + ("-of-all" if everyone else ""), caption, columns, rows, max_html_rows=12)


def find_hardest_groups(entrant: CandidateResults) -> WorstGroups:
    """Its groups, hardest first, and the mean accuracy over the hardest fifth of them."""
    shares = entrant.group_accuracy
    scores = [GroupScore(name, shares.accuracy_of(name), rows) for name, rows in sorted(shares.row_counts.items())]
    return find_worst_groups("accuracy", scores)


def worst_groups_table(evidence: StudySummary) -> Table:
    """A row a candidate: who is served worst by it. The best on average need not be the best for the hardest."""
    columns = (
        Column("Candidate"),
        Column("All groups", "percent", "mean of the groups' accuracies"),
        Column("Hardest fifth", "percent", "mean accuracy over the hardest fifth of the groups"),
        Column("Hardest group", "percent", "accuracy"),
        Column("Which"),
        Column("Answers", "count", "of that group, once for each run that met it"),
    )
    rows = []
    for e in evidence.candidates:
        found = find_hardest_groups(e)
        whole = float(np.mean([g.value for g in found.groups]))
        hardest_one = found.groups[0]
        rows.append(TableRow((e.name, whole, found.worst_mean, hardest_one.value, hardest_one.group, hardest_one.n_rows)))
    caption = f"Accuracy on the hardest of {len(evidence.candidates[0].group_accuracy.row_counts)} groups, by candidate"
    return Table("worst-groups", caption, columns, tuple(rows))


def top_confusions_table(evidence: StudySummary, limit: int = 10) -> Table:
    """What the first candidate takes for what, most often first."""
    first = evidence.candidates[0]
    wrong = first.confusion * (1 - np.eye(len(evidence.classes), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(i), len(evidence.classes)) for i in order]
    rows = tuple(
        TableRow((evidence.classes[t], evidence.classes[a], int(wrong[t, a]), float(wrong[t, a] / first.confusion[t].sum())))
        for t, a in pairs
        if wrong[t, a]
    )
    columns = (Column("True class"), Column("Taken for"), Column("Times", "count"), Column("Of the class", "percent"))
    return Table("confusions", f"What {first.name} confuses most", columns, rows)


def confusion_matrix_table(entrant: CandidateResults, classes: Sequence[str], name: str) -> Table:
    """For the files: the whole matrix of counts."""
    columns = (Column("True class"), *(Column(c, "count") for c in classes))
    rows = tuple(TableRow((c, *map(int, line))) for c, line in zip(classes, entrant.confusion, strict=True))
    return Table(name, f"Answers of {entrant.name} (columns) for each true class (rows), all runs together", columns, rows)


def external_test_table(evidence: StudySummary) -> Table | None:
    """Held-out rows against rows of sites never trained on: single models, and the mean of their probabilities."""
    there = [e for e in evidence.candidates if e.external_test]
    if not there:
        return None
    c, name = metric_column(evidence.ranking_metric), evidence.metrics[0]
    columns: tuple[Column, ...] = (
        Column("Candidate"),
        Column(f"{c.name}, held out", c.kind, c.description, c.digits),
        Column("Unseen sites, single models", c.kind, c.description, c.digits),
        Column("Unseen sites, all models averaged", c.kind, "of the mean of the probabilities of all models", c.digits),
        Column("95\u00a0%\u00a0interval", c.kind, "of the models averaged, by bootstrap", c.digits),
    )
    sites = sorted({site for e in there if e.external_test for site in e.external_test.site_scores})[:MAX_SITE_COLUMNS]
    columns += tuple(Column(site, c.kind, "this site alone, all models averaged", c.digits) for site in sites)
    rows = []
    for e in there:
        assert e.external_test is not None
        bounds = IntervalBounds(e.external_test.interval.low, e.external_test.interval.high)
        each = [e.external_test.site_scores.get(site, float("nan")) for site in sites]
        rows.append(
            TableRow(
                (
                    e.name,
                    mean_std_over_runs(e, name),
                    mean_std_over_runs(e, name, external=True),
                    e.external_test.metrics[name],
                    bounds,
                    *each,
                )
            )
        )
    note = f"{there[0].external_test.n_rows:,} rows of sites that no model was trained on." if there[0].external_test else ""
    return Table("unseen-sites", "On sites that no model was trained on", columns, tuple(rows), note)
