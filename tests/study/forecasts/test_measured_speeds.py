"""What earlier runs measured, and what is guessed where none did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.study.forecasts.measured_speeds import (
    MeasuredSpeeds,
    describe_hardware,
    estimate_work,
    find_machine_share,
    find_network_use,
    load_measured_speeds,
    settle_device,
    update_corrections,
    update_measured_speed,
)
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS

SMALL, LARGE = BackboneSpec(name="mobilenetv2_100"), BackboneSpec(name="resnet50")


def test_a_network_that_was_measured_has_its_own_speed_and_others_that_of_the_device(tmp_path: Path) -> None:
    assert load_measured_speeds(tmp_path) == MeasuredSpeeds()
    guess = MeasuredSpeeds().image_seconds(LARGE, 224, "cpu")
    update_measured_speed(tmp_path, "cpu", 1e10, SMALL)
    known = load_measured_speeds(tmp_path)
    assert known.image_seconds(SMALL, 224, "cpu") == pytest.approx(estimate_work(SMALL, 224) / 1e10)
    assert known.image_seconds(LARGE, 224, "cpu") == pytest.approx(estimate_work(LARGE, 224) / 1e10) and guess > 0
    update_measured_speed(tmp_path, "cpu", 5e10, LARGE)
    known = load_measured_speeds(tmp_path)
    assert known.image_seconds(SMALL, 224, "cpu") == pytest.approx(estimate_work(SMALL, 224) / 1e10)
    assert known.device_speed("cpu") == pytest.approx(0.8 * 1e10 + 0.2 * 5e10)
    assert known.image_seconds(LARGE, 224, "cuda:1") == MeasuredSpeeds().image_seconds(LARGE, 224, "cuda") < guess


def test_onnx_runtime_has_a_speed_of_its_own_and_until_then_that_of_torch(tmp_path: Path) -> None:
    update_measured_speed(tmp_path, "cpu", 1e10, SMALL, use="trained")
    work = estimate_work(SMALL, 224)
    assert load_measured_speeds(tmp_path).image_seconds(SMALL, 224, "cpu", "onnxruntime") == pytest.approx(work / 1e10)
    update_measured_speed(tmp_path, "cpu", 2e10, SMALL)
    assert load_measured_speeds(tmp_path).image_seconds(SMALL, 224, "cpu", "onnxruntime") == pytest.approx(work / 2e10)
    update_measured_speed(tmp_path, "cpu", 8e10, SMALL, use="onnxruntime")
    known = load_measured_speeds(tmp_path)
    assert known.image_seconds(SMALL, 224, "cpu", "onnxruntime") == pytest.approx(work / 8e10)
    assert known.image_seconds(SMALL, 224, "cpu") == pytest.approx(work / 2e10)
    assert known.knows_network(SMALL, "cpu", "onnxruntime") and not known.knows_network(LARGE, "cpu", "onnxruntime")


def test_the_use_of_a_network_is_that_of_its_candidate() -> None:
    entries: list[Any] = [
        {"backbone": "test_resnet", "name": "a", "recipe": {"feature_engine": "onnxruntime"}, "frozen": True},
        {"backbone": "test_resnet", "name": "b", "frozen": True},
        "test_vit",
    ]
    uses = [find_network_use(candidate) for candidate in parse_candidates(entries, PRESETS["scratch"])]
    assert uses == ["onnxruntime", "shown", "trained"]


def test_work_grows_with_the_area_of_the_input_and_less_than_multiply_adds_with_the_network() -> None:
    assert estimate_work(LARGE, 448) == pytest.approx(4 * estimate_work(LARGE, 224))
    retrained = BackboneSpec(name="convnext_tiny.fb_in22k_ft_in1k_384")  # the same network, whose weights are for a larger side
    assert estimate_work(retrained, 384) == pytest.approx(estimate_work(BackboneSpec(name="convnext_tiny"), 384))
    macs = [catalog.describe_backbone(b).macs or 0 for b in (SMALL, LARGE)]
    assert estimate_work(LARGE, 224) / estimate_work(SMALL, 224) == pytest.approx((macs[1] / macs[0]) ** 0.8)


def test_corrections_of_one_kind_leave_the_others(tmp_path: Path) -> None:
    update_corrections(tmp_path, "cpu", {"solved": 32.0})
    update_corrections(tmp_path, "cpu", {})
    known = load_measured_speeds(tmp_path)
    assert known.find_correction("cpu", "solved") == pytest.approx(20**0.2)
    assert known.find_correction("cpu", "trained") == known.find_correction("cuda", "solved") == 1


def test_a_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phoropter.core.cpu_count.count_usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (find_machine_share("cpu", 8), find_machine_share("cpu", 2)) == (1, 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert (find_machine_share("cpu", 8), find_machine_share("cpu", 2), find_machine_share("cpu", 1)) == (1, 1, 2)
    assert find_machine_share("cuda", 1) == 1


def test_hardware_is_named_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phoropter.study.forecasts.measured_speeds._GPU_FOLDER", tmp_path)
    monkeypatch.setattr("phoropter.study.forecasts.measured_speeds.version", lambda package: "2.9.0")
    (tmp_path / "0000:17:00.0").mkdir()
    (tmp_path / "0000:17:00.0" / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 5\n")
    assert (settle_device("auto"), settle_device("cuda:1"), settle_device("cpu")) == ("cuda", "cuda", "cpu")
    assert describe_hardware("auto") == "NVIDIA H100 80GB HBM3"
    monkeypatch.setattr("phoropter.study.forecasts.measured_speeds.version", lambda package: "2.9.0+cpu")
    assert settle_device("auto") == "cpu" and " core" in describe_hardware("auto")
