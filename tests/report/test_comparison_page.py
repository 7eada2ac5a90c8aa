"""Two studies against each other: what they can be compared by, and that every number is a computation of its own again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study
from reading_html import Tags
from scipy import stats
from stored_answers import split_answers, store_answers

from phoropter.core.errors import StoreError
from phoropter.report.comparison_page import write_comparison_page
from phoropter.report.comparison_sentences import conclude_comparison
from phoropter.report.study_pairing import pair_studies
from phoropter.report.summary.collect import collect_summary
from phoropter.results.stats.optimism import compute_protocol_gaps
from phoropter.results.store import Predictions, Store

BASE = Made(
    accuracies={"net a": 0.95, "net b": 0.75}, classes=("x", "y"), rows=300, groups=12, folds=4, seeds=(0,), epochs=1, pictures=0
)


def stored(folder: Path, name: str, **changes: object) -> Path:
    make_study(folder / name, replace(BASE, name=name, **changes))  # type: ignore[arg-type]
    return folder / name


def accuracy(folder: Path, candidate: str) -> float:
    """Over all held-out rows."""
    said = [p for r in Store(folder).runs() if r.candidate_name == candidate and (p := r.load_predictions()) is not None]
    return float(np.mean(np.concatenate([p.logits.argmax(1) == p.labels for p in said])))


def differences(one: Path, a: str, two: Path, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Of every held-out row, whether a is right minus whether b is; and its group."""
    right = [
        {
            str(i): (float(o), str(g))
            for p in said
            for i, o, g in zip(p.ids, p.logits.argmax(1) == p.labels, p.groups, strict=True)
        }
        for folder, name in ((one, a), (two, b))
        for said in [[r.load_predictions() for r in Store(folder).runs() if r.candidate_name == name]]
    ]
    rows = sorted(right[0])
    return np.array([right[0][i][0] - right[1][i][0] for i in rows]), np.array([right[0][i][1] for i in rows])


def test_two_protocols_give_the_gap(tmp_path: Path) -> None:
    lax, strict = stored(tmp_path, "s-lax", overlap=True), stored(tmp_path, "s-strict")
    page = write_comparison_page(lax, strict, tmp_path / "report")
    tags = Tags(page.read_text(encoding="utf-8"))
    expected = {g.candidate: g for g in compute_protocol_gaps(Store(lax), Store(strict), ["accuracy"])}
    for name, row in tags.columns("gaps").items():
        values, g = list(row.values()), expected[name]
        means = [accuracy(f, name) * 100 for f in (lax, strict)]
        assert values[1:3] == [f"{m:.1f}" for m in means]
        assert float(values[3].replace("−", "-")) == pytest.approx(means[0] - means[1], abs=0.0501)
        assert values[4] == " to ".join(f"{v * 100:+.1f}".replace("-", "−") for v in (g.interval.low, g.interval.high))
    assert tags.text.startswith("s-lax compared with s-strict") and "two protocols on the same rows" in tags.text
    assert "groups shared by training and test sets" in (tmp_path / "report" / "conclusion.txt").read_text()
    assert {p.name for p in (tmp_path / "report" / "tables").iterdir()} >= {"gaps.csv", "gaps-of-all.tex", "studies.md"}
    note = (tmp_path / "report" / "tables" / "gaps.md").read_text(encoding="utf-8")
    assert "Values of all held-out rows of a repeat together." in note, "which the means over splits are not"
    assert conclude_comparison(pair_studies(strict, lax)) == conclude_comparison(pair_studies(lax, strict)), (
        "whichever is named first"
    )


def test_other_candidates_on_the_same_splits_are_paired_split_by_split(tmp_path: Path) -> None:
    one = stored(tmp_path, "one")
    two = stored(tmp_path, "two", accuracies={"net c": 0.6, "net d": 0.97})
    found = pair_studies(one, two)
    assert found.basis == "splits" and found.n_common_rows == found.n_total_rows == 300
    assert {(p.a, p.b) for p in found.pairs} == {(a, b) for a in ("net a", "net b") for b in ("net c", "net d")}
    ps = []
    for p in found.pairs:
        wins, groups = differences(one, p.a, two, p.b)
        people, n = np.unique(groups), len(wins)
        assert p.difference == pytest.approx(wins.mean())
        moved = np.array([(wins - wins.mean())[groups == g].sum() / n for g in people])
        se = np.sqrt((moved**2).sum() * len(people) / (len(people) - 1))
        half = stats.t.ppf(0.975, len(people) - 1) * se
        assert (p.low, p.high) == pytest.approx((wins.mean() - half, wins.mean() + half), abs=1e-6)
        ps.append(2 * stats.t.sf(abs(wins.mean() / se), len(people) - 1))
        assert p.p == pytest.approx(ps[-1], rel=1e-4)
    for p, alone in zip(found.pairs, ps, strict=True):
        assert alone <= p.p_adjusted + 1e-6 and p.p_adjusted <= min(1.0, 4 * alone) + 1e-6
        assert (p.verdict != "cannot tell") == (p.p_adjusted <= 0.05 and (p.low > 0 or p.high < 0))


def test_shared_runs_are_not_compared(tmp_path: Path) -> None:
    one, two = stored(tmp_path, "one"), stored(tmp_path, "two", accuracies={"net a": 0.95, "net c": 0.6})
    found = pair_studies(one, two)
    assert found.shared_candidates == ("net a",) and [(p.a, p.b) for p in found.pairs] == [("net b", "net c")]
    (tmp_path / "copy").mkdir()
    again = stored(tmp_path / "copy", "one")
    assert conclude_comparison(pair_studies(one, again)) == [
        "The two studies share all their runs, so there is nothing to compare."
    ]


def test_the_same_rows_in_different_splits_are_paired_by_group(tmp_path: Path) -> None:
    one, two = stored(tmp_path, "one"), stored(tmp_path, "two", folds=6)
    found = pair_studies(one, two)
    assert found.basis == "rows" and {p.a for p in found.pairs} == {"net a", "net b"}
    for p in found.pairs:
        means = [accuracy(f, p.a) for f in (one, two)]
        assert (p.value_a, p.value_b) == pytest.approx(tuple(means)) and p.difference == pytest.approx(means[0] - means[1])
    # One group left out at a time (the jackknife) agrees with the first-order bounds.
    p = found.pairs[0]
    rows = {}
    for k, folder in enumerate((one, two)):
        said = [r.load_predictions() for r in Store(folder).runs() if r.candidate_name == p.a]
        rows[k] = [(s.groups, s.logits.argmax(1) == s.labels) for s in said if s is not None]
    groups = sorted({str(g) for g, _ in rows[0] for g in g})

    def value(weights: dict[str, float]) -> float:
        means = []
        for k in (0, 1):
            shares = []
            for names, right in rows[k]:
                w = np.array([weights[str(g)] for g in names])
                shares.append((np.sum(w * right), w.sum()))
            means.append(sum(h for h, _ in shares) / sum(n for _, n in shares))
        return float(means[0] - means[1])

    step = 1e-5
    slopes = [(value({g: 1 + step * (g == h) for g in groups}) - value(dict.fromkeys(groups, 1.0))) / step for h in groups]
    half = stats.t.ppf(0.975, len(groups) - 1) * np.sqrt(np.sum(np.square(slopes)))
    assert p.n_units == 12 and p.high - p.difference == pytest.approx(half, rel=0.02)


def test_different_rows_are_compared_unpaired(tmp_path: Path) -> None:
    one, other = stored(tmp_path, "one"), stored(tmp_path, "other", rows=360)
    answers: dict[str, list[Predictions]] = {}
    for run in Store(other).runs():  # other people, other pictures
        said = run.load_predictions()
        assert said is not None and said.groups is not None
        renamed = replace(said, ids=np.char.add("new/", said.ids), groups=np.char.add("new ", said.groups))
        answers.setdefault(run.candidate_name, []).append(renamed)
    two = store_answers(tmp_path / "two", answers, classes=("x", "y")).folder
    page = write_comparison_page(one, two)
    text = Tags(page.read_text(encoding="utf-8")).text
    assert page == one / "report" / "comparison-with-two" / "index.html"
    assert "only an unpaired comparison is possible" in text and "unpaired: different rows" in text
    found = pair_studies(one, two)
    assert found.basis == "unpaired" and found.n_common_rows == 0 and all(p.n_units == 12 for p in found.pairs)


def test_a_lead_over_another_study_says_whether_it_beats_guessing(tmp_path: Path) -> None:
    """Of two that answer worse than the commonest class the better one is not called ahead, however clear the difference."""
    poor, poorer = (stored(tmp_path, n, accuracies={f"net {n}": a}) for n, a in (("poor", 0.35), ("poorer", 0.1)))
    found = pair_studies(poor, poorer)
    (pair,) = found.pairs
    assert pair.low > 0 and pair.p_adjusted < 0.01 and pair.beats_guessing is False and pair.verdict == "cannot tell"
    (said,) = conclude_comparison(found)
    assert "cannot be told apart" in said and said.endswith(", and the better one is not clearly better than guessing.")
    page = Tags(write_comparison_page(poorer, poor, tmp_path / "report").read_text(encoding="utf-8"))
    assert [row["Verdict"] for row in page.columns("pairs").values()] == ["cannot tell: no better than guessing"]
    good = stored(tmp_path, "good", accuracies={"net good": 0.95})
    for one, two, verdict in ((good, poor, "ahead"), (poor, good, "behind")):
        found = pair_studies(one, two)
        assert [(p.verdict, p.beats_guessing) for p in found.pairs] == [(verdict, True)]
        assert conclude_comparison(found)[0].startswith("net good of good is ahead of net poor of poor by ")
        assert "; it is clearly better than " in conclude_comparison(found)[0]


def test_where_a_study_ranks_by_another_metric_nothing_is_said_of_guessing(tmp_path: Path) -> None:
    one = stored(tmp_path, "one", accuracies={"net a": 0.7})
    two = stored(tmp_path, "two", accuracies={"net b": 0.95}, metrics=("macro_f1", "accuracy"))
    (pair,) = pair_studies(one, two).pairs
    assert pair.beats_guessing is None and pair.verdict == "behind"


def in_another_order(source: Path, folder: Path, classes: tuple[str, ...], to: tuple[str, ...], **dataset: str) -> Path:
    """The answers of a results folder, as a study would store them that lists its classes in another order."""
    answers: dict[str, list[Predictions]] = {}
    for run in Store(source).runs():
        said = run.load_predictions()
        assert said is not None
        labels = np.array([to.index(classes[label]) for label in said.labels])
        logits = np.stack([said.logits[:, classes.index(name)] for name in to], 1)
        answers.setdefault(run.candidate_name, []).append(replace(said, labels=labels, logits=logits))
    store = store_answers(folder, answers, classes=to)
    study = dict(store.study)
    store.write_study(study | {"dataset": study["dataset"] | dataset})
    return folder


def test_classes_are_matched_by_name_whatever_their_order(tmp_path: Path) -> None:
    classes, to = ("x", "y", "z"), ("z", "x", "y")
    one, two = (stored(tmp_path, n, classes=classes, seed=s) for n, s in (("one", 0), ("two", 1)))
    again = in_another_order(two, tmp_path / "again", classes, to)
    straight, crossed = pair_studies(one, in_another_order(two, tmp_path / "same", classes, classes)), pair_studies(one, again)
    assert crossed.b.summary.classes == straight.b.summary.classes and crossed.n_common_rows == straight.n_common_rows > 0
    assert crossed.basis == straight.basis and crossed.pairs == straight.pairs and crossed.pairs
    assert [p.value_b for p in crossed.pairs] == pytest.approx([accuracy(two, p.b) for p in crossed.pairs])


def test_another_positive_class_is_named_and_changes_no_pair(tmp_path: Path) -> None:
    one = in_another_order(stored(tmp_path, "s"), tmp_path / "one", ("x", "y"), ("x", "y"), positive="y")
    other = stored(tmp_path, "t", seed=1)
    straight = in_another_order(other, tmp_path / "straight", ("x", "y"), ("x", "y"), positive="y")
    turned = in_another_order(other, tmp_path / "turned", ("x", "y"), ("y", "x"), positive="x")
    assert pair_studies(one, turned).pairs == pair_studies(one, straight).pairs
    said = "one looks for y and turned for x; here both look for y."
    assert said in Tags(write_comparison_page(one, turned).read_text(encoding="utf-8")).text
    assert "look for" not in Tags(write_comparison_page(one, straight).read_text(encoding="utf-8")).text


def test_studies_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    one = stored(tmp_path, "one")
    with pytest.raises(StoreError, match="the same results folder"):
        pair_studies(one, one)
    with pytest.raises(StoreError, match="not a results folder"):
        pair_studies(one, tmp_path / "nowhere")


def test_two_problems_stand_beside_each_other_without_a_test(tmp_path: Path) -> None:
    """As table III of a study on two sets of pictures: values and intervals of each study's own page, and no difference."""
    one, three = stored(tmp_path, "one"), stored(tmp_path, "three", classes=("x", "y", "z"))
    found = pair_studies(one, three)
    assert found.basis == "classes" and not found.pairs and not found.gaps
    page = Tags(write_comparison_page(one, three).read_text(encoding="utf-8"))
    assert "three has z, which one has not." in page.text and "no difference between them is tested" in page.text
    head, *rows = page.tables["two-problems"]
    assert len(head) == 5 and [row[0] for row in rows] == ["net a", "net b"]
    for name, *cells in rows:
        for place, folder in enumerate((one, three)):
            value, interval = cells[2 * place : 2 * place + 2]
            summary = collect_summary(Store(folder))
            candidate = next(c for c in summary.candidates if c.name == name)
            assert float(value) == pytest.approx(accuracy(folder, name) * 100, abs=0.05)
            assert candidate.replicates is not None
            bounds = candidate.replicates.confidence_interval()
            assert [float(b) for b in re.findall(r"[0-9.]+", interval)] == pytest.approx(
                [bounds.low * 100, bounds.high * 100], abs=0.05
            )


def test_the_command_line_compares_the_parts_of_a_compared_study(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from phoropter import cli

    within, held_out = stored(tmp_path, "s-within-subject", overlap=True), stored(tmp_path, "s-subject-held-out")
    done = CliRunner().invoke(
        cli.main, ["compare", str(within), str(held_out), "-o", str(tmp_path / "gap.html")], catch_exceptions=False
    )
    assert done.exit_code == 0 and done.output == f"report: {tmp_path / 'gap.html'}\n"
    ran: list[str] = []
    with pytest.MonkeyPatch.context() as patch:  # as `run` leaves them: computed above
        patch.setattr(cli, "run_and_report", lambda study, *_: ran.append(study.name) or 0)
        study = tmp_path / "s.yaml"
        study.write_text(
            "name: s\ndata: {digits: true}\nsecond_protocol: true\ncandidates: [{backbone: test_vit, weights: random}]\n"
        )
        done = CliRunner().invoke(cli.main, ["run", str(study), "-o", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0 and ran == ["s-within-subject", "s-subject-held-out"]
    assert f"report: {tmp_path / 'report' / 'index.html'}" in done.output.replace("\n/", "/") and "a gap of" in done.output


def test_the_same_answers_on_the_same_splits_and_on_others_are_compared_by_one_quantity(tmp_path: Path) -> None:
    """Macro F1 of the same answers: 4 folds against the same 4 differ by 0, and against leave-one-person-out by 0 too."""
    random = np.random.default_rng(0)
    labels, groups = random.integers(0, 2, 240), np.array([f"p{i % 12:02d}" for i in range(240)])
    logits = (random.normal(size=(240, 2)) + np.eye(2)[labels]).astype(np.float32)
    answers = Predictions(np.array([f"r{i:03d}" for i in range(240)]), labels, logits, groups)
    folds, people = np.arange(240) % 12 // 3, np.arange(240) % 12
    folders = [
        store_answers(tmp_path / name, {f"net {name}": split_answers(answers, fold)}, metrics=("macro_f1",)).folder
        for name, fold in (("one", folds), ("again", folds), ("people", people))
    ]
    same, other = pair_studies(folders[0], folders[1]), pair_studies(folders[0], folders[2])
    assert (same.basis, other.basis) == ("splits", "rows")
    for found in (same, other):
        (pair,) = found.pairs
        assert pair.value_a == pair.value_b and pair.difference == 0 and pair.verdict == "identical"
        assert "give the same answers on the same" in conclude_comparison(found)[0]
    assert "the same answers would give a gap of 0" in Tags(write_comparison_page(folders[0], folders[2]).read_text()).text
