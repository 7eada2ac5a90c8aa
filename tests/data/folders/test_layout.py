"""Layouts as datasets have them: which folders are parts, which are classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.core.errors import DataError
from phoropter.data.folders.layout import find_split_word, parse_split_name
from phoropter.data.sources.folder import open_folder

Draw = Callable[..., Path]


def read(root: Path, draw: Draw, *names: str) -> dict[str, tuple[str, str | None]]:
    """Draws pictures and reads the folder → id → (part, class)."""
    for seed, name in enumerate(names):
        draw(root / name, seed)
    dataset = open_folder(root)
    parts = [""] * len(dataset) if dataset.parts is None else dataset.parts.tolist()
    classes = [dataset.classes[y] if y >= 0 else None for y in dataset.labels]
    return dict(zip(dataset.ids.tolist(), zip(parts, classes, strict=True), strict=True))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((word, "train") for word in ("train", "TRAIN", "Training", "training_set", "TrainSet", "train-images", "traindata")),
        *((word, "train") for word in ("train folder", "Train_Data", "seg_train", "train split", "trainval")),
        *((word, "val") for word in ("val", "valid", "Validation", "validation_set", "valset", "dev")),
        *((word, "test") for word in ("test", "testing", "Test Images", "test_set", "eval", "hold-out", "held_out", "tst")),
        *((word, "") for word in ("seg_pred", "prediction", "unlabelled")),
        *((word, None) for word in ("trains", "bullet_train", "images", "data", "testes", "invalid", "develop", "猫train", "")),
    ],
)
def test_names_of_parts(name: str, part: str | None) -> None:
    assert parse_split_name(name) == part


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("chest_xray_train", "train"),
        ("val2017", "val"),
        ("asl-alphabet TestSet", "test"),
        ("train_val", "train"),
        ("train_test", None),
        ("strains", None),
    ],
)
def test_part_words_among_others(name: str, part: str | None) -> None:
    assert find_split_word(name) == part


@pytest.mark.parametrize(
    ("train", "other", "part"),
    [
        ("training_set/training_set", "test_set/test_set", "test"),
        ("train", "eval", "test"),
        ("train", "holdout", "test"),
        ("Train_Images", "Val_Images", "val"),
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test/asl_alphabet_test", "test"),
        ("birds train v2", "birds test v2", "test"),
        ("archive/train/images", "archive/valid/images", "val"),
    ],
)
def test_parts_are_not_classes(tmp_path: Path, draw: Draw, train: str, other: str, part: str) -> None:
    rows = read(tmp_path, draw, *(f"{top}/{name}/{i}.png" for top in (train, other) for name in ("cat", "dog") for i in "ab"))
    assert {label for _, label in rows.values()} == {"cat", "dog"}
    assert {own for name, (own, _) in rows.items() if name.startswith(train)} == {"train"}
    assert {own for name, (own, _) in rows.items() if name.startswith(other)} == {part}


@pytest.mark.parametrize(
    "classes", [("train station", "bus station"), ("bullet_train", "test_tube", "cup"), ("valid", "invalid")]
)
def test_classes_may_carry_part_words(tmp_path: Path, draw: Draw, classes: tuple[str, ...]) -> None:
    rows = read(tmp_path, draw, *(f"{name}/{i}.png" for name in classes for i in "ab"))
    assert {label for _, label in rows.values()} == set(classes) and {part for part, _ in rows.values()} == {""}


def test_parts_inside_classes(tmp_path: Path, draw: Draw) -> None:
    rows = read(tmp_path, draw, *(f"{name}/{part}/{part}.png" for name in ("cat", "dog") for part in ("train", "test_set")))
    assert rows["cat/train/train.png"] == ("train", "cat") and rows["dog/test_set/test_set.png"] == ("test", "dog")
    assert "official parts in it: test_set = test (2 pictures), train = train (2 pictures)" in open_folder(tmp_path).notes[0]


def test_parts_without_class_folders_are_refused(tmp_path: Path, draw: Draw) -> None:
    for name in ("train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"):
        draw(tmp_path / name)
    (tmp_path / "labels.csv").write_text("id,label\n")
    with pytest.raises(DataError, match=r"'train' is named as an official part .* no labels: name a manifest .*labels\.csv"):
        open_folder(tmp_path)


def test_equal_folders_inside_classes_raise_a_question(tmp_path: Path, draw: Draw) -> None:
    read(tmp_path, draw, *(f"{top}/{name}/a.png" for top in ("color", "grayscale") for name in ("apple", "corn")))
    dataset = open_folder(tmp_path)
    assert dataset.classes == ("color", "grayscale")
    assert dataset.notes[1].startswith("QUESTION: the folders color, grayscale hold the same folders apple, corn")


def test_parts_of_several_folds_are_no_parts_inside_classes(tmp_path: Path, draw: Draw) -> None:
    names = [f"{fold}/{part}/{name}/a.png" for fold in ("f1", "f2") for part in ("train", "test") for name in ("cat", "dog")]
    read(tmp_path, draw, *names)
    dataset = open_folder(tmp_path)
    assert dataset.parts is None and dataset.notes[1].startswith("QUESTION: the folders f1, f2 hold the same folders test, train")


def test_a_copy_of_the_classes_among_them_raises_a_question(tmp_path: Path, draw: Draw) -> None:
    read(tmp_path, draw, "no/a.png", "yes/b.png", "brain_tumor/no/a.png", "brain_tumor/yes/b.png")
    assert (
        open_folder(tmp_path).notes[1].startswith("QUESTION: the folder brain_tumor was read as a class, and holds folders named")
    )


def test_different_folders_inside_classes_raise_none(tmp_path: Path, draw: Draw) -> None:
    read(tmp_path, draw, "cat/2019/a.png", "cat/2020/a.png", "dog/2020/a.png", "dog/2021/a.png")
    assert open_folder(tmp_path).notes == ("read as one folder a class: 2 classes",)


def tiny_imagenet(root: Path, draw: Draw, lines: str) -> Path:
    for i, name in enumerate(("train/n1/images/n1_0.png", "train/n2/images/n2_0.png", "val/images/v0.png", "val/images/v1.png")):
        draw(root / name, i)
    draw(root / "test/images/t0.png", 9)
    (root / "train/n1/n1_boxes.txt").write_text("n1_0.png\t0\t0\t9\t9\n")
    (root / "val/val_annotations.txt").write_text(lines)
    return root


def test_tiny_imagenet(tmp_path: Path, draw: Draw) -> None:
    tiny_imagenet(tmp_path, draw, "v0.png\tn2\t0\t0\t9\t9\nv1.png\tn1\t0\t0\t9\t9\n")
    rows = read(tmp_path, draw)
    assert rows == {
        "test/images/t0.png": ("", None),
        "train/n1/images/n1_0.png": ("train", "n1"),
        "train/n2/images/n2_0.png": ("train", "n2"),
        "val/images/v0.png": ("val", "n2"),
        "val/images/v1.png": ("val", "n1"),
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("v0.png\tn2\nv1.png\tn7\n", "val/val_annotations.txt, line 2: the class 'n7' has no folder in the training part"),
        ("v0.png\n", "line 1: it has one column; expected a picture's file name, a tab and its class folder"),
        ("v0.png\tn2\nv0.png\tn1\n", "line 2: 'v0.png' has the class 'n1' here and another above"),
    ],
)
def test_labels_of_tiny_imagenet_that_are_refused(tmp_path: Path, draw: Draw, lines: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(tiny_imagenet(tmp_path, draw, lines))


def test_a_picture_without_a_label_in_tiny_imagenet_is_listed(tmp_path: Path, draw: Draw) -> None:
    dataset = open_folder(tiny_imagenet(tmp_path, draw, "v0.png\tn2\n"))
    assert [str(p) for p in dataset.problems] == [
        "val/images/v1.png: is not named in the file of labels of its part and was left out"
    ]


def test_parts_with_nothing_but_a_folder_of_images_have_no_labels(tmp_path: Path, draw: Draw) -> None:
    """The layout of detectors: `train/images/a.jpg` beside `train/labels/a.txt`."""
    for seed, part in enumerate(("train", "valid", "test")):
        draw(tmp_path / part / "images" / "a.png", seed)
        draw(tmp_path / part / "images" / "b.png", seed + 9)
    with pytest.raises(DataError, match="'train' is named as an official part and holds pictures without class folders"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [("01_training", "02_test"), ("train_2020", "test_2021"), ("Train.Set", "Test.Set"), ("train (1)", "tst (1)")],
)
def test_neighbours_of_usual_names(tmp_path: Path, draw: Draw, train: str, test: str) -> None:
    found = read(
        tmp_path, draw, *(f"{part}/{name}/{at}.png" for part in (train, test) for name in ("cat", "dog") for at in (1, 2))
    )
    assert found[f"{train}/cat/1.png"] == ("train", "cat") and found[f"{test}/dog/2.png"] == ("test", "dog")
