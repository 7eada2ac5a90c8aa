"""What a walk over a folder leaves out, and that it says so."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.core.errors import DataError
from phoropter.data.folders.scan import scan_folder
from phoropter.data.sources.folder import open_folder

Draw = Callable[..., Path]


def test_results_folders_of_phoropter_are_left_out(zoo: Path, draw: Draw) -> None:
    draw(zoo / "runs" / "s" / "report" / "figures" / "classes.png")
    (zoo / "runs" / "s" / "report" / "figures" / "classes.pdf").write_bytes(b"%PDF")
    (zoo / "runs" / "s" / "study.json").write_text("{}")
    dataset = open_folder(zoo)
    assert dataset.classes == ("cat", "dog") and len(dataset) == 5 and dataset.problems == ()
    assert dataset.notes[1:] == ("1 folder that phoropter wrote (results, reports, bundles, maps) was left out: runs/s",)


def test_report_folders_elsewhere_are_left_out(zoo: Path, draw: Draw) -> None:
    draw(zoo / "page" / "figures" / "classes.png")
    (zoo / "page" / "tables").mkdir()
    (zoo / "page" / "conclusion.txt").write_text("resnet18 is best\n")
    dataset = open_folder(zoo)
    assert dataset.classes == ("cat", "dog") and dataset.problems == ()
    assert dataset.notes[1:] == ("1 folder that phoropter wrote (results, reports, bundles, maps) was left out: page",)


@pytest.mark.parametrize(
    ("mark", "picture"), [("bundle.json", "examples/cat-a.png"), ("explanations.csv", "0001-a.png")], ids=["bundle", "maps"]
)
def test_bundles_and_maps_beside_the_classes_are_left_out(zoo: Path, draw: Draw, mark: str, picture: str) -> None:
    draw(zoo / "made" / picture)
    (zoo / "made" / mark).touch()
    dataset = open_folder(zoo)
    assert dataset.classes == ("cat", "dog") and dataset.problems == ()
    assert dataset.notes[1:] == ("1 folder that phoropter wrote (results, reports, bundles, maps) was left out: made",)
    assert len(scan_folder(zoo / "made").picture_paths) == 1, "its pictures are read where it is named itself"


@pytest.mark.parametrize(
    "name", ["__MACOSX", ".ipynb_checkpoints", "@eaDir", ".git", "$RECYCLE.BIN", "System Volume Information"]
)
def test_litter_is_left_out_with_a_count(zoo: Path, draw: Draw, name: str) -> None:
    draw(zoo / name / "a.png")
    draw(zoo / "cat" / name / "a.png")
    scan = scan_folder(zoo)
    assert len(scan.picture_paths) == 5
    assert sorted(scan.litter) == [name, f"cat/{name}"]
    assert scan.describe_other_files() == (
        f"2 hidden entries and leftovers of other programs were left out: {name} or cat/{name}",
    )


def test_one_path_in_two_forms_of_unicode_is_left_out_with_a_word(zoo: Path, draw: Draw) -> None:
    forms = ["NFC", "NFD"]
    for form in forms:
        for name in ("a", form):
            draw(zoo / unicodedata.normalize(form, "émeu") / f"{name}.png")
    if len(list(zoo.iterdir())) < 4:
        pytest.skip("this file system keeps one form of Unicode only")
    with pytest.raises(DataError, match=r"émeu/a\.png: two files have this path, in two forms of Unicode"):
        open_folder(zoo)
    dataset = open_folder(zoo, on_bad_input="skip")
    assert dataset.classes == ("cat", "dog", "émeu")
    assert sorted(name for name in dataset.ids if name.startswith("é")) == ["émeu/NFC.png", "émeu/NFD.png", "émeu/a.png"]
    assert [problem.where for problem in dataset.problems] == ["émeu/a.png"]
    assert any(note.startswith("the class émeu was read from several folders") for note in dataset.notes)
