"""The tables of a report, made from the evidence: leaderboard, classes, groups, confusions, unseen sites.

What was run, with which settings and which failures, is in `provenance.py`; what differs from what, in `comparisons.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phoropter.report.evidence import Entrant, Evidence, Ints, Mended, Shares, mean, std
from phoropter.report.figures import Scale
from phoropter.report.table import Column, Interval, Kind, Row, Spread, Table, Value
from phoropter.results import metrics, sums
from phoropter.results.groups import GroupScore, Worst, worst
from phoropter.results.metrics import METRICS, Metric

BASELINE = "always the commonest class"
BESIDE = 3  # candidates beside the first in tables of classes and groups on the page; the files have all
SITES = 12  # unseen sites with a column of their own


def column_of(metric: Metric) -> Column:
    """Shares in per cent with a decimal, other metrics with three."""
    better = "higher is better" if metric.higher_is_better else "lower is better"
    explain = f"{better}; mean ± standard deviation over runs"
    return Column(metric.title, "percent" if metric.percent else "number", explain, 1 if metric.percent else 3)


def leaderboard(evidence: Evidence) -> Table:
    """A row a candidate, best first, and the majority class last."""
    published = _published(evidence)
    first, others = (
        column_of(evidence.metric),
        [m for m in evidence.metrics[1:] if m not in OF_CONFIDENCE or m in asked(evidence)],
    )
    unit = "groups" if evidence.grouped else "rows"
    columns = [Column("Candidate"), first]
    columns.append(Column("95\u00a0%\u00a0interval", first.kind, f"bootstrap over {unit}, all runs together", first.digits))
    columns += [column_of(METRICS[m]) for m in others]
    columns += (
        [Column("Published", first.kind, "the figure its source prints; other data, other hands", first.digits)]
        if published
        else []
    )
    costs = [c for c in _COSTS if c[0] in ("parameters", "train_seconds")]
    columns += [column for _, column in costs]
    rows = []
    for place, entrant in enumerate(evidence.entrants):
        values: list[Value] = [_name(entrant), spread(entrant, evidence.metrics[0]), interval(entrant)]
        values += [spread(entrant, m) for m in others]
        values += [published.get(entrant.base, published.get(entrant.name))] if published else []
        values += [entrant.cost(name) for name, _ in costs]
        rows.append(Row(tuple(values), "leader" if place == 0 else "plain"))
    base = baseline(evidence)
    last: list[Value] = [BASELINE, base.get(evidence.metrics[0]), None, *(base.get(m) for m in others)]
    rows.append(Row((*last, *[None] * (len(columns) - len(last))), "baseline"))
    note = f"Mean ± standard deviation over runs. The interval is of the mean, by bootstrap over {evidence.units:,} {unit}. "
    note += "Training is the median time of a run."
    caption = f"Candidates by {Scale.of(evidence.metric).in_text} on held-out data"
    return Table("leaderboard", caption, tuple(columns), tuple(rows), note)


OF_CONFIDENCE = ("roc_auc", "log_loss", "ece")  # unless the study asks for them, these stand in a table of their own
_COSTS = (
    ("parameters", Column("Parameters", "si", "of the whole classifier")),
    ("trainable", Column("Trained", "si", "parameters that are trained")),
    ("macs", Column("Multiply-adds", "si", "for one picture")),
    ("predict_images_per_s", Column("Pictures/s", "count", "when predicting, median over runs")),
    ("train_seconds", Column("Training", "duration", "of one run, median over runs")),
    ("predict_seconds", Column("Predicting", "duration", "the held-out rows of one run, median over runs")),
    ("peak_memory_bytes", Column("Memory", "bytes", "peak, median over runs")),
)


def asked(evidence: Evidence) -> tuple[str, ...]:
    """The metrics the study names; the first one where it names none."""
    return tuple(map(str, evidence.asked.get("metrics") or evidence.metrics[:1]))


def costs(evidence: Evidence) -> Table:
    """What each candidate takes to train, to keep and to ask."""
    rows = tuple(Row((e.name, *(e.cost(name) for name, _ in _COSTS))) for e in evidence.entrants)
    note = (
        "Medians over runs, as measured on the machine named at the end. On a processor, memory is the peak of the whole process."
    )
    return Table("costs", "What each candidate costs", (Column("Candidate"), *(c for _, c in _COSTS)), rows, note)


def confidence(evidence: Evidence, mended: Mapping[str, Mended]) -> Table:
    """Metrics that read the probabilities, not only the answer. mended: of the first few, by name, where rows were set aside."""
    names = [m for m in evidence.metrics if m in OF_CONFIDENCE]
    columns = [Column("Candidate"), *(column_of(METRICS[m]) for m in names)]
    rows: list[list[Value]] = [[e.name, *(spread(e, m) for m in names)] for e in evidence.entrants]
    note = "Calibration error: how far, on average, the confidence of an answer is from how often such answers are right."
    if mended:
        columns += [Column("Temperature", "number", "mean over runs", 2), Column("Error after", "number", "calibration error", 3)]
        rows = [
            [*r, *((Spread(m.temperature, m.spread), m.error) if (m := mended.get(str(r[0]))) else (None, None))] for r in rows
        ]
        note += " After: with logits divided by a temperature fitted on the inner validation rows of each run."
    rows_of = tuple(Row(tuple(r)) for r in rows)
    return Table(
        "confidence", "How well candidates rank, and how well they know how sure they are", tuple(columns), rows_of, note
    )


def _name(entrant: Entrant) -> str:
    return entrant.name if entrant.complete else f"{entrant.name} ({len(entrant.runs)} of {entrant.planned} runs)"


def spread(entrant: Entrant, metric: str, external: bool = False) -> Spread:
    values = entrant.values(metric, external)
    return Spread(mean(values), std(values))


def interval(entrant: Entrant) -> Interval:
    """Of the metric candidates are ranked by."""
    if entrant.replicates is None:
        return Interval(float("nan"), float("nan"))
    found = entrant.replicates.interval()
    return Interval(found.low, found.high)


def _published(evidence: Evidence) -> dict[str, float]:
    """Candidate → the figure its source prints for the first metric; written as a share or × 100. Of other networks than these
    where the study was made small, and then nothing."""
    figures = {} if evidence.study.get("scale") else (evidence.asked.get("about") or {}).get("published") or {}
    found: dict[str, float] = {}
    for candidate, by_metric in figures.items():
        value = by_metric.get(evidence.metrics[0])
        if value is not None:
            found[str(candidate)] = float(value) / 100 if evidence.metric.percent and value > 1 else float(value)
    return found


_OF_ANSWERS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_recall", "macro_precision", "weighted_f1", "weighted_recall")


def baseline(evidence: Evidence) -> dict[str, float]:
    """Metric → its value for whoever always answers the commonest class of the held-out rows; none for metrics of confidence."""
    support = evidence.entrants[0].confusion.sum(axis=1)
    size, shown = len(support), [m for m in evidence.metrics if m in _OF_ANSWERS]
    labels = np.repeat(np.arange(size), support)
    if labels.size * size > 20_000_000:  # thousands of classes: the share alone
        return {"accuracy": float(support.max() / support.sum())}
    certain = np.zeros((labels.size, size))
    certain[:, int(support.argmax())] = 1
    return metrics.score(shown, labels, certain)


@dataclass(frozen=True, eq=False)
class ClassShares:
    """(C,) of one candidate, all runs together; answers: held-out rows of the class, once for each run that met them."""

    precision: sums.Floats
    recall: sums.Floats
    f1: sums.Floats
    answers: Ints


def class_shares(confusion: Ints) -> ClassShares:
    right, actual, predicted = (a.astype(np.float64) for a in (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)))
    of_class = (sums.precision, sums.recall, sums.f1)
    p, r, f = (of(right, actual, predicted) for of in of_class)
    return ClassShares(p, r, f, confusion.sum(axis=1))


def per_class(evidence: Evidence, entrants: Sequence[Entrant] | None = None) -> Table:
    """Classes, hardest first for the first candidate: its precision, recall and F1, and the recall of the next few."""
    first, *others = (entrants or evidence.entrants)[: BESIDE + 1]
    shares = class_shares(first.confusion)
    beside = [class_shares(e.confusion).recall for e in others]
    columns = (
        Column("Class"),
        Column("Answers", "count", "held-out rows of this class, once for each run that met them"),
        Column("Precision", "percent", f"of {first.name}: of its answers with this class, how many are right"),
        Column("Recall", "percent", f"of {first.name}: of this class, how many it finds"),
        Column("F1", "percent", f"of {first.name}"),
        *(Column(f"Recall, {e.name}", "percent") for e in others),
    )
    rows = tuple(
        Row(
            (
                evidence.classes[k],
                int(shares.answers[k]),
                float(shares.precision[k]),
                float(shares.recall[k]),
                float(shares.f1[k]),
                *(float(recall[k]) for recall in beside),
            )
        )
        for k in np.argsort(shares.recall, kind="stable")
    )
    return Table("per-class", f"Classes, hardest first, as {first.name} sees them", columns, rows, shown=20)


def every_class(evidence: Evidence) -> Table:
    """For the files: a row for each candidate and class."""
    kinds: tuple[tuple[str, Kind], ...] = (
        ("Answers", "count"),
        ("Precision", "percent"),
        ("Recall", "percent"),
        ("F1", "percent"),
    )
    rows = []
    for entrant in evidence.entrants:
        s = class_shares(entrant.confusion)
        rows += [
            Row((entrant.name, c, int(s.answers[k]), float(s.precision[k]), float(s.recall[k]), float(s.f1[k])))
            for k, c in enumerate(evidence.classes)
        ]
    columns = (Column("Candidate"), Column("Class"), *(Column(n, k) for n, k in kinds))
    return Table("per-class-of-all", "Precision, recall and F1 of every candidate and class", columns, tuple(rows))


def shares_of(entrant: Entrant, what: str) -> Shares:
    return entrant.groups if what == "group" else entrant.sites


def hardest(evidence: Evidence, what: str) -> list[str]:
    """Groups or sites, those first in which the first candidate is right least often."""
    shares = shares_of(evidence.entrants[0], what)
    return sorted(shares.rows, key=lambda name: (shares.share(name), name))


def per_group(evidence: Evidence, what: str = "group", everyone: bool = False) -> Table:
    """what: `group` or `site`. A row each: accuracy of the first candidates (or of everyone, for the files)."""
    entrants = evidence.entrants if everyone else evidence.entrants[: BESIDE + 1]
    first = shares_of(entrants[0], what)
    columns = (
        Column(what.capitalize()),
        Column("Answers", "count", "held-out rows, once for each run that met them"),
        *(Column(e.name, "percent", "accuracy") for e in entrants),
    )
    rows = tuple(
        Row((name, first.rows[name], *(shares_of(e, what).share(name) for e in entrants))) for name in hardest(evidence, what)
    )
    caption = f"Accuracy by {what}, hardest first for {entrants[0].name}"
    return Table(f"per-{what}" + ("-of-all" if everyone else ""), caption, columns, rows, shown=12)


def worst_groups(entrant: Entrant) -> Worst:
    """Its groups, hardest first, and the mean accuracy over the hardest fifth of them."""
    shares = entrant.groups
    scores = [GroupScore(name, shares.share(name), rows) for name, rows in sorted(shares.rows.items())]
    return worst("accuracy", scores)


def worst_of_all(evidence: Evidence) -> Table:
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
    for e in evidence.entrants:
        found = worst_groups(e)
        whole = float(np.mean([g.value for g in found.groups]))
        hardest_one = found.groups[0]
        rows.append(Row((e.name, whole, found.share_mean, hardest_one.value, hardest_one.group, hardest_one.rows)))
    caption = f"Accuracy on the hardest of {len(evidence.entrants[0].groups.rows)} groups, by candidate"
    return Table("worst-groups", caption, columns, tuple(rows))


def confusions(evidence: Evidence, limit: int = 10) -> Table:
    """What the first candidate takes for what, most often first."""
    first = evidence.entrants[0]
    wrong = first.confusion * (1 - np.eye(len(evidence.classes), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(i), len(evidence.classes)) for i in order]
    rows = tuple(
        Row((evidence.classes[t], evidence.classes[a], int(wrong[t, a]), float(wrong[t, a] / first.confusion[t].sum())))
        for t, a in pairs
        if wrong[t, a]
    )
    columns = (Column("True class"), Column("Taken for"), Column("Times", "count"), Column("Of the class", "percent"))
    return Table("confusions", f"What {first.name} confuses most", columns, rows)


def confusion_counts(entrant: Entrant, classes: Sequence[str], name: str) -> Table:
    """For the files: the whole matrix of counts."""
    columns = (Column("True class"), *(Column(c, "count") for c in classes))
    rows = tuple(Row((c, *map(int, line))) for c, line in zip(classes, entrant.confusion, strict=True))
    return Table(name, f"Answers of {entrant.name} (columns) for each true class (rows), all runs together", columns, rows)


def unseen_sites(evidence: Evidence) -> Table | None:
    """Held-out rows against rows of sites never trained on: single models, and the mean of their probabilities."""
    there = [e for e in evidence.entrants if e.unseen]
    if not there:
        return None
    c, name = column_of(evidence.metric), evidence.metrics[0]
    columns: tuple[Column, ...] = (
        Column("Candidate"),
        Column(f"{c.name}, held out", c.kind, c.explain, c.digits),
        Column("Unseen sites, single models", c.kind, c.explain, c.digits),
        Column("Unseen sites, all models averaged", c.kind, "of the mean of the probabilities of all models", c.digits),
        Column("95\u00a0%\u00a0interval", c.kind, "of the models averaged, by bootstrap", c.digits),
    )
    sites = sorted({site for e in there if e.unseen for site in e.unseen.sites})[:SITES]
    columns += tuple(Column(site, c.kind, "this site alone, all models averaged", c.digits) for site in sites)
    rows = []
    for e in there:
        assert e.unseen is not None
        bounds = Interval(e.unseen.interval.low, e.unseen.interval.high)
        each = [e.unseen.sites.get(site, float("nan")) for site in sites]
        rows.append(Row((e.name, spread(e, name), spread(e, name, external=True), e.unseen.metrics[name], bounds, *each)))
    note = f"{there[0].unseen.rows:,} rows of sites that no model was trained on." if there[0].unseen else ""
    return Table("unseen-sites", "On sites that no model was trained on", columns, tuple(rows), note)
