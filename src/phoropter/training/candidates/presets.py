"""Presets, and the parsing of a study's `recipe:` (no torch).

Every preset names its source. The figure to expect from it stands in the study that uses it.
"""

from __future__ import annotations

from typing import Any

from phoropter.core.errors import SpecError, did_you_mean
from phoropter.core.spec import Location, SourceMap, validate_as
from phoropter.training.augmentation.spec import parse_steps
from phoropter.training.candidates.fine_tuning.phase import Phase
from phoropter.training.candidates.recipe import ImbalanceSpec, OptimizerSpec, Recipe, ScheduleSpec

# Of a logistic regression, on features of networks or of a table; the one with the least loss on inner folds is taken. Where few
# people are held out, the inner loss of weak penalties is worse than that of guessing.
L2_PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)


def parse_recipe(
    value: Any, base: Recipe | None = None, source: SourceMap | None = None, at: Location = (), *, swept: bool = False
) -> Recipe:
    """The name of a preset, a mapping, or a Recipe → a Recipe. A mapping without `preset` changes `base`.

    Two short forms: `epochs` is the total, divided in the proportion of the phases; `lr` is the peak rate of the last phase, and
    earlier phases are scaled with it. swept: keys that the recipe never reads are let through, since a sweep changes recipes of
    several kinds. Raises SpecError for such keys, and for an unknown word, with its line and the nearest valid one.
    """
    if value is None:
        return base or PRESETS["finetune"]
    if isinstance(value, Recipe):
        _raise_on_name_alone(value, source, at)
        return value
    if isinstance(value, str):
        return _get_preset(value, source, at)
    if not isinstance(value, dict):
        raise SpecError(
            f"{(source or SourceMap()).describe_location(at)}: a recipe is a preset's name or a mapping, not {value!r}"
        )
    changes = dict(value)
    if "preset" in changes:
        base = _get_preset(changes.pop("preset"), source, (*at, "preset"))
    for short in ("epochs", "lr"):
        if short in changes and "phases" in changes:
            where = (source or SourceMap()).describe_location((*at, short))
            raise SpecError(f"{where}: {short} and phases contradict each other; give one of them")
    _raise_on_unknown(changes, source, at)
    start = (base or PRESETS["finetune"]).model_dump()
    epochs, lr = changes.pop("epochs", None), changes.pop("lr", None)
    for name, change in changes.items():
        start[name] = _merge_fields(start.get(name), change) if name in _NESTED_FIELDS else change
    recipe = validate_as(Recipe, start, source, at)
    if not swept:
        _raise_on_unread(recipe, value, source, at)
    return recipe if epochs is None and lr is None else _rescale_phases(recipe, epochs, lr, source, at)


def _raise_on_name_alone(recipe: Recipe, source: SourceMap | None, at: Location) -> None:
    """Raises SpecError for Recipe(preset="finetune"): the field notes where a recipe came from, and this one trains nothing."""
    if recipe.preset in PRESETS and PRESETS[recipe.preset].phases and not recipe.phases:
        where = (source or SourceMap()).describe_location(at)
        raise SpecError(
            f"{where}: a Recipe with preset='{recipe.preset}' and no phases trains nothing; write the name alone, "
            f"recipe='{recipe.preset}', or a mapping with the keys to change, recipe={{'preset': '{recipe.preset}', …}}"
        )


def _raise_on_unknown(changes: dict[str, Any], source: SourceMap | None, at: Location) -> None:
    """Raises SpecError for a key that no recipe has, with the nearest one, the short forms among them."""
    known = {*Recipe.model_fields, "epochs", "lr"}
    for name in (n for n in changes if n not in known):
        where, inside = (source or SourceMap()).describe_location((*at, name)), f" in {'.'.join(map(str, at))}" if at else ""
        hint = did_you_mean(name, known) or f"; known keys are {', '.join(sorted(known))}"
        raise SpecError(f"{where}: unknown key '{name}'{inside}{hint}")


def _raise_on_unread(recipe: Recipe, written: dict[str, Any], source: SourceMap | None, at: Location) -> None:
    unread = recipe.unread_fields
    name = next((n for n in written if n in unread), None)
    if name is None:
        return
    if recipe.l2_penalties:
        kind = "a head that is solved (l2_penalties)"
    elif recipe.trains_head_alone:
        kind = "a recipe that trains the head alone"
    else:
        kind = f"recipe '{recipe.preset}' trains nothing and"
    where = (source or SourceMap()).describe_location((*at, name))
    raise SpecError(f"{where}: {kind} never reads {name}; leave it out, or choose another recipe")


_NESTED_FIELDS = ("optimizer", "schedule", "loss", "imbalance", "lora")


def _merge_fields(old: Any, change: Any) -> Any:
    """A mapping changes the fields it names; if it names another kind, all other fields take their defaults."""
    if not isinstance(change, dict) or not isinstance(old, dict) or change.get("kind", old.get("kind")) != old.get("kind"):
        return change
    kept = {name: value for name, value in old.items() if _TWINS.get(name) not in change}
    return {**kept, **change}


_TWINS = {"warmup": "warmup_steps", "warmup_steps": "warmup"}  # one thing in two units: who gives one takes the place of both


def _get_preset(name: Any, source: SourceMap | None, at: Location) -> Recipe:
    if not isinstance(name, str) or name not in PRESETS:
        where = (source or SourceMap()).describe_location(at)
        raise SpecError(
            f"{where}: unknown recipe '{name}'{did_you_mean(str(name), PRESETS) or '; known are ' + ', '.join(PRESETS)}"
        )
    return PRESETS[name]


def _rescale_phases(recipe: Recipe, epochs: Any, lr: Any, source: SourceMap | None, at: Location) -> Recipe:
    where = (source or SourceMap()).describe_location(at)
    if not recipe.phases:
        raise SpecError(f"{where}: epochs and lr belong to training, and recipe '{recipe.preset}' trains nothing; leave them out")
    phases = list(recipe.phases)
    if epochs is not None:
        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < len(phases):
            where = (source or SourceMap()).describe_location((*at, "epochs"))
            raise SpecError(f"{where}: epochs is {epochs!r}, expected a whole number of at least {len(phases)} (one a phase)")
        shares = [max(1, round(epochs * p.epochs / recipe.total_epochs)) for p in phases]
        shares[-1] = max(1, epochs - sum(shares[:-1]))
        phases = [p.with_changes(epochs=n) for p, n in zip(phases, shares, strict=True)]
    if lr is not None:
        ratio = _parse_positive_lr(lr, (source or SourceMap()).describe_location((*at, "lr"))) / recipe.phases[-1].lr
        phases = [_scale_phase_lr(p, ratio) for p in phases]
    return recipe.with_changes(phases=[p.model_dump() for p in phases])


def _scale_phase_lr(phase: Phase, ratio: float) -> Phase:
    head_lr = None if phase.head_lr is None else phase.head_lr * ratio
    return phase.with_changes(lr=phase.lr * ratio, head_lr=head_lr, branch_lr={k: v * ratio for k, v in phase.branch_lr.items()})


def _parse_positive_lr(value: Any, where: str) -> float:
    """A learning rate as a number: YAML reads 1e-4 as text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise SpecError(f"{where}: lr is {value!r}, expected a positive number")
    return number


def _make_preset(preset: str, *phases: Phase, **fields: Any) -> Recipe:
    return Recipe(preset=preset, phases=phases, **fields)


PRESETS: dict[str, Recipe] = {
    r.preset or "": r
    for r in (
        # Ours: a cautious first choice for pretrained weights and a few thousand images.
        _make_preset(
            "finetune",
            Phase(epochs=10, lr=1e-4, head_lr=1e-3),
            optimizer=OptimizerSpec(weight_decay=0.05),
            schedule=ScheduleSpec(warmup=0.05),
            augment=parse_steps("hflip"),
        ),
        # Ours: the head alone; of a frozen candidate the features are cached.
        _make_preset("probe", Phase(train="head", epochs=20, lr=1e-3), optimizer=OptimizerSpec(weight_decay=1e-4), batch_size=64),
        # Kumar et al. 2022 (arXiv 2202.10054): a head trained first keeps fine-tuning from distorting pretrained features.
        _make_preset(
            "head-then-all",
            Phase(train="head", epochs=3, lr=1e-3),
            Phase(epochs=7, lr=1e-4),
            optimizer=OptimizerSpec(weight_decay=0.05),
            schedule=ScheduleSpec(warmup=0.05),
            augment=parse_steps("hflip"),
        ),
        # Ours: the head solved as by scikit-learn's LogisticRegression; the penalty is chosen on inner folds.
        _make_preset("logistic", Phase(train="head", epochs=1, lr=1.0), batch_size=64, l2_penalties=L2_PENALTIES),
        # Ours: random weights need a higher rate and more epochs.
        _make_preset(
            "scratch", Phase(epochs=30, lr=1e-3), optimizer=OptimizerSpec(weight_decay=0.05), schedule=ScheduleSpec(warmup=0.05)
        ),
        # Of the baseline signal-1d: AdamW with its decay under one cycle, as Strodthoff et al. 2020 (arXiv 2004.13701) train on
        # ECG; the rate, epochs and batches are ours, for hundreds of windows in place of 17,000.
        _make_preset(
            "signal-1d",
            Phase(epochs=30, lr=2e-3),
            optimizer=OptimizerSpec(weight_decay=0.01),
            schedule=ScheduleSpec(kind="one-cycle"),
        ),
        # Nothing is trained: the pretrained network with its own head.
        _make_preset("as-is", batch_size=64),
        # «Attention or convolution, or both?», §I.D: all frozen but a new last layer; AutoAugment's CIFAR-10 policy.
        _make_preset(
            "alexnet-transfer",
            Phase(train="head", epochs=10, lr=1e-2),
            optimizer=OptimizerSpec(weight_decay=0.01),
            schedule=ScheduleSpec(kind="one-cycle"),
            augment=parse_steps([{"autoaugment": {"policy": "cifar10"}}]),
            batch_size=256,
            precision="auto",
        ),
        # The same paper, §I.A, after Krizhevsky et al. 2012: from scratch, 224 crops of 256, flips, PCA lighting.
        _make_preset(
            "alexnet-2012",
            Phase(epochs=90, lr=1e-2),
            optimizer=OptimizerSpec(weight_decay=0.01),
            schedule=ScheduleSpec(kind="one-cycle"),
            augment=parse_steps([{"random-crop": {"size": 224}}, "hflip", {"pca-lighting": {"sigma": 0.1}}]),
            center_crop=224,
            batch_size=128,
        ),
        # The same paper, §II.D: frozen ViT, new linear head, AdamW with decay, no augmentation, no other regularisation.
        _make_preset(
            "vit-linear",
            Phase(train="head", epochs=5, lr=1e-3),
            optimizer=OptimizerSpec(weight_decay=0.01),
            schedule=ScheduleSpec(kind="constant"),
            batch_size=64,
        ),
        # The same paper, §III: head until partly converged, then all at a lower rate; StepLR with warm-up.
        _make_preset(
            "resnet-two-phase",
            Phase(train="head", epochs=5, lr=1e-3),
            Phase(epochs=5, lr=1e-4),
            optimizer=OptimizerSpec(weight_decay=0.01),
            schedule=ScheduleSpec(kind="step", step_size=3, gamma=0.1, warmup=0.05),
            batch_size=64,
        ),
        # The same paper, §IV: CoAtNet-1, fp16 autocast, batch 256, AdamW with decay, 10 epochs.
        _make_preset(
            "coatnet-fp16",
            Phase(epochs=10, lr=1e-4),
            optimizer=OptimizerSpec(weight_decay=0.05),
            schedule=ScheduleSpec(warmup=0.05),
            batch_size=256,
            precision="fp16",
        ),
        # «AlexNet and after», §III: Adam 1e-4; crops, rotations and vertical flips make the extra training pictures.
        _make_preset(
            "scenes",
            Phase(epochs=30, lr=1e-4),
            optimizer=OptimizerSpec(kind="adam", weight_decay=0.0),
            schedule=ScheduleSpec(kind="constant"),
            augment=parse_steps([{"random-resized-crop": {"scale": (0.6, 1.0)}}, {"rotate": {"degrees": 15}}, "vflip"]),
            batch_size=64,
        ),
        # SONIC (arXiv 2404.00827): the whole graph end to end, Adam 1e-3, batch 32, 20 epochs, no augmentation.
        _make_preset(
            "sonic",
            Phase(epochs=20, lr=1e-3),
            optimizer=OptimizerSpec(kind="adam", weight_decay=0.0),
            schedule=ScheduleSpec(kind="constant"),
        ),
        # «A ViT teaches a CNN», switched: SGD 0.01, momentum 0.9, decay 5e-4, cosine, batch 128, crop 32 padded by 4, flip.
        _make_preset(
            "cnn-distil",
            Phase(epochs=150, lr=1e-2),
            optimizer=OptimizerSpec(kind="sgd", weight_decay=5e-4, decay_norms=True),
            augment=parse_steps([{"random-crop": {"padding": 4}}, "hflip"]),
            batch_size=128,
        ),
        # «Risk at birth»: no schedule is given there; ours, see the study file.
        _make_preset(
            "ctg",
            Phase(epochs=20, lr=1e-4, head_lr=1e-3),
            optimizer=OptimizerSpec(weight_decay=0.05),
            schedule=ScheduleSpec(warmup=0.05),
            imbalance=ImbalanceSpec(undersample=3942 / 648, stratified_batches=True),
        ),
    )
}
