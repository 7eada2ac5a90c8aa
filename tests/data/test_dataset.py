from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset, count_classes_by_group, encode_labels
from phoropter.data.sources.arrays import from_arrays


def some(labels: list[str], **columns: list[str]) -> Dataset:
    images = np.arange(len(labels) * 12, dtype=np.uint8).reshape(-1, 2, 2, 3)
    return from_arrays(images, labels, **columns)


def test_ids_must_be_unique_and_are_named() -> None:
    with pytest.raises(DataError, match="ids must be unique, but b came more than once"):
        some(["x", "y", "x"], ids=["a", "b", "b"])


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match="groups has 1 rows, expected one for each of 2 ids"):
        some(["x", "y"], groups=["g"])


def test_selecting_rows_selects_every_column_and_the_pictures() -> None:
    dataset = some(["x", "y", "x"], ids=["a", "b", "c"], groups=["g", "h", "g"], sites=["s", "t", "t"])
    picked = dataset.select_rows(np.array([2, 0]))
    assert picked.ids.tolist() == ["c", "a"] and picked.groups is not None and picked.groups.tolist() == ["g", "g"]
    np.testing.assert_array_equal(picked.read(0), dataset.read(2))


def test_it_is_known_whether_groups_have_several_recordings() -> None:
    from dataclasses import replace

    dataset = some(["x", "y", "x", "y"], groups=["g", "g", "h", "h"])
    assert not dataset.groups_several_recordings  # pictures
    for names, several in ((["r", "r", "s", "s"], False), (["r", "t", "s", "s"], True)):
        assert replace(dataset, recordings=np.array(names)).groups_several_recordings == several


def test_contents_depend_on_pictures_and_ids_but_fingerprint_also_on_labels() -> None:
    one, other = some(["x", "y", "x"]), some(["x", "y", "y"])
    assert one.content_digest == other.content_digest and one.fingerprint != other.fingerprint
    assert one.select_rows(np.array([0, 2])).content_digest != one.select_rows(np.array([0, 1])).content_digest


def test_a_dataset_can_be_pickled() -> None:
    dataset = some(["x", "y", "x"])
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert again.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(again.read(1), dataset.read(1))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["b", "a", "b"], ("a", "b")), (["10", "9", "1"], ("1", "9", "10")), (["10", "9", "x"], ("10", "9", "x"))],
)
def test_classes_are_ordered_alphabetically_or_by_value(labels: list[str], classes: tuple[str, ...]) -> None:
    found, names = encode_labels(labels)
    assert names == classes and [names[i] for i in found] == labels


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=8, max_size=60), st.integers(2, 60), st.integers(0, 3))
def test_a_sample_has_at_most_the_requested_size_and_keeps_proportions(labels: list[str], count: int, seed: int) -> None:
    dataset = some(labels)
    sample = dataset.sample(count, seed)
    assert len(sample) == min(count, len(labels))
    for label in set(labels):
        there, kept = labels.count(label), int((sample.labels == dataset.classes.index(label)).sum())
        if 2 * len(set(labels)) <= count:
            assert kept >= min(2, there)
        assert abs(kept - len(sample) * there / len(labels)) <= 3  # one by rounding, two to keep rare classes


def test_a_sample_does_not_depend_on_the_order_of_rows() -> None:
    dataset = some(list("abcab" * 8))
    shuffled = dataset.select_rows(np.random.default_rng(0).permutation(len(dataset)))
    assert set(shuffled.sample(12).ids) == set(dataset.sample(12).ids) != set(dataset.sample(12, seed=1).ids)


def test_a_sample_keeps_complete_groups_and_two_of_each_class() -> None:
    groups = [f"g{i // 4}" for i in range(80)]
    labels = ["rare" if i // 4 in (3, 11, 17) else "common" for i in range(80)]
    dataset = some(labels, groups=groups)
    sample = dataset.sample(24)
    assert sample.groups is not None and len(sample) <= 24
    names, sizes = np.unique(sample.groups, return_counts=True)
    assert set(sizes) == {4}
    assert len({"g3", "g11", "g17"} & set(names)) >= 2


def test_digests_are_equal_for_equal_pictures_only() -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    images[1] = 9
    one, two, three = from_arrays(images, ["a", "b", "a"]).digests()
    assert one == three != two


def test_it_prints_in_a_line_and_shows_in_a_notebook_escaped() -> None:
    dataset = some(["<b>", "y", "y"], groups=["g", "h", "h"])
    assert repr(dataset) == f"Dataset({dataset.name!r}: 3 rows in 2 classes, 2 groups)" and len(str(dataset).splitlines()) == 1
    html = dataset._repr_html_()
    assert "<td>&lt;b&gt;</td><td>1</td>" in html and "<td>y</td><td>2</td>" in html and "2 groups" in html


def test_classes_are_counted_by_group_for_one_label_a_row_and_for_several() -> None:
    group = np.array([0, 2, 0, 2, 2])
    one = count_classes_by_group(np.array([1, 0, 1, 1, 0]), group, (4, 2))
    assert one.tolist() == [[0, 2], [0, 0], [2, 1], [0, 0]]
    several = count_classes_by_group(np.array([[1, 1], [0, 0], [1, 0], [0, 1], [0, 1]]), group, (4, 2))
    assert several.tolist() == [[2, 1], [0, 0], [0, 2], [0, 0]]
