"""The sections of the page, in the order a reader needs them: each an idea, a few words, tables and figures.

A section that has nothing to show is None and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from markupsafe import Markup

from phoropter.report import answers, comparisons, cost, figures, provenance, tables
from phoropter.report.diagnosis import inside
from phoropter.report.drawing import Drawing
from phoropter.report.evidence import Entrant, Evidence
from phoropter.report.figures import Curve, Difference, Line, Scale
from phoropter.report.gallery import gallery
from phoropter.report.ladder import ladder
from phoropter.report.leaks import leaks
from phoropter.report.learning import learning
from phoropter.report.reading import FALSE_ALARMS, RANKED_CLASSES, calibrated, roc
from phoropter.report.section import Block, Findings, Section, folded
from phoropter.report.sweeps import sweeps
from phoropter.report.table import one_line
from phoropter.results.metrics import METRICS
from phoropter.results.statistics import friedman

CURVES = 4  # candidates whose ROC and reliability are drawn
MATRICES = 4  # candidates whose confusion matrix is drawn
RANKED, BLOCKS = 20, 6  # candidates at most, and groups at least, for the figure of ranks
FEATURES = 1200  # rows laid out by t-SNE


def sections(findings: Findings) -> list[Section]:
    """All that have something to show."""
    made = (make(findings) for make in ORDER)
    return [section for section in made if section is not None]


def _line(entrant: Entrant, metric: str) -> Line:
    low, high = tables.interval(entrant)
    return Line(entrant.name, entrant.mean(metric), low, high, entrant.values(metric))


def _standings(findings: Findings) -> Section:
    evidence = findings.evidence
    metric = evidence.metrics[0]
    baseline = tables.baseline(evidence).get(metric)
    drawing = figures.standings([_line(e, metric) for e in evidence.entrants], Scale.of(METRICS[metric]), baseline)
    return Section("leaderboard", "Leaderboard", (), (drawing, tables.leaderboard(evidence)))


def _differences(findings: Findings) -> Section | None:
    evidence = findings.evidence
    found = findings.comparisons
    if not found.pairs:
        return None
    blocks: list[Block] = []
    lines = [Difference(c.b, c.difference, c.low, c.high, c.verdict == "ahead") for c in found.of_leader if np.isfinite(c.low)]
    if lines:
        blocks.append(figures.differences(lines, evidence.entrants[0].name, Scale.of(evidence.metric)))
    blocks.append(comparisons.table(found, evidence))
    ranks = _ranks(evidence)
    blocks += [ranks] if ranks else []
    return Section(
        "differences", "How sure", comparisons.explanation(found, evidence), tuple(blocks), comparisons.files(found, evidence)
    )


def _ranks(evidence: Evidence) -> Drawing | None:
    """Groups as blocks, where they are kept apart and enough; folds would be none, for they share training rows."""
    apart = evidence.grouped and not evidence.protocol.get("allow_group_overlap")
    shown = [e for e in evidence.entrants if e.complete]
    if not apart or not 2 < len(shown) <= RANKED or len(shown[0].groups.rows) < BLOCKS:
        return None
    names = sorted(shown[0].groups.rows)
    found = friedman([[e.groups.share(name) for e in shown] for name in names])
    order = sorted(range(len(shown)), key=lambda i: (found.mean_ranks[i], i))
    in_order = [found.mean_ranks[i] for i in order]
    return figures.mean_ranks([shown[i].name for i in order], in_order, found.critical_difference / 2, found.blocks, found.p)


_PRICES = (
    ("macs", "Multiply-adds for one picture"),
    ("parameters", "Parameters"),
    ("train_seconds", "Seconds of training a run"),
)


def _cost(findings: Findings) -> Section | None:
    evidence = findings.evidence
    metric = evidence.metrics[0]
    for name, words in _PRICES:
        points = []
        for e in evidence.entrants:
            low, high = tables.interval(e)
            points.append(cost.Priced(e.name, e.mean(metric), low, high, e.cost(name)))
        usable = [p for p in points if np.isfinite(p.cost) and p.cost > 0 and np.isfinite(p.mean)]
        if len(usable) > 1:
            drawing = cost.against_cost(usable, Scale.of(METRICS[metric]), words)
            return Section("cost", "What it costs", (), (drawing, tables.costs(evidence)))
    return None


def _classes(findings: Findings) -> Section:
    evidence = findings.evidence
    shown = evidence.entrants[: tables.BESIDE + 1]
    shares = [tables.class_shares(e.confusion) for e in shown]
    order = np.argsort(shares[0].recall, kind="stable")
    columns = [(e.name, s.recall[order]) for e, s in zip(shown, shares, strict=True)]
    caption = f"Recall by class, hardest first for {one_line(shown[0].name)}: the share of each class that is found."
    dots = answers.dots([evidence.classes[k] for k in order], columns, "classes", caption, "recall, %")
    blocks = (dots, tables.per_class(evidence))
    return Section("classes", "By class", (), blocks, (tables.every_class(evidence),))


def _groups(findings: Findings) -> Section | None:
    evidence = findings.evidence
    kinds = [k for k in ("site", "group") if len(tables.shares_of(evidence.entrants[0], k).rows) > 1]
    if not kinds:
        return None
    blocks: list[Block] = []
    text: list[str] = []
    for what in kinds:
        names = tables.hardest(evidence, what)
        shown = evidence.entrants[: tables.BESIDE + 1]
        columns = [(e.name, np.array([tables.shares_of(e, what).share(n) for n in names])) for e in shown]
        caption = f"Accuracy by {what}, hardest first for {one_line(shown[0].name)}."
        blocks += [answers.dots(names, columns, f"{what}s", caption, "accuracy, %"), tables.per_group(evidence, what)]
        if what == "group":
            text.append(_hardest(evidence))
            blocks.append(tables.worst_of_all(evidence))
    title = " and ".join(f"by {k}" for k in kinds).capitalize()
    return Section("groups", title, tuple(text), tuple(blocks), tuple(tables.per_group(evidence, k, True) for k in kinds))


def _hardest(evidence: Evidence) -> str:
    found = tables.worst_groups(evidence.entrants[0])
    hardest = found.groups[0]
    return (
        f"The hardest of {len(found.groups)} groups for {evidence.entrants[0].name} is {hardest.group}, with "
        f"{hardest.value * 100:.1f} % of {hardest.rows:,} answers right; over the hardest fifth ({found.share_groups}) the mean "
        f"is {found.share_mean * 100:.1f} %. The hardest of many groups is hard partly by chance, the more so the smaller it is."
    )


def _unseen(findings: Findings) -> Section | None:
    evidence = findings.evidence
    table = tables.unseen_sites(evidence)
    return None if table is None else Section("unseen", "Unseen sites", (), (table,))


def _confusion(findings: Findings) -> Section:
    evidence = findings.evidence
    shown = evidence.entrants[:MATRICES]
    names = [f"confusion-{i + 1}" for i in range(len(evidence.entrants))]
    drawings = [answers.confusion(e.confusion, evidence.classes, e.name, n) for e, n in zip(shown, names, strict=False)]
    blocks: list[Block] = [*drawings]
    table = tables.confusions(evidence)
    blocks += [table] if table.rows else []
    counts = [tables.confusion_counts(e, evidence.classes, n) for e, n in zip(shown, names, strict=False)]
    return Section("confusion", "What is taken for what", (), tuple(blocks), tuple(counts))


def _confidence(findings: Findings) -> Section:
    evidence = findings.evidence
    shown = evidence.entrants[:CURVES]
    blocks: list[Block] = []
    if len(evidence.classes) <= RANKED_CLASSES:
        curves, areas = [], []
        for entrant in shown:
            found, area = roc(findings.store, entrant)
            if len(found):
                band = found.std(axis=0, ddof=1) if len(found) > 1 else np.zeros(len(FALSE_ALARMS))
                curves.append(Curve(entrant.name, FALSE_ALARMS, found.mean(axis=0), band))
                areas.append(area)
        if curves:
            blocks.append(answers.roc(curves, areas, len(evidence.classes) == 2, evidence.classes[-1]))
    bins = [(e.name, e.bins[e.bins[:, 0] > 0]) for e in shown]
    lines = [Curve(name, b[:, 1] / b[:, 0], b[:, 2] / b[:, 0], np.zeros(len(b))) for name, b in bins]
    blocks.append(answers.reliability(lines, [b[:, 0] for _, b in bins]))
    mended = {e.name: m for e in shown if (m := calibrated(findings.store, e))}
    blocks.append(tables.confidence(evidence, mended))
    return Section("confidence", "Confidence", (), tuple(blocks))


def _features(findings: Findings) -> Section | None:
    evidence = findings.evidence
    first = evidence.entrants[0]
    said = findings.store.run(first.runs[0].key).predictions()
    if said is None or said.features is None or len(said.features) < 10:
        return None
    rows = np.unique(np.linspace(0, len(said.labels) - 1, min(FEATURES, len(said.labels))).astype(np.int64))
    spread = said.features[rows].astype(np.float64)
    if not np.isfinite(spread).all() or not np.ptp(spread, axis=0).any():
        return None  # a dead network sees everything alike: there is nothing to lay out
    xy = answers.tsne(said.features[rows])
    drawings = [answers.embedding(xy, said.labels[rows], evidence.classes, "class", first.name)]
    if said.groups is not None:
        names, member = np.unique(said.groups[rows], return_inverse=True)
        if 1 < len(names) <= 60:
            drawings.append(answers.embedding(xy, member.astype(np.int64), [str(n) for n in names], "group", first.name))
    return Section("features", "What it sees as alike", (), tuple(drawings))


def _mistakes(findings: Findings) -> Section | None:
    evidence = findings.evidence
    first = evidence.entrants[0]
    shown = gallery(findings.store, first, evidence.classes)
    if shown is None:
        return None
    text = f"Held-out pictures that {first.name} got wrong while most sure of itself. Some may be labelled wrongly."
    return Section("mistakes", "Most confident mistakes", (text,), (shown,))


def _provenance(findings: Findings) -> Section:
    evidence = findings.evidence
    pairs = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(w, t) for w, t in provenance.facts(evidence))
    blocks: list[Block] = [provenance.candidates(evidence)]
    failed = provenance.failures(evidence)
    blocks += [failed] if failed else []
    blocks.append(Markup('<dl class="facts">{}</dl>').format(pairs))
    blocks.append(
        Markup('<h3>How to repeat it</h3>\n<pre tabindex="0">{}</pre>').format("\n".join(provenance.repeat_lines(evidence)))
    )
    blocks.append(folded("The study as written", provenance.written(evidence)))
    for name, settings in provenance.settled(evidence):
        blocks.append(folded(f"{name}, every setting", settings))
    return Section("provenance", "What was run", (), tuple(blocks), (provenance.runs(evidence),))


ORDER: tuple[Callable[[Findings], Section | None], ...] = (
    _standings,
    _differences,
    sweeps,
    ladder,
    _cost,
    _groups,
    _unseen,
    _classes,
    _confusion,
    _mistakes,
    _confidence,
    inside,
    learning,
    _features,
    leaks,
    _provenance,
)
