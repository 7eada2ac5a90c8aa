"""A ladder: every candidate by a probe, the best few in full, and nothing chosen by held-out predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.results.store import Store
from phoropter.study.audit import check_leakage
from phoropter.study.cost import cost, remember_speed
from phoropter.study.executors import run
from phoropter.study.ladder import first_rung, in_full_seconds, inner_losses, said, settled
from phoropter.study.plan import plan
from phoropter.study.progress import Event, duration
from phoropter.study.run import Here
from phoropter.study.spec import Question, read

STUDY = """\
name: tiny
data: {digits: true, size: 32, rows: 120}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: vit, backbone: test_vit, weights: random}
  - {name: convnext, backbone: test_convnext, weights: random}
"""
STRATEGY = "strategy: {ladder: {keep: 1, then: {preset: scratch, epochs: 1}}}\n"
HERE = Here("cpu", threads=1)


def question(tmp_path: Path, text: str) -> Question:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return read(file)[0]


def started(asked: Question, out: Path) -> tuple[Store, list[str]]:
    events: list[Event] = []
    store = run(asked, out, events.append, here=HERE)
    return store, [e.title for e in events if e.what == "start"]


def test_all_are_probed_and_the_best_by_inner_loss_is_tried_in_full(tmp_path: Path) -> None:
    asked = question(tmp_path, STUDY + STRATEGY)
    before = plan(settled(asked, Store(tmp_path / "out")))
    assert [c.name for c in before.candidates] == ["cnn probe", "vit probe", "convnext probe"]
    store, titles = started(asked, tmp_path / "out")
    losses: dict[str, list[float]] = {}
    for one in store.runs():
        if one.candidate.endswith(" probe"):
            losses.setdefault(one.candidate.removesuffix(" probe"), []).append(min(one.record["convex"]["inner_loss"].values()))
    assert {name: len(found) for name, found in losses.items()} == {"cnn": 2, "vit": 2, "convnext": 2}
    best = min(losses, key=lambda name: float(np.mean(losses[name])))
    assert [one.candidate for one in store.runs() if not one.candidate.endswith(" probe")] == [best, best]
    first, second = store.study["ladder"]
    assert (first["rung"], first["tried"], first["kept"]) == (1, ["cnn", "vit", "convnext"], [best])
    assert first["scores"] == pytest.approx({name: np.mean(found) for name, found in losses.items()}, abs=1e-5)
    assert second["tried"] == [best] and all(name in second["note"] for name in losses if name != best)
    assert len(titles) == 5  # three portions of heads, two runs in full

    again, titles = started(asked, tmp_path / "out")
    assert titles == [] and again.study["ladder"] == store.study["ladder"]
    assert any(best in words for words in said(settled(asked, store)))

    plain = question(tmp_path, STUDY + "recipe: {preset: scratch, epochs: 1}\n")
    same = {r.key for r in plan(plain).runs if r.candidate.name == best}
    assert same <= {one.key for one in store.runs()}  # as without a ladder


def test_a_budget_keeps_as_many_of_the_best_as_fit_by_the_plan_s_estimate(tmp_path: Path) -> None:
    """The choice is kept: a restart, and a plan that has measured another speed by then, say the same."""
    cache = tmp_path / "cache"
    text = STUDY + "strategy: {ladder: {keep: 3, then: {preset: scratch, epochs: 1}, budget_h: %s}}\n"
    asked = question(tmp_path, text % 1)
    empty = Store(tmp_path / "nothing")
    seconds = in_full_seconds(asked, empty, cache)
    for name, each in seconds.items():  # as a plain study of this candidate alone would be planned
        entry = next(line for line in STUDY.splitlines(keepends=True) if f"name: {name}," in line)
        alone = question(tmp_path, STUDY.partition("  - ")[0] + entry + "recipe: {preset: scratch, epochs: 1}\n")
        assert each == pytest.approx(cost(plan(alone, cache), empty, cache).seconds) and each > 0
    (words,) = [w for w in said(first_rung(asked), asked, empty, cache) if "rung 2" in w]
    assert f"at most about {duration(sum(seconds.values()))}" in words and "fit into 1 h" in words

    rung_1 = run(first_rung(asked), tmp_path / "out", lambda event: None, here=HERE, cache=cache)
    scores = inner_losses(asked, rung_1)
    order = sorted(scores, key=lambda name: scores[name])
    for enough, count in ((sum(seconds.values()), 3), (seconds[order[0]] + seconds[order[1]], 2), (seconds[order[0]] / 2, 1)):
        rung = settled(question(tmp_path, text % (enough * 1.001 / 3600)), rung_1, cache).rungs[1]
        assert set(rung["kept"]) == set(order[:count]), enough
    assert "more than the budget, but one is tried" in rung["note"]
    assert all(f"{name} about" in rung["note"] for name in order)

    few = question(tmp_path, text % (seconds[order[0]] / 2 / 3600))
    store = run(few, tmp_path / "out", lambda event: None, here=HERE, cache=cache)
    first, second = store.study["ladder"]
    assert second["kept"] == [order[0]] == first["kept"]
    accuracies = [one.record["metrics"]["accuracy"] for one in store.runs() if one.candidate == order[0]]
    assert second["scores"] == {order[0]: pytest.approx(np.mean(accuracies), abs=1e-6)} and len(accuracies) == 2
    remember_speed(cache, "cpu", 1e18)  # now everything would fit
    assert settled(few, store, cache).rungs[1] == {**second, "scores": {}}
    assert len(settled(question(tmp_path, text % 1), store, cache).rungs[1]["kept"]) == 3  # another budget is another choice


@pytest.mark.parametrize(
    ("split", "met"), [("{split: stratified-k-fold, folds: 2}", True), ("{split: hold-out, test: 0.3}", False)]
)
def test_the_audit_knows_what_the_choice_looked_at(tmp_path: Path, split: str, met: bool) -> None:
    text = STUDY.replace("{split: stratified-k-fold, folds: 2, seeds: [0]}", split) + STRATEGY
    asked = question(tmp_path, text)
    rung = first_rung(asked)
    chosen = replace(rung, rungs=(*rung.rungs, {"rung": 2, "tried": ["cnn"]}))
    for ladder, expected in ((rung, False), (chosen, met)):
        found = [f for f in check_leakage(plan(ladder, tmp_path), lambda material: None, tmp_path) if f.kind == "fitted"]
        assert [f.severity for f in found] == ["warn"] * expected
        assert all("choice of what the ladder tries" in f.words and f.share == 1 for f in found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("sweep: {recipe.lr: [0.1, 0.2]}\nstrategy: ladder\n", "contradict"),
        ("  - {backbone: test_resnet, frozen: true}\nstrategy: ladder\n", "single backbones"),
        ("strategy: lader\n", "ladder"),
        ("strategy: {ladder: {keep: 0}}\n", "keep"),
        ("strategy: {ladder: {budget_h: 0}}\n", "budget_h"),
    ],
)
def test_what_a_ladder_cannot_be_is_said(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        settled(question(tmp_path, STUDY + more), Store(tmp_path / "out"))
