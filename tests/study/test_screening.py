"""Screening: every candidate by a probe, the best few in full, and nothing chosen by held-out predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.durations import format_duration
from phoropter.core.errors import SpecError
from phoropter.results.store import Store
from phoropter.study.audit import check_leakage
from phoropter.study.cost import estimate_resources
from phoropter.study.executors import execute_study
from phoropter.study.forecasts.measured_speeds import update_measured_speed
from phoropter.study.plan import plan_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.screening import describe_rungs, estimate_full_seconds, first_rung, mean_inner_losses, resolve_rungs
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: vit, backbone: test_vit, weights: random}
  - {name: convnext, backbone: test_convnext, weights: random}
"""
SCREENING = "screening: {keep: 1, final_recipe: {preset: scratch, epochs: 1}}\n"
HERE = ComputeOptions("cpu", threads=1)


def write_study(tmp_path: Path, text: str) -> StudySpec:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return read_study(file)[0]


def started(asked: StudySpec, out: Path) -> tuple[Store, list[str]]:
    events: list[ProgressEvent] = []
    store = execute_study(asked, out, events.append, options=HERE)
    return store, [e.title for e in events if e.kind == "start"]


def test_every_candidate_is_probed_and_the_best_by_inner_loss_is_trained_in_full(tmp_path: Path) -> None:
    asked = write_study(tmp_path, STUDY + SCREENING)
    before = plan_study(resolve_rungs(asked, Store(tmp_path / "out")))
    assert [c.name for c in before.candidates] == ["cnn probe", "vit probe", "convnext probe"]
    store, titles = started(asked, tmp_path / "out")
    losses: dict[str, list[float]] = {}
    for one in store.runs():
        if one.candidate_name.endswith(" probe"):
            losses.setdefault(one.candidate_name.removesuffix(" probe"), []).append(
                min(one.record["logistic"]["inner_loss"].values())
            )
    assert {name: len(found) for name, found in losses.items()} == {"cnn": 2, "vit": 2, "convnext": 2}
    best = min(losses, key=lambda name: float(np.mean(losses[name])))
    assert [one.candidate_name for one in store.runs() if not one.candidate_name.endswith(" probe")] == [best, best]
    first, second = store.study["screening"]
    assert (first["rung"], first["tried"], first["kept"]) == (1, ["cnn", "vit", "convnext"], [best])
    assert first["scores"] == pytest.approx({name: np.mean(found) for name, found in losses.items()}, abs=1e-5)
    assert second["tried"] == [best] and all(name in second["note"] for name in losses if name != best)
    assert len(titles) == 5  # three portions of heads, two runs in full

    again, titles = started(asked, tmp_path / "out")
    assert titles == [] and again.study["screening"] == store.study["screening"]
    assert any(best in words for words in describe_rungs(resolve_rungs(asked, store)))

    plain = write_study(tmp_path, STUDY + "recipe: {preset: scratch, epochs: 1}\n")
    same = {r.key for r in plan_study(plain).runs if r.candidate.name == best}
    assert same <= {one.key for one in store.runs()}  # as without screening


def test_a_budget_keeps_the_best_that_fit_by_the_plan_s_estimate(tmp_path: Path) -> None:
    """The choice is stored: a restart, and a plan after another speed was measured, make the same choice."""
    cache = tmp_path / "cache"
    text = STUDY + "screening: {keep: 3, final_recipe: {preset: scratch, epochs: 1}, budget_h: %s}\n"
    asked = write_study(tmp_path, text % 1)
    empty = Store(tmp_path / "nothing")
    seconds = estimate_full_seconds(asked, empty, cache)
    for name, each in seconds.items():  # as a plain study of this candidate alone would be planned
        entry = next(line for line in STUDY.splitlines(keepends=True) if f"name: {name}," in line)
        alone = write_study(tmp_path, STUDY.partition("  - ")[0] + entry + "recipe: {preset: scratch, epochs: 1}\n")
        assert each == pytest.approx(estimate_resources(plan_study(alone, cache), empty, cache).seconds) and each > 0
    (words,) = [w for w in describe_rungs(first_rung(asked), asked, empty, cache) if "rung 2" in w]
    assert f"at most about {format_duration(sum(seconds.values()))}" in words and "fit into 1 h" in words

    rung_1 = execute_study(first_rung(asked), tmp_path / "out", lambda event: None, options=HERE, cache=cache)
    scores = mean_inner_losses(asked, rung_1)
    order = sorted(scores, key=lambda name: scores[name])
    seconds = estimate_full_seconds(asked, empty, cache)  # the first rung measured this machine's speed
    for enough, count in ((sum(seconds.values()), 3), (seconds[order[0]] + seconds[order[1]], 2), (seconds[order[0]] / 2, 1)):
        rung = resolve_rungs(write_study(tmp_path, text % (enough * 1.001 / 3600)), rung_1, cache).context.screening_rungs[1]
        assert set(rung["kept"]) == set(order[:count]), enough
    assert "more than the budget, but one is tried" in rung["note"]
    assert all(f"{name} about" in rung["note"] for name in order)

    few = write_study(tmp_path, text % (seconds[order[0]] / 2 / 3600))
    store = execute_study(few, tmp_path / "out", lambda event: None, options=HERE, cache=cache)
    first, second = store.study["screening"]
    assert second["kept"] == [order[0]] == first["kept"]
    accuracies = [one.record["metrics"]["accuracy"] for one in store.runs() if one.candidate_name == order[0]]
    assert second["scores"] == {order[0]: pytest.approx(np.mean(accuracies), abs=1e-6)} and len(accuracies) == 2
    update_measured_speed(cache, "cpu", 1e18)  # now everything would fit
    assert resolve_rungs(few, store, cache).context.screening_rungs[1] == {**second, "scores": {}}
    assert (
        len(resolve_rungs(write_study(tmp_path, text % 1), store, cache).context.screening_rungs[1]["kept"]) == 3
    )  # another budget is another choice


@pytest.mark.parametrize(
    ("split", "met"), [("{split: stratified-k-fold, folds: 2}", True), ("{split: hold-out, test_size: 0.3}", False)]
)
def test_the_audit_reports_the_rows_the_choice_used(tmp_path: Path, split: str, met: bool) -> None:
    text = STUDY.replace("{split: stratified-k-fold, folds: 2, seeds: [0]}", split) + SCREENING
    asked = write_study(tmp_path, text)
    rung = first_rung(asked)
    chosen = rung.with_context(screening_rungs=(*rung.context.screening_rungs, {"rung": 2, "tried": ["cnn"]}))
    for rungs, expected in ((rung, False), (chosen, met)):
        found = [f for f in check_leakage(plan_study(rungs, tmp_path), tmp_path) if f.kind == "fitted"]
        assert [f.severity for f in found] == ["warn"] * expected
        assert all("The screening's choice of candidates" in f.words and f.share == 1 for f in found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("sweep: {recipe.lr: [0.1, 0.2]}\nscreening: true\n", "contradict"),
        ("  - {backbone: test_resnet, frozen: true}\nscreening: true\n", "single backbones"),
        ("screening: {kep: 2}\n", "did you mean 'keep'"),
        ("screening: {keep: 0}\n", "keep"),
        ("screening: {budget_h: 0}\n", "budget_h"),
    ],
)
def test_an_impossible_screening_is_refused(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        resolve_rungs(write_study(tmp_path, STUDY + more), Store(tmp_path / "out"))
