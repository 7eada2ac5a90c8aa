"""What a record says of cost: the share of the backbones' passes, by hand, and the time to an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.models.classifier import Classifier
from phoropter.results.store import Store
from phoropter.study.records.cost_record import describe_average_cost
from phoropter.study.spec import read_study
from phoropter.study.worker import compute_missing_runs
from phoropter.training import feature_cache
from phoropter.training.costs import classifier_cost
from phoropter.training.costs.pass_cost import PASS_FILE, PassCost, read_pass_cost

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
recipe: {preset: probe, epochs: 2}
candidates:
  - {name: probe, backbone: test_resnet, weights: random, frozen: true}
  - {name: solved, backbone: test_resnet, weights: random, frozen: true, recipe: logistic}
  - {name: tuned, backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}}
  - {name: both, fuse: [probe, tuned], mode: ensemble}
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("costs")
    (root / "study.yaml").write_text(STUDY)
    counted: list[int] = []
    count_macs = classifier_cost._count_classifier_macs

    def counted_macs(classifier: Classifier, side: int) -> int | None:
        counted.append(side)
        return count_macs(classifier, side)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_cost, "_counted_macs", {})
        patch.setattr(classifier_cost, "_count_classifier_macs", counted_macs)
        # A pass whose seconds are known: a tenth of a second for each batch
        ticks: Iterator[float] = (0.1 * i for i in range(10**6))
        patch.setattr(feature_cache, "choose_inference_batch", lambda side, device: 8)
        patch.setattr("phoropter.training.feature_cache.time.perf_counter", lambda: next(ticks))
        compute_missing_runs(read_study(root / "study.yaml")[0], root / "out", lambda event: None, cache=root / "cache")
    store = Store(root / "out")
    found: dict[str, list[dict[str, Any]]] = {"counted": [{"sides": counted}], "root": [{"root": str(root)}]}
    for item in store.study["plan"]:
        found.setdefault(item["candidate"], []).append(store.run(item["key"]).record)
    return found


@pytest.mark.parametrize("name", ["probe", "solved"])
def test_seconds_of_a_frozen_candidate_include_the_pass_over_its_rows(records: dict[str, Any], name: str) -> None:
    each = (0.1 + 120 * 0.1 / 8) / 120  # seconds an image: of all batches, and of the network before the first
    for record in records[name]:
        cost, split = record["cost"], record["split"]
        (entry,) = record["feature_passes"].values()
        assert entry["seconds"] == pytest.approx(120 * each) and (entry["images"], entry["batch"]) == (120, 8)
        assert cost["train_pass_seconds"] == pytest.approx(split["n_train"] * each, abs=6e-4)
        assert cost["predict_pass_seconds"] == pytest.approx(split["n_test"] * each, abs=6e-4)
        assert cost["train_seconds"] >= cost["train_pass_seconds"] and cost["predict_seconds"] >= cost["predict_pass_seconds"]
        assert cost["predict_images_per_s"] == pytest.approx(split["n_test"] / cost["predict_seconds"], rel=0.01)
        assert cost["predict_images_per_s"] <= round(
            1 / each, 1
        )  # never faster than the backbone; a head may take no millisecond
        assert cost["peak_memory_bytes"] >= entry["peak_memory_bytes"] > 0


def test_both_heads_owe_to_one_pass(records: dict[str, Any]) -> None:
    assert len({entry for name in ("probe", "solved") for r in records[name] for entry in r["feature_passes"]}) == 1
    (file,) = Path(records["root"][0]["root"], "cache", "features").glob(f"*/{PASS_FILE}")
    assert read_pass_cost(file.parent) == PassCost.model_validate(records["probe"][0]["feature_passes"][file.parent.name])


def test_a_candidate_that_trains_its_backbone_owes_no_pass(records: dict[str, Any]) -> None:
    for record in records["tuned"]:
        assert "feature_passes" not in record
        assert record["cost"]["train_pass_seconds"] == record["cost"]["predict_pass_seconds"] == 0
        assert record["inference_batch"] == 256 and record["shown_at"] == [32]


def test_an_average_takes_what_its_members_take(records: dict[str, Any]) -> None:
    for both, probe, tuned in zip(records["both"], records["probe"], records["tuned"], strict=True):
        for name in ("parameters", "train_seconds", "predict_seconds", "train_pass_seconds"):
            assert both["cost"][name] == pytest.approx(probe["cost"][name] + tuned["cost"][name])
        assert both["cost"]["peak_memory_bytes"] == max(r["cost"]["peak_memory_bytes"] for r in (probe, tuned))
    first = [records[name][0]["cost"]["answer_seconds_32"] for name in ("both", "probe", "tuned")]
    assert first[0] == pytest.approx(first[1] + first[2], abs=2e-6)
    unknown = [{**r[0]["cost"], "macs": None} for r in (records["probe"], records["tuned"])]
    assert describe_average_cost(unknown, 40)["macs"] is None


def test_multiply_adds_are_counted_once_for_an_architecture(records: dict[str, Any]) -> None:
    assert records["counted"][0]["sides"] == [32]  # three candidates and nine runs have one architecture
    macs = {name: {r["cost"]["macs"] for r in records[name]} for name in ("probe", "solved", "tuned")}
    assert all(len(values) == 1 and None not in values for values in macs.values())


def test_only_the_first_run_of_a_candidate_is_timed_to_its_answer(records: dict[str, Any]) -> None:
    for name in ("probe", "solved", "tuned"):
        first, *others = (record["cost"] for record in records[name])
        assert 0 < first["answer_seconds_1"] < 32 * first["answer_seconds_32"]
        assert not any("answer_seconds_1" in cost for cost in others)
    assert np.isfinite(json.loads(json.dumps(records["probe"][0]["cost"]))["answer_seconds_1"])
