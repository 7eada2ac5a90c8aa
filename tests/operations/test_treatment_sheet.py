"""The sheet of a study's treatments: which are listed, that each changes what it should, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from phoropter import cli
from phoropter.core.errors import DataError
from phoropter.data.spec import open_dataset
from phoropter.operations.treatment_sheet import Treatment, list_treatments, show_treatment, write_treatment_sheet
from phoropter.study.spec import StudySpec, read_study

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
data: {digits: true, size: 32}
recipe: {preset: scratch, epochs: 1, augment: hflip}
candidates: [{name: small, backbone: test_resnet, weights: random}]
"""


@pytest.fixture
def parts(tmp_path: Path) -> list[StudySpec]:
    (tmp_path / "study.yaml").write_text(STUDY)
    return read_study(tmp_path / "study.yaml")


def test_treatments_are_those_of_the_parts_with_one_source(parts: list[StudySpec]) -> None:
    assert [t.title for t in list_treatments(parts)] == [
        *("as it is", "slit-cutout", "slit-cutmix, width area", "mixup, alpha 1.0"),
        *(f"fhr_lowpass {cutoff}" for cutoff in (0, 5, 10, 50)),
    ]
    assert [t.title for t in list_treatments(parts[2:])] == ["as it is", "hflip"]


def show_rows(treatment: Treatment, ids: list[str]) -> NDArray[np.uint8]:
    return show_treatment(treatment, open_dataset(treatment.data), ids)


def test_each_treatment_changes_what_it_should(parts: list[StudySpec]) -> None:
    by_title = {t.title: t for t in list_treatments(parts)}
    ids = [str(name) for name in open_dataset(parts[0].data).ids[:3]]
    plain = show_rows(by_title["as it is"], ids)
    cut = show_rows(by_title["slit-cutout"], ids)
    white = (cut == 255).all(axis=(0, 1, 2))  # columns that are white from top to bottom in all channels
    assert white.any() and (cut[..., ~white] == plain[..., ~white]).all()
    flat, shaped = (show_rows(by_title[f"fhr_lowpass {cutoff}"], ids) for cutoff in (0, 50))
    assert not np.array_equal(flat, shaped) and np.array_equal(flat[:, 1:], plain[:, 1:]), "the heart rate alone is filtered"
    digits = {t.title: t for t in list_treatments(parts[2:])}
    some = [str(name) for name in open_dataset(parts[2].data).ids[:3]]
    assert np.array_equal(show_rows(digits["hflip"], some), show_rows(digits["as it is"], some)[..., ::-1])


def test_the_command_writes_the_sheet_of_a_study(parts: list[StudySpec], tmp_path: Path) -> None:
    from PIL import Image

    with pytest.raises(DataError, match="the preview should end in"):
        write_treatment_sheet(parts, tmp_path / "sheet.txt")
    done = CliRunner().invoke(cli.main, ["inspect", str(tmp_path / "study.yaml"), "--preview", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0 and "12 pictures in 2 classes" in done.output and "sheet.png" in done.output, done.output
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.height > 2 * drawn.width, "eight treatments, three pictures"
