"""Small inputs as people have them, with the right value for each: manifests, Parquet, npz, study files."""

from __future__ import annotations

import unicodedata

import pytest
from shared_cases import CASES, MARKS, parts_and_classes

from phoropter.core.errors import DataError
from phoropter.data.inspect import detect_data_spec
from phoropter.data.spec import open_dataset
from phoropter.study.spec import read_study

pytestmark = MARKS
HALF = r"is empty here and given elsewhere \({} rows have none\); give every row a"


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("parquet-class-names-differ/data", {("train", "cat"): 4, ("train", "dog"): 4, ("test", "cat"): 2, ("test", "dog"): 2}),
        ("parquet-split-in-name/data", {("train", "cat"): 4, ("train", "dog"): 4, ("test", "cat"): 2, ("test", "dog"): 2}),
        ("parquet-0000/data", {("train", "cat"): 4, ("train", "dog"): 4, ("test", "cat"): 2, ("test", "dog"): 2}),
        ("parquet-group-int-float/data", {("train", "0"): 4, ("train", "1"): 4}),
        ("parquet-label-float/data", {("", "0"): 3, ("", "1"): 4, ("", ""): 1}),
        ("parquet-label-float/data2", {("", "0"): 3, ("", "1"): 4, ("", ""): 1}),
        ("parquet-label-space/data", {("", "cat"): 3, ("", "dog"): 3, ("", "Cat"): 1, ("", "DOG"): 1}),
        ("manifest-nfc-nfd/nfc_name.csv", {("", "cat"): 5, ("", "dog"): 4}),
        ("manifest-sep-line/sep_line.csv", {("", "cat"): 4, ("", "dog"): 4}),
        ("recordings-manifest-header-case/header_case.csv", {("", "rest"): 8, ("", "task"): 8}),
        ("recordings-manifest-windows-path/windows_paths.csv", {("", "rest"): 8, ("", "task"): 8}),
        (
            "npz-medmnist/medmnist.npz",
            {("train", "0"): 10, ("train", "1"): 10, ("val", "0"): 3, ("val", "1"): 3, ("test", "0"): 3, ("test", "1"): 3},
        ),
        ("npz-medmnist/keras_mnist.npz", {("train", "0"): 10, ("train", "1"): 10, ("test", "0"): 3, ("test", "1"): 3}),
    ],
)
def test_an_input_is_read_as_it_was_meant(case: str, rows: dict[tuple[str, str], int]) -> None:
    dataset = open_dataset(detect_data_spec(CASES / case))
    assert parts_and_classes(dataset) == rows and dataset.problems == ()
    assert case.startswith("recordings") or dataset.read(len(dataset) - 1).ndim == 3  # a window of 250 samples is no spectrogram


def test_labels_of_two_files_are_joined_by_name() -> None:
    dataset = open_dataset(detect_data_spec(CASES / "parquet-class-names-differ" / "data"))
    words = {str(name): dataset.classes[label] for name, label in zip(dataset.ids, dataset.labels, strict=True)}
    assert [words[f"train-00000-of-00001/{row}"] for row in range(4)] == ["cat", "dog", "cat", "dog"]
    assert [words[f"test-00000-of-00001/{row}"] for row in range(4)] == ["dog", "cat", "dog", "cat"]


def test_groups_of_two_files_are_joined_by_name() -> None:
    groups = open_dataset(detect_data_spec(CASES / "parquet-group-int-float" / "data")).groups
    assert groups is not None and groups.tolist() == list("11221233")


def test_the_file_of_a_name_in_another_unicode_form_is_found() -> None:
    dataset = open_dataset(detect_data_spec(CASES / "manifest-nfc-nfd" / "nfc_name.csv"))
    assert dataset.ids[-1] == unicodedata.normalize("NFC", "img/café.jpg")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("parquet-group-null/data", r"all\.parquet, row 7: the group " + HALF.format("1 of 8")),
        ("recordings-subject-half/subject_half.csv", "line 5: the subject " + HALF.format("1 of 4")),
        ("manifest-label-twice/two_label_columns.csv", "has 2 columns called 'label' and 'Label', and one label is expected"),
    ],
)
def test_an_input_that_would_mislead_is_refused(case: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_dataset(detect_data_spec(CASES / case))


@pytest.mark.parametrize(
    ("study", "classes"),
    [
        ("yaml-octal-classes/study.yaml", ("010", "011")),
        ("yaml-yes-no/study.yaml", ("maybe", "no", "yes")),
        ("yaml-yes-no/study2.yaml", ("maybe", "yes")),
    ],
)
def test_words_of_a_study_file_stay_words(study: str, classes: tuple[str, ...]) -> None:
    (spec,) = read_study(CASES / study)
    dataset = open_dataset(spec.data, (CASES / study).parent)
    assert dataset.classes == classes


def test_an_unknown_class_in_exclude_is_refused() -> None:
    (spec,) = read_study(CASES / "exclude-unknown" / "study.yaml")
    with pytest.raises(DataError, match=r"exclude: data has no class 'Background'; it has cat or dog"):
        open_dataset(spec.data, CASES / "exclude-unknown")
