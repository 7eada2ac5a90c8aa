"""Which extensions a study uses, and whether their code is the code that earlier runs in the folder were computed with.

Run keys know an extension by name and version alone. Where its code has changed under the same version, finished runs would
stand for something they were not computed with, so the study is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from phoropter.core.errors import SpecError
from phoropter.core.extensions import Extension, collect_extensions
from phoropter.study.load import LoadedVariant
from phoropter.study.spec import StudySpec


def describe_extensions(
    study: StudySpec, variants: Iterable[LoadedVariant], earlier: Iterable[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The extensions of a study as study.json records them, and the `earlier` records of those it no longer uses.

    Each has its kind, name, version and digest of its source, and the `module:NAME` of one that a study file names.
    Raises SpecError for an extension whose code or weights have changed under the same version.
    """
    known = {(e["kind"], e["name"], e["version"]): dict(e) for e in earlier}
    for extension in collect_extensions([study, *([v.image_set.data, v.candidates] for v in variants)]):
        name, source = (extension.noun, extension.name, extension.version), extension.source_digest()
        before = known.get(name, {"source_digest": source})
        known[name] = {"kind": extension.noun, **extension.identity(), "source_digest": source}
        if reference := extension.reference or before.get("reference"):
            known[name]["reference"] = reference
        if before["source_digest"] != source:
            raise SpecError(
                f"the {extension.noun} '{extension.name}' (version {extension.version}) has changed since this results folder "
                "was begun; give it a new version, or use another folder"
            )
    return [known[name] for name in sorted(known)]


def replace_extensions(value: Any) -> Any:
    """The same plain data with every extension replaced by its identity, for study.json."""
    if isinstance(value, Extension):
        return value.identity()
    if isinstance(value, dict):
        return {key: replace_extensions(item) for key, item in value.items()}
    if isinstance(value, BaseModel):  # its typed fields write extensions themselves; those that hold anything do not
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return value.model_copy(
            update={name: replace_extensions(item) for name, item in fields.items() if isinstance(item, (dict, list, tuple))}
        )
    return type(value)(map(replace_extensions, value)) if type(value) in (list, tuple) else value
