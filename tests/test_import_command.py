"""`phoropter import` from end to end: another tool's predictions enter the table and the tests of a study, or leave nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from made_rows import save_frame
from phoropter.cli import main
from phoropter.core.errors import StoreError
from phoropter.results.store import Store
from phoropter.study.spec import read_study
from phoropter.study.variants.imported_candidates import add_imported

STUDY = """\
name: ours
data: {digits: true, size: 16, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates: [{baseline: mean-image}]
"""


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with study.yaml, its results in `out`, and theirs.csv: the study's own answers as another tool writes them."""
    tmp_path = tmp_path_factory.mktemp("ours")
    (tmp_path / "study.yaml").write_text(STUDY)
    assert invoke("run", tmp_path / "study.yaml", "-o", tmp_path / "out").exit_code == 0
    parts = []
    for run in Store(tmp_path / "out").runs():
        predictions = run.load_predictions()
        assert predictions is not None
        frame = pd.DataFrame(predictions.probabilities, columns=[f"p_{k}" for k in range(10)])
        parts.append(frame.assign(id=predictions.ids, label=predictions.labels, fold=run.record["split"]["fold"]))
    save_frame(pd.concat(parts), tmp_path / "theirs.csv")
    return tmp_path


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def import_theirs(folder: Path, name: str = "theirs", file: str = "theirs.csv", *more: str) -> Result:
    words = ("import", folder / file, "--study", folder / "study.yaml", "-o", folder / "out", "--name", name, *more)
    return invoke(*words)


def names_of(folder: Path) -> list[str]:
    return [run.candidate_name for run in Store(folder / "out").runs()]


def test_the_same_answers_have_the_same_figures_and_stay(finished: Path) -> None:
    result = import_theirs(finished)
    assert result.exit_code == 0, result.output
    assert "imported: theirs, 2 runs" in result.output and "theirs (imported)" in result.output
    assert "majority-class baseline (" not in result.output
    ours, theirs = ([r for r in Store(finished / "out").runs() if r.candidate_name == n] for n in ("mean-image", "theirs"))
    assert [r.record["metrics"]["accuracy"] for r in ours] == [r.record["metrics"]["accuracy"] for r in theirs]
    first, same = ours[0].load_predictions(), theirs[0].load_predictions()
    assert first is not None and same is not None
    np.testing.assert_allclose(same.probabilities, first.probabilities, atol=1e-6)
    assert "same answers" in (finished / "out/report/conclusion.txt").read_text()
    keys = [r.key for r in theirs]
    (finished / "theirs.csv").unlink()  # the folder has a copy
    assert invoke("run", finished / "study.yaml", "-o", finished / "out").exit_code == 0
    assert [r.key for r in Store(finished / "out").runs() if r.candidate_name == "theirs"] == keys
    assert "theirs" in invoke("plan", finished / "study.yaml", "-o", finished / "out").output


def test_the_baseline_is_not_imported_where_all_candidates_are(original: Path, tmp_path: Path) -> None:
    words = ("import", original / "theirs.csv", "--study", original / "study.yaml", "-o", tmp_path / "new", "--name", "theirs")
    result = invoke(*words)
    assert result.exit_code == 0 and "majority-class baseline" in result.output
    assert "majority-class baseline (" not in result.output


def test_what_does_not_fit_leaves_nothing(finished: Path) -> None:
    frame = pd.read_csv(finished / "theirs.csv")
    save_frame(frame.iloc[5:], finished / "short.csv")
    result = import_theirs(finished, "short", "short.csv")
    assert result.exit_code == 2 and "5 missing" in result.output and "folds_file" in result.output
    assert "short.csv" in result.output  # and not the name of a copy
    assert import_theirs(finished, " ").exit_code == 2
    assert import_theirs(finished, "nowhere", "nowhere.csv").exit_code == 2
    taken = import_theirs(finished, "mean-image")
    assert taken.exit_code == 2 and "is a candidate of the study already" in taken.output
    assert import_theirs(finished, "theirs", "theirs.csv", "--columns", "id").exit_code == 2
    assert names_of(finished) == ["mean-image"] * 2 and not list((finished / "out/imports").glob("*"))
    assert invoke("run", finished / "study.yaml", "-o", finished / "out").exit_code == 0


def test_a_name_may_be_imported_again_and_replaces_what_it_was(finished: Path) -> None:
    assert import_theirs(finished).exit_code == 0
    frame = pd.read_csv(finished / "theirs.csv").rename(columns={"id": "file"})
    frame[[f"p_{k}" for k in range(10)]] = 0.1
    save_frame(frame, finished / "flat.csv")
    assert import_theirs(finished, "theirs", "flat.csv", "--columns", "id=file").exit_code == 0
    assert names_of(finished) == ["mean-image"] * 2 + ["theirs"] * 2
    last = next(r for r in Store(finished / "out").runs() if r.candidate_name == "theirs")
    assert last.load_predictions().probabilities == pytest.approx(0.1)  # type: ignore[union-attr]
    assert len(list((finished / "out/imports").glob("*.csv"))) == 1  # the copy that was replaced is gone


def test_no_bundle_is_made_of_what_has_no_network(finished: Path) -> None:
    result = invoke("refit", finished / "out", "-o", finished / "bundle")
    assert result.exit_code == 2 and "has no network (baseline)" in result.output and not (finished / "bundle").exists()
    again = invoke("run", finished / "study.yaml", "-o", finished / "out")
    assert again.exit_code == 0 and "phoropter refit" not in again.output  # what would be refused is not proposed


def test_a_damaged_list_is_told(finished: Path) -> None:
    assert import_theirs(finished).exit_code == 0
    (finished / "out/imports/imports.json").write_text("{}")
    with pytest.raises(StoreError, match=r"imports\.json"):
        add_imported(read_study(finished / "study.yaml")[0], finished / "out")
