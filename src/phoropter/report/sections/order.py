"""The sections of the page, in the order a reader needs them: each an idea, a few words, tables and figures.

A section that has nothing to show is None and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from markupsafe import Markup

from phoropter.report import tables
from phoropter.report.figures import comparison, cost, predictions
from phoropter.report.figures.comparison import Curve, LeaderboardEntry, LeaderDifference
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import ContentBlock, Section, collapsible_block
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import one_line
from phoropter.report.sections import comparisons, provenance
from phoropter.report.sections.fusion import fusion_section
from phoropter.report.sections.leakage import leakage_section
from phoropter.report.sections.learning_curves import learning_curve_section
from phoropter.report.sections.mistakes import mistakes_gallery
from phoropter.report.sections.screening import screening_section
from phoropter.report.sections.sweeps import sweep_section
from phoropter.report.summary.collect import FALSE_POSITIVE_RATES, MAX_RANKED_CLASSES, compute_roc_curves, fit_temperature_scaling
from phoropter.report.summary.findings import ReportInput
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.friedman import friedman_test

MAX_CURVE_CANDIDATES = 4  # candidates whose ROC and reliability are drawn
MAX_CONFUSION_MATRICES = 4  # candidates whose confusion matrix is drawn
MAX_RANKED_CANDIDATES, MIN_RANK_BLOCKS = 20, 6  # candidates at most, and groups at least, for the figure of ranks
MAX_TSNE_ROWS = 1200  # rows laid out by t-SNE


def build_sections(findings: ReportInput) -> list[Section]:
    """All that have something to show."""
    made = (make(findings) for make in SECTION_ORDER)
    return [section for section in made if section is not None]


def _leaderboard_entry(entrant: CandidateResults, metric: str) -> LeaderboardEntry:
    low, high = tables.primary_metric_interval(entrant)
    return LeaderboardEntry(entrant.name, entrant.metric_mean(metric), low, high, entrant.metric_values(metric))


def _leaderboard_section(findings: ReportInput) -> Section:
    evidence = findings.summary
    metric = evidence.metrics[0]
    baseline = tables.majority_class_scores(evidence).get(metric)
    drawing = comparison.leaderboard_figure(
        [_leaderboard_entry(e, metric) for e in evidence.candidates], MetricFormat.from_metric(METRICS[metric]), baseline
    )
    return Section("leaderboard", "Leaderboard", (), (drawing, tables.leaderboard_table(evidence)))


def _comparison_section(findings: ReportInput) -> Section | None:
    evidence = findings.summary
    found = findings.comparisons
    if not found.pairs:
        return None
    blocks: list[ContentBlock] = []
    lines = [
        LeaderDifference(c.b, c.difference, c.low, c.high, c.verdict == "ahead") for c in found.leader_pairs if np.isfinite(c.low)
    ]
    if lines:
        blocks.append(
            comparison.difference_figure(lines, evidence.candidates[0].name, MetricFormat.from_metric(evidence.ranking_metric))
        )
    blocks.append(comparisons.pairwise_table(found, evidence))
    ranks = _mean_rank_block(evidence)
    blocks += [ranks] if ranks else []
    return Section(
        "differences",
        "How sure",
        comparisons.explain_comparisons(found, evidence),
        tuple(blocks),
        comparisons.pairwise_file_tables(found, evidence),
    )


def _mean_rank_block(evidence: StudySummary) -> RenderedFigure | None:
    """Groups as blocks, where they are kept apart and enough; folds would be none, for they share training rows."""
    apart = evidence.has_groups and not evidence.protocol_config.get("allow_group_overlap")
    shown = [e for e in evidence.candidates if e.is_complete]
    if not apart or not 2 < len(shown) <= MAX_RANKED_CANDIDATES or len(shown[0].group_accuracy.row_counts) < MIN_RANK_BLOCKS:
        return None
    names = sorted(shown[0].group_accuracy.row_counts)
    found = friedman_test([[e.group_accuracy.accuracy_of(name) for e in shown] for name in names])
    order = sorted(range(len(shown)), key=lambda i: (found.mean_ranks[i], i))
    in_order = [found.mean_ranks[i] for i in order]
    return comparison.mean_rank_figure(
        [shown[i].name for i in order], in_order, found.critical_difference / 2, found.blocks, found.p
    )


_COST_AXES = (
    ("macs", "Multiply-adds for one picture"),
    ("parameters", "Parameters"),
    ("train_seconds", "Seconds of training a run"),
)


def _cost_section(findings: ReportInput) -> Section | None:
    evidence = findings.summary
    metric = evidence.metrics[0]
    for name, words in _COST_AXES:
        points = []
        for e in evidence.candidates:
            low, high = tables.primary_metric_interval(e)
            points.append(cost.CostPoint(e.name, e.metric_mean(metric), low, high, e.median_cost(name)))
        usable = [p for p in points if np.isfinite(p.cost) and p.cost > 0 and np.isfinite(p.mean)]
        if len(usable) > 1:
            drawing = cost.metric_cost_figure(usable, MetricFormat.from_metric(METRICS[metric]), words)
            return Section("cost", "What it costs", (), (drawing, tables.cost_table(evidence)))
    return None


def _class_section(findings: ReportInput) -> Section:
    evidence = findings.summary
    shown = evidence.candidates[: tables.MAX_OTHER_CANDIDATES + 1]
    shares = [tables.compute_class_metrics(e.confusion) for e in shown]
    order = np.argsort(shares[0].recall, kind="stable")
    columns = [(e.name, s.recall[order]) for e, s in zip(shown, shares, strict=True)]
    caption = f"Recall by class, hardest first for {one_line(shown[0].name)}: the share of each class that is found."
    dots = predictions.dot_plot([evidence.classes[k] for k in order], columns, "classes", caption, "recall, %")
    blocks = (dots, tables.per_class_table(evidence))
    return Section("classes", "By class", (), blocks, (tables.all_classes_table(evidence),))


def _group_section(findings: ReportInput) -> Section | None:
    evidence = findings.summary
    kinds = [k for k in ("site", "group") if len(tables.select_group_accuracy(evidence.candidates[0], k).row_counts) > 1]
    if not kinds:
        return None
    blocks: list[ContentBlock] = []
    text: list[str] = []
    for what in kinds:
        names = tables.names_hardest_first(evidence, what)
        shown = evidence.candidates[: tables.MAX_OTHER_CANDIDATES + 1]
        columns = [(e.name, np.array([tables.select_group_accuracy(e, what).accuracy_of(n) for n in names])) for e in shown]
        caption = f"Accuracy by {what}, hardest first for {one_line(shown[0].name)}."
        blocks += [
            predictions.dot_plot(names, columns, f"{what}s", caption, "accuracy, %"),
            tables.per_group_table(evidence, what),
        ]
        if what == "group":
            text.append(_describe_hardest_group(evidence))
            blocks.append(tables.worst_groups_table(evidence))
    title = " and ".join(f"by {k}" for k in kinds).capitalize()
    return Section("groups", title, tuple(text), tuple(blocks), tuple(tables.per_group_table(evidence, k, True) for k in kinds))


def _describe_hardest_group(evidence: StudySummary) -> str:
    found = tables.find_hardest_groups(evidence.candidates[0])
    hardest = found.groups[0]
    return (
        f"The hardest of {len(found.groups)} groups for {evidence.candidates[0].name} is {hardest.group}, with "
        f"{hardest.value * 100:.1f} % of {hardest.n_rows:,} answers right; over the hardest fifth ({found.n_worst}) the mean "
        f"is {found.worst_mean * 100:.1f} %. The hardest of many groups is hard partly by chance, the more so the smaller it is."
    )


def _external_test_section(findings: ReportInput) -> Section | None:
    evidence = findings.summary
    table = tables.external_test_table(evidence)
    return None if table is None else Section("unseen", "Unseen sites", (), (table,))


def _confusion_section(findings: ReportInput) -> Section:
    evidence = findings.summary
    shown = evidence.candidates[:MAX_CONFUSION_MATRICES]
    names = [f"confusion-{i + 1}" for i in range(len(evidence.candidates))]
    drawings = [
        predictions.confusion_matrix_figure(e.confusion, evidence.classes, e.name, n) for e, n in zip(shown, names, strict=False)
    ]
    blocks: list[ContentBlock] = [*drawings]
    table = tables.top_confusions_table(evidence)
    blocks += [table] if table.rows else []
    counts = [tables.confusion_matrix_table(e, evidence.classes, n) for e, n in zip(shown, names, strict=False)]
    return Section("confusion", "What is taken for what", (), tuple(blocks), tuple(counts))


def _confidence_section(findings: ReportInput) -> Section:
    evidence = findings.summary
    shown = evidence.candidates[:MAX_CURVE_CANDIDATES]
    blocks: list[ContentBlock] = []
    if len(evidence.classes) <= MAX_RANKED_CLASSES:
        curves, areas = [], []
        for entrant in shown:
            found, area = compute_roc_curves(findings.store, entrant)
            if len(found):
                band = found.std(axis=0, ddof=1) if len(found) > 1 else np.zeros(len(FALSE_POSITIVE_RATES))
                curves.append(Curve(entrant.name, FALSE_POSITIVE_RATES, found.mean(axis=0), band))
                areas.append(area)
        if curves:
            blocks.append(predictions.roc_curve_figure(curves, areas, len(evidence.classes) == 2, evidence.classes[-1]))
    bins = [(e.name, e.confidence_bins[e.confidence_bins[:, 0] > 0]) for e in shown]
    lines = [Curve(name, b[:, 1] / b[:, 0], b[:, 2] / b[:, 0], np.zeros(len(b))) for name, b in bins]
    blocks.append(predictions.reliability_diagram(lines, [b[:, 0] for _, b in bins]))
    mended = {e.name: m for e in shown if (m := fit_temperature_scaling(findings.store, e))}
    blocks.append(tables.confidence_table(evidence, mended))
    return Section("confidence", "Confidence", (), tuple(blocks))


def _embedding_section(findings: ReportInput) -> Section | None:
    evidence = findings.summary
    first = evidence.candidates[0]
    said = findings.store.run(first.runs[0].key).load_predictions()
    if said is None or said.features is None or len(said.features) < 10:
        return None
    rows = np.unique(np.linspace(0, len(said.labels) - 1, min(MAX_TSNE_ROWS, len(said.labels))).astype(np.int64))
    spread = said.features[rows].astype(np.float64)
    if not np.isfinite(spread).all() or not np.ptp(spread, axis=0).any():
        return None  # a dead network sees everything alike: there is nothing to lay out
    xy = predictions.compute_tsne(said.features[rows])
    drawings = [predictions.embedding_figure(xy, said.labels[rows], evidence.classes, "class", first.name)]
    if said.groups is not None:
        names, member = np.unique(said.groups[rows], return_inverse=True)
        if 1 < len(names) <= 60:
            drawings.append(
                predictions.embedding_figure(xy, member.astype(np.int64), [str(n) for n in names], "group", first.name)
            )
    return Section("features", "What it sees as alike", (), tuple(drawings))


def _mistakes_section(findings: ReportInput) -> Section | None:
    evidence = findings.summary
    first = evidence.candidates[0]
    shown = mistakes_gallery(findings.store, first, evidence.classes)
    if shown is None:
        return None
    text = f"Held-out pictures that {first.name} got wrong while most sure of itself. Some may be labelled wrongly."
    return Section("mistakes", "Most confident mistakes", (text,), (shown,))


def _provenance_section(findings: ReportInput) -> Section:
    evidence = findings.summary
    pairs = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(w, t) for w, t in provenance.study_facts(evidence))
    blocks: list[ContentBlock] = [provenance.candidates_table(evidence)]
    failed = provenance.failures_table(evidence)
    blocks += [failed] if failed else []
    blocks.append(Markup('<dl class="facts">{}</dl>').format(pairs))
    blocks.append(
        Markup('<h3>How to repeat it</h3>\n<pre tabindex="0">{}</pre>').format("\n".join(provenance.reproduce_commands(evidence)))
    )
    blocks.append(collapsible_block("The study as written", provenance.study_source_text(evidence)))
    for name, settings in provenance.resolved_settings(evidence):
        blocks.append(collapsible_block(f"{name}, every setting", settings))
    return Section("provenance", "What was run", (), tuple(blocks), (provenance.runs_table(evidence),))


SECTION_ORDER: tuple[Callable[[ReportInput], Section | None], ...] = (
    _leaderboard_section,
    _comparison_section,
    sweep_section,
    screening_section,
    _cost_section,
    _group_section,
    _external_test_section,
    _class_section,
    _confusion_section,
    _mistakes_section,
    _confidence_section,
    fusion_section,
    learning_curve_section,
    _embedding_section,
    leakage_section,
    _provenance_section,
)
