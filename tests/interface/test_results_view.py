"""Results as a session holds them: the page's values as DataFrames, its figures, the leader and its model; what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # so that the tests find made_study.py there

from made_study import Made, make_study

import phoropter as ph
from phoropter.core.errors import SpecError, StoreError
from phoropter.interface.results_view import open_results_folder

CANDIDATES = {"good": 0.92, "<i>bad": 0.6, "middle": 0.8}
MADE = Made(accuracies=CANDIDATES, classes=("well", "ill"), rows=160, groups=16, folds=4, seeds=(0,), pictures=0, validation=6)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("results") / "study"
    make_study(folder, MADE)
    return ph.open(folder)


def test_the_leaderboard_is_recomputed_from_the_predictions(results: Any) -> None:
    board, rows = results.leaderboard().set_index("candidate"), results.predictions()
    right = (rows["label"] == rows["class"]).groupby(rows["candidate"]).mean()  # folds of groups are pooled in their one round
    np.testing.assert_allclose(board["accuracy"], right[board.index])
    assert list(board.index) == list(right.sort_values(ascending=False).index) and results.best == board.index[0]
    assert ((board["low"] < board["accuracy"]) & (board["accuracy"] < board["high"])).all() and set(board["runs"]) == {4}


def test_predictions_are_those_of_the_files(results: Any) -> None:
    rows, run = results.predictions(), results.runs[0]
    of_run = rows[(rows["candidate"] == run.candidate_name) & (rows["fold"] == run.record["split"]["fold"])]
    stored = run.load_predictions()
    assert of_run["id"].tolist() == stored.ids.tolist() and of_run["group"].tolist() == stored.groups.tolist()
    np.testing.assert_array_equal(of_run[["p_well", "p_ill"]], stored.probabilities)
    assert of_run["label"].tolist() == [MADE.classes[label] for label in stored.labels]
    assert len(rows) == 3 * 160 and len(results.predictions("validation")) == 12 * 6 and results.predictions("external").empty


def test_one_parquet_file_holds_every_part(results: Any, tmp_path: Path) -> None:
    written = pd.read_parquet(results.to_parquet(tmp_path / "all.parquet"))
    for part in ("test", "validation"):
        same, shown = written[written["part"] == part].reset_index(drop=True), results.predictions(part)
        assert list(same.columns) == list(shown.columns)
        one, other = (frame.astype(object).where(frame.notna(), "unknown") for frame in (same, shown))
        assert one.equals(other)
    assert set(written["part"]) == {"test", "validation"}


def test_a_pair_is_read_from_either_side(results: Any) -> None:
    one, other = results.compare("good", "<i>bad"), results.compare("<i>bad", "good")
    known = next(c for c in results.inputs.comparisons.pairs if {c.a, c.b} == {"good", "<i>bad"})
    assert one.loc["rows", "difference"] == known.rows.result.difference and one.loc["rows", "verdict"] == known.rows.verdict
    np.testing.assert_allclose(one["difference"], -other["difference"])
    np.testing.assert_allclose(one["low"], -other["high"])
    np.testing.assert_allclose(one["p_adjusted"], other["p_adjusted"])
    mirrored = {"ahead": "behind", "behind": "ahead"}
    assert other["verdict"].tolist() == [mirrored.get(v, v) for v in one["verdict"]] and "ahead" in set(one["verdict"])


def test_tables_and_figures_of_the_page_are_found_by_name(results: Any, tmp_path: Path) -> None:
    board = results.table()
    assert board["Candidate"].tolist()[:3] == results.leaderboard()["candidate"].tolist()
    np.testing.assert_array_equal(board["95 % interval low"][:3], results.leaderboard()["low"])
    figure = results.figure("roc")
    assert figure._repr_svg_() == figure.save(tmp_path / "roc.svg").read_text(encoding="utf-8") and "<svg" in figure._repr_svg_()
    assert figure.save(tmp_path / "roc.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(figure.save(tmp_path / "roc.PNG")) as picture:
        inches = [
            float(side.removesuffix("pt")) / 72 for side in re.findall(r'(?:width|height)="([0-9.]+pt)"', figure._repr_svg_())
        ]
        assert picture.size == pytest.approx([300 * side for side in inches[:2]], abs=2)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255) and len(picture.getcolors(1 << 20)) > 50


def test_what_the_page_has_is_listed_with_captions(results: Any) -> None:
    figures, tables = results.list_figures().set_index("name"), results.list_tables().set_index("name")
    assert (
        figures.loc["confusion-1", "caption"].startswith("good.")
        and figures.loc["confusion-1", "section"] == "Confusion matrices"
    )
    assert {"leaderboard", "pairwise-tests"} <= set(tables.index) and figures.index.is_unique and tables.index.is_unique
    assert all(results.table(name).shape[1] for name in tables.index) and results.figure("roc").caption == figures.caption["roc"]


def test_the_confusion_matrix_of_any_candidate_is_drawn(results: Any) -> None:
    drawn = results.confusion_figure("<i>bad")
    rows = results.predictions().query("candidate == '<i>bad'")
    assert f"{(rows['label'] == rows['class']).mean() * 100:.1f} % of 160 predictions are correct." in drawn.alt_text
    assert results.confusion_figure().svg == results.confusion_figure("good").svg != drawn.svg
    with pytest.raises(SpecError, match="there is no candidate 'worst'"):
        results.confusion_figure("worst")


def test_a_notebook_shows_them_escaped(results: Any) -> None:
    html = results._repr_html_()
    assert "&lt;i&gt;bad" in html and "<i>" not in html and "12 of 12 runs" in html and len(html) < 4000


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r: r.figure("rok"), "there is no figure 'rok': expected one of .*did you mean 'roc'"),
        (lambda r: r.table("leaderbord"), "there is no table 'leaderbord'.*did you mean 'leaderboard'"),
        (lambda r: r.compare("good", "worst"), "there is no candidate 'worst': expected one of good"),
        (lambda r: r.compare("good", "good"), "'good' came twice"),
        (lambda r: r.predictions("train"), "there is no part 'train': expected one of test, validation or external"),
        (lambda r: r.figure("roc").save("roc.eps"), r"saved as .svg, .pdf or .png, and the ending is '.eps'"),
    ],
)
def test_another_name_is_refused_with_those_there_are(results: Any, ask: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ask(results)


def test_a_pair_that_the_page_left_out_is_compared_in_the_same_family(tmp_path: Path) -> None:
    names = {f"c{number:02d}": 0.6 + 0.03 * number for number in range(12)}
    made = Made(accuracies=names, classes=("a", "b"), rows=80, folds=1, seeds=(0,), pictures=0, metrics=("accuracy",))
    make_study(tmp_path / "many", made)
    results = open_results_folder(tmp_path / "many")
    shown = {frozenset((c.a, c.b)) for c in results.inputs.comparisons.pairs}
    last = results.leaderboard()["candidate"].tolist()[-2:]
    assert frozenset(last) not in shown
    rows = results.compare(*last).loc["rows"]
    answers = results.predictions().pivot(index="id", columns="candidate", values="class")
    right = answers.eq(results.predictions().drop_duplicates("id").set_index("id")["label"], axis=0)
    assert rows["difference"] == pytest.approx(right[last[0]].mean() - right[last[1]].mean())
    assert rows["p_adjusted"] == pytest.approx(min(1.0, rows["p"] * 66))


def test_what_is_no_results_folder_is_refused(results: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a results folder"):
        ph.open(tmp_path)
    with pytest.raises(StoreError, match="results of several parts: open one of study inside it"):
        ph.open(results.store.folder.parent)


def test_the_bundle_is_that_of_the_best_candidate(tmp_path: Path) -> None:
    make_study(tmp_path / "study", MADE)
    results = ph.open(tmp_path / "study")
    for run in results.runs:
        if run.candidate_name != "good":
            (run.folder / "bundle").mkdir()
    with pytest.raises(StoreError, match="holds no trained model of 'good': make one by `phoropter refit`"):
        _ = results.bundle
    last = [run for run in results.runs if run.candidate_name == "good"][-1]
    (last.folder / "bundle").mkdir()
    assert results.bundle == last.folder / "bundle"
