"""The class that a study looks for: found as the dataset spells it, refused where it says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.in_memory import as_dataset
from phoropter.data.positive_class import OneVsRest, find_positive
from phoropter.data.spec import DataSpec, open_dataset


def dataset_of(*labels: str) -> object:
    return as_dataset((np.zeros((len(labels), 8, 8, 3), dtype=np.uint8), list(labels)))


def test_it_is_found_as_the_dataset_spells_it() -> None:
    two, three = dataset_of("ill", "well", "ill", "well"), dataset_of("1", "2", "3", "1")
    assert find_positive(two, None) is None
    assert find_positive(two, "ill") == "ill"
    assert find_positive(three, OneVsRest(one_vs_rest="2 ")) == "2"


def test_a_class_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"positive: .* has no class 'il'.*'ill'"):
        find_positive(dataset_of("ill", "well"), "il")


def test_of_more_than_two_classes_it_needs_one_vs_rest() -> None:
    with pytest.raises(DataError, match=r"'b' is one of 3 classes .*one_vs_rest: 'b'"):
        find_positive(dataset_of("a", "b", "c"), "b")


def test_a_study_states_it_under_data(tmp_path: object) -> None:
    given = validate_as(DataSpec, {"digits": True, "classes": [3, 8], "positive": 3})
    assert given.positive == "3" and len(open_dataset(given).classes) == 2
    more = validate_as(DataSpec, {"digits": True, "positive": {"one_vs_rest": 7}})
    assert open_dataset(more).fingerprint == open_dataset(DataSpec(digits=True)).fingerprint  # no run depends on it
    with pytest.raises(DataError, match="has no class '11'"):
        open_dataset(validate_as(DataSpec, {"digits": True, "positive": {"one_vs_rest": 11}}))
    with pytest.raises(SpecError, match="one_vs"):
        validate_as(DataSpec, {"digits": True, "positive": {"one_vs": 7}})
