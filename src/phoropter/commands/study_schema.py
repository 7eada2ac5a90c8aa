"""The JSON Schema of study files (draft 2020-12), from which editors complete keys and explain them.

Types, bounds and words are those of the specs, descriptions those of their docstrings. What the schema accepts beyond the specs'
fields, the short forms, stands in `_SHORT_FORMS`. It is looser than phoropter itself where keys depend on each other: whatever
`phoropter plan` accepts is valid, and a key, word or number that no study may have is not.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from phoropter.commands.key_descriptions import describe_fields, describe_spec, nested_specs
from phoropter.core.extensions import REFERENCE, Extension
from phoropter.core.spec import Spec, write_name_as_text
from phoropter.models.spec import BackboneSpec
from phoropter.results.shift.corruption_kinds import KINDS
from phoropter.signals.render import REPRESENTATIONS
from phoropter.study.spec import StudySpec
from phoropter.training.augmentation.spec import BuiltinStep
from phoropter.training.candidates.entry import CandidateEntry
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ROOTS: tuple[type[Spec], ...] = (StudySpec, CandidateEntry, Recipe, BackboneSpec)
_TEXT: dict[str, Any] = {"type": "string"}
_SHARES = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "minItems": 1}


class _SchemaWriter(GenerateJsonSchema):
    """pydantic's generator, which knows neither objects of the user's own nor names that YAML reads as numbers."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def function_plain_schema(self, schema: core_schema.PlainValidatorFunctionSchema) -> dict[str, Any]:
        owner = getattr(schema["function"]["function"], "__self__", None)
        noun = owner.__name__ if isinstance(owner, type) and issubclass(owner, Extension) else "object that holds data"
        return {**_TEXT, "pattern": f"^{REFERENCE.pattern}$", "description": f"module:NAME of a phoropter {noun}"}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> dict[str, Any]:
        if schema["function"]["function"] is write_name_as_text:
            return {"type": ["string", "number"]}
        return super().function_before_schema(schema)


def make_study_schema() -> dict[str, Any]:
    """The JSON Schema of one document of a study file."""
    _, whole = models_json_schema([(root, "validation") for root in _ROOTS], schema_generator=_SchemaWriter)
    parts: dict[str, Any] = whole["$defs"]
    specs = {spec.__name__: spec for root in _ROOTS for spec in nested_specs(root)}
    for name, part in parts.items():
        if name in specs:
            part["description"] = describe_spec(specs[name])
            for key, words in describe_fields(specs[name]).items():
                if key in part.get("properties", {}):
                    part["properties"][key]["description"] = words
        _tidy_properties(part)
    _add_short_forms(parts)
    study = parts.pop("StudySpec")
    return {
        "$schema": DIALECT,
        "title": "A study file of phoropter",
        **{key: value for key, value in study.items() if key != "title"},
        "$defs": dict(sorted(parts.items())),
    }


def format_schema() -> str:
    """The schema as the text of a file."""
    return json.dumps(make_study_schema(), indent=1, ensure_ascii=False) + "\n"


def _tidy_properties(part: dict[str, Any]) -> None:
    """Titles say nothing that a key does not, and a default that is a mapping is said by that part's own keys."""
    part.pop("title", None)
    for value in part.get("properties", {}).values():
        value.pop("title", None)
        if isinstance(value.get("default"), dict):
            del value["default"]


def _refer_to(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _add_short_forms(parts: dict[str, Any]) -> None:
    """Lets a key be written shorter than its spec, as the specs' validators and parsers do."""
    parts["RecipeEntry"] = _recipe_entry(parts)
    parts["BackboneEntry"] = _backbone_entry(parts)
    parts["StepEntry"] = _step_entry()
    recipe = {"anyOf": [{"enum": list(PRESETS)}, _refer_to("RecipeEntry")]}
    backbone = {"anyOf": [_TEXT, _refer_to("BackboneEntry")]}
    backbones = {"type": "array", "items": backbone, "minItems": 1}
    words = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
    forms: dict[tuple[str, str], dict[str, Any]] = {
        ("StudySpec", "candidates"): {
            "type": "array",
            "items": {"anyOf": [_TEXT, _refer_to("CandidateEntry")]},
            "minItems": 1,
        },
        ("StudySpec", "recipe"): recipe,
        ("StudySpec", "metrics"): words,
        ("StudySpec", "protocol"): {"anyOf": [_split_words(parts), _refer_to("ProtocolSpec")]},
        ("StudySpec", "second_protocol"): {"anyOf": [{"type": "boolean"}, _refer_to("ProtocolSpec")]},
        ("StudySpec", "screening"): {"anyOf": [{"type": "boolean"}, _refer_to("ScreeningSpec"), {"type": "null"}]},
        ("StudySpec", "shift"): {"anyOf": [{"type": "boolean"}, _refer_to("ShiftSpec"), {"type": "null"}]},
        ("StudySpec", "controls"): {"anyOf": [_control_words(parts), _refer_to("ControlsSpec"), {"type": "null"}]},
        ("StudySpec", "learning_curve"): {"anyOf": [_SHARES, _refer_to("LearningCurveSpec"), {"type": "null"}]},
        ("ScreeningSpec", "final_recipe"): recipe,
        ("CandidateEntry", "recipe"): recipe,
        ("CandidateEntry", "backbone"): backbone,
        ("CandidateEntry", "teacher"): {"anyOf": [_TEXT, _refer_to("CandidateEntry")]},
        ("CandidateEntry", "fuse"): {"anyOf": [{"enum": ["all-pairs", "all-triples", "all"]}, backbones]},
        ("CandidateEntry", "of"): backbones,
    }
    for (spec, key), form in forms.items():
        old = parts[spec]["properties"][key]
        kept = {word: old[word] for word in ("description", "default") if word in old}
        parts[spec]["properties"][key] = {**kept, **form}
    _add_single_values(parts)
    parts["TuneSpec"] |= {"required": [], "patternProperties": {r"\.": {"type": "array", "minItems": 2}}}  # keys of its grid


def _control_words(parts: dict[str, Any]) -> dict[str, Any]:
    """One control by its name, or a list of them."""
    kinds: dict[str, Any] = parts["ControlsSpec"]["properties"]["kinds"]
    return {"anyOf": [kinds["items"], {"type": "array", "items": kinds["items"], "minItems": 1}]}


def _add_single_values(parts: dict[str, Any]) -> None:
    """One value where a list of them stands: `missing: -9999`, a level of a corruption; `kind` where the source implies it."""
    for spec, key, single in (
        ("DataSpec", "missing", {"type": "number"}),
        ("DataSpec", "representation", {"enum": list(REPRESENTATIONS)}),
        ("DataSpec", "cohort", None),
        ("PlannedQuestions", "secondary", _refer_to("PlannedQuestion")),
        *(("ShiftSpec", kind, {"type": "number"}) for kind in KINDS),
    ):
        properties = parts[spec]["properties"]
        old = properties[key]
        kept = {word: old.pop(word) for word in ("description", "default") if word in old}
        properties[key] = {**kept, "anyOf": [_allow_without_kind(old), *([single] if single else [])]}


def _allow_without_kind(schema: dict[str, Any]) -> dict[str, Any]:
    """A choice by `kind` → the same where `kind` may be left out, because the source implies it."""
    if "anyOf" in schema:
        return {"anyOf": [_allow_without_kind(branch) for branch in schema["anyOf"]]}
    return {"anyOf": schema["oneOf"]} if "oneOf" in schema else schema


def _split_words(parts: dict[str, Any]) -> dict[str, Any]:
    split = parts["ProtocolSpec"]["properties"]["split"]
    return {"anyOf": split["anyOf"]}


def _recipe_entry(parts: dict[str, Any]) -> dict[str, Any]:
    """A mapping that changes a preset: every key of a recipe, none required, and the two short forms."""
    recipe = parts.pop("Recipe")
    properties = dict(recipe["properties"])
    for key, spec in (("optimizer", "OptimizerSpec"), ("schedule", "ScheduleSpec"), ("loss", "LossSpec")):
        kind = {k: v for k, v in parts[spec]["properties"]["kind"].items() if k not in ("default", "description")}
        properties[key] = {"description": properties[key]["description"], "anyOf": [kind, _refer_to(spec)]}
    step = _refer_to("StepEntry")
    properties["augment"] = {
        "description": properties["augment"]["description"],
        "anyOf": [step, {"const": "none"}, {"type": "array", "items": {"anyOf": [step, {"const": "none"}]}}, {"type": "null"}],
    }
    properties |= {
        "preset": {"enum": list(PRESETS), "description": "the preset that the other keys change"},
        "epochs": {"type": "integer", "minimum": 1, "description": "epochs of all phases, which keep their proportions"},
        "lr": {"type": "number", "exclusiveMinimum": 0, "description": "peak rate of the last phase; earlier ones scale with it"},
    }
    return {"type": "object", "description": recipe["description"], "properties": properties, "additionalProperties": False}


def _backbone_entry(parts: dict[str, Any]) -> dict[str, Any]:
    """A backbone as a mapping; `backbone:` is its name too, as in a candidate of its own."""
    spec = parts.pop("BackboneSpec")
    properties = {key: value for key, value in spec["properties"].items() if key != "custom"}
    properties["backbone"] = {**_TEXT, "description": "the same as name"}
    return {"type": "object", "description": spec["description"], "properties": properties, "additionalProperties": False}


def _step_entry() -> dict[str, Any]:
    """An augmentation step: its name, a mapping of its name to its options, or module:NAME."""
    named = {}
    for spec in get_args(BuiltinStep):
        kind = spec.model_fields["kind"].default
        words = describe_fields(spec)
        schema = spec.model_json_schema(schema_generator=_SchemaWriter)
        properties = {key: value for key, value in schema.get("properties", {}).items() if key != "kind"}
        for key, value in properties.items():
            value.pop("title", None)
            value |= {"description": words[key]} if key in words else {}
        options = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
        named[kind] = {**options, "description": describe_spec(spec)}
    reference = {**_TEXT, "pattern": f"^{REFERENCE.pattern}$"}
    mapping = {"type": "object", "properties": named, "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [{"enum": list(named)}, mapping, reference]}
