"""The leakage audit of a plan, what a study allows, and the same candidates under two protocols."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import LeakageError, SpecError, StoreError
from phoropter.data.images.cache import prepare_pixels
from phoropter.data.images.pixels import Pixels
from phoropter.data.leakage.audit import audit_splits
from phoropter.data.leakage.near_duplicates import DuplicatePairs
from phoropter.results.metrics.registry import compute_metrics
from phoropter.results.stats.optimism import compute_protocol_gaps
from phoropter.results.store import Predictions, Run, Store
from phoropter.study import audit as audits
from phoropter.study.audit import (
    check_leakage,
    find_cached_features,
    find_prior_fits,
    findings_to_plain,
    load_or_find_near_duplicates,
)
from phoropter.study.plan import ImageSet, plan_study
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions, compute_missing_runs
from phoropter.training import trained_on

STUDY = """\
name: people
data: {npz: people.npz, size: 32}
protocol: PROTOCOL
candidates: [{backbone: test_resnet, weights: random, recipe: scratch}]
"""


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with 12 people of 8 pictures each in two classes; one picture of p01 is also one of p02."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (96, 16, 16, 3), dtype=np.uint8)
    images[9] = images[17]
    groups = np.repeat([f"p{n:02d}" for n in range(12)], 8)
    np.savez(tmp_path / "people.npz", images=images, labels=np.tile(["a", "b"], 48), groups=groups)
    return tmp_path


def write_study(folder: Path, protocol: str = "group-k-fold", more: str = "") -> StudySpec:
    file = folder / "study.yaml"
    file.write_text(STUDY.replace("PROTOCOL", protocol) + more)
    return read_study(file)[0]


def pixels_in(cache: Path) -> Any:
    def of(material: ImageSet) -> Pixels:
        return prepare_pixels(material.dataset, material.image_size, cache=cache)[1]

    return of


UNSCREENED = SimpleNamespace(base=None, context=SimpleNamespace(screening_rungs=()))


def kinds(found: list[Any]) -> dict[str, str]:
    return {f.kind: f.severity for f in found}


def test_a_clean_plan_has_no_finding_but_a_duplicate_image_is_reported(people: Path, tmp_path: Path) -> None:
    planned = plan_study(write_study(people), tmp_path / "cache")
    found = check_leakage(planned, tmp_path / "cache", pixels_in(tmp_path / "cache"), tmp_path / "out")
    assert kinds(found) == {"exact_duplicates": "warn"}
    shown = Run(tmp_path / "out" / "audit").load_pictures()
    assert set(shown) == set(found[0].examples[0][:2]) == {"09", "17"} and all(j[:2] == b"\xff\xd8" for j in shown.values())
    assert json.loads(json.dumps(findings_to_plain(found)))[0]["kind"] == "exact_duplicates"


def test_allowed_group_overlap_is_a_warning(people: Path, tmp_path: Path) -> None:
    planned = plan_study(write_study(people, "{split: stratified-k-fold, allow_group_overlap: true}"), tmp_path / "cache")
    assert kinds(check_leakage(planned, tmp_path / "cache"))["groups"] == "warn"


def test_leakage_stops_warns_or_is_recorded_as_the_study_says(people: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(audits, "audit_splits", lambda *a, **k: audit_splits(*a, **{**k, "allow_group_overlap": False}))
    mixed = "{split: stratified-k-fold, allow_group_overlap: true}"
    with pytest.raises(LeakageError, match=r"Groups lie on both sides .*: keep them together"):
        check_leakage(plan_study(write_study(people, mixed), tmp_path), tmp_path)
    for word in ("warn", "allow"):
        found = check_leakage(plan_study(write_study(people, mixed, f"leakage: {word}\n"), tmp_path), tmp_path)
        assert kinds(found)["groups"] == "warn"
    with pytest.raises(SpecError, match=r"leakage is 'wran'.*did you mean 'warn'"):
        write_study(people, mixed, "leakage: wran\n")


def test_near_duplicates_are_searched_for_once(people: Path, tmp_path: Path, monkeypatch: Any) -> None:
    planned = plan_study(write_study(people), tmp_path / "cache")
    pixels = pixels_in(tmp_path / "cache")(planned.image_sets[0])
    first = load_or_find_near_duplicates(pixels, tmp_path / "cache")
    monkeypatch.setattr(audits, "find_duplicates_in_pixels", None)
    again = load_or_find_near_duplicates(pixels, tmp_path / "cache")
    np.testing.assert_array_equal(first.pairs, again.pairs)
    assert first.skipped == again.skipped and first.relation.tolist() == again.relation.tolist()


# two protocols compared


@pytest.mark.parametrize(
    ("protocol", "within", "held_out"),
    [
        ("stratified-k-fold", "stratified-k-fold", "stratified-k-fold"),
        ("{split: leave-one-group-out}", "stratified-k-fold", "leave-one-group-out"),
        ("{split: group-k-fold, folds: 3, seeds: [0, 1]}", "k-fold", "group-k-fold"),
        ("{split: hold-out, test_size: 0.3}", "hold-out", "hold-out"),
    ],
)
def test_a_comparing_study_becomes_two(people: Path, protocol: str, within: str, held_out: str) -> None:
    write_study(people, protocol, "second_protocol: true\n")
    parts = read_study(people / "study.yaml")
    assert [p.name for p in parts] == ["people-within-subject", "people-subject-held-out"]
    loose, tight = (p.protocol for p in parts)
    assert (loose.split, loose.allow_group_overlap) == (within, True)
    assert (tight.split, tight.allow_group_overlap) == (held_out, False)
    assert (loose.folds, loose.seeds, loose.test_size) == (tight.folds, tight.seeds, tight.test_size)
    assert not any(p.second_protocol for p in parts)


def test_a_protocol_that_cannot_mix_groups_is_refused(people: Path) -> None:
    with pytest.raises(SpecError, match=r"line 3: .*'allow_group_overlap' belongs to"):
        write_study(people, "{split: test-only}", "second_protocol: true\n")


def test_without_a_second_protocol_nothing_changes(people: Path) -> None:
    write_study(people, "{split: group-k-fold}", "second_protocol: false\n")
    (part,) = read_study(people / "study.yaml")
    assert part.name == "people" and part.protocol.split == "group-k-fold"


def test_the_half_with_groups_on_both_sides_plans_other_runs_and_its_audit_reports_it(people: Path, tmp_path: Path) -> None:
    write_study(people, more="second_protocol: true\n")
    within, held_out = (plan_study(part, tmp_path) for part in read_study(people / "study.yaml"))
    assert not {r.key for r in within.runs} & {r.key for r in held_out.runs}
    assert "groups" in kinds(check_leakage(within, tmp_path))
    assert "groups" not in kinds(check_leakage(held_out, tmp_path))


def store(folder: Path, right: float, seed: int, groups: int = 30, name: str = "net") -> Store:
    """Two folds over people whose images are classified with this accuracy, which varies by person."""
    random = np.random.default_rng(seed)
    ability = np.clip(right + np.random.default_rng(99).normal(0, 0.1, groups), 0, 1)
    made = Store(folder)
    keys = [f"{seed:016x}{fold:016x}" for fold in range(2)]
    made.write_study({"study": {"name": folder.name}, "plan": [{"key": key} for key in keys]})
    for fold, key in enumerate(keys):
        member = np.repeat(np.arange(fold, groups, 2), 10)
        labels = np.tile([0, 1], len(member) // 2)
        told = np.where(random.random(len(member)) < ability[member], labels, 1 - labels)
        logits = np.eye(2, dtype=np.float32)[told] * 3
        people = np.array([f"p{n:02d}" for n in member])
        with made.create_run(key) as run:
            run.write_record({"candidate": {"name": name}, "seed": 0, "split": {"repeat": 0}})
            run.write_predictions(Predictions(np.array([f"{fold}-{n}" for n in range(len(member))]), labels, logits, people))
    return made


def literal(lax: Store, strict: Store, seed: int, times: int) -> Iterator[float]:
    """Groups drawn with replacement, their rows copied, accuracy of each run averaged: the plain bootstrap."""
    sheets = [[r.load_predictions() for r in s.runs()] for s in (lax, strict)]
    random = np.random.default_rng(seed)
    rights = []
    for runs in sheets:
        rows = [(p.groups, p.probabilities.argmax(1) == p.labels) for p in runs if p is not None]
        rights.append([{str(g): right[groups == g] for g in np.unique(groups)} for groups, right in rows if groups is not None])
    names = sorted({g for runs in rights for one in runs for g in one})
    for _ in range(times):
        drawn = [names[n] for n in random.integers(0, len(names), len(names))]
        means = [
            [np.concatenate([one[g] for g in drawn if g in one] or [np.array([np.nan])]).mean() for one in runs]
            for runs in rights
        ]
        yield float(np.mean(means[0]) - np.mean(means[1]))


def test_the_gap_is_the_difference_of_means_over_splits_and_its_interval_a_bootstrap_over_groups(tmp_path: Path) -> None:
    lax, strict = store(tmp_path / "lax", 0.9, 1), store(tmp_path / "strict", 0.7, 2)
    (row,) = compute_protocol_gaps(lax, strict, ["accuracy"])
    means = []
    for one in (lax, strict):
        said = [p for run in one.runs() if (p := run.load_predictions()) is not None]
        means.append(np.mean([compute_metrics(["accuracy"], p.labels, p.probabilities)["accuracy"] for p in said]))
    assert (row.within_group, row.group_held_out) == pytest.approx(tuple(means), abs=1e-12) and row.difference == pytest.approx(
        means[0] - means[1]
    )
    drawn = np.array(list(literal(lax, strict, 5, 3000)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (row.interval.low, row.interval.high) == pytest.approx((low, high), abs=0.25 * (high - low) / 2)
    assert row.interval.n_units == 30 and 0 < row.interval.low < row.difference < row.interval.high


def test_intervals_of_equal_studies_mostly_contain_zero(tmp_path: Path) -> None:
    """Two studies of equal candidates: the 95 % interval leaves 0 out in about one of twenty."""
    outside = 0
    for n in range(40):
        a, b = store(tmp_path / f"a{n}", 0.8, 100 + n), store(tmp_path / f"b{n}", 0.8, 300 + n)
        (row,) = compute_protocol_gaps(a, b, ["accuracy"])
        outside += not row.interval.low <= 0 <= row.interval.high
    assert outside <= 6


def test_the_metrics_of_the_study_are_the_default(tmp_path: Path) -> None:
    rows = compute_protocol_gaps(store(tmp_path / "lax", 0.9, 1), store(tmp_path / "strict", 0.7, 2))
    assert [(r.candidate, r.metric) for r in rows] == [("net", "accuracy"), ("net", "macro_f1")]


def test_two_groups_give_no_interval(tmp_path: Path) -> None:
    (row,) = compute_protocol_gaps(
        store(tmp_path / "lax", 0.9, 1, groups=2), store(tmp_path / "strict", 0.7, 2, groups=2), ["accuracy"]
    )
    assert np.isnan(row.interval.low) and "2 independent units" in row.interval.method


def test_a_study_compared_with_itself_or_without_common_candidates_is_refused(tmp_path: Path) -> None:
    lax = store(tmp_path / "lax", 0.9, 1)
    with pytest.raises(StoreError, match="hold the same runs"):
        compute_protocol_gaps(lax, lax)
    with pytest.raises(StoreError, match="no finished candidate in common; did you mean 'net'"):
        compute_protocol_gaps(lax, store(tmp_path / "strict", 0.7, 2, name="nets"))


def test_a_study_runs_under_one_protocol_unless_it_compares_two() -> None:
    assert StudySpec.model_fields["leakage"].default == "stop" and StudySpec.model_fields["second_protocol"].default is False


# fitted beforehand, and features


def planned_with(material: Any, run: Any) -> Any:
    """The parts of a plan that find_prior_fits reads."""
    return SimpleNamespace(runs=[run], compared=[run], by_key={}, study=UNSCREENED)


def test_a_grey_scale_per_subject_is_reported_as_fitted_on_test_windows(people: Path, tmp_path: Path) -> None:
    planned = plan_study(write_study(people), tmp_path)
    material = planned.image_sets[0]
    assert find_prior_fits(planned, material) == []
    pictures = copy.copy(material.dataset.pictures)
    object.__setattr__(pictures, "pools_grey_scale", True)  # as of recordings drawn with `grey_scale: per-subject`
    drawn = replace(material, dataset=replace(material.dataset, pictures=pictures))
    (scale,) = find_prior_fits(planned_with(drawn, replace(planned.runs[0], image_set=drawn)), drawn)
    found = next(f for f in audit_splits(material.dataset, [r.split for r in planned.runs], fitted=[scale]) if f.kind == "fitted")
    assert (found.kind, found.severity, found.share) == ("fitted", "warn", 1.0)
    assert found.words.startswith("The grey scale of each subject was fitted on rows that are tested")


def test_weights_trained_on_other_rows_of_a_tested_person_are_found(people: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A bundle trained on p00 and p01 meets folds that test their other images; a bundle initialised from it inherits that."""
    planned = plan_study(write_study(people), tmp_path)
    material, run = planned.image_sets[0], planned.runs[0]
    dataset = material.dataset
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    trained_on.write_trained_on(first, dataset, np.array([0, 9]))  # one picture of p00, one of p01
    trained_on.write_trained_on(second, dataset, np.array([40]), before=[first])  # of p05
    assert set(dataset.groups[trained_on.rows_of_trained_groups(second, dataset)]) == {"p00", "p01", "p05"}  # type: ignore[index]
    assert set(trained_on.trained_ids(second, dataset)) == set(dataset.hashed_ids[[0, 9, 40]])
    monkeypatch.setattr(audits, "initial_bundles", lambda candidate, base: [("second", second)])
    things = find_prior_fits(planned_with(material, run), material)
    finding = next(f for f in audit_splits(dataset, [r.split for r in planned.runs], fitted=things) if f.kind == "fitted")
    assert finding.severity == "stop" and "begins with, second, knows the group of rows that are tested" in finding.words
    other = replace(dataset, name="other people")
    assert not len(trained_on.rows_of_trained_groups(second, other)) and not len(trained_on.trained_ids(second, other))


def test_records_of_earlier_versions_name_no_groups(people: Path, tmp_path: Path) -> None:
    dataset = plan_study(write_study(people), tmp_path).image_sets[0].dataset
    np.savez(tmp_path / trained_on.TRAINED_ON_FILE, dataset=np.array(dataset.name), ids=np.sort(dataset.hashed_ids[:3]))
    assert len(trained_on.trained_ids(tmp_path, dataset)) == 3 and not len(trained_on.rows_of_trained_groups(tmp_path, dataset))


def test_a_teacher_trained_on_another_split_is_found(people: Path, tmp_path: Path) -> None:
    """Training rows of the same split are no finding; those of another fold are."""
    planned = plan_study(write_study(people), tmp_path)
    first, other = planned.runs[:2]
    for teacher, leaks in ((replace(first, key="t"), False), (replace(other, key="t"), True)):
        pupil = replace(first, needs=("t",))
        made = SimpleNamespace(runs=[pupil], compared=[pupil], by_key={"t": teacher}, study=UNSCREENED)
        things = find_prior_fits(made, planned.image_sets[0])  # type: ignore[arg-type]
        found = [f for f in audit_splits(planned.image_sets[0].dataset, [first.split], fitted=things) if f.kind == "fitted"]
        assert [f.severity for f in found] == ["stop"] * leaks


def test_a_study_is_audited_again_by_the_features_it_computed(people: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Features of all images, searched once; the pair found is in study.json, with its thumbnails."""
    import torch
    from safetensors.torch import save_file

    from phoropter.models.timm_compat import import_timm

    seen = []

    def told(features: Any, name: str) -> DuplicatePairs:
        seen.append((features.shape, name))
        return DuplicatePairs(np.array([[17, 24]]), np.array([0.9], dtype=np.float32), np.array([f"by the features of {name}"]))

    monkeypatch.setattr(audits, "find_feature_duplicates", told)
    torch.manual_seed(0)
    save_file(import_timm().create_model("test_resnet", num_classes=0).state_dict(), people / "net.safetensors")
    frozen = "{backbone: test_resnet, weights: net.safetensors, size: 32, frozen: true, recipe: {preset: probe, epochs: 1}}"
    part = write_study(people)
    file = people / "study.yaml"
    file.write_text(file.read_text().replace("{backbone: test_resnet, weights: random, recipe: scratch}", frozen))
    (part,) = read_study(file)
    done = compute_missing_runs(part, tmp_path / "out", lambda event: None, ComputeOptions("cpu", threads=1), tmp_path / "cache")
    material = plan_study(part, tmp_path / "cache").image_sets[0]
    pixels = pixels_in(tmp_path / "cache")(material)
    assert find_cached_features(pixels, tmp_path / "cache") is not None
    (entry,) = [f for f in done.study["audit"] if f["kind"] == "feature_duplicates"]
    assert seen == [((96, 96), "test_resnet")]
    assert [sorted(example) for example in entry["examples"]] == [["17", "24", "by the features of test_resnet"]]
    assert {"17", "24"} <= set(Run(tmp_path / "out" / "audit").load_pictures())
