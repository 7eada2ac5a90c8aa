"""How a candidate is trained, as plain data (no torch): phases, optimiser, schedule, augmentation, loss, precision.

A recipe in a study is the name of a preset, or a mapping: `{preset: finetune, epochs: 5, augment: cutmix}` (presets.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from phoropter.core.extensions import Extension, HeldExtension
from phoropter.core.spec import Spec
from phoropter.training.augmentation.spec import StepSpec, batch_dependent, parse_steps
from phoropter.training.candidates.custom_loss import Loss


class OptimizerSpec(Spec):
    """kind and its constants. Weight decay is not applied to norms, biases, tokens and position embeddings unless `decay_norms`.

    adamw: decoupled decay (Loshchilov & Hutter 2019); adam: the decay is an L2 term (Kingma & Ba 2015); sgd: with momentum
    """

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    decay_norms: bool = False


class ScheduleSpec(Spec):
    """The learning rate as a share of its peak, a function of the step within a phase.

    constant · cosine (to `floor`) · one-cycle (Smith & Topin 2018: up over `rise` of the steps from 1/25, down to 1e-5 by
    cosine) · step (× `gamma` every `every` epochs). `warmup`: share of the phase's steps over which the rate climbs from zero.
    """

    kind: Literal["constant", "cosine", "one-cycle", "step"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    pct_start: float = Field(default=0.3, gt=0, lt=1)
    step_size: int = Field(default=5, ge=1)
    gamma: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _check_one_cycle_warmup(self) -> ScheduleSpec:
        if self.kind == "one-cycle" and self.warmup:
            raise ValueError("schedule one-cycle has its own rise and takes no warmup; leave warmup out, or choose cosine")
        return self


class Phase(Spec):
    """A stretch of epochs in which the head alone or everything is trained.

    lr: peak rate of the backbones (and of the head, unless `head_lr` is given)
    lr_of: backbone's name → its own peak rate, for a fusion's branches that need another (their own heads go with them)
    """

    train: Literal["head", "all"] = "all"
    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)
    head_lr: float | None = Field(default=None, gt=0)
    branch_lr: dict[str, Annotated[float, Field(gt=0)]] = {}


class LossSpec(Spec):
    """What is minimised against the labels.

    kind: cross-entropy, focal (Lin et al. 2017) with `gamma`, or a Loss of the user's own
    smoothing: label smoothing (Szegedy et al. 2016), of a built-in loss
    class_weights: none, auto (N / (C · n_c), from the training rows alone), or a weight for each class by name
    """

    kind: Literal["cross-entropy", "focal"] | Loss = "cross-entropy"
    gamma: float = Field(default=2.0, ge=0)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "auto"] | dict[str, float] = "none"

    @model_validator(mode="after")
    def _check_own_loss(self) -> LossSpec:
        if isinstance(self.kind, Loss) and self.smoothing:
            raise ValueError(
                f"smoothing is defined for the built-in losses and not for '{self.kind.name}'; write it into its compute, or "
                "leave smoothing out"
            )
        return self


class ImbalanceSpec(Spec):
    """What is done about a rare class, in the training part of every fold and nowhere else; each is off unless asked.

    undersample: negatives kept for each positive (majority rows for each minority row), drawn once a fold
    redraw:      draw anew every epoch
    bags:        how many such draws, sharing as few rows as can be, are trained one by one; their probabilities are averaged
    keep_ratio:  batches hold the classes in the proportion of the training part (signals-and-protocols, §7)
    """

    undersample: float | None = Field(default=None, gt=0)
    resample_each_epoch: bool = False
    n_bags: int = Field(default=1, ge=1, le=100)
    stratified_batches: bool = False


class Recipe(Spec):
    """How a candidate is trained.

    preset:    the name it came from, for people
    phases:    what is trained, for how many epochs, at which peak rate; none: the network is used as it is
    batch:     rows in a batch; accumulate: batches before a step; clip: largest norm of the gradient
    augment:   what a training picture goes through (training/views)
    crop:      side of the centre crop at prediction time, of a picture stored larger (None: all of it)
    views:     single · flip (picture and mirror image averaged) · ten-crop (four corners, centre, mirrored; Krizhevsky 2012)
    ema:       decay of an average of the weights, which then predicts (Polyak & Juditsky 1992)
    precision: float32 · bf16 · fp16 (autocast, with loss scaling) · auto: bf16 where the device has units for it, else float32
    select:    last epoch, or the best epoch by loss on the inner validation part the protocol cuts off
    penalties: of a frozen candidate's linear head: it is solved as a convex problem and not trained (training/convex), under the
               L2 penalty of these with the least loss on `inner_folds` folds of the training rows; phases have no say then
    features:  how those of frozen backbones are stored; float16 takes half the disk and rounds them to three digits
    fixed_views: of a frozen candidate: each picture is augmented into so many views once and for all, and epoch e shows view
               e mod fixed_views, so that the backbone is asked that often and not in every epoch
    """

    preset: str | None = None
    phases: tuple[Phase, ...] = ()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    batch_size: int = Field(default=32, ge=1, le=65536)
    grad_accum_steps: int = Field(default=1, ge=1)
    grad_clip: float | None = Field(default=None, gt=0)
    augment: tuple[StepSpec, ...] = ()
    crop: int | None = Field(default=None, ge=8)
    tta: Literal["single", "flip", "ten-crop"] = "single"
    loss: LossSpec = LossSpec()
    imbalance: ImbalanceSpec = ImbalanceSpec()
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["float32", "bf16", "fp16", "auto"] = "float32"
    channels_last: bool = True
    compile: bool = False
    checkpoint: Literal["last", "best_val"] = "last"
    l2_penalties: tuple[Annotated[float, Field(gt=0)], ...] = ()
    inner_folds: int = Field(default=3, ge=2, le=20)
    feature_dtype: Literal["float32", "float16"] = "float32"
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
        if self.tta == "ten-crop" and self.crop is None:
            raise ValueError("views ten-crop needs crop, the side of the ten crops (for example 224 from pictures of 256)")
        if self.imbalance.undersample is None and (self.imbalance.resample_each_epoch or self.imbalance.n_bags > 1):
            raise ValueError("imbalance redraw and bags belong to undersample, which is not given; give it, or leave them out")
        if self.l2_penalties:
            plain = Recipe(loss=LossSpec(class_weights=self.loss.class_weights))
            asked = [
                n
                for n in ("augment", "ema", "grad_clip", "tta", "loss", "imbalance", "checkpoint")
                if getattr(self, n) != getattr(plain, n)
            ]
            if asked:
                raise ValueError(
                    f"penalties and {asked[0]} contradict each other: a head that is solved takes no {asked[0]}; leave it out"
                )
        if self.cached_views is not None:
            self._check_cached_views()
        if self.imbalance.resample_each_epoch and self.imbalance.n_bags > 1:
            raise ValueError("imbalance redraw and bags contradict each other: one draw an epoch, or several fixed ones")
        return self

    def _check_cached_views(self) -> None:
        if not self.augment:
            raise ValueError("fixed_views belongs to augment, which is not given: there is one view of a picture; leave it out")
        if batch_dependent(self.augment):
            raise ValueError(
                f"fixed_views and {self.augment[-1].kind} contradict each other: a view that is kept cannot depend on the batch; "
                "give a cutting step per_sample: true, leave a mixing one out, or leave fixed_views out"
            )
        if self.tta != "single":
            raise ValueError(
                f"fixed_views and views {self.tta} contradict each other: what is predicted from is kept, too, and that is one "
                "clean view; choose views single, or leave fixed_views out"
            )

    @property
    def n_cached_views(self) -> int:
        """How many fixed views of each picture a frozen backbone is asked about for the whole training; 0: none are fixed."""
        return 0 if self.cached_views is None else min(self.cached_views, self.total_epochs)

    @property
    def total_epochs(self) -> int:
        """Epochs in all phases together."""
        return sum(p.epochs for p in self.phases)
