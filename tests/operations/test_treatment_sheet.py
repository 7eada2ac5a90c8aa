"""The sheet of a study's treatments: a line for each step, the same rows in each, in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter import cli
from phoropter.core.errors import DataError
from phoropter.operations.treatment_sheet import write_treatment_sheet
from phoropter.study.spec import read_study

STUDY = """\
name: main
data: {simulate: ctg, cohort: {hospitals: 2, swapped_hospitals: 0, records: 6}, size: 32}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: small, backbone: test_resnet, weights: random}]
sweep: {recipe.augment: [none, slit-cutout]}
"""


def test_the_command_writes_the_sheet_of_a_study(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "study.yaml").write_text(STUDY)
    parts = read_study(tmp_path / "study.yaml")
    with pytest.raises(DataError, match="the preview should end in"):
        write_treatment_sheet(parts, tmp_path / "sheet.txt")
    done = CliRunner().invoke(cli.main, ["inspect", str(tmp_path / "study.yaml"), "--preview", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0 and "12 pictures in 2 classes" in done.output and "sheet.png" in done.output, done.output
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.height > 2 * drawn.width, "ten traces and two pictures below each other, three rows beside each other"
