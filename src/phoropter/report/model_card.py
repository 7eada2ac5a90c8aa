"""A model card (Mitchell et al. 2019) of the first candidate of a study, as Markdown: what it is, on whom it was judged and how.

It says nothing that the page does not say, and what it cannot know (who should use it, and for what) it leaves to be filled in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from phoropter.report import conclusion, tables
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.table import Column, Table, TableRow, duration_text, escape_markdown, format_cell, si_text
from phoropter.report.sections import leakage, provenance
from phoropter.report.summary.collect import fit_temperature_scaling
from phoropter.report.summary.findings import ReportInput
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS

FEW_UNITS = 20  # below, an interval over groups is itself uncertain, and the card says so


def build_model_card(findings: ReportInput) -> str:
    """The whole text."""
    evidence, first = findings.summary, findings.summary.candidates[0]
    said, beside = conclusion.write_conclusion(evidence, findings.comparisons)
    parts: list[tuple[str, list[str]]] = [
        ("What it is", _describe_model(first, evidence)),
        ("What the study concludes", [_escape_text(s) for s in (*said, *beside)]),
        ("Data", _describe_data(evidence)),
        ("How it was judged", _describe_evaluation(evidence)),
        ("Figures", _describe_metrics(findings)),
        ("Whom it serves worst", _describe_worst_groups(evidence)),
        ("How sure it is of itself", _describe_calibration(findings)),
        ("Cost", _describe_cost(first)),
        ("Limits", _bullet_list(list_limitations(findings))),
        ("How to load it", _describe_loading(findings)),
        ("Versions", [_escape_text(", ".join(f"{k} {v}" for k, v in (evidence.study.get("versions") or {}).items()))]),
    ]
    name = str(evidence.study.get("name", evidence.folder.name))
    head = f"# Model card: {_escape_text(first.name)}\n\nThe first candidate of the study {_escape_text(name)}.\n"
    return head + "".join(f"\n## {title}\n\n" + "\n\n".join(p for p in body if p) + "\n" for title, body in parts if any(body))


def _escape_text(words: str) -> str:
    return escape_markdown(words)


def _bullet_list(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {_escape_text(line)}" for line in lines)]


def _describe_model(first: CandidateResults, evidence: StudySummary) -> list[str]:
    record = first.runs[0].record
    words = str(record["candidate"].get("description", first.name))
    classes = ", ".join(evidence.classes[:20]) + (f" and {len(evidence.classes) - 20} more" if len(evidence.classes) > 20 else "")
    return [_escape_text(f"{words}."), _escape_text(f"It answers with one of {len(evidence.classes)} classes: {classes}.")]


def _describe_data(evidence: StudySummary) -> list[str]:
    dataset = evidence.study.get("dataset") or {}
    words = [f"{dataset.get('name') or 'The dataset'}: {dataset.get('rows', 0):,} labelled rows"]
    words += [f"{dataset['groups']:,} groups"] if dataset.get("groups") else []
    words += [f"sites {', '.join(map(str, dataset['sites']))}"] if dataset.get("sites") else []
    size = f"shown as pictures of {dataset['size']} pixels" if dataset.get("size") else ""
    sentence = f"{', '.join(words)}{'; ' + size if size else ''}. Fingerprint {dataset.get('fingerprint', 'unknown')}."
    notes = " ".join(map(str, dataset.get("notes") or ()))
    counts = dataset.get("counts") or []
    each = ", ".join(f"{c} {n:,}" for c, n in list(zip(evidence.classes, counts, strict=False))[:20])
    return [_escape_text(sentence), _escape_text(f"Rows by class: {each}.") if each else "", _escape_text(notes)]


def _describe_evaluation(evidence: StudySummary) -> list[str]:
    words = provenance.describe_protocol(evidence)
    runs = len(evidence.candidates[0].runs)
    return [
        _escape_text(
            f"{words[:1].upper()}{words[1:]}; {runs} runs of this candidate, judged {conclusion.describe_test_population(evidence)}."
        )
    ]


def _describe_metrics(findings: ReportInput) -> list[str]:
    """A row a metric; the interval where there is one, which is that of the metric candidates are ranked by."""
    evidence, first = findings.summary, findings.summary.candidates[0]
    base = tables.majority_class_scores(evidence)
    rows = []
    for name in evidence.metrics:
        column = tables.metric_column(METRICS[name])
        head = f"{column.name}, {column.unit_text}" if column.unit_text else column.name
        bounds = format_cell(tables.primary_metric_interval(first), column) if name == evidence.metrics[0] else ""
        always = format_cell(base.get(name), column) if name in base else ""
        rows.append(TableRow((head, format_cell(tables.mean_std_over_runs(first, name), column), bounds, always)))
    unit = "groups" if evidence.has_groups else "rows"
    columns = (Column("Metric"), Column("On held-out data"), Column("95 % interval"), Column("Always the commonest class"))
    said = f"Mean ± standard deviation over runs; the interval by bootstrap over {evidence.n_units:,} {unit}"
    body = [Table("figures", said, columns, tuple(rows)).to_markdown().strip()]
    if first.external_test is not None:
        scale, found = MetricFormat.from_metric(evidence.ranking_metric), first.external_test.interval
        there = f"On {first.external_test.n_rows:,} rows of sites never trained on, {first.external_test.n_models} models averaged have "
        there += f"{scale.format_value(found.estimate)} {scale.inline_title}"
        bounds = (
            f" (95 % interval {scale.format_value(found.low)} to {scale.format_value(found.high)})"
            if np.isfinite(found.low)
            else ""
        )
        body.append(_escape_text(f"{there}{bounds}."))
    return body


def _describe_worst_groups(evidence: StudySummary) -> list[str]:
    first = evidence.candidates[0]
    body = []
    if len(first.group_accuracy.row_counts) > 1:
        found = tables.find_hardest_groups(first)
        hardest = found.groups[0]
        body.append(
            _escape_text(
                f"Over the hardest fifth of {len(found.groups)} groups ({found.n_worst}) its accuracy is "
                f"{found.worst_mean * 100:.1f} %; the hardest is {hardest.group}, with {hardest.value * 100:.1f} % of "
                f"{hardest.n_rows:,} answers right."
            )
        )
    if len(first.site_accuracy.row_counts) > 1:
        shares = "; ".join(
            f"{s} {first.site_accuracy.accuracy_of(s) * 100:.1f} %" for s in tables.names_hardest_first(evidence, "site")
        )
        body.append(_escape_text(f"Accuracy by site, hardest first: {shares}."))
    each = tables.compute_class_metrics(first.confusion)
    worst = int(np.argmin(np.where(each.support > 0, each.recall, np.inf)))
    found_of = f"{each.recall[worst] * 100:.1f} % of the time"
    body.append(_escape_text(f"The class it finds least often is {evidence.classes[worst]}, {found_of}."))
    return body


def _describe_calibration(findings: ReportInput) -> list[str]:
    first = findings.summary.candidates[0]
    counts, confidence, right = first.confidence_bins.sum(axis=0)
    over = (confidence - right) / counts * 100
    said = f"On average it is {abs(over):.1f} points {'more' if over > 0 else 'less'} confident than it is right; "
    said += f"its calibration error is {first.metric_mean('ece'):.3f}."
    mended = fit_temperature_scaling(findings.store, first)
    if mended:
        said += f" Dividing its logits by a temperature of {mended.temperature:.2f} (fitted on inner validation rows) leaves "
        said += f"{mended.calibration_error:.3f}."
    return [_escape_text(said)]


def _describe_cost(first: CandidateResults) -> list[str]:
    known = [
        ("{} parameters", first.median_cost("parameters"), si_text),
        ("{} multiply-adds for one picture", first.median_cost("macs"), si_text),
        ("{} to train once", first.median_cost("train_seconds"), duration_text),
        ("{} pictures a second when predicting", first.median_cost("predict_images_per_s"), lambda v: f"{v:,.0f}"),
    ]
    said = ", ".join(words.format(text(value)) for words, value, text in known if np.isfinite(value))
    return [_escape_text(f"{said}, on the machine of the study.")] if said else []


def list_limitations(findings: ReportInput) -> list[str]:
    """What keeps the figures from being believed too far, in plain words."""
    evidence, found = findings.summary, findings.comparisons
    first = evidence.candidates[0]
    lines = [f"Changed for a quick version of the study: {line}." for line in evidence.study.get("scale") or ()]
    if evidence.n_finished < evidence.n_planned:
        lines.append(f"Only {evidence.n_finished:,} of {evidence.n_planned:,} runs of the study are finished.")
    open_ = [c.b for c in found.leader_pairs if c.verdict != "ahead"]
    if open_:
        lines.append(f"It comes first, but it is not shown to be better than {_shorten_list(open_)}.")
    lines += _protocol_limitations(evidence)
    audit = leakage.read_audit_findings(evidence)
    lines += ["No leakage audit is recorded."] if audit is None else leakage.severe_findings(evidence)
    if not np.isfinite(tables.primary_metric_interval(first).low):
        lines.append("There are too few independent units for an interval.")
    elif evidence.n_units < FEW_UNITS:
        lines.append(f"The interval stands on {evidence.n_units} {'groups' if evidence.has_groups else 'rows'}, which are few.")
    if evidence.study.get("dataset", {}).get("problems"):
        lines.append(f"{len(evidence.study['dataset']['problems'])} bad inputs were left out of the data.")
    lines.append("Other pictures, devices, places and people than these were not tried.")
    return lines


def _protocol_limitations(evidence: StudySummary) -> list[str]:
    if evidence.has_groups and evidence.protocol_config.get("allow_group_overlap"):
        return ["Rows of one group were trained on and tested: on people or places never met it will likely do worse."]
    if not evidence.has_groups:
        return ["Rows have no groups, so nothing is known of how it does on a new person, place or device."]
    return []


def _shorten_list(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _describe_loading(findings: ReportInput) -> list[str]:
    first = findings.summary.candidates[0]
    kept = [(line, bundle) for line in first.runs if (bundle := findings.store.run(line.key).bundle_folder) is not None]
    if not kept:
        return ["No bundle of it was kept: run the study with `keep: first` (one model) or `keep: all`."]
    line, folder = kept[0]
    where = os.path.relpath(folder, findings.store.folder).replace(os.sep, "/")
    code = (
        "```python\n"
        "from pathlib import Path\n\n"
        "from phoropter.models.classifier import load\n\n"
        f'classifier = load(Path("{where}"))   # from the results folder; pictures (B, 3, S, S) uint8 → logits (B, C)\n'
        "```"
    )
    said = (
        f"The bundle is the model of one run: trained on {line.n_train:,} rows of the data, tested on {line.n_test:,}. "
        "The figures above are those of all runs, not of this model alone."
    )
    return [code, _escape_text(said)]
