"""A model card (Mitchell et al. 2019) of the first candidate of a study, as Markdown.

It repeats what the page shows. Intended use and ethical considerations are left out, because a study does not know them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from phoropter.core.durations import format_duration
from phoropter.core.files import format_bytes
from phoropter.report import conclusion
from phoropter.report.clinical_sentences import clinical_sentences
from phoropter.report.reliability import FEW_UNITS
from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.table import Column, Table, TableRow, escape_markdown, format_cell, si_text
from phoropter.report.render.wording import list_names
from phoropter.report.sections.candidate_costs import SHARED_PASSES, describe_shown_size, shares_passes
from phoropter.report.sections.candidate_values import (
    describe_estimands,
    describe_interval_methods,
    mean_std_over_runs,
    primary_metric_interval,
)
from phoropter.report.sections.predictions.classes import compute_class_metrics
from phoropter.report.sections.predictions.groups import describe_left_out, find_hardest_groups, names_hardest_first
from phoropter.report.sections.study import leakage, provenance
from phoropter.report.summary.curves import fit_temperature_scaling
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.exclusions import count_analysed
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.calibration_error import CalibrationEstimate


def build_model_card(inputs: ReportInput) -> str:
    """The complete text."""
    summary, first = inputs.summary, inputs.summary.candidates[0]
    sentences, small_print = conclusion.write_conclusion(summary, inputs.comparisons, inputs.answers)
    sentences = [*sentences, *clinical_sentences(summary, inputs.clinical, first.name)]
    parts: list[tuple[str, list[str]]] = [
        ("Model", _describe_model(first, summary)),
        ("Conclusion of the study", [_escape_text(s) for s in (*sentences, *small_print)]),
        ("Data", describe_data(summary)),
        ("Evaluation", _describe_evaluation(summary)),
        ("Results", _describe_metrics(inputs)),
        ("Hardest groups and classes", _describe_worst_groups(summary)),
        ("Calibration", _describe_calibration(inputs)),
        ("Cost", _describe_cost(first)),
        ("Limitations", _bullet_list(list_limitations(inputs))),
        ("Loading the model", _describe_loading(inputs)),
        ("Versions", [_escape_text(", ".join(f"{k} {v}" for k, v in (summary.study.get("versions") or {}).items()))]),
    ]
    name = str(summary.study.get("name", summary.folder.name))
    head = f"# Model card: {_escape_text(first.name)}\n\nThe first candidate of the study {_escape_text(name)}.\n"
    return head + "".join(f"\n## {title}\n\n" + "\n\n".join(p for p in body if p) + "\n" for title, body in parts if any(body))


def _escape_text(words: str) -> str:
    return escape_markdown(words)


def _bullet_list(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {_escape_text(line)}" for line in lines)]


def _describe_model(first: CandidateResults, summary: StudySummary) -> list[str]:
    record = first.runs[0].record
    words = str(record["candidate"].get("description", first.name))
    classes = ", ".join(summary.classes[:20]) + (f" and {len(summary.classes) - 20} more" if len(summary.classes) > 20 else "")
    answer = f"one of {len(summary.classes)} classes: {classes}"
    if summary.is_multi_label:
        answer = f"a probability for each of {len(summary.classes)} labels, of which an input may have several: {classes}"
    return [_escape_text(f"{words}."), _escape_text(f"It predicts {answer}.")]


def describe_data(summary: StudySummary) -> list[str]:
    """Paragraphs of Markdown: how many rows of whom, at which size, of which classes, with which notes."""
    dataset = summary.study.get("dataset") or {}
    rows, groups = count_analysed(dataset)
    words = [f"{dataset.get('name') or 'The dataset'}: {rows:,} labelled rows"]
    words += [summary.group_word.count(groups)] if groups else []
    words += [f"{summary.site_word.plural} {', '.join(map(str, dataset['sites']))}"] if dataset.get("sites") else []
    size = f"images of {dataset['size']} pixels" if dataset.get("size") else ""
    sentence = f"{', '.join(words)}{'; ' + size if size else ''}. Fingerprint {dataset.get('fingerprint', 'unknown')}."
    notes = " ".join(map(str, dataset.get("notes") or ()))
    counts = dataset.get("counts") or []
    by = "with each label" if summary.is_multi_label else "by class"
    each = ", ".join(f"{c} {n:,}" for c, n in list(zip(summary.classes, counts, strict=False))[:20])
    size_note = _escape_text(describe_shown_size(summary))
    return [
        _escape_text(sentence),
        size_note,
        _escape_text(f"Rows {by}: {each}.") if each else "",
        _escape_text(notes),
    ]


def _describe_evaluation(summary: StudySummary) -> list[str]:
    protocol = provenance.describe_protocol(summary)
    runs, population = len(summary.candidates[0].runs), conclusion.describe_test_population(summary)
    return [_escape_text(f"{protocol[:1].upper()}{protocol[1:]}; {runs} runs of this candidate, evaluated {population}.")]


def _describe_metrics(inputs: ReportInput) -> list[str]:
    """A row for each metric; only the ranking metric has an interval."""
    summary, first = inputs.summary, inputs.summary.candidates[0]
    rows = []
    for name in summary.metrics:
        column = metric_column(METRICS[name])
        head = f"{column.name}, {column.unit_text}" if column.unit_text else column.name
        bounds = format_cell(primary_metric_interval(first), column) if name == summary.metrics[0] else ""
        majority = format_cell(mean_std_over_runs(summary.baseline, name), column)
        rows.append(TableRow((head, format_cell(mean_std_over_runs(first, name), column), bounds, majority)))
    columns = (Column("Metric"), Column("On held-out data"), Column("95 % interval"), Column("Majority-class baseline"))
    caption = f"{describe_estimands(summary, summary.metrics)} Interval: {describe_interval_methods(summary)}"
    body = [Table("results", caption, columns, tuple(rows)).to_markdown().strip()]
    if first.external_test is not None:
        scale, external = MetricFormat.from_metric(summary.ranking_metric), first.external_test
        low, high = scale.format_value(external.interval.low), scale.format_value(external.interval.high)
        bounds = f" (95 % interval {low} to {high})" if np.isfinite(external.interval.low) else ""
        score = f"{scale.format_value(external.interval.estimate)} {scale.inline_title}{bounds}"
        rows_ = f"On {external.n_rows:,} rows of {summary.site_word.plural} that no model was trained on"
        body.append(_escape_text(f"{rows_}, the ensemble of {external.n_models} models reaches {score}."))
    return body


def _describe_worst_groups(summary: StudySummary) -> list[str]:
    first, scale = summary.candidates[0], MetricFormat.from_metric(summary.ranking_metric)
    body = []
    if first.group_scores.is_shown:
        worst, word = find_hardest_groups(summary), summary.group_word
        hardest = worst.groups[0]
        body.append(
            _escape_text(
                f"Over the hardest fifth of {word.count(len(worst.groups))} ({worst.n_worst}) its {scale.inline_title} is "
                f"{scale.format_value(worst.worst_mean)}; the hardest is {hardest.group}, with "
                f"{scale.format_value(hardest.value)} on {hardest.n_rows:,} predictions."
            )
        )
    if first.site_scores.is_shown:
        values = [f"{s} {scale.format_value(first.site_scores.value_of(s))}" for s in names_hardest_first(summary, "site")]
        body.append(_escape_text(f"{scale.title} by {summary.site_word.singular}, worst first: {'; '.join(values)}."))
    body += [_escape_text(words) for kind in ("site", "group") if (words := describe_left_out(summary, kind))]
    if summary.is_multi_label:
        return body
    metrics = compute_class_metrics(first.confusion)
    lowest = int(np.argmin(np.where(metrics.support > 0, metrics.recall, np.inf)))
    if metrics.recall[lowest] == 1:
        return [*body, "It finds every held-out row of every class."]
    rarely = f"Of its classes, {summary.classes[lowest]} is found least often: {metrics.recall[lowest] * 100:.1f} % of its rows."
    body.append(_escape_text(rarely))
    return body


def _describe_calibration(inputs: ReportInput) -> list[str]:
    first = inputs.summary.candidates[0]
    if first.calibration is None:
        return []
    if inputs.summary.is_multi_label:
        words = "The calibration error of the probabilities of all its labels together, debiased, is"
        return [_escape_text(f"{words} {_error_text(first.calibration)}.")]
    counts, confidence, correct = first.calibration.bins.sum(axis=0)
    over = (confidence - correct) / counts * 100
    text = f"Its mean confidence is {abs(over):.1f} points {'above' if over > 0 else 'below'} its accuracy; "
    text += f"its calibration error, debiased, is {_error_text(first.calibration)}."
    if first.positive_calibration is not None:
        text += f" Of the probability of {inputs.summary.classes[1]}, it is {_error_text(first.positive_calibration)}."
    scaling = fit_temperature_scaling(inputs.store, first)
    if scaling:
        temperature = f"a temperature of {scaling.temperature:.2f}, fitted on inner validation rows"
        text += f" With its logits divided by {temperature}, the error is {_error_text(scaling.calibration)}."
    return [_escape_text(text)]


def _error_text(estimate: CalibrationEstimate) -> str:
    bounds = f" (95 % interval {estimate.low:.3f} to {estimate.high:.3f})" if np.isfinite(estimate.low) else ""
    return f"{estimate.debiased:.3f}{bounds}"


def _describe_cost(first: CandidateResults) -> list[str]:
    costs = [
        ("{} parameters", first.median_cost("parameters"), si_text),
        ("{} multiply-adds per image", first.median_cost("macs"), si_text),
        ("{} of training per run", first.median_cost("train_seconds"), format_duration),
        ("{} images per second in prediction", first.median_cost("predict_images_per_s"), lambda v: f"{v:,.0f}"),
        ("{} from one stored image to its answer", first.median_cost("answer_seconds_1"), format_duration),
        ("{} for 32 images together", first.median_cost("answer_seconds_32"), format_duration),
        ("{} of memory at most", first.median_cost("peak_memory_bytes"), lambda v: format_bytes(int(v))),
    ]
    text = ", ".join(words.format(form(value)) for words, value, form in costs if np.isfinite(value))
    passes = f" {SHARED_PASSES}" if shares_passes([first]) else ""
    return [_escape_text(f"{text}, on the machine of the study.{passes}")] if text else []


def list_limitations(inputs: ReportInput) -> list[str]:
    """Sentences on what limits the results."""
    summary, comparisons = inputs.summary, inputs.comparisons
    first = summary.candidates[0]
    lines = [f"Changed for a smoke version of the study: {line}." for line in summary.study.get("scale") or ()]
    if summary.n_finished < summary.n_planned:
        lines.append(f"Only {summary.n_finished:,} of {summary.n_planned:,} runs of the study are finished.")
    undecided = [c.b for c in comparisons.leader_pairs if c.verdict != "ahead"]
    if undecided:
        lines.append(f"It ranks first, but it is not shown to be better than {list_names(undecided, 4)}.")
    lines += list_protocol_limits(summary)
    audit = leakage.read_audit_findings(summary)
    lines += ["No leakage audit is recorded."] if audit is None else leakage.severe_findings(summary)
    if not np.isfinite(primary_metric_interval(first).low):
        lines.append("There are too few independent units for an interval.")
    elif summary.n_units < FEW_UNITS:
        lines.append(f"The interval rests on only {summary.unit_word.count(summary.n_units)}.")
    if summary.study.get("dataset", {}).get("problems"):
        lines.append(f"{len(summary.study['dataset']['problems'])} bad inputs were left out of the data.")
    lines.append("Other images, devices, sites and people were not tested.")
    return lines


def list_protocol_limits(summary: StudySummary) -> list[str]:
    """Sentences on what its splits leave unknown."""
    if summary.has_groups and summary.protocol_config.get("allow_group_overlap"):
        return [
            f"Training and test rows share {summary.group_word.plural}: expect lower accuracy on new people, sites or devices."
        ]
    if not summary.has_groups:
        return ["Rows have no groups, so its accuracy on new people, sites or devices is unknown."]
    return []


def _describe_average(names: Sequence[str], summary: StudySummary) -> str:
    """Of an average of candidates, whose runs save no bundle of their own, whatever `save_models` says."""
    tables = list(dict.fromkeys(c.base_name for c in summary.candidates if c.base_name in names and c.table_kind))
    if tables:
        which = _escape_text(list_names(tables))
        return f"It averages answers of {which} too, without a network of pictures, so there is no model to load."
    return f"It averages {_escape_text(list_names(names))}: `phoropter refit` makes one model of them, trained on all rows."


def _describe_loading(inputs: ReportInput) -> list[str]:
    first = inputs.summary.candidates[0]
    kept = [(run, bundle) for run in first.runs if (bundle := inputs.store.run(run.key).bundle_folder) is not None]
    if first.table_kind:
        what = "It reads samples, not pictures" if first.reads_samples else f"It has no network ({first.table_kind})"
        return [f"{what}, so there is no model to load."]
    if first.member_names:
        return [_describe_average(first.member_names, inputs.summary)]
    if not kept:
        return ["No bundle of it was saved: run the study with `save_models: first` (one model) or `save_models: all`."]
    run, folder = kept[0]
    where = os.path.relpath(folder, inputs.store.folder).replace(os.sep, "/")
    code = (
        "```python\n"
        "from pathlib import Path\n\n"
        "from phoropter.models.classifier import load\n\n"
        f'classifier = load(Path("{where}"))   # run in the results folder; images (B, 3, S, S) uint8 → logits (B, C)\n'
        "```"
    )
    note = (
        f"The bundle is the model of one run, trained on {run.n_train:,} rows and tested on {run.n_test:,}. "
        "The results above are those of all runs, not of this model alone."
    )
    return [code, _escape_text(note)]
