"""Which candidate a control is of, on which folds, and what is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.study.load import load_study
from phoropter.study.spec import StudySpec
from phoropter.study.variants.control_studies import choose_controlled, make_control_study
from small_recordings import ECG_STUDY

NET = {"backbone": "test_resnet", "weights": "random"}
FROZEN = {**NET, "name": "frozen", "frozen": True}
TAUGHT = [
    {**NET, "name": "teacher"},
    {"name": "student", "student": "test_vit", "weights": "random", "teacher": "teacher"},
    {"name": "pair", "fuse": ["teacher", "student"], "mode": "ensemble"},
]


def make_study(folder: Path | None = None, **changes: Any) -> StudySpec:
    data: dict[str, Any] = {"digits": True, "max_samples": 200} if folder is None else {"manifest": str(folder / "rows.csv")}
    candidates = [{**NET, "name": "trained"}, FROZEN, {"name": "mean", "fuse": ["trained", "frozen"], "mode": "ensemble"}]
    keys = {"name": "made", "data": data, "candidates": candidates, "protocol": {"folds": 2}, "controls": ["labels-permuted"]}
    return validate_as(StudySpec, {**keys, **changes})


def write_rows(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    """Rows of (label, group, site), each with a picture of its own."""
    lines = ["path,label,group,site"]
    for i, (label, group, site) in enumerate(rows):
        Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{label},{group},{site}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_first_frozen_network_is_the_one() -> None:
    assert choose_controlled(make_study()).name == "frozen"
    assert choose_controlled(make_study(candidates=[{**NET, "name": "only"}])).name == "only"
    named = {"kinds": ["labels-permuted"], "candidate": "mean"}
    study = make_study(controls=named)
    assert choose_controlled(study).name == "mean"
    loaded = load_study(study)[0]
    control = make_control_study(study, "blank-pictures", loaded.image_set.dataset, 32)
    assert [c.name for c in control.parsed_candidates] == ["trained", "frozen", "mean"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"controls": {"kinds": ["labels-permuted"], "candidate": "frozn"}},
            "'frozn' is no candidate of this study; did you mean",
        ),
        ({"candidates": [{"baseline": "mean-image"}]}, "controls are of a network of pictures, and the study has none"),
        (
            {
                "candidates": [FROZEN, {"name": "b", "baseline": "mean-image"}],
                "controls": {"kinds": ["labels-permuted"], "candidate": "b"},
            },
            "'b' looks at no pictures",
        ),
        (
            {
                "candidates": [
                    *(FROZEN, {"name": "b", "baseline": "mean-image"}),
                    {"name": "both", "fuse": [FROZEN["name"], "b"], "mode": "ensemble"},
                ],
                "controls": {"kinds": ["blank-pictures"], "candidate": "both"},
            },
            "'both' averages a candidate that looks at no pictures; name a candidate of networks",
        ),
        (
            {"candidates": [*TAUGHT, FROZEN], "controls": {"kinds": ["labels-permuted"], "candidate": "pair"}},
            "'pair' learns from a teacher, who is refused where nothing can be learnt; name the teacher",
        ),
        ({"controls": ["predict-site"]}, "predict-site needs two sites or more, and .* has none"),
        ({"controls": ["predict-group"]}, "predict-group needs groups, and .* has none"),
        ({"controls": ["time-shuffled"]}, "time-shuffled needs windows of recordings"),
        ({"protocol": "test-only"}, "controls are trained like the study, and split: test-only trains nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_study_is_loaded(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        load_study(make_study(**changes))


def test_a_site_with_one_group_cannot_be_on_both_sides(tmp_path: Path) -> None:
    rows = [("ab"[i % 2], f"p{i // 4}", "far" if i < 4 else "near") for i in range(24)]
    study = make_study(write_rows(tmp_path, rows), controls=["predict-site"], protocol={"folds": 2, "allow_group_overlap": True})
    with pytest.raises(SpecError, match=r"each site on both sides of its folds, and 'far' of .* has one group"):
        load_study(study)


def test_folds_that_cannot_be_say_which_control_they_are_of() -> None:
    """Blocks of time lose the windows on their borders, until a block has none of a person."""
    study = make_study(controls=["predict-group"])
    data = yaml.safe_load(ECG_STUDY)["data"]
    data["window"] = {"length_s": 10, "step_s": 4}
    study = study.with_changes(data=data, protocol={"split": "stratified-group-k-fold", "folds": 2})
    with pytest.raises(
        SpecError, match=r"predict-group needs .* has 0 \(its folds are blocks of time, .*\); leave it out of 'controls'"
    ):
        load_study(study)


def test_labels_of_too_few_groups_are_refused(tmp_path: Path) -> None:
    rows = [("rare" if i // 4 < 2 else "usual", f"p{i // 4:02d}", "one") for i in range(80)]
    study = make_study(
        write_rows(tmp_path, rows), protocol={"split": "stratified-group-k-fold", "folds": 2, "seeds": list(range(12))}
    )
    with pytest.raises(SpecError, match="labels-permuted leaves no row of 'rare' to train on in"):
        load_study(study)


def test_folds_of_sites_are_as_many_as_the_groups_of_the_smallest_allow(tmp_path: Path) -> None:
    rows = [("ab"[i % 2], f"p{i // 4}", "far" if i < 12 else "near") for i in range(48)]
    study = make_study(write_rows(tmp_path, rows), controls=["predict-site"], protocol={"folds": 2, "seeds": [3, 4]})
    loaded = load_study(study)[0]
    control = make_control_study(loaded.study, "predict-site", loaded.image_set.dataset, 32)
    assert (control.protocol.split, control.protocol.folds, control.protocol.seeds) == ("stratified-group-k-fold", 3, (3, 4))
    assert control.metric_names == ["balanced_accuracy"] and control.data.positive is None
    for split in load_study(control)[0].splits:
        groups, sites = loaded.image_set.dataset.groups, loaded.image_set.dataset.sites
        assert groups is not None and sites is not None
        assert not set(groups[split.train]) & set(groups[split.test])
        assert set(sites[split.train]) == set(sites[split.test]) == {"far", "near"}


def test_people_of_recordings_are_told_apart_in_blocks_of_time() -> None:
    study = make_study(controls=["predict-group", "time-shuffled"])
    study = study.with_changes(data=yaml.safe_load(ECG_STUDY)["data"], protocol={"split": "stratified-group-k-fold", "folds": 2})
    dataset = load_study(study)[0].image_set.dataset
    control = make_control_study(study, "predict-group", dataset, 32)
    assert control.protocol.split == "block-k-fold" and control.protocol.allow_group_overlap
    loaded = load_study(control)[0]
    people = loaded.image_set.dataset.groups
    assert people is not None and set(loaded.image_set.dataset.classes) == set(people)
    for split in loaded.splits:
        assert set(people[split.train]) == set(people[split.test]) == set(people)
    assert (
        load_study(make_control_study(study, "time-shuffled", dataset, 32))[0].image_set.dataset.fingerprint
        != dataset.fingerprint
    )


def test_arrays_have_controls_too() -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 255, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 2
    study = make_study(data=(images, labels), controls=["labels-permuted", "blank-pictures"])
    dataset = load_study(study)[0].image_set.dataset
    for kind in study.controls.kinds if study.controls else ():
        control = load_study(make_control_study(study, kind, dataset, 32))[0]
        assert np.array_equal(control.image_set.dataset.ids, dataset.ids)
