"""The fields of `data:` about recordings: contradictions are refused, valid fields survive plain data."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.signals.simulate import EcgCohort


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            {"eegmat": "x", "clean": {}},
            "'clean' belongs to ctu, monitor_csv, recordings or simulate and does nothing for 'eegmat'",
        ),
        ({"ctu": "x", "window": {"step_s": 1}}, "'window' belongs to .* and does nothing for 'ctu'"),
        ({"folder": "x", "window": {"step_s": 1}}, "'window' belongs to .* and does nothing for 'folder'"),
        (
            {"simulate": "ctg", "task": "2-class"},
            "'task' belongs to wesad, mitdb, ptbxl, ptbxl_500hz or simulate: ecg .* 'simulate: ctg'",
        ),
        ({"simulate": "ecg", "outcome": "pH<7"}, "'outcome' belongs to cardiotocograms and does nothing for 'simulate: ecg'"),
        ({"ctu": "x", "representation": "trace"}, "'representation: trace' does not fit 'ctu': expected ctg"),
        ({"wesad": "x", "representation": {"kind": "ctg"}}, "'representation: ctg' does not fit 'wesad': expected spectrogram"),
        ({"wesad": "x", "representation": {"stile": "dense"}}, r"unknown key 'stile' in representation.*did you mean 'style'\?"),
        ({"wesad": "x", "representation": "spectogram"}, r"kind is 'spectogram'.*did you mean 'spectrogram'\?"),
        ({"wesad": "x", "task": "4-class"}, "task is '4-class', expected 3-class or 2-class for 'wesad'"),
        ({"wesad": "x", "window": {"step_s": 1, "gap_s": 2}}, "'step_s' .* and 'gap_s' .* contradict each other"),
        ({"mitdb": "x", "window": {"step_s": 1}}, "'mitdb' has one window around each event: keep 'length_s' alone"),
        ({"recordings": "x", "clean": {}, "window": {"step_s": 1}}, "'clean' is about cardiotocograms and 'window' about one"),
        ({"ctu": "x", "clean": {"filter": {"cutoff": 3}}}, "unknown key 'cutoff' in clean.filter"),
        ({"ctu": "x", "outcome": "ph=7"}, "label rule 'ph=7': expected a name, a comparison and a number"),
        ({"simulate": "eeg"}, r"simulate is 'eeg'.*did you mean 'ecg'\?"),
        ({"simulate": "ecg", "cohort": {"subjcts": 3}}, r"unknown key 'subjcts' in cohort.*did you mean 'subjects'\?"),
        ({"wesad": "x", "ctu": "y"}, "'wesad' and 'ctu' both name a source"),
        ({"wesad": " "}, "wesad: the path is empty"),
    ],
)
def test_options_that_do_not_belong_are_refused_naming_both(data: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate_as(DataSpec, data)


@pytest.mark.parametrize(
    "data",
    [
        {
            "simulate": "ctg",
            "cohort": {"records": 3},
            "clean": {"filter": {"uc_factor": 10}},
            "representation": {"uc_axis": [0, 120]},
        },
        {"wesad": "x", "representation": "trace", "window": {"gap_s": 2}, "grey_scale": "per-subject"},
    ],
)
def test_fields_go_through_plain_data_and_back(data: dict[str, Any]) -> None:
    spec = validate_as(DataSpec, data)
    assert DataSpec.model_validate(spec.plain()) == spec
    assert DataSpec.model_validate(spec.model_dump(exclude_unset=True)) == spec


def test_images_have_the_stored_size_unless_the_representation_has_its_own(people_cohort: EcgCohort) -> None:
    data = {"simulate": "ecg", "cohort": people_cohort.plain(), "size": 48}
    assert open_dataset(validate_as(DataSpec, data)).read(0).shape == (48, 48, 3)
    assert open_dataset(validate_as(DataSpec, {**data, "representation": {"size": 64}})).read(0).shape == (64, 64, 3)
