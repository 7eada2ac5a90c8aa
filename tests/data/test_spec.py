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
        (
            {"folder": "a", "columns": {"label": "x"}},
            "'columns' belongs to manifest, monitor_csv, .* or shards and does nothing for 'folder'",
        ),
        (
            {"manifest": "a", "columns": {"lable": "x"}},
            r"columns: unknown name 'lable', expected path, .*; did you mean 'label'\?",
        ),
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


def test_numbers_are_read_as_class_names() -> None:
    assert validate_as(DataSpec, {"digits": True, "classes": [3, 1]}).classes == ("3", "1")


def test_paths_are_relative_to_the_study_and_home_is_expanded(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(zoo.parent))
    assert len(open_dataset(folder("zoo"), zoo.parent)) == len(open_dataset(folder("~/zoo"), Path("/nowhere"))) == 5


def test_the_download_hint_is_shown_when_data_are_missing(tmp_path: Path, zoo: Path) -> None:
    with pytest.raises(DataError, match=r"the folder does not exist; get Intel scenes from Kaggle"):
        open_dataset(folder("none", download_hint="Intel scenes from Kaggle"), tmp_path)
    (zoo / "cat" / "x.heic").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_dataset(folder(zoo, download_hint="Intel scenes from Kaggle"))
    assert "Kaggle" not in str(caught.value)


def test_max_samples_limits_the_dataset() -> None:
    dataset = open_dataset(digits(max_samples=100))
    assert len(dataset) == 100 and set(np.bincount(dataset.labels)) == {10}


def test_opening_loads_neither_torch_nor_anything_slow() -> None:
    code = (
        "import sys; from phoropter.data.spec import digits, open_dataset; open_dataset(digits(max_samples=50));"
        "print(sorted({'torch', 'timm', 'sklearn', 'pandas', 'scipy', 'pyarrow', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
