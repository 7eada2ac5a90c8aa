"""The names of groups and sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.unit_names import name_units


def arrays(**columns: Any) -> Dataset:
    return from_arrays(np.zeros((4, 8, 8), np.uint8), ["a", "b", "a", "b"], **columns)


def words(spec: dict[str, Any], dataset: Dataset | None = None) -> tuple[str, str]:
    group, site = name_units(validate_as(DataSpec, spec), dataset or arrays())
    return group.plural, site.plural


@pytest.mark.parametrize(
    ("spec", "group", "site"),
    [
        ({"simulate": "ecg"}, "people", "sites"),
        ({"simulate": "ctg"}, "births", "hospitals"),
        ({"mitdb": "x"}, "patients", "hospitals"),
        ({"wesad": "x"}, "people", "sites"),
        ({"folder": "x"}, "groups", "sites"),
        ({"folder": "x", "group_from": "(s[0-9]+)/"}, "groups", "sites"),
        ({"folder": "x", "group_word": "mice", "site_word": "lab"}, "mice", "labs"),
        ({"manifest": "x.csv", "columns": {"group": "patient_id", "site": "Hospital"}}, "patients", "hospitals"),
        ({"manifest": "x.csv", "columns": {"group": "cluster"}}, "groups", "sites"),
        ({"recordings": "x.csv", "outcome": "pH<7.15"}, "births", "hospitals"),
        ({"recordings": "x.csv", "columns": {"subject": "participant"}}, "people", "sites"),
        ({"recordings": "x.csv"}, "people", "sites"),
    ],
)
def test_the_source_knows_what_its_groups_are_unless_the_study_says(spec: dict[str, Any], group: str, site: str) -> None:
    assert words(spec) == (group, site)


def test_recordings_without_subjects_are_called_recordings() -> None:
    alone, shared = (
        Dataset(**{**vars(arrays()), "groups": np.array(groups), "recordings": np.array(["r1", "r1", "r2", "r2"])})
        for groups in (["r1", "r1", "r2", "r2"], ["p", "p", "p", "p"])
    )
    assert words({"recordings": "x.csv"}, alone)[0] == "recordings" and words({"recordings": "x.csv"}, shared)[0] == "people"


def test_a_word_for_what_the_data_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"group_word: person/people names the groups .* give group_from"):
        open_dataset(ph.digits(group_word="people"))
    with pytest.raises(DataError, match="site_word: hospital/hospitals names the sites"):
        open_dataset(ph.digits(site_word="hospital"))
    with pytest.raises(SpecError, match="'<b>' is no noun"):
        ph.digits(group_word="<b>")
