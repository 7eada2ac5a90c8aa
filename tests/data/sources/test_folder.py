from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.folder import open_folder

Draw = Callable[..., Path]


def problems(root: Path) -> dict[str, str]:
    return {p.where: p.what for p in open_folder(root, on_bad_input="skip").problems}


def test_a_folder_for_each_class(zoo: Path) -> None:
    dataset = open_folder(zoo)
    assert dataset.ids.tolist() == ["cat/a.png", "cat/b.png", "cat/c.png", "dog/a.png", "dog/b.png"]
    assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.parts is None and dataset.name == "zoo"
    assert dataset.notes == ("read as one folder a class: 2 classes",)


def test_pictures_are_read_from_their_files(zoo: Path) -> None:
    expected = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    dataset = open_folder(zoo)
    np.testing.assert_array_equal(dataset.read(3), expected)
    np.testing.assert_array_equal(dataset.select_rows(np.array([4, 3])).read(1), expected)
    assert dataset.shape(3) == (20, 30)


def test_files_of_file_managers_are_ignored(zoo: Path, draw: Draw) -> None:
    for name in (".DS_Store", "Thumbs.db", "cat/desktop.ini", "cat/._a.png", "cat/.hidden.png"):
        (zoo / name).write_bytes(b"x")
    draw(zoo / "__MACOSX" / "cat" / "a.png")
    draw(zoo / ".git" / "b.png")
    dataset = open_folder(zoo)
    assert len(dataset) == 5 and dataset.problems == ()
    assert dataset.notes[1:] == (
        "7 hidden entries and leftovers of other programs were left out: .DS_Store, .git, Thumbs.db and 4 more",
    )


def test_other_files_are_noted(zoo: Path) -> None:
    (zoo / "cat" / "notes.txt").write_text("x")
    assert open_folder(zoo).notes[-1] == "1 file that is no picture was left out: cat/notes.txt"


def test_suffixes_in_capitals_and_nested_folders(zoo: Path, draw: Draw) -> None:
    draw(zoo / "dog" / "puppies" / "2019" / "C.JPEG")
    dataset = open_folder(zoo)
    assert dataset.ids[-1] == "dog/puppies/2019/C.JPEG" and dataset.labels[-1] == 1


def test_the_same_name_in_two_classes_is_two_pictures(zoo: Path) -> None:
    assert {"cat/a.png", "dog/a.png"} <= set(open_folder(zoo).ids)


def test_an_empty_class_folder_is_listed(zoo: Path) -> None:
    (zoo / "bird").mkdir()
    assert problems(zoo) == {"bird": "this class folder is empty, so it is not counted as a class"}
    assert open_folder(zoo).classes == ("cat", "dog")


def test_loose_pictures_are_listed(zoo: Path, draw: Draw) -> None:
    draw(zoo / "loose.png")
    assert problems(zoo) == {"loose.png": "lies in no class folder, so has no label, and was left out"}


@pytest.mark.parametrize("inside", [[], ["readme.txt"], ["cat/", "dog/"]])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, inside: list[str]) -> None:
    for name in inside:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"no pictures were found.*expected a folder for each class"):
        open_folder(tmp_path)


def test_pictures_without_class_folders_are_refused(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"1 picture lies outside class folders.*or a manifest"):
        open_folder(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path, zoo: Path) -> None:
    with pytest.raises(DataError, match="the folder does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file; a folder of class folders was expected"):
        open_folder(zoo / "cat" / "a.png")


def test_a_circular_link_is_listed_and_not_followed(zoo: Path) -> None:
    (zoo / "cat" / "again").symlink_to(zoo, target_is_directory=True)
    (zoo / "dog" / "itself").symlink_to("itself")
    found = {p.where: p.what for p in open_folder(zoo, on_bad_input="skip").problems}
    assert found["cat/again"] == "the link leads back to a folder that contains it and was not followed"
    assert "dog/itself" in found
    assert len(open_folder(zoo, on_bad_input="skip")) == 5


def test_links_elsewhere_are_followed(zoo: Path, tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "store" / "a.png", 9)
    (zoo / "bird").symlink_to(tmp_path / "store", target_is_directory=True)
    (zoo / "dog" / "linked.png").symlink_to(tmp_path / "store" / "a.png")
    assert {"bird/a.png", "dog/linked.png"} <= set(open_folder(zoo).ids)


@pytest.mark.parametrize(
    ("name", "words"),
    [("cat/new.heic", "files in the format .heic are not read"), ("cat/gone.png", "the link leads nowhere")],
)
def test_an_unusable_picture_is_an_error_or_is_listed(zoo: Path, name: str, words: str) -> None:
    if name.endswith(".png"):
        (zoo / name).symlink_to(zoo / "nowhere.png")
    else:
        (zoo / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"{name}: {words}.*on_bad_input: skip"):
        open_folder(zoo)
    assert words in problems(zoo)[name]


def test_an_unreadable_folder_is_an_error_or_is_listed(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path):  # type: ignore[no-untyped-def]
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="dog: the folder cannot be read: Permission denied"):
        open_folder(zoo)
    assert problems(zoo)["dog"] == "the folder cannot be read: Permission denied"


def test_a_name_that_is_not_utf_8_is_listed(zoo: Path) -> None:
    bad = os.fsencode(zoo / "cat") + b"/\xff\xfe.png"
    try:
        os.close(os.open(bad, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = open_folder(zoo, on_bad_input="skip").problems
    assert [p.what for p in found] == ["the name is not valid UTF-8; rename it"] and str(found[0]).encode()


def test_names_in_any_language_have_one_spelling(tmp_path: Path, draw: Draw) -> None:
    apart = unicodedata.normalize("NFD", "Äpfel/grün.png")
    draw(tmp_path / apart, 1)
    draw(tmp_path / "梨" / "一.png", 2)
    dataset = open_folder(tmp_path)
    assert dataset.ids.tolist() == ["Äpfel/grün.png", "梨/一.png"] and dataset.classes == ("Äpfel", "梨")
    assert dataset.read(0).shape == (20, 30, 3)


def test_the_order_does_not_depend_on_the_file_system(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_folder(zoo)
    scan = os.scandir

    class Backwards:
        def __init__(self, path):  # type: ignore[no-untyped-def]
            self.entries = sorted(scan(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):  # type: ignore[no-untyped-def]
            return iter(self.entries)

        def __exit__(self, *error):  # type: ignore[no-untyped-def]
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    assert open_folder(zoo).fingerprint == first.fingerprint


def test_the_identity_does_not_depend_on_the_folder(zoo: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(zoo, tmp_path / "elsewhere")
    assert open_folder(tmp_path / "elsewhere").content_digest == open_folder(zoo).content_digest


def test_official_parts(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("train/cat/a.png", "train/dog/b.png", "Validation/cat/c.png", "test/dog/d.png")):
        draw(tmp_path / name, i)
    dataset = open_folder(tmp_path)
    assert dataset.parts is not None
    assert dict(zip(dataset.ids.tolist(), dataset.parts.tolist(), strict=True)) == {
        "train/cat/a.png": "train",
        "train/dog/b.png": "train",
        "Validation/cat/c.png": "val",
        "test/dog/d.png": "test",
    }
    assert dataset.classes == ("cat", "dog") and "train = train (2 pictures)" in dataset.notes[0]


def test_nested_part_folders_of_the_intel_archive(tmp_path: Path, draw: Draw) -> None:
    names = (
        "seg_train/seg_train/sea/1.jpg",
        "seg_train/seg_train/street/2.jpg",
        "seg_test/seg_test/sea/3.jpg",
        "seg_pred/seg_pred/4.jpg",
    )
    for i, name in enumerate(names):
        draw(tmp_path / name, i)
    dataset = open_folder(tmp_path)
    labels = {
        i: (p, dataset.classes[y] if y >= 0 else None) for i, p, y in zip(dataset.ids, dataset.parts, dataset.labels, strict=True)
    }  # type: ignore[arg-type]
    assert labels == {
        names[0]: ("train", "sea"),
        names[1]: ("train", "street"),
        names[2]: ("test", "sea"),
        names[3]: ("", None),
    }


def test_a_flat_test_folder_is_unlabelled(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("train/cat/a.png", "train/dog/b.png", "test/1.png")):
        draw(tmp_path / name, i)
    assert open_folder(tmp_path).labels.tolist() == [-1, 0, 1]


def test_a_class_may_be_called_train(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("bus/a.png", "train/b.png", "train/c.png")):
        draw(tmp_path / name, i)
    dataset = open_folder(tmp_path)
    assert dataset.classes == ("bus", "train") and dataset.parts is None


def test_folders_that_contain_everything_are_skipped_and_noted(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("archive/data/cat/a.png", "archive/data/dog/b.png")):
        draw(tmp_path / name, i)
    dataset = open_folder(tmp_path)
    assert dataset.classes == ("cat", "dog") and dataset.notes[0] == "read as one folder a class inside archive/data: 2 classes"


def test_classes_that_differ_in_case_only_are_noted(tmp_path: Path, draw: Draw) -> None:
    for i, name in enumerate(("train/Cat/a.png", "train/dog/b.png", "test/cat/c.png")):
        draw(tmp_path / name, i)
    assert "class names that differ in case only: Cat, cat" in open_folder(tmp_path).notes


def test_a_folder_names_its_class_as_a_cell_of_a_table_does(tmp_path: Path, draw: Draw) -> None:
    for place in ("cats/a", "cats /b", "caf\u00e9/c", "cafe\u0301/d", "ca\u200bts/e", "1.0/f", "01/g"):
        draw(tmp_path / f"{place}.png")
    dataset = open_folder(tmp_path)
    assert dataset.classes == ("01", "1", "caf\u00e9", "cats")
    assert [dataset.classes[label] for label in dataset.labels] == [
        {"f": "1", "g": "01", "c": "caf\u00e9", "d": "caf\u00e9"}.get(str(name)[-5], "cats") for name in dataset.ids
    ]
    assert any(note.startswith("the class cats was read from several folders: 'cats', 'cats '") for note in dataset.notes)


def test_the_same_folders_below_a_folder_that_every_class_has_are_asked_about(tmp_path: Path, draw: Draw) -> None:
    for hospital in "AB":
        for name in ("ill", "well"):
            draw(tmp_path / hospital / "train" / name / "a.png")
    notes = " ".join(open_folder(tmp_path).notes)
    assert "every class lie in its folder 'train'" in notes
    assert "QUESTION: the folders A, B hold the same folders ill, well" in notes


def test_folders_of_people_with_classes_in_them_are_asked_about(tmp_path: Path, draw: Draw) -> None:
    for at in range(4):
        draw(tmp_path / f"patient{at}" / ("ill" if at % 2 else "well") / "a.png")  # each person has one class
    notes = " ".join(open_folder(tmp_path).notes)
    assert "QUESTION: the folders patient0, patient1, patient2 and 1 more hold the same folders ill, well" in notes
    assert "if either are people, write a manifest with path, label and group" in notes


def test_folders_in_classes_that_are_not_shared_are_not_asked_about(tmp_path: Path, draw: Draw) -> None:
    for name, inside in (("ill", "p1"), ("ill", "p2"), ("well", "p3"), ("well", "p4")):
        draw(tmp_path / name / inside / "a.png")
    assert not any("QUESTION" in note for note in open_folder(tmp_path).notes)


def test_one_folder_beside_a_table_is_no_class(tmp_path: Path, draw: Draw) -> None:
    for at in range(3):
        draw(tmp_path / "images" / f"{at}.png")
    (tmp_path / "labels.csv").write_text("filename,class\n0.png,a\n")
    with pytest.raises(DataError, match=r"one class folder, 'images', so it is no class: .*labels\.csv may be one"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"), [("rest/a.edf", "named as recordings"), ("a.csv", "named as recordings"), ("a/b.npy", "as npz")]
)
def test_files_of_another_kind_are_shown_their_way(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"no pictures were found.*{hint}"):
        open_folder(tmp_path)
