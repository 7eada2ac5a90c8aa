"""`--scale small`: any study → one that ends within about ten minutes on two cores, and the list of what was changed.

Fewer rows, a small sibling of each family at lower resolution, fewer epochs; the same code and the same protocol. What it finds
says nothing about the full study; that it runs, from data to report, is what it shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phoropter.core.files import digest
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import Recipe

MAX_ROWS = 600
IMAGE_SIZE = 64
MAX_EPOCHS = 2
TEACHER_EPOCHS = 12
STUDENT_EPOCHS = 6  # what is taught, and the same untaught: enough for a trend and where the two cross
MAX_FOLDS = 2
MAX_SWEEP_VALUES = 2  # values kept of each sweep: the first and the last

# Family, by the beginning of its name → its small sibling and the side it is shown.
SIBLINGS: tuple[tuple[str, str, int], ...] = (
    ("alexnet_2012", "alexnet_2012", IMAGE_SIZE),
    ("alexnet", "alexnet", IMAGE_SIZE),
    ("vgg", "vgg11", 32),
    ("resnet", "test_resnet", IMAGE_SIZE),
    ("regnet", "regnetx_002", IMAGE_SIZE),
    ("efficientnet", "test_efficientnet", IMAGE_SIZE),
    ("convnext", "test_convnext", IMAGE_SIZE),
    ("coatnet", "coatnet_pico_rw_224", IMAGE_SIZE),
    ("poolformer", "poolformerv2_s12", IMAGE_SIZE),
    ("swin", "swin_tiny_patch4_window7_224", IMAGE_SIZE),
    ("deit_base_distilled", "deit_tiny_distilled_patch16_224", IMAGE_SIZE),
    ("deit", "deit_tiny_patch16_224", IMAGE_SIZE),
    ("vit", "test_vit", IMAGE_SIZE),
    ("mobilenet", "mobilenetv3_small_050", IMAGE_SIZE),
)


def make_smoke_version(study: StudySpec) -> StudySpec:
    """A study → the same study, small; `scaled` says in sentences what was changed."""
    said: dict[str, None] = {}
    study = study
    side = min(study.data.size or IMAGE_SIZE, IMAGE_SIZE)
    taught = [c.backbones for c in study.parsed_candidates if c.teaching]
    teachers = {c.teaching.teacher for c in study.parsed_candidates if c.teaching}
    made = []
    for c in study.parsed_candidates:
        epochs = None if c.name in teachers else STUDENT_EPOCHS if c.backbones in taught else MAX_EPOCHS
        each = _shrink_candidate(c, side, epochs, study.base, said)
        made.append(_strengthen_teacher(each, said) if c.name in teachers else each)
    candidates = _drop_identical(made, said)
    changes: dict[str, Any] = {
        "data": _shrink_data(study.data.model_dump(exclude_unset=True), said),
        "protocol": _shrink_protocol(study.protocol.model_dump(exclude_unset=True), said),
        "sweep": {path: _shorten_sweep(path, values, said) for path, values in study.sweep.items()},
        "candidates": candidates,
        "recipe": study.parsed_recipe,
    }
    if study.screening is not None:
        then = _shrink_recipe(parse_recipe(study.screening.final_recipe, study.parsed_recipe), side, said, MAX_EPOCHS)
        changes["strategy"] = study.screening.with_changes(then=then)
    fields = {name: getattr(study, name) for name in type(study).model_fields if name not in changes}
    return StudySpec(
        type(study)(**fields, **changes), study.source, study.base, study.context.text, tuple(said), study.context.compared_study
    )


def _drop_identical(candidates: list[Candidate], said: dict[str, None]) -> list[Candidate]:
    """Two candidates that differ in their weights alone are one small network; the first of them stays."""
    now = {c.name: c.name for c in candidates}  # what each is called in what is kept
    while True:  # students of two teachers that have become one may have become one too
        kept: dict[str, str] = {}
        before = dict(now)
        for c in candidates:
            made = digest([c.identity(), [b.weights for b in c.backbones], [before[n] for n in c.needs]])
            now[c.name] = kept.setdefault(made, c.name)
        if now == before:
            break
    for name, first in now.items():
        if name != first:
            said[f"'{name}' is left out: at this scale it is '{first}'"] = None
    return [_rename_references(c, now) for c in candidates if now[c.name] == c.name]


def _rename_references(candidate: Candidate, now: dict[str, str]) -> Candidate:
    teaching = candidate.teaching and candidate.teaching.with_changes(teacher=now[candidate.teaching.teacher])
    return candidate.model_copy(update={"teaching": teaching, "members": tuple(now[m] for m in candidate.members)})


def _shrink_data(data: dict[str, Any], said: dict[str, None]) -> dict[str, Any]:
    if data.get("max_samples") is None or data["max_samples"] > MAX_ROWS:
        said[f"at most {MAX_ROWS} rows, classes in proportion, were used"] = None
        data = {**data, "max_samples": MAX_ROWS}
    if data.get("size") and data["size"] > IMAGE_SIZE:
        said[f"pictures were stored at {IMAGE_SIZE} pixels instead of {data['size']}"] = None
    return {**data, "size": min(data.get("size") or IMAGE_SIZE, IMAGE_SIZE)}


def _shrink_protocol(protocol: dict[str, Any], said: dict[str, None]) -> dict[str, Any]:
    seeds = tuple(protocol.get("seeds", (0,)))
    if len(seeds) > 1:
        said[f"1 seed instead of {len(seeds)}"] = None
    if protocol.get("repeats", 1) > 1:
        said[f"1 repeat instead of {protocol['repeats']}"] = None
    folds: dict[str, Any] = {}
    if protocol.get("split") == "leave-one-group-out":
        said[f"groups were held out in {MAX_FOLDS} folds instead of one at a time"] = None
        folds = {"split": "stratified-group-k-fold", "folds": MAX_FOLDS}
    in_folds = protocol.get("split", "stratified-k-fold").endswith("k-fold") or "folds" in protocol
    if in_folds and protocol.get("folds", 5) > MAX_FOLDS:
        said[f"{MAX_FOLDS} folds instead of {protocol.get('folds', 5)}"] = None
        folds |= {"folds": MAX_FOLDS}
    return {**protocol, "seeds": seeds[:1], **({"repeats": 1} if "repeats" in protocol else {}), **folds}


def _shorten_sweep(path: str, values: list[Any], said: dict[str, None]) -> list[Any]:
    if len(values) <= MAX_SWEEP_VALUES:
        return values
    said[f"the sweep over {path} kept {MAX_SWEEP_VALUES} of {len(values)} values"] = None
    return [values[0], values[-1]]


def _shrink_candidate(candidate: Candidate, side: int, epochs: int | None, base: Path | None, said: dict[str, None]) -> Candidate:
    """Small, with at most so many epochs a phase; None: as many as it has."""
    backbones = tuple(_replace_backbone(b, base, said) for b in candidate.backbones)
    recipe = _shrink_recipe(candidate.recipe, side, said, epochs)
    head = candidate.head
    if head.kind == "pretrained" and any(b.weights == "random" for b in backbones):
        said["a random head of the dataset's classes stands where a pretrained one was used as it is"] = None
        head = head.with_changes(kind="linear")
    return candidate.model_copy(update={"backbones": backbones, "recipe": recipe, "head": head})


def _strengthen_teacher(teacher: Candidate, said: dict[str, None]) -> Candidate:
    """A teacher that has something to teach: one near chance is refused."""
    said[f"teachers were trained for {TEACHER_EPOCHS} epochs at 1e-3"] = None
    phase = {"train": "head" if teacher.frozen else "all", "epochs": TEACHER_EPOCHS, "lr": 1e-3}
    return teacher.model_copy(update={"recipe": teacher.recipe.with_changes(phases=[phase], optimizer="adamw")})


def _replace_backbone(backbone: BackboneSpec, base: Path | None, said: dict[str, None]) -> BackboneSpec:
    stem = backbone.name.split(".")[0].removeprefix("tf_")
    if backbone.weights not in ("pretrained", "random"):
        side = catalog.resolve_side(backbone, base)
        if side > IMAGE_SIZE:
            said[f"{stem} with its own weights was shown {IMAGE_SIZE} pixels instead of {side}"] = None
        return backbone.with_changes(size=min(side, IMAGE_SIZE))
    if stem.startswith("test_"):  # timm's own small networks stand for themselves
        return backbone.with_changes(size=min(backbone.size or IMAGE_SIZE, IMAGE_SIZE))
    found = next(((name, side) for start, name, side in SIBLINGS if stem.startswith(start)), ("test_resnet", IMAGE_SIZE))
    options = {"stem": backbone.options["stem"]} if "stem" in backbone.options else {}
    if options:  # of the small ResNets only this one has a first layer to be exchanged
        found = ("resnet18", 32)
    shown = min(found[1], backbone.size or found[1])
    pool = "average" if found[0] == "vgg11" else backbone.pool  # without its dense layers, nine tenths of its parameters
    if backbone.weights == "pretrained":
        said["backbones began from random weights instead of pretrained ones"] = None
    said[f"{found[0]} at {shown} pixels stood in for {backbone.name}"] = None
    return BackboneSpec(name=found[0], weights="random", size=shown, pool=pool, options=options, seed=backbone.seed)


def _shrink_recipe(recipe: Recipe, side: int, said: dict[str, None], epochs: int | None) -> Recipe:
    changes: dict[str, Any] = {"batch": min(recipe.batch_size, 32)}
    if recipe.crop:
        changes["crop"] = side * 7 // 8
        if changes["crop"] != recipe.crop:
            said[f"crops are {changes['crop']} of {side} pixels instead of {recipe.crop}"] = None
    if epochs is not None and any(p.epochs > epochs for p in recipe.phases):
        who = "at most" if epochs == MAX_EPOCHS else "students, and the same networks without a teacher: at most"
        said[f"{who} {epochs} epochs a phase"] = None
        changes["phases"] = [p.with_changes(epochs=min(p.epochs, epochs)).model_dump() for p in recipe.phases]
    if recipe.precision in ("fp16", "bf16"):
        said[f"float32 instead of {recipe.precision}, which a processor computes far more slowly"] = None
        changes["precision"] = "float32"
    if recipe.augment and recipe.crop:
        changes["augment"] = [_shrink_crop(s.model_dump(), changes["crop"]) for s in recipe.augment]
    return recipe.with_changes(**changes)


def _shrink_crop(step: dict[str, Any], side: int) -> dict[str, Any]:
    return {**step, "size": side} if step.get("size") else step
