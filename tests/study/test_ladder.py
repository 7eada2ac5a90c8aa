"""A ladder: every candidate by a probe, the best few in full, and nothing chosen by held-out predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.results.store import Store
from phoropter.study.executors import run
from phoropter.study.ladder import said, settled
from phoropter.study.plan import plan
from phoropter.study.progress import Event
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


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("sweep: {recipe.lr: [0.1, 0.2]}\nstrategy: ladder\n", "contradict"),
        ("  - {backbone: test_resnet, frozen: true}\nstrategy: ladder\n", "single backbones"),
        ("strategy: lader\n", "ladder"),
        ("strategy: {ladder: {keep: 0}}\n", "keep"),
    ],
)
def test_what_a_ladder_cannot_be_is_said(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        settled(question(tmp_path, STUDY + more), Store(tmp_path / "out"))
