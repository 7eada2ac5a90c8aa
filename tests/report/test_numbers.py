"""Every number on the page, computed again from the predictions files by a few plain lines."""

from __future__ import annotations

import csv
import re
from collections import Counter

import numpy as np
import pytest
from made_reports import Reported
from pairs_again import PlainPair, holm, plain_pair
from read_again import CLASSES, Again, accuracy_of, again_of, ece, over_rows, rounds_of, softmax, spread, value_and_spread
from reading_html import Tags
from scipy import stats
from sklearn import metrics as sk

from phoropter.report.summary.majority_class import BASELINE_NAME


@pytest.fixture
def again(whole: Reported) -> Again:
    return again_of(whole.folder)


@pytest.fixture
def page(whole: Reported) -> Tags:
    return Tags(whole.text)


def test_leaderboard(page: Tags, again: Again) -> None:
    board = page.columns("leaderboard")
    assert list(board) == [*again.order, BASELINE_NAME]
    for name in again.order:
        runs = again.runs[name]
        assert board[name]["Accuracy\u00a0%"] == value_and_spread(accuracy_of(runs), [r["accuracy"] for r in runs])
        f1 = [sk.f1_score(r["label"], r["answer"], average="macro", zero_division=0) for r in runs]
        assert board[name]["Macro F1\u00a0%"] == spread(f1)
        assert board[name]["Parameters"] == f"{runs[0]['cost']['parameters'] / 1e6:.1f} M"


def test_majority_class(page: Tags, again: Again) -> None:
    """The frequencies of the classes, answered to every row: scored as every candidate is."""
    runs = again.runs[again.order[0]]
    labels = again.together(again.order[0], "label")
    share = np.bincount(labels, minlength=3) / len(labels)
    line, top = page.columns("leaderboard")[BASELINE_NAME], int(share.argmax())
    hits = [float(np.mean(r["label"] == top)) for r in runs]
    assert line["Accuracy\u00a0%"] == value_and_spread(float(share.max()), hits)
    f1 = [sk.f1_score(r["label"], np.full(len(r["label"]), top), average="macro", zero_division=0) for r in runs]
    assert line["Macro F1\u00a0%"] == spread(f1)
    below = page.columns("calibration")[BASELINE_NAME]
    loss = [sk.log_loss(r["label"], np.tile(share, (len(r["label"]), 1)), labels=[0, 1, 2]) for r in runs]
    assert below["Log-loss"] == value_and_spread(float(-np.log(share[labels]).mean()), loss, 1, 3)
    assert below["ROC-AUC"] == "0.500 ± 0.000"


def test_intervals_have_the_standard_error_of_a_literal_bootstrap_over_groups(page: Tags, again: Again) -> None:
    rng = np.random.default_rng(0)
    name = again.order[0]
    groups = np.unique(again.together(name, "group"))
    hits = {
        (i, g): (r["answer"] == r["label"])[r["group"] == g]
        for i, r in enumerate(again.runs[name])
        for g in np.unique(r["group"])
    }
    means = []
    for _ in range(1500):
        drawn = Counter(rng.choice(groups, len(groups)).tolist())
        shares = []
        for i in range(len(again.runs[name])):
            rows = [(hits[i, g], n) for g, n in drawn.items() if (i, g) in hits]
            if rows:
                shares.append((sum(h.sum() * n for h, n in rows), sum(len(h) * n for h, n in rows)))
        means.append(sum(h for h, _ in shares) / sum(n for _, n in shares))
    centre = accuracy_of(again.runs[name])
    error = np.std(means) * np.sqrt(len(groups) / (len(groups) - 1))
    half = stats.t.ppf(0.975, len(groups) - 1) * error / (centre * (1 - centre))  # on the logit scale
    low, high = (100 / (1 + (1 - centre) / centre * np.exp(-sign * half)) for sign in (-1, 1))
    shown = page.columns("leaderboard")[name]["95\u00a0%\u00a0interval\u00a0%"].split(" to ")
    assert abs(float(shown[0]) - low) < 1.2 and abs(float(shown[1]) - high) < 1.2


def pairs_of(again: Again) -> list[tuple[str, str, PlainPair]]:
    names = [(a, b) for i, a in enumerate(again.order) for b in again.order[i + 1 :]]
    return [(a, b, plain_pair(again, a, b, trained_rows=45)) for a, b in names]


def signed(*values: float) -> str:
    return " to ".join(f"{v * 100:+.1f}".replace("-", "−") for v in values)


def short(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def test_pairwise(page: Tags, again: Again) -> None:
    rows, expected = page.tables["pairwise"][1:], pairs_of(again)
    assert len(rows) == 3
    on_rows, trained = holm([p.rows_p for *_, p in expected]), holm([p.training_p for *_, p in expected])
    for row, (a, b, one), p, q in zip(rows, expected, on_rows, trained, strict=True):
        low, high = one.rows_bounds()
        half = one.critical(0.05)
        again_low, again_high = one.difference - half, one.difference + half
        ahead = p <= 0.05 and low > 0
        assert row[:6] == [a, b, signed(one.difference), signed(low, high), short(p), "ahead" if ahead else "cannot tell"]
        repeats = ahead and q <= 0.05 and again_low > 0
        assert row[6:] == [signed(again_low, again_high), short(q), "ahead" if repeats else "cannot tell"]


def test_the_file_of_tests(again: Again, whole: Reported) -> None:
    with (whole.page.parent / "tables" / "pairwise-tests.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, (a, b, one) in zip(rows, pairs_of(again), strict=True):
        assert (row["Candidate"], row["Compared with"]) == (a, b)
        assert float(row["p on new rows, not corrected"]) == pytest.approx(one.rows_p, rel=1e-5)
        assert float(row["p trained again, not corrected"]) == pytest.approx(one.training_p, rel=1e-5, abs=1e-12)
        assert float(row["Effect on new rows"]) == pytest.approx(one.difference / one.rows_se / np.sqrt(14), rel=1e-6)
        size = float(next(v for k, v in row.items() if k.startswith("Detectable on new rows"))) / one.rows_se
        critical = stats.t.ppf(1 - 0.05 / 6, one.rows_df)
        assert stats.nct.sf(critical, one.rows_df, size) == pytest.approx(0.8, abs=1e-4)


def test_conclusion(page: Tags, again: Again) -> None:
    first, second = again.order[:2]
    d = (accuracy_of(again.runs[first]) - accuracy_of(again.runs[second])) * 100
    assert f"{first} is ahead of {second} by {d:.1f} points of accuracy (95 % interval " in page.text
    assert "on unseen groups" in page.text
    mean = accuracy_of(again.runs[first]) * 100
    assert f"{first} reaches {mean:.1f} % accuracy" in page.text


def test_per_class(page: Tags, again: Again) -> None:
    first, *others = again.order
    y, a = again.together(first, "label"), again.together(first, "answer")
    p, r, f, n = sk.precision_recall_fscore_support(y, a, zero_division=0)
    mean = f"precision {p.mean() * 100:.1f} %, recall {r.mean() * 100:.1f} %, F1 {f.mean() * 100:.1f} %"
    assert f"Mean of the classes: {mean}; all runs pooled, {len(y):,} rows." in page.text
    shown = page.columns("per-class")
    assert sorted(shown) == sorted(CLASSES)
    for k, name in enumerate(CLASSES):
        values = list(shown[name].values())
        assert values[1:5] == [f"{n[k]:,}", f"{p[k] * 100:.1f}", f"{r[k] * 100:.1f}", f"{f[k] * 100:.1f}"]
        for column, other in zip(values[5:], others, strict=True):
            mask = again.together(other, "label") == k
            assert column == f"{np.mean(again.together(other, 'answer')[mask] == k) * 100:.1f}"


@pytest.mark.parametrize("what", ["group", "site"])
def test_per_group_and_site(what: str, page: Tags, again: Again, whole: Reported) -> None:
    with (whole.page.parent / "tables" / f"per-{what}-of-all.csv").open(encoding="utf-8") as file:
        rows = {row[what.capitalize()]: row for row in csv.DictReader(file)}
    shown = page.tables[f"per-{what}"][1:]
    first = again.order[0]
    assert set(rows) == set(again.together(first, what).tolist())
    for name, row in rows.items():
        for candidate in again.order:
            right = (again.together(candidate, "answer") == again.together(candidate, "label"))[
                again.together(candidate, what) == name
            ]
            assert float(row[candidate]) == pytest.approx(right.mean(), abs=1e-12)
            assert int(row["Rows"]) == len(right)
    shares = [float(rows[line[0]][first]) for line in shown]
    assert shares == sorted(shares) and len(shown) == min(12, len(rows))
    assert all(line[2] == f"{float(rows[line[0]][first]) * 100:.1f}" for line in shown)


def test_hardest_groups_in_words(page: Tags, again: Again) -> None:
    first = again.order[0]
    g, right = again.together(first, "group"), again.together(first, "answer") == again.together(first, "label")
    shares = sorted((right[g == name].mean(), name, int((g == name).sum())) for name in np.unique(g))
    share, name, rows = shares[0]
    assert (
        f"The hardest of 14 groups for {first} is {name}, with {share * 100:.1f} % accuracy on {rows:,} predictions" in page.text
    )
    fifth = int(np.ceil(14 / 5))
    assert f"over the hardest fifth ({fifth}) the mean is {np.mean([s for s, *_ in shares[:fifth]]) * 100:.1f} %" in page.text


def test_confusions(page: Tags, again: Again, whole: Reported) -> None:
    for i, candidate in enumerate(again.order):
        counts = sk.confusion_matrix(again.together(candidate, "label"), again.together(candidate, "answer"))
        with (whole.page.parent / "tables" / f"confusion-{i + 1}.csv").open(encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        assert [[int(v) for v in row[1:]] for row in rows] == counts.tolist()
    counts = sk.confusion_matrix(again.together(again.order[0], "label"), again.together(again.order[0], "answer"))
    html = whole.page.read_text(encoding="utf-8")
    assert '"held-out rows, counted once for each run that tested them">Count<' in html, "the counts are of all runs"
    for true, answer, times, share in page.tables["confusions"][1:]:
        t, a = CLASSES.index(true), CLASSES.index(answer)
        assert (times, share) == (f"{counts[t, a]:,}", f"{counts[t, a] / counts[t].sum() * 100:.1f}")


def test_calibration(page: Tags, again: Again) -> None:
    """AUC by split, where each test part has ten rows of each class; log-loss and Brier score over rows; the error by round."""
    for name in again.order:
        row, runs = page.columns("calibration")[name], again.runs[name]
        assert min(np.bincount(r["label"], minlength=3).min() for r in runs) >= 10
        assert row["ROC-AUC"] == spread([sk.roc_auc_score(r["label"], r["p"], multi_class="ovr") for r in runs], 1, 3)
        loss = [-np.log(r["p"][np.arange(len(r["label"])), r["label"]]) for r in runs]
        assert row["Log-loss"] == value_and_spread(over_rows(runs, loss), [v.mean() for v in loss], 1, 3)
        brier = [((r["p"] - np.eye(3)[r["label"]]) ** 2).sum(1) for r in runs]
        assert row["Brier score"] == value_and_spread(over_rows(runs, brier), [v.mean() for v in brier], 1, 3)
        assert row["Calibration error"] == f"{np.mean([ece(r['p'], r['label']) for r in rounds_of(runs)]):.3f}"


def test_external_test(page: Tags, again: Again) -> None:
    for name, row in page.columns("external-test").items():
        runs = again.runs[name]
        y = runs[0]["outside"]["label"]
        each = [softmax(r["outside"]["logits"]) for r in runs]
        values = list(row.values())
        assert values[1] == value_and_spread(accuracy_of(runs), [r["accuracy"] for r in runs])
        assert values[2] == spread([float(np.mean(p.argmax(1) == y)) for p in each])
        assert values[3] == f"{np.mean(np.mean(each, axis=0).argmax(1) == y) * 100:.1f}"


def test_every_run_in_the_files(again: Again, whole: Reported) -> None:
    with (whole.page.parent / "tables" / "runs.csv").open(encoding="utf-8") as file:
        rows = {row["Run"]: row for row in csv.DictReader(file)}
    runs = {r["key"]: r for runs in again.runs.values() for r in runs}
    assert set(rows) == set(runs)
    for key, row in rows.items():
        assert float(row["Accuracy"]) == pytest.approx(runs[key]["accuracy"], abs=1e-12)
        assert float(row["Log-loss"]) == pytest.approx(sk.log_loss(runs[key]["label"], runs[key]["p"]), rel=1e-9)
        assert int(row["Test rows"]) == len(runs[key]["label"])


def test_the_gallery_shows_the_most_confident_errors(page: Tags, again: Again) -> None:
    first = again.order[0]
    wrong: dict[str, tuple[float, int, int]] = {}
    for r in again.runs[first]:
        for i in np.flatnonzero(r["answer"] != r["label"]):
            sure = float(r["p"][i].max())
            if sure > wrong.get(str(r["id"][i]), (0.0, 0, 0))[0]:
                wrong[str(r["id"][i])] = (sure, int(r["label"][i]), int(r["answer"][i]))
    surest = sorted(wrong.items(), key=lambda item: -item[1][0])[:3]
    alts = [a["alt"] for tag, a in page.tags if tag == "img"]
    for place, (name, (sure, true, answer)) in enumerate(surest):
        assert alts[place] == f"{CLASSES[true]}, predicted as {CLASSES[answer]}"
        assert re.search(rf"{sure * 100:.1f}\s% confidence.*?{re.escape(name)}", page.text)


def test_facts_under_the_title(page: Tags) -> None:
    assert "420 rows in 3 classes, 14 groups, 2 sites · group k-fold, 5 folds, seeds 0, 1 · 3 candidates · 30 runs" in page.text
