"""Every table of the page has its numbers computed again: those that test_numbers.py leaves, and that none is forgotten."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from made_reports import Reported
from made_study import Made
from read_again import Again, accuracy_of, again_of, noisy_error, rounds_of, softmax, spread
from reading_html import Tags
from scipy import optimize, stats
from sklearn import metrics as sk

IN_NUMBERS = {"leaderboard", "pairwise", "per-class", "per-group", "per-site", "confusions", "external-test", "calibration"}
SITES = {"unseen-sites", "unseen-site-pairs"}  # sections/clinical/test_unseen_sites.py
REVIEW = {"label-review-first", "statement", "networks"}  # in the tests of their sections
HERE = {"costs", "candidates", "worst-groups", "branches", "trends", "screening", "leakage", "teachers"}


@pytest.fixture
def again(whole: Reported) -> Again:
    return again_of(whole.folder)


@pytest.fixture
def page(whole: Reported) -> Tags:
    return Tags(whole.text)


@pytest.fixture
def study(whole: Reported) -> dict[str, Any]:
    return dict(json.loads((whole.folder / "study.json").read_text()))


def records(whole: Reported, again: Again, candidate: str) -> list[dict[str, Any]]:
    return [json.loads((whole.folder / "runs" / r["key"] / "record.json").read_text()) for r in again.runs[candidate]]


def test_no_table_of_the_page_is_left_out(page: Tags) -> None:
    assert set(page.tables) == IN_NUMBERS | SITES | REVIEW | HERE


def test_csv_files_have_the_rows_of_the_page(page: Tags, whole: Reported) -> None:
    """Row for row, and rounded on the page only."""
    for name, (head, *shown) in page.tables.items():
        with (whole.page.parent / "tables" / f"{name}.csv").open(encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))[1:]
        assert len(rows) >= len(shown) and len(head) <= len(rows[0])
        firsts = [row[0] for row in rows[: len(shown)]]
        assert [line[0] for line in shown] == firsts, name


def literal_logit_interval(centre: float, means: np.ndarray, units: int) -> np.ndarray:
    half = stats.t.ppf(0.975, units - 1) * means.std() * np.sqrt(units / (units - 1)) / (centre * (1 - centre))
    return np.array([1 / (1 + (1 - centre) / centre * np.exp(-sign * half)) for sign in (-1, 1)])


def test_the_intervals_of_all_candidates(page: Tags, again: Again) -> None:
    """A literal bootstrap over people: each with all its answers, accuracy over all their rows.

    Its standard error by √(G / (G - 1)), Student's t with G - 1 degrees of freedom, the logit scale.
    """
    draw = np.random.default_rng(1)
    for name in again.order[1:]:
        runs = again.runs[name]
        people = np.unique(again.together(name, "group"))
        means = []
        for _ in range(800):
            times = Counter(draw.choice(people, len(people)).tolist())
            weights = np.array([times[g] for g in again.together(name, "group")])
            means.append(np.average(again.together(name, "answer") == again.together(name, "label"), weights=weights))
        centre = accuracy_of(runs)
        low, high = literal_logit_interval(centre, np.array(means), len(people)) * 100
        shown = [float(v) for v in page.columns("leaderboard")[name]["95\u00a0%\u00a0interval\u00a0%"].split(" to ")]
        assert abs(shown[0] - low) < 1.4 and abs(shown[1] - high) < 1.4


def test_the_interval_of_the_models_averaged_on_unseen_sites(page: Tags, again: Again) -> None:
    draw = np.random.default_rng(2)
    for name, row in page.columns("external-test").items():
        outside = [r["outside"] for r in again.runs[name]]
        right = np.mean([softmax(o["logits"]) for o in outside], axis=0).argmax(1) == outside[0]["label"]
        _, member = np.unique(outside[0]["group"], return_inverse=True)
        hits, rows = np.bincount(member, right), np.bincount(member)
        drawn = draw.integers(0, len(rows), (4000, len(rows)))
        low, high = 2.5 ** (1 / len(rows)) * 100 ** (1 - 1 / len(rows)), 100.0  # all are right: exact in the number of people
        if not right.all():
            low, high = literal_logit_interval(right.mean(), hits[drawn].sum(1) / rows[drawn].sum(1), len(rows)) * 100
        shown = [float(v) for v in list(row.values())[4].split(" to ")]
        assert abs(shown[0] - low) < 1.2 and abs(shown[1] - high) < 1.2


def test_temperatures_and_calibration_errors_before_and_after(page: Tags, again: Again, whole: Reported) -> None:
    for name in again.order:
        row, fitted, scaled = page.columns("calibration")[name], [], []
        for r in again.runs[name]:
            with np.load(whole.folder / "runs" / r["key"] / "validation.npz") as f:
                logits, labels = f["logits"].astype(np.float64), f["label"]

            def loss(t: float, z: Any = logits, y: Any = labels) -> float:
                return float(sk.log_loss(y, softmax(z / t), labels=[0, 1, 2]))

            fitted.append(optimize.minimize_scalar(loss, bounds=(0.02, 50), method="bounded", options={"xatol": 1e-6}).x)
            scaled.append({**r, "p": softmax(r["logits"] / fitted[-1])})
        shown = [float(v) for v in row["Temperature"].split(" ± ")]
        assert shown == pytest.approx([np.mean(fitted), np.std(fitted, ddof=1)], abs=0.011)
        for runs, words, room in ((again.runs[name], "", 6e-4), (scaled, ", scaled", 2e-3)):
            error, low, high = noisy_error(rounds_of(runs))
            assert float(row[f"ECE{words}, debiased"]) == pytest.approx(error, abs=room)
            bounds = [float(v) for v in row[f"95\u00a0%\u00a0interval of ECE{words}"].split(" to ")]
            assert bounds == pytest.approx([low, high], abs=2 * room)


def test_costs(page: Tags, again: Again) -> None:
    for name, row in page.columns("costs").items():
        cost = {k: float(np.median([r["cost"][k] for r in again.runs[name]])) for k in again.runs[name][0]["cost"]}
        assert row["Parameters"] == f"{cost['parameters'] / 1e6:.1f} M" and row["Trainable"] == f"{cost['trainable'] / 1e6:.1f} M"
        macs = cost["macs"]
        assert row["Multiply-adds"] == (f"{macs / 1e9:.1f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M")
        assert row["Images/s"] == f"{cost['predict_images_per_s']:,.0f}"
        for column, key in (("Training", "train_seconds"), ("Prediction", "predict_seconds")):
            assert seconds_of(row[column]) == pytest.approx(cost[key], rel=0.02)
        size = cost["peak_memory_bytes"]
        assert row["Memory"] == (f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB")


def seconds_of(text: str) -> float:
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) (ms|s|min|h)", text))


def test_candidates_table(page: Tags, again: Again) -> None:
    for name, row in page.columns("candidates").items():
        runs = again.runs[name]
        assert (row["Runs"], row["Planned"], row["Epochs"]) == (str(len(runs)), str(len(runs)), str(runs[0]["cost"]["epochs"]))
        assert seconds_of(row["Training, total"]) == pytest.approx(sum(r["cost"]["train_seconds"] for r in runs), rel=0.02)


def test_the_hardest_groups_of_every_candidate(page: Tags, again: Again) -> None:
    for name, row in page.columns("worst-groups").items():
        people, right = again.together(name, "group"), again.together(name, "answer") == again.together(name, "label")
        shares = sorted((float(right[people == g].mean()), str(g), int((people == g).sum())) for g in np.unique(people))
        means = [np.mean([s for s, *_ in some]) for some in (shares, shares[: int(np.ceil(len(shares) / 5))])]
        assert list(row.values())[1:] == [f"{v * 100:.1f}" for v in (*means, shares[0][0])] + [shares[0][1], str(shares[0][2])]


def test_branches(page: Tags, again: Again, whole: Reported) -> None:
    name = "resnet50 + efficientnet_b0"
    found = [r["branches"] for r in records(whole, again, name)]
    rows = page.tables["branches"][1:]
    assert [row[:2] for row in rows] == [[name, "resnet50"], [name, "efficientnet_b0"]]
    for i, row in enumerate(rows):
        alone, without, entire = ([b[i][k] for b in found] for k in ("accuracy", "without", "fused"))
        assert row[2:5] == [spread(alone), spread(without), spread(entire)]
        worth = np.subtract(entire, without) * 100
        assert row[5].removeprefix("+") == f"{worth.mean():.1f} ± {worth.std(ddof=1):.1f}"


def test_teachers(page: Tags, again: Again, whole: Reported) -> None:
    (row,) = page.tables["teachers"][1:]
    notes = [r["distillation"] for r in records(whole, again, "efficientnet_b0")]
    assert row[:2] == ["efficientnet_b0", "resnet50"] and len(notes) == 10
    assert row[2] == spread([n["accuracy_check"]["accuracy"] for n in notes])
    assert row[3] == f"{np.mean([n['accuracy_check']['chance'] for n in notes]) * 100:.1f}"
    assert seconds_of(row[4]) == pytest.approx(np.median([n["seconds"] for n in notes]), rel=0.02)
    assert row[5] == f"{np.median([n['bytes'] for n in notes]) / 2**20:.1f} MiB"


def test_trends_by_least_squares(page: Tags, again: Again, whole: Reported) -> None:
    for name, form, _, a, b, c, r2, epochs, runs in page.tables["trends"][1:]:
        curves = []
        for r in again.runs[name]:
            with (whole.folder / "runs" / r["key"] / "history.csv").open(encoding="utf-8") as file:
                curves.append([float(line["train_accuracy"]) for line in csv.DictReader(file)])
        y, x = np.mean(curves, axis=0), np.arange(1.0, len(curves[0]) + 1)
        assert (epochs, runs) == (str(len(x)), str(len(curves)))
        if form == "logarithmic":
            slope, level = np.polyfit(np.log(x), y, 1)
            fit = level + slope * np.log(x)
            assert (float(a), float(b), c) == (pytest.approx(level, abs=6e-4), pytest.approx(slope, abs=6e-4), "–")
        else:
            (top, gain, scale), _ = optimize.curve_fit(lambda t, p, q, s: p - q * np.exp(-t / s), x, y, (y[-1], 0.5, 1.5))
            fit = top - gain * np.exp(-x / scale)
            assert [float(v) for v in (a, b)] == pytest.approx([top, gain], abs=2e-3) and abs(float(c) - scale) < 0.06
        assert float(r2) == pytest.approx(1 - ((y - fit) ** 2).sum() / ((y - y.mean()) ** 2).sum(), abs=6e-4)


def test_the_rounds_of_the_screening(page: Tags, study: dict[str, Any]) -> None:
    expected = [
        [
            str(r["rung"]),
            r["title"],
            name,
            f"{r['scores'][name] * 100:.1f}",
            "yes" if name in r["kept"] else "no",
        ]
        for r in study["screening"]
        for name in sorted(r["scores"], key=lambda n, s=r["scores"]: -s[n])
    ]
    assert page.tables["screening"][1:] == expected


def test_leakage_findings(page: Tags, study: dict[str, Any]) -> None:
    grave = {"stop": "severe", "warn": "warning", "note": "note"}
    expected = [
        [
            f["kind"].replace("_", " "),
            grave[f["severity"]],
            str(f["count"]),
            str(f["of"]),
            f"{f['count'] / f['of'] * 100:.1f}",
            str(f["splits"][0]),
        ]
        for f in study["audit"]
    ]
    assert [row[:6] for row in page.tables["leakage"][1:]] == expected


def test_areas_under_the_curves(page: Tags, again: Again, whole: Reported) -> None:
    for name in again.order:
        area = np.mean([sk.roc_auc_score(r["label"], r["p"], multi_class="ovr") for r in again.runs[name]])
        assert f"{name}, area {area:.3f}" in whole.text


def test_the_small_print_below_the_conclusion(page: Tags, again: Again, whole: Reported) -> None:
    first = page.tables["pairwise"][1]
    with (whole.page.parent / "tables" / "pairwise-tests.csv").open(encoding="utf-8") as file:
        detectable = next(float(v) for k, v in next(csv.DictReader(file)).items() if k.startswith("Detectable on new rows"))
    assert f"a true difference of {detectable * 100:.1f} points with a power of 80 %" in page.text
    low, high = page.columns("leaderboard")[again.order[0]]["95\u00a0%\u00a0interval\u00a0%"].split(" to ")
    assert f"(95 % interval {low} % to {high} %, over 14 groups)" in page.text
    outside = list(page.columns("external-test")[again.order[0]].values())
    assert f"On sites never trained on, the ensemble of its models reaches {outside[3]} %" in page.text
    difference, bounds = first[2].lstrip("+"), first[3].replace("+", "")
    assert f"ahead of {first[1]} by {difference} points of accuracy (95 % interval {bounds})" in page.text


def test_the_study_that_is_reported_is_the_one_that_was_made(whole: Reported) -> None:
    assert isinstance(whole.made, Made) and whole.made.name == "whole"


def test_the_page_names_how_its_intervals_are_computed(page: Tags, again: Again) -> None:
    assert "Interval: Student's t with 13 degrees of freedom on the logit scale, 14 units." in page.text
