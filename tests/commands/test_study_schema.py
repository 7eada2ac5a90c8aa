"""The JSON Schema of study files: valid, described, as wide as the parser where that accepts, and narrower than anything."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from phoropter.commands.study_schema import make_study_schema
from phoropter.core.spec import load_yaml, parse_yaml
from phoropter.study.spec import StudySpec, list_shipped_studies

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {"name": "tiny", "data": {"digits": True}, "candidates": ["test_resnet"]}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return make_study_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Any:
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="schemathesis, which brings this validator, is not installed")
    return jsonschema_rs.validator_for(schema)


def errors_of(validator: Any, study: Any) -> list[str]:
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(study)))]


def test_the_schema_is_valid_by_the_meta_schema(schema: dict[str, Any]) -> None:
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="schemathesis, which brings this validator, is not installed")
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"].endswith("2020-12/schema")


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    parts = {**schema["$defs"], "the study": schema}
    missing = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, value in part.get("properties", {}).items()
        if key != "kind" and not value.get("description")
    ]
    assert missing == [] and sum(len(part.get("properties", {})) for part in parts.values()) > 150
    assert set(schema["properties"]) == set(StudySpec.model_fields)


@pytest.mark.parametrize("name", list_shipped_studies())
def test_a_shipped_study_is_valid(name: str, validator: Any) -> None:
    for data, _ in load_yaml(list_shipped_studies()[name]):
        assert errors_of(validator, data) == []


def test_complete_studies_of_the_documentation_are_valid(validator: Any) -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    blocks = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S)]
    studies = [data for block in blocks if "\ncandidates:" in f"\n{block}" for data, _ in parse_yaml(block, "docs")]
    complete = [study for study in studies if {"name", "data", "candidates"} <= set(study)]
    assert len(complete) >= 2
    for study in complete:
        assert errors_of(validator, study) == [], study


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "k-fold"},
        {"protocol": {"split": "mine:PROTOCOL"}},
        {"recipe": "probe"},
        {
            "recipe": {
                "preset": "finetune",
                "epochs": 3,
                "lr": 0.001,
                "optimizer": "sgd",
                "schedule": {"kind": "step", "gamma": 0.5},
            }
        },
        {"recipe": {"augment": ["hflip", {"random-crop": {"padding": 4}}, {"cutmix": None}, "mine:STEP"]}},
        {"recipe": {"augment": "none"}},
        {"recipe": {"loss": {"kind": "focal", "class_weights": {"a": 2, "b": 1}}}},
        {"candidates": [{"backbone": {"name": "vgg19", "pooling": "average"}}, {"fuse": ["a", {"backbone": "b", "size": 64}]}]},
        {"candidates": [{"fuse": "all-pairs", "of": ["a", "b"]}, {"student": "a", "teacher": "b", "alpha": 0.5}]},
        {"screening": True},
        {"screening": {"keep": 2, "final_recipe": {"epochs": 2}}},
        {"second_protocol": True},
        {"metrics": "accuracy"},
        {"metrics": ["accuracy", "mine:METRIC"]},
        {"sweep": {"recipe.augment": ["none", "cutmix"]}},
        {"tune": {"recipe.lr": [1e-4, 1e-3], "folds": 5}, "learning_curve": [0.1, 1.0]},
        {"tune": {"grid": {"recipe.lr": [1e-4, 1e-3]}}, "learning_curve": {"shares": [0.5], "of": "groups"}},
        {"compare": {"primary": {"contrast": {"candidate": "a", "against": "b"}}}},
        {"data": {"recordings": "a.csv", "missing": -9999, "representation": "trace", "window": {"length_s": 10}}},
        {"data": {"simulate": "ecg", "cohort": {"subjects": 4}, "representation": {}}},
        {"data": {"folder": "a", "classes": [3, "cat"], "positive": {"one_vs_rest": 3}}},
    ],
)
def test_short_forms_are_valid(changes: dict[str, Any], validator: Any) -> None:
    assert errors_of(validator, TINY | changes) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"candidate": []},
        {"name": "a/b"},
        {"candidates": []},
        {"candidates": [{"backbon": "a"}]},
        {"candidates": [{"backbone": {"nam": "a"}}]},
        {"protocol": "k-fol"},
        {"protocol": {"folds": 0}},
        {"protocol": {"fold": 3}},
        {"recipe": "finetun"},
        {"recipe": {"epoch": 3}},
        {"recipe": {"epochs": 0}},
        {"recipe": {"optimizer": "sdg"}},
        {"recipe": {"optimizer": {"kind": "sgd", "momentun": 0.9}}},
        {"recipe": {"augment": ["hflop"]}},
        {"recipe": {"augment": [{"cutmix": {"beta": 1}}]}},
        {"data": {"digits": True, "size": "large"}},
        {"data": {"digits": True, "sise": 32}},
        {"leakage": "ignore"},
        {"screening": {"keep": 0}},
        {"tune": {"recipe.lr": [1e-4]}},
        {"learning_curve": [0, 2]},
    ],
)
def test_what_no_study_may_have_is_not_valid(changes: dict[str, Any], validator: Any) -> None:
    assert errors_of(validator, TINY | changes)


def test_without_a_required_key_it_is_not_valid(validator: Any) -> None:
    assert errors_of(validator, TINY) == []
    for key in TINY:
        study = copy.deepcopy(TINY)
        del study[key]
        assert errors_of(validator, study)
