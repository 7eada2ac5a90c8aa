from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.imagenet import LabelFile, class_names, open_imagenet, synset_ids

Draw = Callable[..., Path]

KIT = "ILSVRC2012_validation_ground_truth.txt"


@pytest.fixture
def flat(tmp_path: Path, draw: Draw) -> Path:
    for i in (1, 2, 3):
        draw(tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", i, (8, 8))
    return tmp_path / "val"


def meta(path: Path) -> None:
    """A development kit's meta.mat in which ILSVRC2012_ID runs backwards through the synsets, and one inner node follows."""
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    entries = [(i + 1, synset, "words", 0) for i, synset in enumerate(reversed(synset_ids()))] + [
        (1001, "n00001740", "entity", 9)
    ]
    savemat(path, {"synsets": np.array(entries, dtype=kind)})


def test_the_1000_classes_are_in_the_order_of_the_weights() -> None:
    assert len(synset_ids()) == 1000 and list(synset_ids()) == sorted(synset_ids())
    assert synset_ids()[0] == "n01440764" and class_names()[0] == "n01440764 tench"
    assert class_names()[207] == "n02099601 golden retriever" and class_names()[999].endswith("toilet tissue")
    assert len(set(class_names())) == 1000


def test_class_names_are_read_without_importing_timm() -> None:
    code = (
        "import sys; from phoropter.data.sources import imagenet; imagenet.class_names();"
        "print({'timm', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_synset_folders_and_names(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "n01443537" / "x.JPEG", 1)
    draw(tmp_path / "n01440764_tench.JPEG", 2)
    dataset = open_imagenet(tmp_path)
    assert dict(zip(dataset.ids, dataset.labels, strict=True)) == {"n01443537/x.JPEG": 1, "n01440764_tench.JPEG": 0}
    assert len(dataset.classes) == 1000 and dataset.parts is None


def test_train_and_val_folders_are_parts(tmp_path: Path, draw: Draw) -> None:
    for part in ("train", "val"):
        draw(tmp_path / part / "n01443537" / f"{part}.JPEG", 1)
    dataset = open_imagenet(tmp_path)
    assert dataset.parts is not None and dataset.parts.tolist() == ["train", "val"]


def test_kaggle_s_solution_file_with_its_boxes(flat: Path) -> None:
    (flat.parent / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000003,n01443537 1 2 3 4 \n"
        "ILSVRC2012_val_00000001,n01440764 85 1 499 272 n01440764 1 1 9 9 \n"
        "ILSVRC2012_val_00000002,n15075141 0 0 5 5 \n"
    )
    dataset = open_imagenet(flat)
    assert dataset.labels.tolist() == [0, 999, 1]
    assert dataset.notes[0] == "labels from LOC_val_solution.csv, read as synset ids"


def test_names_with_class_indices(flat: Path) -> None:
    (flat / "val.txt").write_text("".join(f"ILSVRC2012_val_{i:08d}.JPEG {label}\n" for i, label in ((1, 65), (2, 0), (3, 999))))
    assert open_imagenet(flat).labels.tolist() == [65, 0, 999]


def test_one_synset_a_line_is_matched_by_the_number_in_the_name(flat: Path) -> None:
    (flat / "ILSVRC2012_val_00000001.JPEG").unlink()
    labels = flat.parent / "synsets.txt"
    labels.write_text("n01440764\nn01443537\nn15075141\nn01484850\n")
    assert open_imagenet(flat, given=LabelFile(labels)).labels.tolist() == [1, 999]


def test_the_kit_s_numbers_are_translated_by_its_meta_file(flat: Path) -> None:
    (flat / KIT).write_text("1\n1000\n2\n")
    meta(flat / "meta.mat")
    assert open_imagenet(flat).labels.tolist() == [999, 0, 998]


def test_the_kit_s_numbers_without_the_meta_file_are_refused(flat: Path) -> None:
    (flat / KIT).write_text("1\n1000\n2\n")
    with pytest.raises(DataError, match=r"put that file \(from ILSVRC2012_devkit_t12\.tar\.gz"):
        open_imagenet(flat)
    (flat / "meta.mat").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"meta\.mat is not readable"):
        open_imagenet(flat)


def test_an_unknown_label_order_must_be_given(flat: Path) -> None:
    labels = flat.parent / "numbers.txt"
    labels.write_text("5\n7\n9\n")
    with pytest.raises(DataError, match=r"set labels_order: index .* or labels_order: ilsvrc"):
        open_imagenet(flat, given=LabelFile(labels))
    assert open_imagenet(flat, given=LabelFile(labels, "index")).labels.tolist() == [5, 7, 9]
    meta(labels.parent / "meta.mat")
    assert open_imagenet(flat, given=LabelFile(labels, "ilsvrc")).labels.tolist() == [995, 993, 991]
    labels.write_text("5\n0\n9\n")
    assert open_imagenet(flat, given=LabelFile(labels)).labels.tolist() == [5, 0, 9]


@pytest.mark.parametrize(
    ("text", "order", "words"),
    [
        ("5\n0\n1000\n", None, "entry 3: '1000' is none of the 1000 classes"),
        ("n01440764\nn99999999\nn01440764\n", None, "entry 2: 'n99999999' is none of the 1000 classes"),
        ("n01440764\ntench\n", None, "entry 2: 'tench' holds no synset id or class number"),
    ],
)
def test_invalid_labels_are_named(flat: Path, text: str, order: str | None, words: str) -> None:
    (flat.parent / "labels.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        open_imagenet(flat, given=LabelFile(flat.parent / "labels.txt", order))


def test_a_picture_without_a_label_is_an_error_or_is_listed(flat: Path) -> None:
    (flat / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 3\nILSVRC2012_val_00000003.JPEG 0\n")
    with pytest.raises(DataError, match=r"00000002\.JPEG: no label was found for it"):
        open_imagenet(flat)
    dataset = open_imagenet(flat, on_bad_input="skip")
    assert dataset.labels.tolist() == [3, 0] and len(dataset.problems) == 1


def test_missing_data_and_labels_are_reported_with_what_to_download(tmp_path: Path, flat: Path) -> None:
    with pytest.raises(DataError, match=r"ImageNet is not at .*: register at https://image-net\.org"):
        open_imagenet(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no synset in its name or folder.*name one with labels: FILE"):
        open_imagenet(flat)
    with pytest.raises(DataError, match="labels: there is no file"):
        open_imagenet(flat, given=LabelFile(tmp_path / "none.txt"))
