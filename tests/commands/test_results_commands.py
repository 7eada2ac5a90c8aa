"""`report` tells of the runs that it leaves out; the rest of `status` and `report` is tested by the command line as a whole."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner

from phoropter.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # so that the tests find made_study.py there

from made_study import Made, make_study

MADE = Made(accuracies={"a": 0.9, "b": 0.7}, classes=("x", "y"), rows=40, folds=2)


def test_a_report_tells_of_the_damaged_runs_that_it_leaves_out(tmp_path: Path) -> None:
    store = make_study(tmp_path / "study", MADE)
    run = next(iter(store.runs()))
    (run.folder / "predictions.npz").write_bytes(b"cut off")
    result = CliRunner().invoke(main, ["report", str(store.folder), "-q"], catch_exceptions=False)
    assert result.exit_code == 0 and result.stdout == ""
    assert result.stderr.count("damaged") == result.stderr.count("not in the report: damaged: ") == 1
    assert f"runs/{run.key}" in result.stderr and "run the study again" in result.stderr
