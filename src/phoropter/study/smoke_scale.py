"""`--smoke`: turns any study into a smoke test of about ten minutes on two cores, and lists what was changed.

Fewer rows, a small sibling of each family at lower resolution, fewer epochs; the same code and the same protocol. Its results say
nothing about the full study; it shows that the study runs, from data to report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phoropter.core.errors import SpecError
from phoropter.core.files import digest
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.study.settings.side_specs import LearningCurveSpec, TuneSpec
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import Recipe

MAX_ROWS = 600
IMAGE_SIZE = 64
MAX_EPOCHS = 2
TEACHER_EPOCHS = 12
STUDENT_EPOCHS = 6  # students and the same networks without a teacher: enough to see a trend and where the curves cross
MAX_FOLDS = 2
MAX_SWEEP_VALUES = 2  # values kept of each sweep: the first and the last

# Prefix of a family's names → its small sibling, and the side in pixels of its input.
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
    """A study → the same study at smoke-test scale; its context lists what was changed, in sentences."""
    notes: dict[str, None] = {}
    size = min(study.data.size or IMAGE_SIZE, IMAGE_SIZE)
    original = _leave_out_files(study, notes)
    student_backbones = [c.backbones for c in original if c.distillation]
    teachers = {c.distillation.teacher for c in original if c.distillation}
    shrunk = []
    for c in original:
        epochs = None if c.name in teachers else STUDENT_EPOCHS if c.backbones in student_backbones else MAX_EPOCHS
        small = _shrink_candidate(c, size, epochs, study.base, notes)
        shrunk.append(_strengthen_teacher(small, notes) if c.name in teachers else small)
    candidates = _drop_identical(shrunk, notes)
    changes: dict[str, Any] = {
        "data": _shrink_data(study.data.model_dump(exclude_unset=True), notes),
        "protocol": _shrink_protocol(study.protocol.model_dump(exclude_unset=True), notes),
        "sweep": {path: _shorten_sweep(path, values, notes) for path, values in study.sweep.items()},
        "tune": _shrink_tuning(study, {c.name for c in candidates}, notes),
        "learning_curve": _shrink_learning_curve(study, notes),
        "candidates": candidates,
        "recipe": study.parsed_recipe,
    }
    if study.screening is not None:
        final_recipe = parse_recipe(study.screening.final_recipe, study.parsed_recipe)
        shrunk_recipe = _shrink_recipe(final_recipe, size, notes, MAX_EPOCHS)
        changes["screening"] = study.screening.with_changes(final_recipe=shrunk_recipe)
    fields = {name: getattr(study, name) for name in type(study).model_fields if name not in changes}
    context = {name: getattr(study.context, name) for name in ("source", "base", "text", "compared_study")}
    return StudySpec(**fields, **changes).with_context(**context, smoke_changes=tuple(notes))


def _leave_out_files(study: StudySpec, notes: dict[str, None]) -> list[Candidate]:
    """The candidates that are not read from files, which are of all rows and folds. Raises SpecError where none is left."""
    kept = []
    for candidate in study.parsed_candidates:
        if candidate.table is not None and candidate.table.file is not None:
            notes[f"'{candidate.name}' is left out: its file is of all rows"] = None
        else:
            kept.append(candidate)
    if not kept:
        raise SpecError(
            f"{study.source.name}: every candidate is read from a file, and a smoke version has fewer rows; run it in full"
        )
    return kept


def _drop_identical(candidates: list[Candidate], notes: dict[str, None]) -> list[Candidate]:
    """Keeps the first of candidates that are equal at this scale, as those that differed in pretrained weights alone."""
    now = {c.name: c.name for c in candidates}  # name → name of the candidate kept in its place
    while True:  # students of two teachers that have become equal may have become equal too
        kept: dict[str, str] = {}
        before = dict(now)
        for c in candidates:
            identity = digest([c.identity(), [b.weights for b in c.backbones], [before[n] for n in c.needs]])
            now[c.name] = kept.setdefault(identity, c.name)
        if now == before:
            break
    for name, first in now.items():
        if name != first:
            notes[f"'{name}' is left out: at this scale it is '{first}'"] = None
    return [_rename_references(c, now) for c in candidates if now[c.name] == c.name]


def _rename_references(candidate: Candidate, now: dict[str, str]) -> Candidate:
    distillation = candidate.distillation and candidate.distillation.with_changes(teacher=now[candidate.distillation.teacher])
    return candidate.model_copy(update={"distillation": distillation, "members": tuple(now[m] for m in candidate.members)})


def _shrink_data(data: dict[str, Any], notes: dict[str, None]) -> dict[str, Any]:
    if data.get("max_samples") is None or data["max_samples"] > MAX_ROWS:
        notes[f"at most {MAX_ROWS} rows, classes in proportion, were used"] = None
        data = {**data, "max_samples": MAX_ROWS}
    if data.get("size") and data["size"] > IMAGE_SIZE:
        notes[f"images were stored at {IMAGE_SIZE} pixels instead of {data['size']}"] = None
    return {**data, "size": min(data.get("size") or IMAGE_SIZE, IMAGE_SIZE)}


def _shrink_protocol(protocol: dict[str, Any], notes: dict[str, None]) -> dict[str, Any]:
    seeds = tuple(protocol.get("seeds", (0,)))
    if len(seeds) > 1:
        notes[f"1 seed instead of {len(seeds)}"] = None
    if protocol.get("repeats", 1) > 1:
        notes[f"1 repeat instead of {protocol['repeats']}"] = None
    folds: dict[str, Any] = {}
    if protocol.get("split") == "leave-one-group-out":
        notes[f"groups were held out in {MAX_FOLDS} folds instead of one at a time"] = None
        folds = {"split": "stratified-group-k-fold", "folds": MAX_FOLDS}
    if protocol.get("split") == "file":  # its ids are those of the complete dataset
        notes[f"{MAX_FOLDS} stratified folds were drawn instead of those of the folds file"] = None
        folds = {"split": "stratified-k-fold", "folds": MAX_FOLDS}
        protocol = {key: value for key, value in protocol.items() if key != "folds_file"}
    in_folds = str(protocol.get("split", "stratified-k-fold")).endswith("k-fold") or "folds" in protocol
    if in_folds and protocol.get("folds", 5) > MAX_FOLDS:
        notes[f"{MAX_FOLDS} folds instead of {protocol.get('folds', 5)}"] = None
        folds |= {"folds": MAX_FOLDS}
    return {**protocol, "seeds": seeds[:1], **({"repeats": 1} if "repeats" in protocol else {}), **folds}


def _shorten_sweep(path: str, values: list[Any], notes: dict[str, None]) -> list[Any]:
    if len(values) <= MAX_SWEEP_VALUES:
        return values
    notes[f"the sweep over {path} kept {MAX_SWEEP_VALUES} of {len(values)} values"] = None
    return [values[0], values[-1]]


def _shrink_tuning(study: StudySpec, names: set[str], notes: dict[str, None]) -> TuneSpec | None:
    """With two values of each key on two inner folds; None where no candidate is left that it names."""
    if study.tune is None or (study.tune.candidates and not names.intersection(study.tune.candidates)):
        return None
    notes["tuned values: the first and the last of each key, on 2 inner folds"] = None
    grid = {path: [values[0], values[-1]] for path, values in study.tune.grid.items()}
    return study.tune.with_changes(grid=grid, folds=2, candidates=[name for name in study.tune.candidates if name in names])


def _shrink_learning_curve(study: StudySpec, notes: dict[str, None]) -> LearningCurveSpec | None:
    if study.learning_curve is None:
        return None
    largest = study.learning_curve.shares[-1]
    if len(study.learning_curve.shares) > 1:
        notes[f"the learning curve kept the share {largest:g} of {len(study.learning_curve.shares)}"] = None
    return study.learning_curve.with_changes(shares=[largest])


def _shrink_candidate(
    candidate: Candidate, side: int, epochs: int | None, base: Path | None, notes: dict[str, None]
) -> Candidate:
    """A small version with at most `epochs` epochs a phase; None keeps their number."""
    backbones = tuple(_replace_backbone(b, base, notes) for b in candidate.backbones)
    recipe = _shrink_recipe(candidate.recipe, side, notes, epochs)
    head = candidate.head
    if head.kind == "pretrained" and any(b.depends_on_seed for b in backbones):
        notes["a random head for the dataset's classes replaced the pretrained head"] = None
        head = head.with_changes(kind="linear")
    return candidate.model_copy(update={"backbones": backbones, "recipe": recipe, "head": head})


def _strengthen_teacher(teacher: Candidate, notes: dict[str, None]) -> Candidate:
    """A teacher trained well enough to teach: one near chance accuracy is refused."""
    notes[f"teachers were trained for {TEACHER_EPOCHS} epochs at 1e-3"] = None
    phase = {"train": "head" if teacher.frozen else "all", "epochs": TEACHER_EPOCHS, "lr": 1e-3}
    return teacher.model_copy(update={"recipe": teacher.recipe.with_changes(phases=[phase], optimizer="adamw")})


def _replace_backbone(backbone: BackboneSpec, base: Path | None, notes: dict[str, None]) -> BackboneSpec:
    stem = backbone.name.split(".")[0].removeprefix("tf_")
    if backbone.custom is not None:  # nothing smaller can stand in for a network of the user's own
        return backbone
    if backbone.weights_path is not None:
        side, shown = catalog.resolve_side(backbone, base), catalog.find_small_side(backbone, IMAGE_SIZE, base)
        if shown < side:
            notes[f"{stem} with its own weights was shown {shown} pixels instead of {side}"] = None
        return backbone.with_changes(size=shown)
    if stem.startswith("test_"):  # timm's own small test networks stay as they are
        return backbone.with_changes(size=min(backbone.size or IMAGE_SIZE, IMAGE_SIZE))
    sibling = next(((name, side) for start, name, side in SIBLINGS if stem.startswith(start)), ("test_resnet", IMAGE_SIZE))
    options = {"stem": backbone.options["stem"]} if "stem" in backbone.options else {}
    if options:  # the only small ResNet whose first layer can be exchanged
        sibling = ("resnet18", 32)
    input_size = min(sibling[1], backbone.size or sibling[1])
    pooling = "average" if sibling[0] == "vgg11" else backbone.pooling  # without its dense layers, nine tenths of its parameters
    if backbone.weights == "pretrained":
        notes["backbones began from random weights instead of pretrained ones"] = None
    notes[f"{sibling[0]} at {input_size} pixels stood in for {backbone.name}"] = None
    return BackboneSpec(name=sibling[0], weights="random", size=input_size, pooling=pooling, options=options, seed=backbone.seed)


def _shrink_recipe(recipe: Recipe, side: int, notes: dict[str, None], epochs: int | None) -> Recipe:
    changes: dict[str, Any] = {"batch_size": min(recipe.batch_size, 32)}
    if recipe.center_crop:
        changes["center_crop"] = side * 7 // 8
        if changes["center_crop"] != recipe.center_crop:
            notes[f"crops are {changes['center_crop']} of {side} pixels instead of {recipe.center_crop}"] = None
    if epochs is not None and any(p.epochs > epochs for p in recipe.phases):
        who = "at most" if epochs == MAX_EPOCHS else "students, and the same networks without a teacher: at most"
        notes[f"{who} {epochs} epochs a phase"] = None
        changes["phases"] = [p.with_changes(epochs=min(p.epochs, epochs)).model_dump() for p in recipe.phases]
    if recipe.precision in ("fp16", "bf16"):
        notes[f"float32 instead of {recipe.precision}, which a processor computes far more slowly"] = None
        changes["precision"] = "float32"
    if recipe.augment and recipe.center_crop:
        changes["augment"] = [_shrink_crop(s, changes["center_crop"]) for s in recipe.augment]
    return recipe.with_changes(**changes)


def _shrink_crop(step: Any, side: int) -> Any:
    return step.with_changes(size=side) if getattr(step, "size", None) else step
