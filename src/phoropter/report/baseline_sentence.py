"""Whether simple features are enough: a baseline that the networks are not shown to be ahead of is said in the conclusion."""

from __future__ import annotations

from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.wording import list_names
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.model import CandidateResults, StudySummary


def describe_simple_baselines(summary: StudySummary, comparisons: CandidateComparisons) -> str:
    """Empty where there is no baseline or no network, and where the first network is ahead of every baseline.

    An average with a candidate that is no network among its members is none: a baseline is asked for what networks are worth.
    """
    tables = {c.base_name for c in summary.candidates if c.table_kind}
    networks = [c for c in summary.candidates if not c.table_kind and c.is_complete and not tables & set(c.member_names)]
    baselines = [c for c in summary.candidates if c.table_kind in ("baseline", "metadata") and c.is_complete]
    if not networks or not baselines:
        return ""
    best = networks[0]
    verdicts = {c.name: _find_verdict(c.name, best.name, comparisons) for c in baselines}
    ahead = [c for c in baselines if verdicts[c.name] == "ahead"]
    level = [c for c in baselines if verdicts[c.name] in ("cannot tell", "practically the same", "identical")]
    kind = " of pictures" if any(c.reads_samples for c in [*ahead, *level]) else ""
    reached = f"{best.name}, the best of the networks{kind}, reaches {_value(best, summary)}"
    if ahead:
        is_ahead = "is ahead" if len(ahead) == 1 else "are ahead"
        pairs = [_find_verdict(b.name, n.name, comparisons) for b in ahead for n in networks]
        whom = (
            f"of every network{kind}: {reached}"
            if set(pairs) == {"ahead"}
            else f"of {reached.replace(', reaches', ', which reaches')}"
        )
        return f"Without a network{kind}, {_with_values(ahead, summary)} {is_ahead} {whom}."
    if level:
        is_level = "is not shown to be behind" if len(level) == 1 else "are not shown to be behind"
        return f"Without a network{kind}, {_with_values(level, summary)} {is_level}: {reached}."
    return ""


def _find_verdict(baseline: str, network: str, comparisons: CandidateComparisons) -> str:
    """What the pair's test says of the baseline: ahead, behind, cannot tell …; empty where the pair was not tested."""
    for pair in comparisons.pairs:
        if (pair.a, pair.b) == (baseline, network):
            return pair.verdict
        if (pair.a, pair.b) == (network, baseline):
            return {"ahead": "behind", "behind": "ahead"}.get(pair.verdict, pair.verdict)
    return ""


def _value(candidate: CandidateResults, summary: StudySummary) -> str:
    scale = MetricFormat.from_metric(summary.ranking_metric)
    return f"{scale.format_value(candidate.metric_mean(summary.metrics[0]))} {scale.inline_title}"


def _with_values(candidates: list[CandidateResults], summary: StudySummary) -> str:
    return list_names([f"the baseline {c.name} ({_value(c, summary)})" for c in candidates])
