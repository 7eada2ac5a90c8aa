"""Which treatments a study has: what is swept of its data, its crops and its augmentations, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.study.spec import StudySpec, read_study
from phoropter.study.treatments.treatment_list import AS_IT_IS, list_treatments

STUDY = """\
name: main
data: &births {simulate: ctg, cohort: {hospitals: 2, swapped_hospitals: 0, records: 6}, size: 32}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: small, backbone: test_resnet, weights: random}]
sweep: {recipe.augment: [none, slit-cutout, {slit-cutmix: {width: area}}, {mixup: {alpha: 1}}]}
---
name: lowpass
data: {simulate: ctg, cohort: {hospitals: 2, swapped_hospitals: 0, records: 6}, size: 32}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: small, backbone: test_resnet, weights: random}]
sweep: {data.clean.filter.fhr_lowpass: [0, 5, 10, 20, 50]}
---
name: digits
data: {digits: true, size: 40}
recipe: {preset: scratch, epochs: 1, augment: hflip, center_crop: 32}
candidates: [{name: small, backbone: test_resnet, weights: random}, {name: other, backbone: test_vit, weights: random}]
"""


@pytest.fixture
def parts(tmp_path: Path) -> list[StudySpec]:
    (tmp_path / "study.yaml").write_text(STUDY)
    return read_study(tmp_path / "study.yaml")


def test_treatments_are_those_of_the_parts_with_one_source(parts: list[StudySpec]) -> None:
    assert [t.title for t in list_treatments(parts)] == [
        *(AS_IT_IS, "slit-cutout", "slit-cutmix, width area", "mixup, alpha 1.0"),
        *(f"fhr_lowpass {cutoff}" for cutoff in (0, 5, 10, 50)),
    ]
    assert [t.title for t in list_treatments(parts[2:])] == [AS_IT_IS, "centre crop of 32 pixels", "hflip"]


def test_a_sentence_says_whose_a_treatment_is_and_that_chance_was_left_out(parts: list[StudySpec]) -> None:
    by_title = {t.title: t for t in (*list_treatments(parts), *list_treatments(parts[2:]))}
    assert "of small; in training" in by_title["slit-cutout"].about and "shown acting" in by_title["slit-cutout"].about
    assert "of 2 candidates, such as small" in by_title["hflip"].about and by_title["hflip"].crop == 32
    assert "shown acting" not in by_title["mixup, alpha 1.0"].about, "it always acts"
    assert by_title["fhr_lowpass 50"].about.endswith("fhr_lowpass: 50, one of 5 values that the study sweeps.")
    assert all(step.p == 1 for step in by_title["slit-cutout"].steps)
