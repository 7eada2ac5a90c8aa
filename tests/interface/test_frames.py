"""Tables of the page as DataFrames: spreads and bounds take columns of their own, unrounded."""

from __future__ import annotations

import numpy as np

from phoropter.interface.frames import tabulate_page_table
from phoropter.report.render.table import Column, IntervalBounds, MeanStd, Table, TableRow


def test_spreads_and_bounds_take_two_columns() -> None:
    columns = (Column("Name"), Column("95\u00a0%", "percent"), Column("Bounds", "percent"))
    rows = (TableRow(("a", MeanStd(0.123456, 0.01), IntervalBounds(0.1, np.inf))), TableRow(("b", None, None)))
    frame = tabulate_page_table(Table("t", "c", columns, rows))
    assert list(frame.columns) == ["Name", "95 %", "95 % std", "Bounds low", "Bounds high"]
    assert list(frame.iloc[0]) == ["a", 0.123456, 0.01, 0.1, np.inf] and frame["Name"][1] == "b"
    assert frame.iloc[1].isna().sum() == 4
