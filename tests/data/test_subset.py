from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import parse_yaml, validate_as
from phoropter.data.spec import DataSpec, folder, open_dataset

Draw = Callable[..., Path]


def test_classes_are_kept_in_the_order_named(zoo: Path, draw: Draw) -> None:
    draw(zoo / "bird" / "x.png", 7)
    dataset = open_dataset(folder(zoo, classes=["dog", "bird"]))
    assert dataset.classes == ("dog", "bird")
    assert dict(zip(dataset.ids, dataset.labels, strict=True)) == {"dog/a.png": 0, "dog/b.png": 0, "bird/x.png": 1}
    assert dataset.notes[-1] == "left out 3 rows of cat"


def test_classes_are_left_out(zoo: Path, draw: Draw) -> None:
    draw(zoo / "BACKGROUND_Google" / "x.png", 7)
    dataset = open_dataset(folder(zoo, exclude=["BACKGROUND_Google"]))
    assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 0, 1, 1]


def test_a_class_that_is_not_there_is_named_with_the_nearest(zoo: Path) -> None:
    with pytest.raises(DataError, match=r"classes: zoo has no pictures of 'dgo'; did you mean 'dog'\?"):
        open_dataset(folder(zoo, classes=["cat", "dgo"]))
    with pytest.raises(DataError, match=r"exclude: zoo has no class 'cats'; did you mean 'cat'\?"):
        open_dataset(folder(zoo, exclude=["cats"]))
    with pytest.raises(DataError, match=r"exclude: zoo has no class '257\.clutter'; it has cat or dog"):
        open_dataset(folder(zoo, exclude=["257.clutter"]))


@pytest.mark.parametrize("key", ["classes", "exclude"])
def test_a_class_that_yaml_read_as_a_number_is_answered_by_quotes(tmp_path: Path, draw: Draw, key: str) -> None:
    for i, name in enumerate(("3.10", "3.2", "4")):
        draw(tmp_path / "set" / name / "x.png", i)
    data, _ = parse_yaml(f"folder: {tmp_path / 'set'}\n{key}: [3.10, 3.2]\n", "data.yaml")[0]
    with pytest.raises(DataError, match=rf"^{key}: set has no .* '3\.1'; YAML reads .* as a number: write '3\.10' in quotes"):
        open_dataset(validate_as(DataSpec, data))


def test_classes_are_found_by_how_their_names_read(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("1.0", "2", "cafe\u0301", "true")):
        draw(tmp_path / "set" / name / "x.png", i)
    assert open_dataset(folder(tmp_path / "set", classes=[1, 2.0, "caf\u00e9"])).classes == ("1", "2", "caf\u00e9")
    with pytest.raises(SpecError, match=r"exclude.*True is no name: put quotes around a name that YAML reads as a value"):
        folder(tmp_path / "set", exclude=[True])
    assert open_dataset(folder(tmp_path / "set", exclude=["true"])).classes == ("1", "2", "caf\u00e9")


def test_a_label_that_is_not_in_the_list_is_an_error_in_a_manifest(zoo: Path) -> None:
    (zoo / "rows.csv").write_text("path,label\ncat/a.png,cat\ncat/b.png,catt\ndog/a.png,dog\ncat/c.png,\n")
    listed = {"manifest": zoo / "rows.csv", "classes": ["cat", "dog"], "on_bad_input": "skip"}
    with pytest.raises(
        DataError, match=r"the label 'catt' is not in classes \(cat or dog\); did you mean 'cat'\?.*exclude: \['catt'\]"
    ):
        open_dataset(validate_as(DataSpec, listed))
    for exclude in (["catt"], ["*"]):
        dataset = open_dataset(validate_as(DataSpec, {**listed, "exclude": exclude}))
        assert dataset.ids.tolist() == ["cat/a.png", "dog/a.png", "cat/c.png"] and dataset.labels.tolist() == [0, 1, -1]


def test_a_single_class_is_refused(zoo: Path) -> None:
    with pytest.raises(DataError, match="zoo: only the class 'dog' has pictures; expected at least two classes"):
        open_dataset(folder(zoo, exclude=["cat"]))


def test_a_class_that_was_taken_for_masks_is_told_where_one_class_is_left(tmp_path: Path, draw: Draw) -> None:
    for name in ("image/1.png", "label/1.png"):
        draw(tmp_path / "zoo" / name)
    with pytest.raises(DataError, match=r"only the class 'image' has pictures; .*1 picture that looks like a mask was left out"):
        open_dataset(folder(tmp_path / "zoo"))


def test_a_class_that_could_not_be_read_is_named_where_one_class_is_left(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "zoo" / "cat" / "a.png")
    (tmp_path / "zoo" / "dog").mkdir()
    (tmp_path / "zoo" / "dog" / "a.heic").write_bytes(b"x")
    words = r"only the class 'cat' has pictures \(left out as unusable: 1, the first dog/a\.heic: files in the format \.heic"
    with pytest.raises(DataError, match=words):
        open_dataset(folder(tmp_path / "zoo", on_bad_input="skip"))


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
