"""Runs that need others: students their teachers, fusions their members; in one process and in two."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from phoropter.console import print_plan
from phoropter.core.errors import LeakageError, SpecError
from phoropter.core.files import cache_dir
from phoropter.results.store import Store
from phoropter.study import plan
from phoropter.study.cost import estimate_resources
from phoropter.study.executors import execute_study
from phoropter.study.plan import Plan, plan_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions
from small_study import all_predictions

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 200}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 8, lr: 0.01}
save_models: none
candidates:
  - {name: pupil, student: test_resnet, weights: random, teacher: master, loss: soft,
     recipe: {epochs: 2, augment: [hflip, cutmix]}}
  - {name: both, fuse: [pupil, master], mode: ensemble}
  - {name: master, backbone: test_resnet, weights: random, size: 48}
"""
FUSED = (
    STUDY.split("  - {name: pupil")[0]
    + """\
  - {name: sonic, fuse: [{name: test_resnet, weights: random}, {name: test_vit, weights: random, size: 160}],
     aux_loss_weight: 0.3}
  - {name: side by side, fuse: [{name: test_resnet, weights: random}, {name: test_resnet, weights: random, size: 48}],
     mode: concat}
  - {name: small net, fuse: [{name: test_resnet, weights: random}, {name: test_vit, weights: random, size: 160}], frozen: true}
  - {name: mean, fuse: [{name: test_resnet, weights: random}, {name: test_resnet, weights: random, size: 48}], mode: ensemble}
  - {name: warm, fuse: [{name: test_resnet, weights: random}, {name: test_resnet, weights: random, size: 48}], warm_start: true,
     recipe: {epochs: 1}}
  - {name: of two, student: test_resnet, weights: random, teacher: side by side, loss: soft, recipe: {epochs: 1}}
"""
)
HERE = ComputeOptions("cpu", threads=1)


def write_study(tmp_path: Path, text: str = STUDY) -> StudySpec:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return read_study(file)[0]


def quiet(event: ProgressEvent) -> None:
    pass


def started(events: list[ProgressEvent]) -> list[str]:
    return [e.title.split(" · ")[0] for e in events if e.kind == "start"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("done")
    return execute_study(write_study(folder), folder / "out", quiet, options=HERE)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("fused")
    return execute_study(write_study(folder, FUSED), folder / "out", quiet, options=HERE)


def of(planned: Plan, name: str) -> list[Any]:
    return [r for r in planned.runs if r.candidate.name == name]


def test_teachers_and_members_are_planned_first_and_enter_the_keys(tmp_path: Path) -> None:
    planned = plan_study(write_study(tmp_path))
    assert [r.candidate.name for r in planned.runs] == ["master"] * 2 + ["pupil"] * 2 + ["both"] * 2
    for master, pupil, both in zip(of(planned, "master"), of(planned, "pupil"), of(planned, "both"), strict=True):
        assert pupil.needs == (master.key,) and both.needs == (pupil.key, master.key)
        assert pupil.split is master.split
    other = plan_study(write_study(tmp_path, STUDY.replace("size: 48", "size: 40")))
    assert not {r.key for r in planned.runs} & {r.key for r in other.runs}
    renamed = plan_study(write_study(tmp_path, STUDY.replace("master", "owl").replace("pupil", "chick")))
    assert [r.key for r in planned.runs] == [r.key for r in renamed.runs]


def test_other_arithmetic_of_frozen_networks_renames_their_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that need them."""
    study = write_study(
        tmp_path,
        """\
name: keys
data: {digits: true, size: 32, max_samples: 100}
protocol: {split: hold-out, seeds: [0]}
recipe: {preset: scratch, epochs: 1}
candidates:
  - {name: trained, backbone: test_resnet, weights: random}
  - {name: probed, backbone: test_vit, weights: random, frozen: true, recipe: probe}
  - {name: average, fuse: [trained, probed], mode: ensemble}
""",
    )
    before = {run.candidate.name: run.key for run in plan_study(study, tmp_path).runs}
    monkeypatch.setattr(plan, "FROZEN_NUMERICS", 10_000)
    after = {run.candidate.name: run.key for run in plan_study(study, tmp_path).runs}
    assert {name for name in before if before[name] != after[name]} == {"probed", "average"} and len(before) == 3


def test_the_record_of_a_student_describes_its_distillation(done: Store) -> None:
    assert not done.read_failures() and len(list(done.runs())) == 6
    for one in done.runs():
        if one.candidate_name == "pupil":
            said = one.record["distillation"]
            assert said["teacher"] == "master" and said["key"] == one.record["needs"][0] and said["views"] == 2
            assert said["accuracy_check"]["accuracy"] > 0.3 and said["bytes"] == 2 * one.record["split"]["n_train"] * 10 * 2
        assert one.bundle_folder is None  # lent to the students and then removed: keep is none


def test_an_average_is_the_mean_of_its_members_probabilities(done: Store) -> None:
    by_key = {r.key: r for r in done.runs()}
    for both in (r for r in done.runs() if r.candidate_name == "both"):
        members = [by_key[k].load_predictions() for k in both.record["needs"]]
        expected = np.mean([np.exp(m.logits) / np.exp(m.logits).sum(1, keepdims=True) for m in members], axis=0)  # type: ignore[union-attr]
        found = both.load_predictions()
        assert found is not None and found.logits.dtype == np.float32
        np.testing.assert_allclose(np.exp(found.logits), expected, atol=1e-5)
        np.testing.assert_array_equal(found.ids, members[0].ids)  # type: ignore[union-attr]
        assert both.record["cost"]["parameters"] == sum(by_key[k].record["cost"]["parameters"] for k in both.record["needs"])
        first, second = both.record["branches"]
        assert first["without"] == by_key[both.record["needs"][1]].record["metrics"]["accuracy"] == second["accuracy"]


def test_two_processes_wait_for_each_other_and_give_the_same_bytes(done: Store, tmp_path: Path) -> None:
    store = execute_study(write_study(tmp_path), tmp_path / "out", quiet, jobs=2, options=HERE, cache=tmp_path / "cache")
    assert all_predictions(store) == all_predictions(done) and not list((store.folder / "runs").glob("*/bundle"))
    assert len({r.record["machine"]["threads"] for r in store.runs()}) == 1


def test_students_of_a_failed_teacher_fail_with_its_reason(tmp_path: Path) -> None:
    bad = STUDY.replace("weights: random, size: 48}", "weights: random, size: 48, recipe: {lr: 1e+18, optimizer: {kind: sgd}}}")
    store = execute_study(write_study(tmp_path, bad), tmp_path / "out", quiet, options=HERE)
    notes = {n["candidate"]: n["error"] for n in store.read_failures().values()}
    assert set(notes) == {"master", "pupil", "both"} and not list(store.runs())
    assert "what it needs, master · stratified 2-fold" in notes["pupil"] and "the training loss became" in notes["pupil"]


def test_students_of_a_teacher_at_chance_fail_and_the_teacher_is_kept(tmp_path: Path) -> None:
    bad = STUDY.replace("weights: random, size: 48}", "weights: random, size: 48, recipe: {epochs: 1, lr: 1e-9}}")
    store = execute_study(write_study(tmp_path, bad), tmp_path / "out", quiet, options=HERE)
    notes = {n["candidate"]: n["error"] for n in store.read_failures().values()}
    assert set(notes) == {"pupil", "both"} and "it has nothing to teach" in notes["pupil"]
    assert {r.candidate_name for r in store.runs()} == {"master"}


def test_a_student_added_later_uses_cached_teacher_logits(done: Store, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(done.folder, tmp_path / "out")
    events: list[ProgressEvent] = []
    more = STUDY + "  - {name: late, student: test_resnet, weights: random, teacher: master, loss: soft, alpha: 0.9,\n"
    more += "     recipe: {epochs: 2, augment: [hflip, cutmix]}}\n"
    store = execute_study(write_study(tmp_path, more), tmp_path / "out", events.append, options=HERE)
    assert started(events) == ["late"] * 2 and len(list(store.runs())) == 8


def test_without_cached_logits_the_teacher_is_trained_again_to_the_same_bits(done: Store, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(done.folder, tmp_path / "out")
    more = (
        STUDY + "  - {name: late, student: test_resnet, weights: random, teacher: master, recipe: {epochs: 1, augment: hflip}}\n"
    )
    events: list[ProgressEvent] = []
    store = execute_study(write_study(tmp_path, more), tmp_path / "out", events.append, options=HERE, cache=tmp_path / "cache")
    assert [e.title for e in events if e.kind == "start" and "again" in e.title] and not store.read_failures()
    (tmp_path / "fresh").mkdir()
    fresh = execute_study(
        write_study(tmp_path / "fresh", more), tmp_path / "fresh/out", quiet, options=HERE, cache=tmp_path / "fresh/cache"
    )
    assert all_predictions(store) == all_predictions(fresh) and not list((store.folder / "runs").glob("*/bundle"))


def test_a_bundle_that_the_study_saves_is_not_deleted(tmp_path: Path) -> None:
    store = execute_study(
        write_study(tmp_path, STUDY.replace("save_models: none", "save_models: first")), tmp_path / "out", quiet, options=HERE
    )
    kept = [(r.candidate_name, r.record["split"]["fold"]) for r in store.runs() if r.bundle_folder]
    assert kept == [("master", 0), ("pupil", 0)]


def test_every_kind_of_fusion_runs(fused: Store) -> None:
    assert not fused.read_failures()
    names = {r.candidate_name for r in fused.runs()}
    assert {"sonic", "side by side", "small net", "mean", "warm"} < names
    for one in fused.runs():
        if one.candidate_name in ("sonic", "side by side", "small net", "mean", "warm"):
            rows = one.record["branches"]
            assert len(rows) == 2 and all(r["fused"] == pytest.approx(one.record["metrics"]["accuracy"]) for r in rows)
            assert all((r["accuracy"] is None) == (one.candidate_name == "side by side") for r in rows)


def test_a_fusion_can_teach(fused: Store) -> None:
    by_key = {r.key: r for r in fused.runs()}
    taught = [r for r in fused.runs() if r.candidate_name == "of two"]
    assert len(taught) == 2
    for one in taught:
        (key,) = one.record["needs"]
        assert by_key[key].candidate_name == one.record["distillation"]["teacher"] == "side by side"
        assert one.record["distillation"]["accuracy_check"]["accuracy"] > 0.3


def test_members_of_an_average_are_candidates_of_their_own(fused: Store) -> None:
    by_key = {r.key: r for r in fused.runs()}
    for mean in (r for r in fused.runs() if r.candidate_name == "mean"):
        members = [by_key[k] for k in mean.record["needs"]]
        assert [m.record["candidate"]["head"]["kind"] for m in members] == ["linear", "linear"]
        assert [m.record["split"]["key"] for m in members] == [mean.record["split"]["key"]] * 2


def test_a_warm_started_fusion_starts_from_its_members_weights(fused: Store) -> None:
    by_key = {r.key: r for r in fused.runs()}
    for warm in (r for r in fused.runs() if r.candidate_name == "warm"):
        cold = [by_key[k].record["digests"]["weights_before"][0] for k in warm.record["needs"]]
        assert len(warm.record["needs"]) == 2 and not set(cold) & set(warm.record["digests"]["weights_before"])


SWEPT = STUDY.replace("both, fuse: [pupil, master]", "x, fuse: [pupil, master]") + (
    "sweep: {distillation.loss: [hard, soft], distillation.alpha: [0, 0.5], distillation.temperature: [1, 4]}\n"
)


def test_a_sweep_over_distillation_does_not_change_other_candidates(tmp_path: Path) -> None:
    swept = SWEPT.replace("  - {name: x, fuse: [pupil, master], mode: ensemble}\n", "")
    planned = plan_study(write_study(tmp_path, swept))
    names = [r.candidate.name for r in planned.runs if r.split.fold == 0]
    assert names.count("master") == 1 and of(planned, "master")[0].settings == {}
    taught = [n for n in names if n != "master"]
    # α 0: one; α ½: hard, soft at 1, soft at 4
    assert len(taught) == 4 and len({r.key for r in planned.runs}) == len(planned.runs) == 10
    assert [r.needs == () for r in planned.runs if r.candidate.distillation] == [
        r.candidate.distillation.alpha == 0 for r in planned.runs if r.candidate.distillation
    ]


def test_the_plan_estimates_the_cost_of_teacher_logits(tmp_path: Path) -> None:
    planned = plan_study(write_study(tmp_path))
    said = estimate_resources(planned, Store(tmp_path / "out"), cache_dir())
    assert said.teacher_logit_bytes == 2 * 2 * 100 * 10 * 2  # folds × epochs × rows × classes × bytes
    assert (
        said.teacher_cost_by_views["same"][0] == said.teacher_logit_bytes
        and said.teacher_cost_by_views["unaugmented"][0] == said.teacher_logit_bytes // 2
    )
    assert 0 < said.teacher_cost_by_views["unaugmented"][1] < said.teacher_seconds < said.seconds
    plain = estimate_resources(
        plan_study(write_study(tmp_path, STUDY.replace("loss: soft", "alpha: 0"))), Store(tmp_path / "out")
    )
    assert plain.teacher_logit_bytes == 0 and not plain.teacher_cost_by_views
    shown = io.StringIO()
    for cost in (said, replace(said, teacher_cost_by_views=dict.fromkeys(("same", "cycled"), (1, 1.0)))):
        print_plan(Console(file=shown, width=200), planned, cost, Store(tmp_path / "out"))
    assert shown.getvalue().count("teachers' logits: ") == 2
    assert shown.getvalue().count("with teacher_views unaugmented: ") == 1, "views that cost the same are not listed"
    assert shown.getvalue().count("with teacher_views same: ") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size: 48}", "size: 48, recipe: as-is}", "the teacher 'master' has random weights and recipe 'as-is' trains nothing"),
        (
            "weights: random, size: 48}",
            "recipe: as-is}",
            r"the teacher 'master' has \d+ classes, the dataset has 10, and",
        ),
        ("loss: soft", "loss: token", r"loss token needs a student with a distillation token .* test_resnet has none"),
        ("fuse: [pupil, master]", "fuse: [pupil]", "a fusion needs at least two backbones, and 1 came"),
        ("fuse: [pupil, master]", "fuse: [pupil, pupil]", "'pupil' is fused with itself under one seed"),
        ("loss: soft", "loss: soft, teacher_views: unaugmented", "teacher_views unaugmented and cutmix contradict each other"),
        ("teacher: master", "teacher: pupil", "'pupil' would need itself"),
        (
            "recipe: {epochs: 2, augment: [hflip, cutmix]}",
            "recipe: as-is",
            "a student is trained, and recipe 'as-is' trains nothing",
        ),
        ("teacher: master", "teacher: both", "'pupil' would need itself .pupil needs both needs pupil."),
    ],
)
def test_impossible_distillations_and_fusions_are_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    with pytest.raises(SpecError, match=message) as caught:
        plan_study(write_study(tmp_path, STUDY.replace(old, new, 1)))
    assert "\n" not in str(caught.value) and "study.yaml" in str(caught.value)


def test_a_teacher_file_with_other_classes_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "own.safetensors")
    (tmp_path / "own.json").write_text('{"timm_architecture": "test_resnet", "num_classes": 7}')
    as_is = STUDY.replace("weights: random, size: 48}", "weights: own.safetensors, size: 48, recipe: as-is}")
    with pytest.raises(SpecError, match="the teacher 'master' has 7 classes, the dataset has 10, and recipe 'as-is'"):
        plan_study(write_study(tmp_path, as_is))


def test_an_ensemble_cannot_be_a_teacher(tmp_path: Path) -> None:
    text = STUDY.replace("fuse: [pupil, master]", "fuse: [{name: test_resnet, weights: random, size: 40}, master]")
    with pytest.raises(SpecError, match="the teacher of 'pupil' is 'both', an average of finished runs and not one network"):
        plan_study(write_study(tmp_path, text.replace("teacher: master", "teacher: both")))


def test_starting_from_a_bundle_trained_on_the_test_rows_is_refused(tmp_path: Path) -> None:
    store = execute_study(
        write_study(tmp_path, STUDY.replace("save_models: none", "save_models: first")), tmp_path / "out", quiet, options=HERE
    )
    bundle = next(r.bundle_folder for r in store.runs() if r.candidate_name == "master" and r.bundle_folder)
    begun = STUDY.split("  - {name: pupil")[0] + f"  - {{name: again, backbone: test_resnet, size: 48, weights: {bundle}}}\n"
    with pytest.raises(
        LeakageError, match=r"candidate 'again' begins with .* was trained on 100 rows that are tested in .*fold 2"
    ):
        plan_study(write_study(tmp_path, begun))


def test_records_are_json_with_nothing_missing(fused: Store) -> None:
    for one in fused.runs():
        record = json.loads((one.folder / "record.json").read_text())
        assert {"key", "candidate", "split", "recipe", "cost", "choice", "digests", "versions", "machine", "metrics"} <= set(
            record
        )
