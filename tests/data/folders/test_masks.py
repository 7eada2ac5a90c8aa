"""Segmentation masks that lie among the pictures of a classification dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.data.folders.masks import separate_masks
from phoropter.data.sources.folder import open_folder

Draw = Callable[..., Path]


def kept(*names: str) -> list[str]:
    return ["/".join(path) for path in separate_masks([tuple(name.split("/")) for name in names])[0]]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("covid/images/1.png", "covid/masks/1.png"),
        ("covid/Images/1.png", "covid/lung masks/1.png"),
        ("covid/images/1.png", "covid/labels/1.png"),
        ("covid/1.png", "covid/mask/1_mask.png"),
        ("images/covid/1.png", "masks/covid/1.png"),
        ("train/covid/1.png", "train_masks/covid/1.png"),
        ("benign/benign (1).png", "benign/benign (1)_mask.png"),
        ("benign/benign (1).png", "benign/benign (1)_mask_1.png"),
        ("skin/ISIC_01.jpg", "skin/ISIC_01_segmentation.png"),
        ("skin/ISIC_01.jpg", "skin/ISIC_01_superpixels.png"),
        ("skin/ISIC_01.jpg", "skin/ISIC_01_attribute_milia_like_cyst.png"),
        ("Task2_Training_Input/ISIC_01.jpg", "Task2_Training_GroundTruth_v3/ISIC_01_attribute_globules.png"),
        ("Part1_Training_Data/ISIC_01.jpg", "Part1_Training_GroundTruth/ISIC_01_Segmentation.png"),
        ("training/images/21_training.tif", "training/1st_manual/21_manual1.gif"),
        ("test/images/01_test.tif", "test/2nd_manual/01_manual2.gif"),
        ("dr/images/01_dr.jpg", "dr/manual1/01_dr.tif"),
        ("child/Image_01L.jpg", "child/Image_01L_1stHO.png"),
        ("road/7.jpg", "road/7_label.png"),
        ("cat/a.jpg", "cat/thumbnails/a.png"),
        ("cat/a.jpg", "cat/a_thumb.jpg"),
        ("cat/a.jpg", "cat/a-overlay.png"),
        ("cat/images/a.jpg", "cat/Overlay/a.png"),
    ],
)
def test_masks_are_separated(images: str, masks: str) -> None:
    assert kept(images, masks) == [images]


@pytest.mark.parametrize(
    "names",
    [
        ("with_mask/1.png", "without_mask/1.png"),
        ("mask/1.png", "no mask/1.png"),
        ("mask/a.png", "helmet/b.png"),
        ("thumb/1.png", "index/1.png"),
        ("bottle/white.png", "bottle/no_label.png"),
        ("finger/1.png", "finger/1_thumbs_up.png"),
        ("face/1.png", "face_mask/1.png"),
        ("bottle/images/1.png", "bottle/labels/seen.png"),
        ("cat/1_mask.png", "cat/2.png"),
        ("gear/manual/1.png", "gear/automatic/1.png"),
        ("gear/7.png", "gear/7_manual.png"),
        ("face/1.png", "face/2_attribute_smiling.png"),
        ("ground truth/1.png", "reconstructed/1.png"),
    ],
)
def test_classes_and_pictures_that_only_sound_like_masks_stay(names: tuple[str, ...]) -> None:
    assert kept(*names) == list(names)


def test_masks_are_counted_in_a_note(tmp_path: Path, draw: Draw) -> None:
    for name in ("covid/images/1.png", "covid/images/2.png", "covid/masks/1.png", "covid/masks/2.png"):
        draw(tmp_path / name)
    for name in ("normal/images/3.png", "normal/masks/3.png", "normal/images/3_mask.png"):
        draw(tmp_path / name)
    dataset = open_folder(tmp_path)
    assert dataset.class_counts.tolist() == [2, 1]
    assert dataset.notes == (
        "read as one folder a class: 2 classes",
        "the pictures of every class lie in its folder 'images' (3 pictures)",
        "4 pictures that look like masks were left out (3 in folders called masks, 1 named after a picture beside them; the "
        "first: covid/masks/1.png); list them in a manifest if they are to be classified",
    )


def test_previews_are_called_so_in_the_note() -> None:
    paths = [("cat", "a.png"), ("cat", "thumbnails", "a.png")]
    left, (note,) = separate_masks(paths)
    assert note.startswith("1 picture that looks like a mask or preview was left out (1 in folders called thumbnails")
    assert left == paths[:1]
