"""How a candidate is trained, as plain data (no torch): phases, optimizer, schedule, augmentation, loss, precision.

A recipe in a study is the name of a preset, or a mapping: `{preset: finetune, epochs: 5, augment: cutmix}` (presets.py).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from phoropter.core.extensions import Extension, HeldExtension
from phoropter.core.spec import ClassName, PublicSpec, Spec
from phoropter.training.augmentation.spec import StepSpec, batch_dependent, parse_steps
from phoropter.training.candidates.custom_loss import BuiltinLoss, Loss
from phoropter.training.candidates.custom_optimizer import BuiltinOptimizer, BuiltinSchedule, Optimizer, Schedule
from phoropter.training.candidates.fine_tuning.lora_spec import LoraSpec
from phoropter.training.candidates.fine_tuning.phase import Phase

TtaViews = Literal["none", "flip", "ten-crop"]  # test-time augmentation
FeatureEngine = Literal["torch", "onnxruntime"]


class OptimizerSpec(Spec):
    """The optimizer and its constants. Norms, biases, tokens and position embeddings are not decayed unless `decay_norms`.

    kind: adamw: decoupled weight decay (Loshchilov & Hutter 2019) · adam: the decay is an L2 term (Kingma & Ba 2015) · sgd: with
          momentum · or an Optimizer of the user's own, which takes weight_decay and decay_norms alone
    weight_decay: decay of the weights, or factor of the L2 term
    momentum: of sgd: share of the last update that is kept
    nesterov: of sgd: Nesterov's momentum (Sutskever et al. 2013)
    betas: of adam and adamw: decay of the running means of the gradient and of its square
    decay_norms: norms, biases, tokens and position embeddings are decayed too
    """

    kind: BuiltinOptimizer | Optimizer = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    decay_norms: bool = False

    @model_validator(mode="after")
    def _check_options(self) -> OptimizerSpec:
        _raise_on_unused(self, "optimizer", self.kind)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true looks ahead along the momentum, which is 0; give momentum, or leave nesterov out")
        return self


class ScheduleSpec(Spec):
    """The learning rate as a share of its peak, a function of the step within a phase.

    kind: constant · cosine, down to `min_lr_ratio` · one-cycle (Smith & Topin 2018): up over `pct_start` of the steps from 1/25,
          then down to 4e-6 by cosine · step: × `gamma` every `step_size` epochs · or a Schedule of the user's own
    warmup: share of the phase's steps (of `planned_epochs`, if given) over which the rate climbs linearly from zero
    warmup_steps: the same as a number of optimizer steps; a phase that has fewer ends on the way up
    min_lr_ratio: of cosine: the last rate as a share of the peak
    planned_epochs: of cosine: epochs of a phase over which the rate falls; more than are trained leave it where it is then, as
                    when a long training is stopped (default: those that are trained)
    pct_start: of one-cycle: share of the phase's steps over which the rate climbs
    step_size: of step: epochs between two drops
    gamma: of step: factor of each drop
    """

    kind: BuiltinSchedule | Schedule = "cosine"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0, exclude_if=lambda steps: not steps)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    planned_epochs: int | None = Field(default=None, ge=1, exclude_if=lambda epochs: epochs is None)
    pct_start: float = Field(default=0.3, gt=0, lt=1)
    step_size: int = Field(default=5, ge=1)
    gamma: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _check_options(self) -> ScheduleSpec:
        if self.kind == "one-cycle" and self.warmup:
            raise ValueError("schedule one-cycle has a warm-up of its own (pct_start); leave warmup out, or choose cosine")
        if self.warmup and self.warmup_steps:
            raise ValueError(
                "warmup and warmup_steps contradict each other: a share of the phase, or a number of steps; give one"
            )
        _raise_on_unused(self, "schedule", self.kind)
        return self


class LossSpec(Spec):
    """What is minimised against the labels.

    kind: cross-entropy, focal (Lin et al. 2017), or a Loss of the user's own
    gamma: of focal: how much less rows count that are classified well already
    smoothing: label smoothing (Szegedy et al. 2016), of a built-in loss
    class_weights: none, auto (N / (C · n_c), from the training rows alone), or a weight for each class by name
    """

    kind: BuiltinLoss | Loss = "cross-entropy"
    gamma: float = Field(default=2.0, ge=0)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "auto"] | dict[ClassName, float] = "none"

    @model_validator(mode="after")
    def _check_options(self) -> LossSpec:
        _raise_on_unused(self, "loss", self.kind)
        return self


_OPTION_KINDS: dict[str, dict[str, tuple[str, ...]]] = {  # field of a recipe → option → the built-in kinds that read it
    "optimizer": {"momentum": ("sgd",), "nesterov": ("sgd",), "betas": ("adam", "adamw")},
    "schedule": {
        "warmup": ("constant", "cosine", "step"),
        "warmup_steps": ("constant", "cosine", "step"),
        "min_lr_ratio": ("cosine",),
        "planned_epochs": ("cosine",),
        "pct_start": ("one-cycle",),
        "step_size": ("step",),
        "gamma": ("step",),
    },
    "loss": {"gamma": ("focal",), "smoothing": ("cross-entropy", "focal")},
}


def _raise_on_unused(spec: Spec, field: str, kind: str | Extension) -> None:
    """Raises ValueError for an option that differs from its default and that its kind never reads."""
    for option, kinds in _OPTION_KINDS[field].items():
        if kind in kinds or getattr(spec, option) == type(spec).model_fields[option].default:
            continue
        if isinstance(kind, Extension):
            raise ValueError(
                f"{option} has no effect on the {field} '{kind.name}' of your own; write it into its function, or leave it out"
            )
        raise ValueError(
            f"{option} belongs to {field} {' or '.join(kinds)} and has no effect on {field} {kind}; leave {option} out, or "
            f"choose {field} {kinds[0]}"
        )


class ImbalanceSpec(Spec):
    """Treatment of rare classes, in the training part of every fold and nowhere else; each is off by default.

    undersample:         rows of every other class kept for each row of the rarest, drawn once per fold
    resample_each_epoch: draw anew every epoch
    n_bags:              balanced bagging: train on so many such draws, which share as few rows as possible, one by one, and
                         average their probabilities
    stratified_batches:  batches hold the classes in the proportion of the training part (Hemmi 2024)
    """

    undersample: float | None = Field(default=None, gt=0)
    resample_each_epoch: bool = False
    n_bags: int = Field(default=1, ge=1, le=100)
    stratified_batches: bool = False


FINE_TUNING_FIELDS = ("layer_decay", "drop_path", "lora", "grad_checkpointing")  # they act where a backbone is trained
FEATURE_FIELDS = ("feature_dtype", "feature_engine")  # they act where features are stored
_TRAINING_FIELDS = (
    *("phases", "epochs", "lr", "optimizer", "schedule", "batch_size", "grad_accum_steps", "compile"),
    *FINE_TUNING_FIELDS,
)


class Recipe(PublicSpec):
    """How a candidate is trained.

    preset:           the preset it came from, for readers
    phases:           what is trained, for how many epochs, at which peak rate; none: the network is used as it is
    optimizer:        a word, or a mapping with its options
    schedule:         of the learning rate: a word, or a mapping with its options
    loss:             what is minimised against the labels: a word, or a mapping with its options
    batch_size:       rows per batch
    grad_accum_steps: batches per optimizer step
    grad_clip:        largest norm of the gradient
    augment:          steps every training image goes through (training/augmentation)
    center_crop:      side in pixels of the centre crop at prediction, for images stored larger (None: the complete image)
    tta:              test-time augmentation: none · flip (image and mirror image averaged) · ten-crop (four corners and
                      centre, and mirrored; Krizhevsky et al. 2012)
    imbalance:        what is done about rare classes
    ema:              decay of an exponential moving average of the weights, which then predicts (Polyak & Juditsky 1992)
    precision:        float32 · bf16 · fp16 (autocast, with loss scaling) · auto: bf16 where the device has units for it
    channels_last:    memory layout of convolutions; the numbers stay the same up to rounding
    compile:          use torch.compile
    checkpoint:       last: weights of the last epoch · best-val: of the epoch with the least loss on the validation part that
                      the protocol cuts off
    layer_decay:      rate of each layer of a backbone as a share of that of the layer behind it; the head has the full rate
                      (Bao et al. 2021)
    drop_path:        stochastic depth: probability that the last residual block of a backbone is skipped for a row in training,
                      less in earlier ones (Huang et al. 2016)
    lora:             low-rank adapters are trained in the place of the backbone's weights: a mapping, {} for the defaults
    grad_checkpointing: activations within blocks are computed again in the backward pass instead of being kept, to the same
                      numbers: about a third of the memory, for a third more time
    l2_penalties:     for the linear head of a frozen candidate: it is solved as a logistic regression, not trained, with the
                      penalty of least loss on `inner_folds` folds of the training rows; phases then have no effect
    inner_folds:      of l2_penalties
    feature_dtype:    storage of features of frozen backbones; float16 halves the disk space and keeps three digits
    feature_engine:   what computes them; onnxruntime (extra `deploy`) does so on processors, with other last bits
    cached_views:     for a frozen candidate, or one of which the last blocks are trained: every image is augmented into so many
                      views beforehand, and epoch e shows view e mod cached_views, so that what is frozen runs once per view and
                      not once per epoch
    """

    unnamed_hint: ClassVar[str] = "a preset is named where a recipe is asked for: finetune('resnet50', recipe='scratch')"

    preset: str | None = None
    phases: tuple[Phase, ...] = ()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    batch_size: int = Field(default=32, ge=1, le=65536)
    grad_accum_steps: int = Field(default=1, ge=1)
    grad_clip: float | None = Field(default=None, gt=0)
    augment: tuple[StepSpec, ...] = ()
    center_crop: int | None = Field(default=None, ge=8)
    tta: TtaViews = "none"
    loss: LossSpec = LossSpec()
    imbalance: ImbalanceSpec = ImbalanceSpec()
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["float32", "bf16", "fp16", "auto"] = "float32"
    channels_last: bool = True
    compile: bool = False
    checkpoint: Literal["last", "best-val"] = "last"
    # Left out of plain data where they are not given, so that the keys of other runs stay as they were
    layer_decay: float | None = Field(default=None, gt=0, lt=1, exclude_if=lambda decay: decay is None)
    drop_path: float = Field(default=0.0, ge=0, lt=1, exclude_if=lambda rate: not rate)
    lora: LoraSpec | None = Field(default=None, exclude_if=lambda adapters: adapters is None)
    grad_checkpointing: bool = Field(default=False, exclude_if=lambda on: not on)
    l2_penalties: tuple[Annotated[float, Field(gt=0)], ...] = ()
    inner_folds: int = Field(default=3, ge=2, le=20)
    feature_dtype: Literal["float32", "float16"] = "float32"
    feature_engine: FeatureEngine = Field(default="torch", exclude_if=lambda engine: engine == "torch")
    cached_views: int | None = Field(default=None, ge=1, le=10_000)

    @field_validator("augment", mode="before")
    @classmethod
    def _expand_augment(cls, value: Any) -> Any:
        return parse_steps(value)

    @field_validator("optimizer", "schedule", "loss", mode="before")
    @classmethod
    def _expand_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, (str, Extension, HeldExtension)) else value

    @model_validator(mode="after")
    def _check_consistency(self) -> Recipe:
        if self.tta == "ten-crop" and self.center_crop is None:
            raise ValueError("tta ten-crop needs center_crop, the side of the ten crops (for example 224 from images of 256)")
        imbalance = self.imbalance
        if imbalance.undersample is None and (imbalance.resample_each_epoch or imbalance.n_bags > 1):
            raise ValueError(
                "imbalance resample_each_epoch and n_bags belong to undersample, which is not given; give it, or leave them out"
            )
        if imbalance.resample_each_epoch and imbalance.n_bags > 1:
            raise ValueError(
                "imbalance resample_each_epoch and n_bags contradict each other: one draw per epoch, or several fixed ones"
            )
        if self.schedule.kind == "one-cycle":
            self._check_cycled_momentum()
        planned, longest = self.schedule.planned_epochs, max((p.epochs for p in self.phases), default=0)
        if planned is not None and planned < longest:
            raise ValueError(
                f"schedule: planned_epochs is {planned}, and a phase trains {longest}: the rate would reach its end before the "
                f"training does; give at least {longest}, or leave it out"
            )
        if self.l2_penalties:
            self._check_solved_head()
        elif self.inner_folds != type(self).model_fields["inner_folds"].default:
            raise ValueError("inner_folds belongs to l2_penalties, which are not given; give them, or leave inner_folds out")
        if self.cached_views is not None:
            self._check_cached_views()
        if self.lora is not None and any(p.last_blocks for p in self.phases):
            raise ValueError(
                "lora and train: last-N contradict each other: adapters are in all blocks; say train: all, or one of them"
            )
        return self

    def _check_cycled_momentum(self) -> None:
        optimizer, default = self.optimizer, OptimizerSpec()
        for name, given, usual in (
            ("momentum", optimizer.momentum, default.momentum),
            ("the first of betas", optimizer.betas[0], default.betas[0]),
        ):
            if given != usual:
                raise ValueError(
                    f"schedule one-cycle and {name} contradict each other: the schedule moves it from 0.95 to 0.85 and back; "
                    "leave it out, or choose another schedule"
                )

    def _check_solved_head(self) -> None:
        default = Recipe(loss=LossSpec(class_weights=self.loss.class_weights))
        fields = ("augment", "ema", "grad_clip", "tta", "loss", "imbalance", "checkpoint")
        given = [name for name in fields if getattr(self, name) != getattr(default, name)]
        given += [name for name in ("optimizer", "schedule") if isinstance(getattr(self, name).kind, Extension)]
        if given:
            raise ValueError(
                f"l2_penalties and {given[0]} contradict each other: a head that is solved takes no {given[0]}; leave it out"
            )

    def _check_cached_views(self) -> None:
        if not self.augment:
            raise ValueError("cached_views belongs to augment, which is not given: there is one view of an image; leave it out")
        if batch_dependent(self.augment):
            raise ValueError(
                f"cached_views and {self.augment[-1].kind} contradict each other: a cached view cannot depend on the batch; give "
                "a cutting step per_sample: true, leave a mixing step out, or leave cached_views out"
            )
        if self.tta != "none":
            raise ValueError(
                f"cached_views and tta {self.tta} contradict each other: predictions come from cached features, too, of one "
                "unaugmented view; choose tta none, or leave cached_views out"
            )

    @property
    def unread_fields(self) -> frozenset[str]:
        """Fields, `epochs` and `lr` among them, without effect on this recipe, which solves a head or trains nothing."""
        if self.l2_penalties:
            return frozenset((*_TRAINING_FIELDS, "precision"))
        fields = (*_TRAINING_FIELDS, "grad_clip", "augment", "loss", "imbalance", "ema", "checkpoint", "inner_folds")
        return frozenset(FINE_TUNING_FIELDS if self.trains_head_alone else () if self.phases else fields)

    @property
    def trains_head_alone(self) -> bool:
        """Whether there are phases, and none of them trains anything of a backbone."""
        return bool(self.phases) and all(p.train == "head" for p in self.phases)

    @property
    def kept_blocks(self) -> int | None:
        """How many last blocks are trained in the phase that trains most of them; None where all is trained, or the head alone.

        What lies before them is frozen in every phase.
        """
        if self.trains_head_alone or any(p.train == "all" for p in self.phases):
            return None
        return max((p.last_blocks or 0 for p in self.phases), default=None)

    @property
    def feature_format(self) -> tuple[str, FeatureEngine]:
        """How features of frozen backbones are stored, and what computes them."""
        return self.feature_dtype, self.feature_engine

    def with_features_of(self, other: Recipe) -> Recipe:
        """This recipe with features stored and computed as by another."""
        return self.model_copy(update={name: getattr(other, name) for name in FEATURE_FIELDS})

    @property
    def n_cached_views(self) -> int:
        """How many cached views of each image the whole training needs; 0: none are cached."""
        return 0 if self.cached_views is None else min(self.cached_views, self.total_epochs)

    @property
    def total_epochs(self) -> int:
        """Epochs of all phases."""
        return sum(p.epochs for p in self.phases)
