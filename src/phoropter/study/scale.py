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
from phoropter.study.spec import Question
from phoropter.training.candidate import Candidate
from phoropter.training.presets import recipe_of
from phoropter.training.recipe import Recipe

ROWS = 600
SIDE = 64
EPOCHS = 2
TEACHER_EPOCHS = 12
STUDENT_EPOCHS = 6  # what is taught, and the same untaught: enough for a trend and where the two cross
FOLDS = 2
SWEPT = 2  # values kept of each sweep: the first and the last

# Family, by the beginning of its name → its small sibling and the side it is shown.
SIBLINGS: tuple[tuple[str, str, int], ...] = (
    ("alexnet_2012", "alexnet_2012", SIDE),
    ("alexnet", "alexnet", SIDE),
    ("vgg", "vgg11", 32),
    ("resnet", "test_resnet", SIDE),
    ("regnet", "regnetx_002", SIDE),
    ("efficientnet", "test_efficientnet", SIDE),
    ("convnext", "test_convnext", SIDE),
    ("coatnet", "coatnet_pico_rw_224", SIDE),
    ("poolformer", "poolformerv2_s12", SIDE),
    ("swin", "swin_tiny_patch4_window7_224", SIDE),
    ("deit_base_distilled", "deit_tiny_distilled_patch16_224", SIDE),
    ("deit", "deit_tiny_patch16_224", SIDE),
    ("vit", "test_vit", SIDE),
    ("mobilenet", "mobilenetv3_small_050", SIDE),
)


def small(question: Question) -> Question:
    """A question → the same question, small; `scaled` says in sentences what was changed."""
    said: dict[str, None] = {}
    study = question.study
    side = min(study.data.size or SIDE, SIDE)
    taught = [c.backbones for c in question.candidates if c.teaching]
    teachers = {c.teaching.teacher for c in question.candidates if c.teaching}
    made = []
    for c in question.candidates:
        epochs = None if c.name in teachers else STUDENT_EPOCHS if c.backbones in taught else EPOCHS
        each = _candidate(c, side, epochs, question.base, said)
        made.append(_learned(each, said) if c.name in teachers else each)
    candidates = _different(made, said)
    changes: dict[str, Any] = {
        "data": _data(study.data.model_dump(exclude_unset=True), said),
        "protocol": _protocol(study.protocol.model_dump(exclude_unset=True), said),
        "sweep": {path: _few(path, values, said) for path, values in study.sweep.items()},
        "candidates": candidates,
        "recipe": question.recipe,
    }
    if study.strategy is not None:
        then = _recipe(recipe_of(study.strategy.then, question.recipe), side, said, EPOCHS)
        changes["strategy"] = study.strategy.with_(then=then)
    fields = {name: getattr(study, name) for name in type(study).model_fields if name not in changes}
    return Question(
        type(study)(**fields, **changes), question.source, question.base, question.text, tuple(said), question.compared
    )


def _different(candidates: list[Candidate], said: dict[str, None]) -> list[Candidate]:
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
    return [_renamed(c, now) for c in candidates if now[c.name] == c.name]


def _renamed(candidate: Candidate, now: dict[str, str]) -> Candidate:
    teaching = candidate.teaching and candidate.teaching.with_(teacher=now[candidate.teaching.teacher])
    return candidate.model_copy(update={"teaching": teaching, "members": tuple(now[m] for m in candidate.members)})


def _data(data: dict[str, Any], said: dict[str, None]) -> dict[str, Any]:
    if data.get("rows") is None or data["rows"] > ROWS:
        said[f"at most {ROWS} rows, classes in proportion, were used"] = None
        data = {**data, "rows": ROWS}
    if data.get("size") and data["size"] > SIDE:
        said[f"pictures were stored at {SIDE} pixels instead of {data['size']}"] = None
    return {**data, "size": min(data.get("size") or SIDE, SIDE)}


def _protocol(protocol: dict[str, Any], said: dict[str, None]) -> dict[str, Any]:
    seeds = tuple(protocol.get("seeds", (0,)))
    if len(seeds) > 1:
        said[f"1 seed instead of {len(seeds)}"] = None
    if protocol.get("repeats", 1) > 1:
        said[f"1 repeat instead of {protocol['repeats']}"] = None
    folds: dict[str, Any] = {}
    if protocol.get("split") == "leave-one-group-out":
        said[f"groups were held out in {FOLDS} folds instead of one at a time"] = None
        folds = {"split": "stratified-group-k-fold", "folds": FOLDS}
    in_folds = protocol.get("split", "stratified-k-fold").endswith("k-fold") or "folds" in protocol
    if in_folds and protocol.get("folds", 5) > FOLDS:
        said[f"{FOLDS} folds instead of {protocol.get('folds', 5)}"] = None
        folds |= {"folds": FOLDS}
    return {**protocol, "seeds": seeds[:1], **({"repeats": 1} if "repeats" in protocol else {}), **folds}


def _few(path: str, values: list[Any], said: dict[str, None]) -> list[Any]:
    if len(values) <= SWEPT:
        return values
    said[f"the sweep over {path} kept {SWEPT} of {len(values)} values"] = None
    return [values[0], values[-1]]


def _candidate(candidate: Candidate, side: int, epochs: int | None, base: Path | None, said: dict[str, None]) -> Candidate:
    """Small, with at most so many epochs a phase; None: as many as it has."""
    backbones = tuple(_sibling(b, base, said) for b in candidate.backbones)
    recipe = _recipe(candidate.recipe, side, said, epochs)
    head = candidate.head
    if head.kind == "own" and any(b.weights == "random" for b in backbones):
        said["a random head of the dataset's classes stands where a pretrained one was used as it is"] = None
        head = head.with_(kind="linear")
    return candidate.model_copy(update={"backbones": backbones, "recipe": recipe, "head": head})


def _learned(teacher: Candidate, said: dict[str, None]) -> Candidate:
    """A teacher that has something to teach: one near chance is refused."""
    said[f"teachers were trained for {TEACHER_EPOCHS} epochs at 1e-3"] = None
    phase = {"train": "head" if teacher.frozen else "all", "epochs": TEACHER_EPOCHS, "lr": 1e-3}
    return teacher.model_copy(update={"recipe": teacher.recipe.with_(phases=[phase], optimizer="adamw")})


def _sibling(backbone: BackboneSpec, base: Path | None, said: dict[str, None]) -> BackboneSpec:
    stem = backbone.name.split(".")[0].removeprefix("tf_")
    if backbone.weights not in ("pretrained", "random"):
        side = catalog.side(backbone, base)
        if side > SIDE:
            said[f"{stem} with its own weights was shown {SIDE} pixels instead of {side}"] = None
        return backbone.with_(size=min(side, SIDE))
    if stem.startswith("test_"):  # timm's own small networks stand for themselves
        return backbone.with_(size=min(backbone.size or SIDE, SIDE))
    found = next(((name, side) for start, name, side in SIBLINGS if stem.startswith(start)), ("test_resnet", SIDE))
    options = {"stem": backbone.options["stem"]} if "stem" in backbone.options else {}
    if options:  # of the small ResNets only this one has a first layer to be exchanged
        found = ("resnet18", 32)
    shown = min(found[1], backbone.size or found[1])
    pool = "average" if found[0] == "vgg11" else backbone.pool  # without its dense layers, nine tenths of its parameters
    if backbone.weights == "pretrained":
        said["backbones began from random weights instead of pretrained ones"] = None
    said[f"{found[0]} at {shown} pixels stood in for {backbone.name}"] = None
    return BackboneSpec(name=found[0], weights="random", size=shown, pool=pool, options=options, seed=backbone.seed)


def _recipe(recipe: Recipe, side: int, said: dict[str, None], epochs: int | None) -> Recipe:
    changes: dict[str, Any] = {"batch": min(recipe.batch, 32)}
    if recipe.crop:
        changes["crop"] = side * 7 // 8
        if changes["crop"] != recipe.crop:
            said[f"crops are {changes['crop']} of {side} pixels instead of {recipe.crop}"] = None
    if epochs is not None and any(p.epochs > epochs for p in recipe.phases):
        who = "at most" if epochs == EPOCHS else "students, and the same networks without a teacher: at most"
        said[f"{who} {epochs} epochs a phase"] = None
        changes["phases"] = [p.with_(epochs=min(p.epochs, epochs)).model_dump() for p in recipe.phases]
    if recipe.precision in ("fp16", "bf16"):
        said[f"float32 instead of {recipe.precision}, which a processor computes far more slowly"] = None
        changes["precision"] = "float32"
    if recipe.augment and recipe.crop:
        changes["augment"] = [_smaller_crop(s.model_dump(), changes["crop"]) for s in recipe.augment]
    return recipe.with_(**changes)


def _smaller_crop(step: dict[str, Any], side: int) -> dict[str, Any]:
    return {**step, "size": side} if step.get("size") else step
