"""Cost: the metric against compute, and what each candidate takes to train, store and run."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures.cost import CostPoint, metric_cost_figure
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, Table, TableRow
from phoropter.report.sections.candidate_costs import SHARED_PASSES, describe_shown_size, own_training_seconds, shares_passes
from phoropter.report.sections.candidate_values import primary_metric_interval
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.report.summary.report_input import ReportInput

_COST_AXES = (
    ("macs", "Multiply-adds per image"),
    ("parameters", "Parameters"),
    ("train_seconds", "Training time per run, s"),
)
COST_COLUMNS = (
    ("parameters", Column("Parameters", "si", "of the complete classifier")),
    ("trainable", Column("Trainable", "si", "parameters that are trained")),
    ("macs", Column("Multiply-adds", "si", "per image")),
    ("predict_images_per_s", Column("Images/s", "count", "in prediction, median over runs")),
    ("train_seconds", Column("Training", "duration", "per run, median over runs")),
    ("predict_seconds", Column("Prediction", "duration", "of the held-out rows of one run, median over runs")),
    ("answer_seconds_1", Column("Answer, 1 image", "duration", "from the stored image to probabilities, model in memory")),
    ("answer_seconds_32", Column("Answer, 32 images", "duration", "the same for 32 images together")),
    ("peak_memory_bytes", Column("Memory", "bytes", "peak of a run, median over runs")),
)
_EPOCH = Column("Epoch", "duration", "of training, without the one pass of frozen backbones; median over runs")
_OPTIONAL = ("answer_seconds_1", "answer_seconds_32")  # unknown to studies of earlier versions


def cost_section(inputs: ReportInput) -> Section | None:
    """Against the first measure of cost that at least two candidates have; None where there is none."""
    summary = inputs.summary
    for name, axis in _COST_AXES:
        points = []
        for c in summary.candidates:
            low, high = primary_metric_interval(c)
            points.append(CostPoint(c.name, c.metric_mean(summary.metrics[0]), low, high, c.median_cost(name)))
        usable = [p for p in points if np.isfinite(p.cost) and p.cost > 0 and np.isfinite(p.mean)]
        if len(usable) > 1:
            figure = metric_cost_figure(usable, MetricFormat.from_metric(summary.ranking_metric), axis)
            return Section("cost", "Cost", (), (figure, cost_table(summary)))
    return None


def cost_table(summary: StudySummary) -> Table:
    """A row for each candidate: size, speed, time and memory."""
    values = {name: [c.median_cost(name) for c in summary.candidates] for name, _ in COST_COLUMNS}
    shown = [(name, column) for name, column in COST_COLUMNS if name not in _OPTIONAL or np.isfinite(values[name]).any()]
    values["epoch"] = [_median_epoch_seconds(c) for c in summary.candidates]
    if np.isfinite(values["epoch"]).any():
        shown.insert([name for name, _ in shown].index("train_seconds") + 1, ("epoch", _EPOCH))
    rows = tuple(TableRow((c.name, *(values[name][place] for name, _ in shown))) for place, c in enumerate(summary.candidates))
    notes = ["Medians over runs, measured on the machine named under Provenance."]
    notes += [SHARED_PASSES] if shares_passes(summary.candidates) else []
    notes += ["On a CPU, memory is the process's, its libraries included, while the run was computed; heads that are trained"]
    notes[-1] += " together have one peak."
    notes += [size] if (size := describe_shown_size(summary)) else []
    return Table("costs", "Cost of each candidate", (Column("Candidate"), *(c for _, c in shown)), rows, " ".join(notes))


def _median_epoch_seconds(candidate: CandidateResults) -> float:
    """NaN where nothing was trained by epochs, as with solved heads and averages."""
    runs = [run for run in candidate.runs if run.cost.get("epochs") and run.cost.get("train_seconds") is not None]
    each = [own_training_seconds(run) / run.cost["epochs"] for run in runs]
    return float(np.median(each)) if each else float("nan")
