"""Bare arrays are compared as a study with the same predictions is; what does not fit is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # so that the tests find made_study.py there

from made_study import Made, make_study

import phoropter as ph
from phoropter.core.errors import DataError, PhoropterError, SpecError

METRICS = ("accuracy", "roc_auc", "log_loss")
Y = np.array(["no", "yes"])[np.arange(60) % 2]


def make_answers(share: float, seed: int) -> Any:
    """(60,) probabilities of `yes`, right for about this share of the rows."""
    rng = np.random.default_rng(seed)
    right = rng.random(60) < share
    return np.clip(np.where((Y == "yes") == right, 0.75, 0.25) + rng.normal(0, 0.05, 60), 0, 1)


@pytest.mark.parametrize("groups", [0, 16])
def test_the_numbers_are_those_of_a_study_with_the_same_predictions(tmp_path: Path, groups: int) -> None:
    names = {"first": 0.9, "second": 0.8, "third": 0.7}
    made = Made(accuracies=names, classes=("a", "b"), rows=160, groups=groups, folds=4, seeds=(0,), pictures=0, metrics=METRICS)
    make_study(tmp_path / "study", made)
    study = ph.open(tmp_path / "study")
    rows: dict[Any, Any] = dict(iter(study.predictions().groupby("candidate", sort=False)))
    one = rows["first"]
    compared = ph.compare(
        one["label"],
        {name: part[["p_a", "p_b"]] for name, part in rows.items()},
        groups=one["group"] if groups else None,
        folds=one["fold"],
        ids=one["id"],
        metrics=METRICS,
    )
    unknown = ["parameters", "train_seconds"]  # nothing is known of the training
    pd.testing.assert_frame_equal(compared.leaderboard().drop(columns=unknown), study.leaderboard().drop(columns=unknown))
    for pair in (("first", "second"), ("third", "first"), ("second", "third")):
        pd.testing.assert_frame_equal(compared.compare(*pair), study.compare(*pair))


def test_one_test_set_is_tested_by_mcnemar() -> None:
    p = {"good": make_answers(0.95, 0), "bad": make_answers(0.6, 1)}
    compared = ph.compare(Y, p)
    right = {name: (values > 0.5) == (Y == "yes") for name, values in p.items()}
    better, worse = (right["good"] & ~right["bad"]).sum(), (right["bad"] & ~right["good"]).sum()
    row = compared.compare("good", "bad").loc["rows"]
    assert row["difference"] == pytest.approx(right["good"].mean() - right["bad"].mean())
    assert row["p"] == pytest.approx(binomtest(int(better), int(better + worse)).pvalue) and row["verdict"] == "ahead"
    np.testing.assert_allclose(compared.predictions()["p_yes"][:60], p["good"], rtol=1e-12)


def test_it_writes_a_page_where_it_is_told_to(tmp_path: Path) -> None:
    compared = ph.compare(Y, {"one": make_answers(0.9, 0), "<b>two": make_answers(0.8, 1)}, folds=np.arange(60) % 3)
    page = compared.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "phoropter.compare(y, {&#34;one&#34;: …, &#34;&lt;b&gt;two&#34;: …}, folds=…)" in page and "phoropter run" not in page
    assert "images of" not in page and "of training and prediction" not in page and "Study file" not in page
    assert "k-fold as given, 3 folds" in page and "&lt;b&gt;two" in page and "<b>two" not in page
    folder = compared.store.folder
    with pytest.raises(SpecError, match=r"say where the page goes: .report\('page.html'\)"):
        compared.report()
    del compared
    assert not folder.exists()
    kept = ph.compare(Y, {"one": make_answers(0.9, 0)}, classes=["no", "yes"], folder=tmp_path / "kept")
    assert kept.report() == tmp_path / "kept" / "report" / "index.html" and ph.open(tmp_path / "kept").best == "one"
    assert kept.inputs.clinical.is_stated and not ph.compare(Y, {"one": make_answers(0.9, 0)}).inputs.clinical.is_stated
    with pytest.raises(PhoropterError, match="holds the results of another study: name a new folder"):
        ph.compare(Y, {"one": make_answers(0.9, 0)}, folder=tmp_path / "kept")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": {}}, "probabilities is empty"),
        ({"probabilities": {"a": np.full((60, 3), 1 / 3)}}, r"shape \(60, 3\): expected \(60, 2\)"),
        ({"probabilities": {"a": np.full((59, 2), 0.5)}}, r"shape \(59, 2\): expected \(60, 2\)"),
        ({"probabilities": {"a": np.full((60, 2), 0.6)}}, r"'a', row 0: \[0.6, 0.6\] are no probabilities"),
        ({"probabilities": {"a": np.full(60, np.nan)}}, "'a', row 0"),
        ({"probabilities": {"a": np.full(60, 1.5)}}, "'a', row 0"),
        ({"groups": np.arange(59)}, r"groups has the shape \(59,\): expected \(60,\)"),
        ({"folds": np.zeros(60)}, "folds holds one fold"),
        ({"folds": [None, *range(59)]}, "folds has no value at row 0"),
        ({"ids": np.zeros(60)}, "ids must be unique"),
        ({"classes": ["no", "maybe"]}, "the label 'yes', which is none of the classes"),
        ({"y": np.zeros((60, 2))}, r"y has the shape \(60, 2\)"),
        ({"y": ["no"] * 60}, "expected at least two"),
        ({"metrics": ["acuracy"]}, "did you mean 'accuracy'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {"y": Y, "probabilities": {"a": make_answers(0.9, 0)}, **changes}
    with pytest.raises((DataError, SpecError), match=message):
        ph.compare(**given)
