"""The first sentences of the page of a paper's study: its claim, the published figure, ours, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.wording import list_names
from phoropter.report.sections.published_figures import Agreement, ComparedFigure, compare_ranking_figures, read_about
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.questions import QuestionAnswers
from phoropter.results.metrics.registry import METRICS


def describe_claim(summary: StudySummary, answers: QuestionAnswers) -> list[str]:
    """Empty for a study that states no claim of a source."""
    claim = str(read_about(summary).get("claim") or "").strip().rstrip(".")
    if not claim:
        return []
    sentences = [f"Claimed by its source: {claim}."]
    if not read_about(summary).get("published"):
        return sentences
    if summary.study.get("scale"):
        return [*sentences, "A smoke version is not compared with published figures."]
    measured = compare_ranking_figures(summary)
    if not measured:
        return [*sentences, "No published figure has one of this study beside it."]
    headline = _choose_headline(measured, answers, summary)
    return [*sentences, _describe_figure(headline), *_count_agreements(measured, headline)]


def _choose_headline(figures: Sequence[ComparedFigure], answers: QuestionAnswers, summary: StudySummary) -> ComparedFigure:
    """That of the candidate that the planned question is about, else the best of the published ones."""
    asked = answers.planned[0].contrast.candidates if answers.planned else ()
    sign = 1 if summary.ranking_metric.higher_is_better else -1

    def rank_figure(figure: ComparedFigure) -> tuple[bool, bool, float]:
        return figure.candidate in asked, not figure.is_unseen, sign * figure.published.value

    return max(figures, key=rank_figure)


def _describe_figure(figure: ComparedFigure) -> str:
    """`small CNN: published 89.0 % accuracy (…), here 87.1 % (…): they agree within these intervals.`"""
    scale = MetricFormat.from_metric(METRICS[figure.scored_by])
    where = " at sites never trained on" if figure.is_unseen else ""
    theirs = "" if figure.derived is None else _bounds_text(figure.derived.low, figure.derived.high, scale, "95 % interval ")
    ours = _bounds_text(figure.low, figure.high, scale, "95 % interval " if not theirs else "")
    published = f"published {scale.format_value(figure.published.value)} {scale.inline_title}{where}{theirs}"
    return f"{figure.candidate}: {published}, here {scale.format_value(figure.ours)}{ours}: {_judge_in_words(figure)}."


def _bounds_text(low: float, high: float, scale: MetricFormat, title: str) -> str:
    return f" ({title}{scale.format_value(low)} to {scale.format_value(high)})" if np.isfinite([low, high]).all() else ""


def _judge_in_words(figure: ComparedFigure) -> str:
    if figure.agreement == "agrees":
        return "they agree within what both can know"
    if figure.agreement != "cannot be judged":
        return f"{figure.agreement}, by more than both intervals explain"
    if not np.isfinite([figure.low, figure.high]).all():
        return "whether they agree cannot be known, because this study has no interval of it"
    inside = "inside" if figure.low <= figure.published.value <= figure.high else "outside"
    return (
        "whether they agree cannot be known, because the source gives no interval and not what one could be derived from; its "
        f"figure lies {inside} the interval here"
    )


_VERBS: dict[Agreement, tuple[str, str]] = {
    "agrees": ("agrees", "agree"),
    "higher here": ("is higher here", "are higher here"),
    "lower here": ("is lower here", "are lower here"),
    "cannot be judged": ("cannot be judged", "cannot be judged"),
}


def _count_agreements(figures: Sequence[ComparedFigure], headline: ComparedFigure) -> list[str]:
    """Of the others: `Of 40 published figures with ours beside them, 30 agree, 8 are lower here and 2 cannot be judged.`"""
    if len(figures) == 1:
        return []
    counts = Counter(f.agreement for f in figures)
    parts = [f"{counts[kind]} {_VERBS[kind][counts[kind] > 1]}" for kind in _VERBS if counts[kind]]
    titles = MetricFormat.from_metric(METRICS[headline.scored_by]).inline_title
    return [f"Of {len(figures)} published values of {titles} with ours beside them, {list_names(parts)}."]
