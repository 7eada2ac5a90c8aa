"""Keys that would change nothing are refused: clinical and aggregations without a positive class, or without people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.in_memory import as_dataset
from phoropter.data.spec import DataSpec
from phoropter.study.spec import StudySpec
from phoropter.study.variants.positive_uses import check_positive_uses


def dataset_of(labels: list[str], groups: list[str] | None = None) -> Dataset:
    from dataclasses import replace

    made = as_dataset((np.zeros((len(labels), 8, 8, 3), dtype=np.uint8), labels))
    return replace(made, groups=None if groups is None else np.array(groups))


TWO = dataset_of(["ill", "ill", "well", "well"], ["a", "a", "b", "b"])
THREE = dataset_of(["ill", "ill", "well", "dead"], ["a", "a", "b", "c"])
MIXED = dataset_of(["ill", "well", "ill", "well"], ["a", "a", "b", "b"])


def check(dataset: Dataset, positive: Any = None, **keys: Any) -> None:
    data = {"digits": True, "positive": positive}
    study = validate_as(StudySpec, {"name": "s", "data": data, "candidates": ["test_vit"], **keys})
    check_positive_uses(study, validate_as(DataSpec, data), dataset)


def test_what_acts_is_accepted() -> None:
    check(TWO, clinical={"prevalence": 0.1}, aggregate="top-2")
    check(THREE, {"one_vs_rest": "ill"}, clinical={"false_alarms": 0.05}, aggregate="max")
    check(THREE, aggregate="vote")
    check(MIXED)


def test_clinical_and_max_need_a_positive_class() -> None:
    with pytest.raises(SpecError, match="clinical needs a positive class, and of 3 classes none is; name it by"):
        check(THREE, clinical={"prevalence": 0.1})
    with pytest.raises(SpecError, match="aggregate: max looks at the positive class, and of 3 classes none is"):
        check(THREE, aggregate="max")


@pytest.mark.parametrize("dataset", [dataset_of(["ill", "well"]), MIXED, dataset_of(["ill", "well"], ["a", "b"])])
def test_there_must_be_something_to_aggregate(dataset: Dataset) -> None:
    with pytest.raises(SpecError, match="aggregate: vote changes nothing"):
        check(dataset, aggregate="vote")


def test_values_out_of_range_are_refused() -> None:
    for keys in ({"aggregate": "median"}, {"clinical": {"prevalence": 1}}, {"clinical": {"false_alarms": 0}}):
        with pytest.raises(SpecError):
            check(TWO, **keys)
