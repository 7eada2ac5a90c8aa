"""`--smoke`: turns any study into a smoke test of about ten minutes on two cores, and lists what was changed.

Fewer rows, a small sibling of each family at lower resolution, fewer epochs; the same code and the same protocol. Its results say
nothing about the full study; it shows that the study runs, from data to report, and trains so much that something is learned.
Where the folder of weights has files of a network's family, pretrained networks become these, frozen: their features are computed
once, so that heads and fusions are trained to the end.
"""

from __future__ import annotations

from typing import Any

from phoropter.core.errors import SpecError
from phoropter.core.files import digest
from phoropter.study.settings.side_specs import LearningCurveSpec, TuneSpec
from phoropter.study.settings.stand_ins import IMAGE_SIZE, StandIns, list_carried_weights
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.presets import parse_recipe
from phoropter.training.candidates.recipe import FINE_TUNING_FIELDS, Recipe

MAX_ROWS = 600
TAUGHT_ROWS = 1200  # with students, which learn from nothing
FROZEN_ROWS = 1500  # where nothing but heads is trained, on features that are computed once
CARRIED_SIZE = 128  # of networks with weights at hand: smaller pictures are strange to what saw 224 pixels
TEACHER_SIZE = 72  # of teachers among them, which answer for every picture in every epoch
MAX_EPOCHS = 6
HEAD_EPOCHS = 20  # of heads on features that are computed once
TEACHER_EPOCHS = 12
STUDENT_EPOCHS = 10  # students and the same networks without a teacher: enough to see a trend and where the curves cross
LEAST_LR = 1e-3  # of networks that begin from random weights instead of pretrained ones, and of heads
DENSE_HEAD_LR = 3e-4  # of dense heads of frozen networks: at 1e-3 most hidden units of nine of ten heads were dead
MAX_BATCH = 16  # few rows make few steps
MAX_FOLDS = 2
FROZEN_FOLDS = 5  # there, too
MAX_SWEEP_VALUES = 2  # values kept of each sweep: the first and the last


def make_smoke_version(study: StudySpec) -> StudySpec:
    """A study → the same study at smoke-test scale; its context lists what was changed, in sentences."""
    notes: dict[str, None] = {}
    original = _leave_out_files(study, notes)
    taught = any(c.distillation for c in original)
    carried = () if study.screening else list_carried_weights()  # the final recipe of a screening trains what a probe has frozen
    most = IMAGE_SIZE if not carried else TEACHER_SIZE if taught else CARRIED_SIZE
    size, head_epochs = min(study.data.size or most, most), MAX_EPOCHS if "recipe.augment" in study.sweep else HEAD_EPOCHS
    stand_ins = StandIns(carried, most, notes, study.base)
    shrunk = [_shrink_candidate(c, original, size, head_epochs, stand_ins) for c in original]
    candidates = _drop_identical([_copy_members(c, shrunk) for c in shrunk], notes)
    once = bool(carried) and all(c.stores_features or c.is_ensemble for c in candidates)
    cheap = once and not taught and "recipe.augment" not in study.sweep
    many_splits = study.protocol.split == "leave-one-site-out" and not once
    rows = TAUGHT_ROWS if taught else FROZEN_ROWS if cheap else MAX_ROWS // 2 if many_splits else MAX_ROWS
    folds = FROZEN_FOLDS if cheap else MAX_FOLDS
    changes: dict[str, Any] = {
        "data": _shrink_data(study.data.model_dump(exclude_unset=True), size, rows, notes),
        "protocol": _shrink_protocol(study.protocol.model_dump(exclude_unset=True), folds, notes),
        "sweep": {path: _shorten_values(path, values, size, notes) for path, values in study.sweep.items()},
        "tune": _shrink_tuning(study, {c.name for c in candidates}, size, notes),
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


def _shrink_data(data: dict[str, Any], size: int, most: int, notes: dict[str, None]) -> dict[str, Any]:
    if data.get("max_samples") is None or data["max_samples"] > most:
        notes[f"at most {most} rows, classes in proportion, were used"] = None
        data = {**data, "max_samples": most}
    if data.get("size") and data["size"] > size:
        notes[f"images were stored at {size} pixels instead of {data['size']}"] = None
    return {**data, "size": size}


def _shrink_protocol(protocol: dict[str, Any], most: int, notes: dict[str, None]) -> dict[str, Any]:
    """One seed, one repeat, at most `most` folds; two in place of other splits, for which there may be too few groups or rows."""
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
    if in_folds and protocol.get("folds", 5) > most:
        notes[f"{most} folds instead of {protocol.get('folds', 5)}"] = None
        folds |= {"folds": most}
    return {**protocol, "seeds": seeds[:1], **({"repeats": 1} if "repeats" in protocol else {}), **folds}


def _shorten_values(path: str, values: list[Any], size: int, notes: dict[str, None]) -> list[Any]:
    """The first and the last value of a swept or tuned key; epochs and sizes are at most those of a smoke version, and differ."""
    kept = values if len(values) <= MAX_SWEEP_VALUES else [values[0], values[-1]]
    if kept != values:
        notes[f"the values of {path}: {MAX_SWEEP_VALUES} of {len(values)}, the first and the last"] = None
    most = {"recipe.epochs": MAX_EPOCHS, "data.size": size}.get(path)
    if most is None or not all(isinstance(v, int) for v in kept) or max(kept) <= most:
        return kept
    notes[f"the values of {path}: at most {most}"] = None
    capped = [min(v, most) for v in kept]
    scaled = [max(1, round(v * most / max(kept))) for v in kept]
    different = [values for values in (capped, scaled) if len(set(values)) == len(kept)]
    return different[0] if different else [most - place for place in reversed(range(len(kept)))]


def _shrink_tuning(study: StudySpec, names: set[str], size: int, notes: dict[str, None]) -> TuneSpec | None:
    """With two values of each key on two inner folds; None where no candidate is left that it names."""
    if study.tune is None or (study.tune.candidates and not names.intersection(study.tune.candidates)):
        return None
    notes["values were tuned on 2 inner folds"] = None
    grid = {path: _shorten_values(path, values, size, notes) for path, values in study.tune.grid.items()}
    return study.tune.with_changes(grid=grid, folds=2, candidates=[name for name in study.tune.candidates if name in names])


def _shrink_learning_curve(study: StudySpec, notes: dict[str, None]) -> LearningCurveSpec | None:
    if study.learning_curve is None:
        return None
    largest = study.learning_curve.shares[-1]
    if len(study.learning_curve.shares) > 1:
        notes[f"the learning curve kept the share {largest:g} of {len(study.learning_curve.shares)}"] = None
    return study.learning_curve.with_changes(shares=[largest])


def _shrink_candidate(
    candidate: Candidate, study: list[Candidate], side: int, head_epochs: int, stand_ins: StandIns
) -> Candidate:
    """A small version, but for averages, which have no networks of their own.

    study: all candidates, among them its teachers, students and the like of these without a teacher · head_epochs: the most for
    heads on features that are computed once
    """
    notes = stand_ins.notes
    if candidate.is_ensemble:
        return candidate
    students = [c.backbones for c in study if c.distillation]
    teaches = candidate.name in {c.distillation.teacher for c in study if c.distillation}
    learns = candidate.backbones in students  # these keep their own networks, so that a teacher is the only difference
    as_is = candidate.table is None and not candidate.recipe.phases
    backbones = tuple(stand_ins.replace_backbone(b, carry=not learns, with_classes=as_is) for b in candidate.backbones)
    random = any(
        old.weights == "pretrained" and new.weights == "random" for old, new in zip(candidate.backbones, backbones, strict=True)
    )
    recipe = _shrink_recipe(candidate.recipe, side, notes, None if teaches else STUDENT_EPOCHS if learns else MAX_EPOCHS)
    if random:
        recipe = _raise_rates(recipe, notes)
    small = candidate.model_copy(update={"backbones": backbones, "recipe": recipe})
    if candidate.head.kind == "pretrained" and any(b.depends_on_seed for b in backbones):
        notes["a random head for the dataset's classes replaced the pretrained head"] = None
        small = small.model_copy(update={"head": candidate.head.with_changes(kind="linear")})
    carried = bool(backbones) and all(
        old.weights == "pretrained" and new.weights_path for old, new in zip(candidate.backbones, backbones, strict=True)
    )
    if carried and not as_is:
        small = _freeze_backbones(small, candidate.recipe, head_epochs, notes)
    return _strengthen_teacher(small, notes) if teaches else small


def _copy_members(candidate: Candidate, study: list[Candidate]) -> Candidate:
    """An average has the networks of its members."""
    if not candidate.is_ensemble:
        return candidate
    backbones = tuple(b for name in candidate.members for c in study if c.name == name for b in c.backbones)
    return candidate.model_copy(update={"backbones": backbones})


def _raise_rates(recipe: Recipe, notes: dict[str, None]) -> Recipe:
    """Rates for random weights, where those of a study are for pretrained ones."""
    if all(p.lr >= LEAST_LR for p in recipe.phases):
        return recipe
    notes[f"what began from random weights instead of pretrained ones was trained at a rate of {LEAST_LR:g} at least"] = None
    return recipe.with_changes(phases=[p.with_changes(lr=max(p.lr, LEAST_LR)).model_dump() for p in recipe.phases])


def _freeze_backbones(candidate: Candidate, full: Recipe, epochs: int, notes: dict[str, None]) -> Candidate:
    """The same with frozen backbones. full: its recipe in full · epochs: the most for heads on features that are computed once"""
    notes["networks with weights from a file were frozen; their heads were trained"] = None
    recipe = candidate.recipe
    if not recipe.l2_penalties:
        cached = candidate.model_copy(update={"frozen": True, "recipe": recipe}).stores_features
        epochs = min(full.total_epochs, epochs if cached else MAX_EPOCHS)
        rate = max(LEAST_LR, *(p.head_lr or p.lr for p in full.phases))
        if candidate.head.kind == "dense" and rate > DENSE_HEAD_LR:
            notes[f"dense heads were trained at a rate of {DENSE_HEAD_LR:g}"] = None
            rate = DENSE_HEAD_LR
        recipe = recipe.with_changes(phases=[{"train": "head", "epochs": epochs, "lr": rate}])
    return candidate.model_copy(update={"frozen": True, "recipe": recipe})


def _strengthen_teacher(teacher: Candidate, notes: dict[str, None]) -> Candidate:
    """A teacher trained well enough to teach, because one near chance accuracy is refused; a solved head is as it is."""
    if teacher.recipe.l2_penalties:
        return teacher
    phase = {"train": "head" if teacher.frozen else "all", "epochs": TEACHER_EPOCHS, "lr": LEAST_LR}
    changes: dict[str, Any] = {"phases": [phase], "optimizer": "adamw", **({"augment": ()} if teacher.frozen else {})}
    notes[f"teachers were trained for {TEACHER_EPOCHS} epochs at {LEAST_LR:g}"] = None
    return teacher.model_copy(update={"recipe": teacher.recipe.with_changes(**changes)})


def _shrink_recipe(recipe: Recipe, side: int, notes: dict[str, None], epochs: int | None) -> Recipe:
    changes: dict[str, Any] = {"batch_size": min(recipe.batch_size, MAX_BATCH)}
    if recipe.center_crop:
        changes["center_crop"] = side * 7 // 8
        if changes["center_crop"] != recipe.center_crop:
            notes[f"crops are {changes['center_crop']} of {side} pixels instead of {recipe.center_crop}"] = None
    if epochs is not None and any(p.epochs > epochs for p in recipe.phases):
        who = "at most" if epochs == MAX_EPOCHS else "students, and the same networks without a teacher: at most"
        notes[f"{who} {epochs} epochs a phase"] = None
        changes["phases"] = [p.with_changes(epochs=min(p.epochs, epochs)).model_dump() for p in recipe.phases]
    if any((p.last_blocks or 1) > 1 for p in recipe.phases):
        notes["the last block was trained instead of several, which a small network may not have"] = None
        phases = changes.get("phases") or [p.model_dump() for p in recipe.phases]
        changes["phases"] = [{**p, "train": "last-1" if p["train"].startswith("last-") else p["train"]} for p in phases]
    if given := [name for name in FINE_TUNING_FIELDS if getattr(recipe, name)]:
        notes[f"without {' and '.join(given)}: a small network may not have the layers for it"] = None
        changes |= {name: Recipe.model_fields[name].default for name in given}
    if recipe.precision in ("fp16", "bf16"):
        notes[f"float32 instead of {recipe.precision}, which a processor computes far more slowly"] = None
        changes["precision"] = "float32"
    if recipe.augment and recipe.center_crop:
        changes["augment"] = [_shrink_crop(s, changes["center_crop"]) for s in recipe.augment]
    return recipe.with_changes(**changes)


def _shrink_crop(step: Any, side: int) -> Any:
    return step.with_changes(size=side) if getattr(step, "size", None) else step
