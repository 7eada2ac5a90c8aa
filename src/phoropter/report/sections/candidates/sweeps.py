"""Parameter sweeps: the metric against each swept setting, as curves with intervals and as tables; main effects, exploratory."""

from __future__ import annotations

import numpy as np

from phoropter.report.figures import comparison
from phoropter.report.figures.comparison import (
    MAX_CURVES,
    Curve,
)
from phoropter.report.render.metric_format import MetricFormat, metric_column
from phoropter.report.render.section import ContentBlock, Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import (
    INTERVAL_TITLE,
    Column,
    Table,
    TableRow,
)
from phoropter.report.sections.candidate_values import mean_std_over_runs, primary_metric_interval
from phoropter.report.sections.candidates.contrasts import main_effects_table
from phoropter.report.summary.model import (
    CandidateResults,
    StudySummary,
)
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS


def sweep_section(inputs: ReportInput) -> Section | None:
    summary = inputs.summary
    settings = [e.settings for e in summary.candidates]
    paths = [p for p in dict.fromkeys(k for s in settings for k in s) if len({repr(s.get(p)) for s in settings}) > 1]
    blocks: list[ContentBlock] = []
    for path in paths:
        effects = main_effects_table(inputs.answers.main_effects, path, path.rpartition(".")[2].replace("_", " "))
        blocks += [draw_sweep(summary, path), *([effects] if effects else []), sweep_table(summary, path)]
    return Section("sweeps", "Parameter sweeps", (), tuple(blocks)) if blocks else None


def sweep_table(summary: StudySummary, path: str) -> Table:
    """A row for each candidate with this setting, in the order of the plan."""
    order = [str(item["candidate"]) for item in summary.study["plan"]]
    swept = sorted((e for e in summary.candidates if path in e.settings), key=lambda e: order.index(e.name))
    first = metric_column(summary.ranking_metric)
    what = path.rpartition(".")[2].replace("_", " ")
    columns = (Column("Candidate"), Column(what), first, Column(INTERVAL_TITLE, first.kind, "", first.digits))
    rows = tuple(
        TableRow(
            (
                e.name,
                _setting_text(e.settings[path]),
                mean_std_over_runs(e, summary.metrics[0]),
                primary_metric_interval(e),
            )
        )
        for e in swept
    )
    return Table(
        f"sweep-{path.replace('.', '-')}", f"{summary.ranking_metric.title} against {what}", columns, rows, max_html_rows=12
    )


def draw_sweep(summary: StudySummary, path: str) -> RenderedFigure:
    """The ranking metric against one swept setting; candidates that differ in other settings are separate curves."""
    metric = summary.metrics[0]
    families: dict[str, list[CandidateResults]] = {}
    for e in summary.candidates:
        if path in e.settings:
            others = [f"{k.rpartition('.')[2]} {_setting_text(v)}" for k, v in e.settings.items() if k != path]
            families.setdefault(" · ".join([e.base_name, *others]), []).append(e)
    order = list(
        dict.fromkeys(_setting_text(p["settings"][path]) for p in summary.study["plan"] if path in (p.get("settings") or {}))
    )
    numeric = all(isinstance(e.settings[path], (int, float)) for f in families.values() for e in f)
    curves = []
    for name, family in list(families.items())[:MAX_CURVES]:
        at = {e: float(e.settings[path]) if numeric else float(order.index(_setting_text(e.settings[path]))) for e in family}
        family = sorted(family, key=lambda e: at[e])
        bounds = np.array([primary_metric_interval(e) for e in family])
        x, y = np.array([at[e] for e in family]), np.array([e.metric_mean(metric) for e in family])
        curves.append(Curve(name, x, y, np.abs(bounds.T - y)))
    what = path.rpartition(".")[2].replace("_", " ")
    labels = None if numeric else order
    return comparison.sweep_figure(
        curves, path.replace(".", "-"), what, MetricFormat.from_metric(METRICS[metric]), labels, len(families) - len(curves)
    )


def _setting_text(value: object) -> str:
    """A setting as the plan writes it."""
    if isinstance(value, dict):
        return " ".join(f"{k} {_setting_text(v)}" for k, v in value.items())
    return "+".join(map(_setting_text, value)) if isinstance(value, list) else str(value)
