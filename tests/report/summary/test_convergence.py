"""Why a candidate counts as not trained to the end: what most runs recorded, and a fusion that learnt less than its part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_study import Made, make_study

from phoropter.core.storage.checksums import write_checksums
from phoropter.core.storage.sealed_json import write_sealed_json
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import CandidateResults
from phoropter.results.store import Store

RISING = "accuracy on the training rows was still rising"
BACKBONES: dict[str, dict[str, Any]] = {n: {"name": n, "weights": "pretrained", "size": None, "seed": 0} for n in ("one", "two")}


def make_candidates(
    tmp_path: Path, changes: dict[str, dict[str, Any]], unfinished: dict[str, int]
) -> dict[str, CandidateResults]:
    """A study of `changes` name → what its records say beside; unfinished: in how many of its four runs training was."""
    made = Made(accuracies=dict.fromkeys(changes, 0.8), rows=60, folds=2, seeds=(0, 1), pictures=0, epochs=2)
    store = make_study(tmp_path, made)
    numbers = dict.fromkeys(changes, 0)
    for run in Store(store.folder).runs():
        file = run.folder / "record.json"
        record = json.loads(file.read_text())
        change = changes[run.candidate_name]
        stopped = numbers[run.candidate_name] < unfinished.get(run.candidate_name, 0)
        numbers[run.candidate_name] += 1
        if "accuracy" in change:
            record["convergence"] = {"train_accuracy": change["accuracy"], "not_converged": RISING if stopped else None}
        record["candidate"] |= {k: v for k, v in change.items() if k not in ("accuracy", "logistic")}
        record |= {"logistic": {"penalty": 0.1}} if change.get("logistic") else {}
        write_sealed_json(file, {k: v for k, v in record.items() if k != "checksum"})
        write_checksums(run.folder)
    return {c.name: c for c in collect_summary(Store(store.folder)).candidates}


def single(name: str, accuracy: float, frozen: bool = True) -> dict[str, Any]:
    return {"backbones": [BACKBONES[name]], "fusion": None, "frozen": frozen, "distillation": None, "accuracy": accuracy}


def fused(accuracy: float, **more: Any) -> dict[str, Any]:
    both = list(BACKBONES.values())
    return {"backbones": both, "fusion": {"mode": "logits"}, "frozen": True, "distillation": None, "accuracy": accuracy, **more}


def test_half_of_the_runs_decide(tmp_path: Path) -> None:
    changes = {name: single("one", 0.8) for name in ("none", "one", "two", "all")} | {"old": {"frozen": True}}
    found = make_candidates(tmp_path, changes, {"one": 1, "two": 2, "all": 4})
    assert {n: c.not_converged for n, c in found.items()} == {
        **dict.fromkeys(("none", "one", "old")),
        "two": f"{RISING} in 2 of 4 runs",
        "all": RISING,
    }


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        (fused(0.70), "on the training rows it is less accurate than 'a', a part of it"),
        (fused(0.93), None),
        (fused(0.70, logistic=True), None),  # solved: it is where its penalty lets it be
        (fused(0.70, frozen=False), None),  # no member was trained as it was
    ],
)
def test_a_fusion_that_learnt_less_than_its_part_is_unfinished(tmp_path: Path, fusion: dict[str, Any], words: str | None) -> None:
    found = make_candidates(tmp_path, {"a": single("one", 0.97), "b": single("two", 0.75), "both": fusion}, {})
    assert found["both"].not_converged == words
    assert found["a"].not_converged is None and found["b"].not_converged is None
