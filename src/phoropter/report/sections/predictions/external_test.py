"""External test: rows of sites that no model was trained on."""

from __future__ import annotations

from phoropter.report.render.metric_format import metric_column
from phoropter.report.render.section import Section
from phoropter.report.render.table import INTERVAL_TITLE, Column, IntervalBounds, Table, TableRow
from phoropter.report.sections.candidate_values import mean_std_over_runs
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput

MAX_SITE_COLUMNS = 12  # external sites with a column of their own


def external_test_section(inputs: ReportInput) -> Section | None:
    """None where the study has no external sites."""
    table = external_test_table(inputs.summary)
    return None if table is None else Section("external-test", "External test", (), (table,))


def external_test_table(summary: StudySummary) -> Table | None:
    """Held-out rows beside external rows: the mean of the single models, and the ensemble of all models of a candidate."""
    tested = [(c, c.external_test) for c in summary.candidates if c.external_test]
    if not tested:
        return None
    c, metric = metric_column(summary.ranking_metric), summary.metrics[0]
    sites = sorted({site for _, test in tested for site in test.site_scores})[:MAX_SITE_COLUMNS]
    columns: tuple[Column, ...] = (
        Column("Candidate"),
        Column(f"{c.name}, held out", c.kind, c.description, c.digits),
        Column("External sites, single models", c.kind, c.description, c.digits),
        Column("External sites, ensemble", c.kind, "all models of the candidate, their probabilities averaged", c.digits),
        Column(INTERVAL_TITLE, c.kind, "of the ensemble", c.digits),
        *(Column(site, c.kind, "this site alone, ensemble", c.digits) for site in sites),
    )
    rows = tuple(
        TableRow(
            (
                candidate.name,
                mean_std_over_runs(candidate, metric),
                mean_std_over_runs(candidate, metric, external=True),
                test.metrics[metric],
                IntervalBounds(test.interval.low, test.interval.high),
                *(test.site_scores.get(site, float("nan")) for site in sites),
            )
        )
        for candidate, test in tested
    )
    methods = "; ".join(dict.fromkeys(test.interval.method for _, test in tested))
    note = f"{tested[0][1].n_rows:,} rows of sites that no model was trained on. Interval: {methods}."
    return Table("external-test", "Results on sites that no model was trained on", columns, rows, note)
