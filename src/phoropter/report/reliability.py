"""How far the results of a study can be trusted: a few lines beside the conclusion, each with a link to its details."""

from __future__ import annotations

import numpy as np

from phoropter.report.render.document import ReliabilityFact
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.table import one_line
from phoropter.report.render.wording import count_with_noun, list_names
from phoropter.report.sections.clinical.positive_words import find_outcome_rule
from phoropter.report.sections.study.leakage import SKIPPED, read_audit_findings
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput

FEW_UNITS = 20  # an interval over fewer independent units is named as a limit


def describe_reliability(inputs: ReportInput) -> list[ReliabilityFact]:
    """Completeness, leakage, units, power, guessing, convergence and calibration; what a study does not have is left out."""
    summary = inputs.summary
    found = [_describe_completeness(summary), _describe_audit(summary), _describe_units(summary), _describe_power(inputs)]
    found += [_describe_positive(inputs), _describe_guessing(inputs), _describe_convergence(summary)]
    found += [_describe_confidence(summary)]
    return [fact for fact in found if fact is not None]


def _describe_completeness(summary: StudySummary) -> ReliabilityFact:
    done, planned = summary.n_finished, summary.n_planned
    smoke = "; a smoke version of the study" if summary.study.get("scale") else ""
    text = f"all {planned:,} finished" if done == planned > 1 else f"{done:,} of {planned:,} finished"
    return ReliabilityFact("Runs", text + smoke, done < planned or bool(smoke), "provenance")


def _describe_audit(summary: StudySummary) -> ReliabilityFact:
    found = read_audit_findings(summary)
    if found is None:
        return ReliabilityFact("Leakage audit", "not recorded", True, "leakage")
    grave = sum(f["severity"] != "note" and f["kind"] != SKIPPED for f in found)
    notes = sum(f["severity"] == "note" and f["kind"] != SKIPPED for f in found)
    skipped = sum(f["kind"] == SKIPPED for f in found)
    parts = [count_with_noun(grave, "finding")] if grave else ["no leakage found"]
    parts += [count_with_noun(notes, "note")] if notes else []
    parts += [f"{count_with_noun(skipped, 'check')} could not be made"] if skipped else []
    return ReliabilityFact("Leakage audit", ", ".join(parts), grave > 0, "leakage")


def _describe_units(summary: StudySummary) -> ReliabilityFact:
    few = summary.n_units < FEW_UNITS
    shared = summary.has_groups and bool(summary.protocol_config.get("allow_group_overlap"))
    text = f"{summary.unit_word.count(summary.n_units)}{', few: intervals are wide' if few else ''}"
    text += ", on both sides of the split" if shared else ""
    return ReliabilityFact("Independent units", text, few or shared, "leaderboard")


def _describe_power(inputs: ReportInput) -> ReliabilityFact | None:
    """The difference that a single comparison of the first two can show; None where nothing is known of it."""
    pairs = inputs.comparisons.leader_pairs
    detectable = pairs[0].detectable if pairs else float("nan")
    if not np.isfinite(detectable) or detectable <= 0:
        return None
    scale = MetricFormat.from_metric(inputs.summary.ranking_metric)
    return ReliabilityFact(
        "Detectable difference", f"{scale.format_difference(detectable)} of {scale.inline_title}", False, "comparisons"
    )


def _describe_positive(inputs: ReportInput) -> ReliabilityFact | None:
    """Which class counts as positive; None where there is none."""
    if inputs.clinical.positive is None:
        return None
    name = one_line(inputs.summary.classes[inputs.clinical.positive])
    rule = f" (by {rule})" if (rule := find_outcome_rule(inputs.summary)) else ""
    text = name + rule if inputs.clinical.is_stated else f"{name}{rule}, because it is the last; data: {{positive: …}} names it"
    return ReliabilityFact("Positive class", text, False, "operating-points")


def _describe_guessing(inputs: ReportInput) -> ReliabilityFact | None:
    """How many candidates clear the value without information; None where it is unknown for all."""
    summary = inputs.summary
    judged = [c for c in summary.candidates if c.replicates is not None and c.no_information is not None]
    if not judged:
        return None
    uninformed = {c.name for c in find_uninformed(summary, inputs.comparisons.design)}
    clear = sum(c.name not in uninformed for c in judged)
    text = (
        "shown for every candidate"
        if clear == len(judged)
        else f"shown for {clear or 'none'} of {count_with_noun(len(judged), 'candidate')}"
    )
    return ReliabilityFact("Better than guessing", text, clear < len(judged), "leaderboard")


def _describe_convergence(summary: StudySummary) -> ReliabilityFact | None:
    """Candidates that were not trained to the end; None where every one was."""
    names = [c.name for c in summary.candidates if c.not_converged]
    return ReliabilityFact("Not trained to the end", list_names(names, 3), True, "learning-curves") if names else None


def _describe_confidence(summary: StudySummary) -> ReliabilityFact | None:
    """Mean confidence of the first candidate against its accuracy; None where its calibration is unknown."""
    first = summary.candidates[0]
    if first.calibration is None or summary.is_multi_label:
        return None
    counts, confidence, correct = first.calibration.bins.sum(axis=0)
    over = (confidence - correct) / counts * 100
    text = f"{abs(over):.1f} points {'above' if over > 0 else 'below'} its accuracy, for {first.name}"
    return ReliabilityFact("Mean confidence", text, False, "calibration")
