from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.spec import DataSpec, digits, folder, open_dataset

Draw = Callable[..., Path]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "no source of pictures is named; expected one of folder, manifest"),
        ({"folder": "a", "manifest": "b"}, "'folder' and 'manifest' both name a source of pictures: keep one"),
        ({"digits": True, "npz": "b"}, "both name a source"),
        ({"digits": False}, "no source of pictures is named"),
        ({"foldr": "a"}, r"unknown key 'foldr'; did you mean 'folder'\?"),
        ({"folder": " "}, "folder: the path is empty"),
        ({"folder": "a", "columns": {"label": "x"}}, "'columns' belongs to manifest or parquet and does nothing for 'folder'"),
        ({"manifest": "a", "columns": {"lable": "x"}}, r"columns: 'lable' is none of ours .*; did you mean 'label'\?"),
        ({"imagenet": "a", "classes": ["x", "y"]}, "'classes' belongs to .* and does nothing for 'imagenet'"),
        ({"imagenet": "a", "labels_order": "index"}, "'labels' names none"),
        ({"imagenet": "a", "labels": "f", "labels_order": "sorted"}, "labels_order is 'sorted', expected 'index' or 'ilsvrc'"),
        ({"folder": "a", "labels": "f"}, "'labels' belongs to imagenet"),
        ({"folder": "a", "resize": "strech"}, r"resize is 'strech'.*did you mean 'stretch'\?"),
        ({"folder": "a", "size": 4}, "size is 4"),
        ({"folder": "a", "classes": ["x", "x"]}, "'classes' names a class twice"),
        ({"folder": "a", "classes": ["x", "y"], "exclude": ["y"]}, "'y' is in 'classes' and in 'exclude': keep one"),
        ({"folder": "a", "exclude": ["*"]}, "'classes' is not given"),
        ({"folder": "a", "group_from": "(["}, "is not a regular expression"),
        ({"folder": "a", "group_from": "abc"}, "has 0 groups in brackets; expected one"),
        ({"folder": "a", "site_from": "(a)(b)"}, "has 2 groups in brackets; expected one"),
        ({"folder": "a", "group_from": "(a)" + "b" * 300}, "has 303 letters; at most 200"),
        ({"folder": "a", "official_split": "holdout"}, "official_split is 'holdout'"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate_as(DataSpec, data)


def test_a_spec_goes_through_plain_data_and_back() -> None:
    for spec in (folder("x", size=64, exclude=["a"], classes=["1", "2"]), digits(max_samples=20)):
        assert DataSpec.model_validate(spec.plain()) == spec
    assert folder("x").with_changes(size=32).size == 32


def test_numbers_are_taken_for_names_of_classes() -> None:
    assert validate_as(DataSpec, {"digits": True, "classes": [3, 1]}).classes == ("3", "1")


def test_paths_are_relative_to_the_study_and_home_is_expanded(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(zoo.parent))
    assert len(open_dataset(folder("zoo"), zoo.parent)) == len(open_dataset(folder("~/zoo"), Path("/nowhere"))) == 5


def test_missing_data_are_asked_for(tmp_path: Path, zoo: Path) -> None:
    with pytest.raises(DataError, match=r"the folder does not exist; get Intel scenes from Kaggle"):
        open_dataset(folder("none", download_hint="Intel scenes from Kaggle"), tmp_path)
    (zoo / "cat" / "x.heic").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_dataset(folder(zoo, download_hint="Intel scenes from Kaggle"))
    assert "Kaggle" not in str(caught.value)


def test_classes_are_kept_in_the_order_named(zoo: Path, draw: Draw) -> None:
    draw(zoo / "bird" / "x.png", 7)
    dataset = open_dataset(folder(zoo, classes=["dog", "bird"]))
    assert dataset.classes == ("dog", "bird")
    assert dict(zip(dataset.ids, dataset.labels, strict=True)) == {"dog/a.png": 0, "dog/b.png": 0, "bird/x.png": 1}
    assert dataset.notes[-1] == "left out 3 rows of cat"


def test_classes_are_left_out(zoo: Path, draw: Draw) -> None:
    draw(zoo / "BACKGROUND_Google" / "x.png", 7)
    dataset = open_dataset(folder(zoo, exclude=["BACKGROUND_Google", "257.clutter"]))
    assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 0, 1, 1]


def test_a_class_that_is_not_there_is_named_with_the_nearest(zoo: Path) -> None:
    with pytest.raises(DataError, match=r"classes: zoo has no pictures of 'dgo'; did you mean 'dog'\?"):
        open_dataset(folder(zoo, classes=["cat", "dgo"]))
    with pytest.raises(DataError, match=r"exclude: zoo has no class 'cats'; did you mean 'cat'\?"):
        open_dataset(folder(zoo, exclude=["cats"]))


def test_a_label_that_is_not_in_the_list_is_an_error_in_a_manifest(zoo: Path) -> None:
    (zoo / "rows.csv").write_text("path,label\ncat/a.png,cat\ncat/b.png,catt\ndog/a.png,dog\ncat/c.png,\n")
    listed = {"manifest": zoo / "rows.csv", "classes": ["cat", "dog"]}
    with pytest.raises(
        DataError, match=r"the label 'catt' is not in classes \(cat or dog\); did you mean 'cat'\?.*exclude: \['catt'\]"
    ):
        open_dataset(validate_as(DataSpec, listed))
    for exclude in (["catt"], ["*"]):
        dataset = open_dataset(validate_as(DataSpec, {**listed, "exclude": exclude}))
        assert dataset.ids.tolist() == ["cat/a.png", "dog/a.png", "cat/c.png"] and dataset.labels.tolist() == [0, 1, -1]


def test_one_class_is_too_few(zoo: Path) -> None:
    with pytest.raises(DataError, match="zoo: only the class 'dog' has pictures; expected at least two classes"):
        open_dataset(folder(zoo, exclude=["cat"]))


def test_groups_and_sites_are_read_from_paths(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("well/brno-p1-a.png", "well/tokyo-p2-a.png", "ill/brno-p1-b.png")):
        draw(tmp_path / "set" / name, i)
    dataset = open_dataset(folder(tmp_path / "set", group_from=r"-(p\d+)-", site_from=r"/([a-z]+)-"))
    assert dataset.groups is not None and dataset.groups.tolist() == ["p1", "p1", "p2"]
    assert dataset.sites is not None and dataset.sites.tolist() == ["brno", "brno", "tokyo"]
    with pytest.raises(DataError, match=r"group_from: .* finds no group in 1 of 3 ids, the first 'well/tokyo-p2-a.png'"):
        open_dataset(folder(tmp_path / "set", group_from=r"-(p1)-"))


def test_groups_are_not_named_twice(zoo: Path) -> None:
    (zoo / "rows.csv").write_text("path,label,group\ncat/a.png,cat,g\ndog/a.png,dog,h\n")
    with pytest.raises(DataError, match="names its groups already, and group_from was given too"):
        open_dataset(validate_as(DataSpec, {"manifest": zoo / "rows.csv", "group_from": "(cat|dog)"}))


def test_one_official_part(tmp_path: Path, zoo: Path, draw: Draw) -> None:
    for i, name in enumerate(("train/cat/a.png", "train/dog/b.png", "test/dog/d.png")):
        draw(tmp_path / "parted" / name, i)
    assert open_dataset(folder(tmp_path / "parted", official_split="train")).ids.tolist() == [
        "train/cat/a.png",
        "train/dog/b.png",
    ]
    with pytest.raises(DataError, match="has no official part 'val'; it has test or train"):
        open_dataset(folder(tmp_path / "parted", official_split="val"))
    with pytest.raises(DataError, match="zoo has no official parts, but official_split: test was given"):
        open_dataset(folder(zoo, official_split="test"))


def test_rows_cap_the_dataset() -> None:
    dataset = open_dataset(digits(max_samples=100))
    assert len(dataset) == 100 and set(np.bincount(dataset.labels)) == {10}


def test_opening_loads_neither_torch_nor_anything_slow() -> None:
    code = (
        "import sys; from phoropter.data.spec import digits, open_dataset; open_dataset(digits(max_samples=50));"
        "print(sorted({'torch', 'timm', 'sklearn', 'pandas', 'scipy', 'pyarrow', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
