"""A swept setting against the metric: curves with intervals, and the same numbers as a table."""

from __future__ import annotations

import numpy as np

from phoropter.report import figures, tables
from phoropter.report.drawing import Drawing
from phoropter.report.evidence import Entrant, Evidence
from phoropter.report.figures import SHOWN, Curve, Scale
from phoropter.report.section import Block, Findings, Section
from phoropter.report.table import Column, Row, Table
from phoropter.results.metrics import METRICS


def sweeps(findings: Findings) -> Section | None:
    evidence = findings.evidence
    settings = [e.settings for e in evidence.entrants]
    paths = [p for p in dict.fromkeys(k for s in settings for k in s) if len({repr(s.get(p)) for s in settings}) > 1]
    blocks: list[Block] = [block for path in paths for block in (sweep(evidence, path), values(evidence, path))]
    return Section("sweeps", "Sweeps", (), tuple(blocks)) if blocks else None


def values(evidence: Evidence, path: str) -> Table:
    """A row for each candidate that has the setting, in the order of the plan."""
    order = [str(item["candidate"]) for item in evidence.study["plan"]]
    swept = sorted((e for e in evidence.entrants if path in e.settings), key=lambda e: order.index(e.name))
    first = tables.column_of(evidence.metric)
    what = path.rpartition(".")[2].replace("_", " ")
    columns = (Column("Candidate"), Column(what), first, Column("95\u00a0%\u00a0interval", first.kind, "", first.digits))
    rows = tuple(Row((e.name, _word(e.settings[path]), tables.spread(e, evidence.metrics[0]), tables.interval(e))) for e in swept)
    return Table(f"sweep-{path.replace('.', '-')}", f"{evidence.metric.title} against {what}", columns, rows, shown=12)


def sweep(evidence: Evidence, path: str) -> Drawing:
    """The first metric against one swept setting; entrants that differ in another one too are curves of their own."""
    metric = evidence.metrics[0]
    families: dict[str, list[Entrant]] = {}
    for e in evidence.entrants:
        if path in e.settings:
            others = [f"{k.rpartition('.')[2]} {_word(v)}" for k, v in e.settings.items() if k != path]
            families.setdefault(" · ".join([e.base, *others]), []).append(e)
    order = list(dict.fromkeys(_word(p["settings"][path]) for p in evidence.study["plan"] if path in (p.get("settings") or {})))
    numeric = all(isinstance(e.settings[path], (int, float)) for f in families.values() for e in f)
    curves = []
    for name, family in list(families.items())[:SHOWN]:
        at = {e: float(e.settings[path]) if numeric else float(order.index(_word(e.settings[path]))) for e in family}
        family = sorted(family, key=lambda e: at[e])
        bounds = np.array([tables.interval(e) for e in family])
        x, y = np.array([at[e] for e in family]), np.array([e.mean(metric) for e in family])
        curves.append(Curve(name, x, y, np.abs(bounds.T - y)))
    what = path.rpartition(".")[2].replace("_", " ")
    labels = None if numeric else order
    return figures.sweep(curves, path.replace(".", "-"), what, Scale.of(METRICS[metric]), labels, len(families) - len(curves))


def _word(value: object) -> str:
    """A setting as the plan names it."""
    if isinstance(value, dict):
        return " ".join(f"{k} {_word(v)}" for k, v in value.items())
    return "+".join(map(_word, value)) if isinstance(value, list) else str(value)
