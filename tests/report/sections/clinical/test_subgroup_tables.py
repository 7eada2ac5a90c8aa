"""Subgroups on the page, from the stored logits by plain lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_clinical import BIRTHS
from made_study import make_study

from phoropter.report.render.table import IntervalBounds, Table
from phoropter.report.sections.clinical.subgroup_tables import subgroup_section
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.positive_class import open_results
from phoropter.results.subgroup_file import write_subgroups


def test_each_subgroup_has_its_value_counts_and_interaction(tmp_path: Path) -> None:
    make_study(tmp_path, replace(BIRTHS, metrics=("accuracy",)))
    store = open_results(tmp_path)
    nothing: Any = None
    inputs = ReportInput(store, collect_summary(store), nothing)
    assert subgroup_section(inputs) is None
    parts = [p for r in store.runs() if r.candidate_name == "resnet18" and (p := r.load_predictions()) is not None]
    sex = {
        str(i): "f" if int(str(g)[1:]) % 3 else "m"
        for p in parts
        if p.groups is not None
        for i, g in zip(p.ids, p.groups, strict=True)
    }
    write_subgroups(tmp_path, np.array(list(sex)), {"sex": np.array(list(sex.values()))})
    section = subgroup_section(inputs)
    assert section is not None
    table = next(b for b in section.iter_blocks() if isinstance(b, Table))
    assert table.caption == f"{inputs.summary.candidates[0].name} by sex" and "Interaction: p " in table.note
    rows = {row.values[0]: dict(zip([c.name for c in table.columns], row.values, strict=True)) for row in table.rows}
    first = [p for r in store.runs() if r.candidate_name == inputs.summary.candidates[0].name and (p := r.load_predictions())]
    for name in ("f", "m"):
        hits, births, ill = [], set(), 0
        for part in first:
            for i, g, label, z in zip(part.ids, part.groups, part.labels, part.logits, strict=True):  # type: ignore[arg-type]
                if sex[str(i)] == name:
                    hits.append(z.argmax() == label)
                    births.add(g)
                    ill += label == 1
        row = rows[name]
        assert row["Accuracy"] == pytest.approx(np.mean(hits)) and row["Rows"] == len(hits) / 2  # two seeds
        assert row["Births"] == len(births) and row["Rows of acidosis"] == ill / 2
        bounds = row["95\u00a0%\u00a0interval"]
        assert isinstance(bounds, IntervalBounds) and bounds.low < np.mean(hits) < bounds.high
