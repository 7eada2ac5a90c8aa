"""Estimates of a plan's cost against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.core.cpu_count import count_default_threads
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.results.store import Store
from phoropter.study.cost import RUN_SECONDS, WRITING_SECONDS, ResourceEstimate, estimate_resources, follow_pace, note_speed
from phoropter.study.display.time_left import TimeLeft
from phoropter.study.executors import execute_study
from phoropter.study.forecasts.measured_speeds import (
    estimate_work,
    load_measured_speeds,
    update_corrections,
    update_measured_speed,
)
from phoropter.study.plan import Plan, plan_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import read_study
from phoropter.study.worker import ComputeOptions
from phoropter.training.array_cache import FeatureEntryInfo, write_entry_info
from phoropter.training.candidates.table_spec import SIGNAL_MACS
from small_recordings import ECG_STUDY

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0, 1]}
candidates:
"""


def told(tmp_path: Path, candidates: str) -> ResourceEstimate:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + candidates)
    return estimate_resources(plan_study(read_study(file)[0], tmp_path / "cache"), Store(tmp_path / "out"), tmp_path / "cache")


def test_the_network_on_samples_is_estimated_by_its_epochs_and_rows(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(ECG_STUDY + "candidates: [{baseline: signal-1d, recipe: {epochs: 40}}]\n")
    planned = plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache")
    found = estimate_resources(planned, Store(tmp_path / "out"), tmp_path / "cache")
    rows = sum(3 * 40 * len(run.split.train) + len(run.split.test) for run in planned.runs)
    assert found.seconds == pytest.approx(2 * RUN_SECONDS["trained"] + rows * SIGNAL_MACS / 3e10)
    assert found.worth_compiling == () and found.feature_images == 0


def test_cached_views_are_counted_in_images_bytes_and_time(tmp_path: Path) -> None:
    probe = "  - {name: a, backbone: test_resnet, frozen: true, weights: random, recipe: {preset: probe, epochs: 5"
    live = told(tmp_path, probe + ", augment: [hflip]}}\n")
    clean = told(tmp_path, probe + "}}\n")
    kept = told(tmp_path, probe + ", augment: [hflip], cached_views: 4, feature_dtype: float16}}\n")
    width = catalog.find_architecture("test_resnet").num_features
    assert width is not None
    assert (live.feature_images, live.feature_bytes) == (0, 0)
    assert (clean.feature_images, clean.feature_bytes) == (2 * 120, 2 * 120 * width * 4)  # a random backbone for each seed
    assert (kept.feature_images, kept.feature_bytes) == (2 * 120 * 5, 2 * 120 * 5 * width * 2)  # four views and the clean one
    each = kept.feature_seconds / (2 * 120 * 5)
    trained = live.seconds - 6 * RUN_SECONDS["trained"]
    assert trained / each == pytest.approx(6 * (80 * 5 + 40))  # every epoch of every fold, and the rows to be tested
    assert clean.feature_seconds / each == pytest.approx(2 * 120)
    heads = 6 * 3 * 5 * 80 * width * 10 / 3e10  # passes over the training rows, at the guessed speed
    assert clean.seconds - clean.feature_seconds == pytest.approx(6 * RUN_SECONDS["heads"] + heads)
    both = told(
        tmp_path,
        probe
        + ", augment: [hflip], cached_views: 4}}\n"
        + probe.replace("name: a", "name: b")
        + ", augment: [hflip], cached_views: 5}}\n",
    )
    assert both.feature_images == 2 * 120 * 6  # the larger pool holds the smaller one


def test_the_speed_of_several_processes_is_not_taken_for_that_of_one(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + "  - {name: a, backbone: test_resnet, weights: random}\n")
    planned = plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache")
    for processes in ({"processes": 2}, {}):
        record = {"cost": {"train_seconds": 100.0}, **processes}
        note_speed(planned.runs[0], record, None, tmp_path, "cpu", 1)
        assert (tmp_path / "speed.json").exists() == (not processes)


def test_the_speed_of_a_pass_is_that_of_its_images_and_writing_the_network_is_counted_once(tmp_path: Path) -> None:
    """As ONNX Runtime takes seconds before the first image: of many more images as many times that was forecast."""
    entry = "  - {name: a, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: probe, epochs: 1%s}}\n"
    (tmp_path / "study.yaml").write_text(STUDY + entry % ", feature_engine: onnxruntime")
    planned = plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache")
    passed = {"seconds": 7.0, "setup_seconds": 6.0, "images": 1000, "batch": 16, "peak_memory_bytes": 1, "device": "cpu"}
    threads = count_default_threads()
    note_speed(planned.runs[0], {"feature_passes": {"entry": passed}}, None, tmp_path, "cpu", threads)
    backbone = BackboneSpec(name="test_resnet", weights="random", size=32)
    assert load_measured_speeds(tmp_path).image_seconds(backbone, 32, "cpu", "onnxruntime") == pytest.approx(1e-3)
    by_torch, by_onnx = (told(tmp_path, entry % more) for more in ("", ", feature_engine: onnxruntime"))
    assert by_onnx.feature_seconds == pytest.approx(
        by_torch.feature_seconds + 2 * WRITING_SECONDS
    )  # random weights: of each seed


def test_a_frozen_fusion_tells_the_speed_of_each_of_its_networks(tmp_path: Path) -> None:
    """As two candidates of their own would: by their mean, a plan of either of them was off by as much as they differ."""
    networks = ["test_resnet", "test_vit"]
    entries = ", ".join(f"{{name: {name}, weights: random}}" for name in networks)
    (tmp_path / "study.yaml").write_text(STUDY + f"  - {{fuse: [{entries}], mode: concat, frozen: true}}\n")
    run = plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache").runs[0]
    took = dict(zip(networks, (2.0, 8.0), strict=True))
    passes = {}
    for name, seconds in took.items():
        write_entry_info(tmp_path / "features" / name, FeatureEntryInfo(pixels="p", backbone=name, weights="random"))
        passes[name] = {"seconds": seconds, "images": 1000, "batch": 16, "peak_memory_bytes": 1, "device": "cpu"}
    gone = {"another, which is not in the cache": {**passes["test_vit"], "seconds": 99.0}}
    note_speed(run, {"feature_passes": passes | gone}, None, tmp_path, "cpu", count_default_threads())
    speeds = load_measured_speeds(tmp_path)
    for name, seconds in took.items():
        assert speeds.image_seconds(BackboneSpec(name=name, weights="random", size=32), 32, "cpu") == pytest.approx(
            seconds / 1000
        )


def test_compiling_is_suggested_only_for_runs_long_enough_to_gain(tmp_path: Path) -> None:
    passes = 21 * 80 * 3 + 20  # 21 epochs of 80 rows, forward and backward, and half of the 40 that are tested
    update_measured_speed(
        tmp_path / "cache", "cpu", estimate_work(BackboneSpec(name="test_resnet", weights="random"), 32) * passes * 0.1 / 75
    )  # so that it saves 75 s
    entry = "  - {name: %s, backbone: test_resnet, weights: random, size: 32, recipe: {preset: scratch, epochs: %d%s}}\n"
    long, brief, compiled = entry % ("long", 21, ""), entry % ("brief", 20, ""), entry % ("compiled", 21, ", compile: true")
    probe = long.replace("long", "probe").replace("size: 32", "size: 32, frozen: true")
    assert told(tmp_path, long + brief + compiled + probe).worth_compiling == ("long",)
    two = entry.replace("backbone: test_resnet, weights: random, size: 32", "fuse: [%s, %s]")
    one = "{name: test_resnet, weights: random, size: 32, seed: %d}"
    assert told(tmp_path, two % ("two", one % 1, one % 2, 20, "")).worth_compiling == ()  # twice as long, of two networks
    assert told(tmp_path, two % ("two", one % 1, one % 2, 21, "")).worth_compiling == ("two",)


def test_features_in_the_cache_are_not_counted_again(tmp_path: Path) -> None:
    """Also in another results folder: the cache is shared."""
    file, cache = tmp_path / "study.yaml", tmp_path / "cache"
    weights = tmp_path / "net.safetensors"
    save_weights(weights)
    probe = f"  - {{name: a, backbone: test_resnet, frozen: true, weights: {weights}, recipe: {{preset: probe, epochs: 1}}}}\n"
    file.write_text(STUDY.replace("seeds: [0, 1]", "seeds: [0]") + probe)
    study = read_study(file)[0]
    before = estimate_resources(plan_study(study, cache), Store(tmp_path / "other"), cache)
    assert before.feature_images == 120
    execute_study(study, tmp_path / "out", lambda event: None, options=ComputeOptions("cpu", threads=1), cache=cache)
    after = estimate_resources(plan_study(study, cache), Store(tmp_path / "other"), cache)
    assert (after.feature_images, after.feature_bytes, after.feature_seconds) == (0, 0, 0)
    assert after.seconds > 0 and len(after.forecasts) == 3
    plain = file.read_text()
    for other in ("feature_dtype: float16", "feature_engine: onnxruntime"):
        file.write_text(plain.replace("epochs: 1}}", f"epochs: 1, {other}}}}}"))
        assert estimate_resources(plan_study(read_study(file)[0], cache), Store(tmp_path / "other"), cache).feature_images == 120
    file.write_text(plain)
    file.write_text(file.read_text().replace("size: 32, max", "size: 40, max"))  # other pixels, other features
    assert estimate_resources(plan_study(read_study(file)[0], cache), Store(tmp_path / "other"), cache).feature_images == 120


def test_a_plan_that_was_computed_corrects_the_next_one(tmp_path: Path) -> None:
    planned = plan_small_study(tmp_path)
    store, cache = Store(tmp_path / "out"), tmp_path / "cache"
    first = estimate_resources(planned, store, cache)
    events: list[ProgressEvent] = []
    clock = iter([0.0, 0.0, 10 * first.seconds])  # begin, (finish and) close: ten times as long as was said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phoropter.study.cost.TimeLeft", lambda: TimeLeft(lambda: next(clock, 10 * first.seconds)))
        with follow_pace(planned, first, cache, "cpu", 64, events.append) as notify:
            keys = tuple(run.key for run in planned.runs)
            notify(ProgressEvent("start", keys=keys))
            next(clock)
            notify(ProgressEvent("done", keys=keys))
    assert [e.kind for e in events] == ["forecast", "start", "done"] and events[0].note.keys() == set(keys)
    second = estimate_resources(planned, store, cache)
    assert second.seconds == pytest.approx(first.seconds * 10**0.2)  # a fifth of the way, in logarithms
    update_corrections(cache, "cpu", {"trained": 1e6})
    third = estimate_resources(planned, store, cache)
    assert third.seconds == pytest.approx(second.seconds * 20**0.2), "one study that slept does not spoil the next plan"


def plan_small_study(tmp_path: Path) -> Plan:
    candidate = "  - {backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}}\n"
    (tmp_path / "study.yaml").write_text(STUDY + candidate)
    return plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache")


def save_weights(file: Path) -> None:
    """Of a small network, as timm saves them."""
    from safetensors.torch import save_file

    from phoropter.models.timm_compat import import_timm

    save_file({k: v.contiguous() for k, v in import_timm().create_model("test_resnet").state_dict().items()}, file)
