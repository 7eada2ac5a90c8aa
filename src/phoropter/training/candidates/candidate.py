"""Candidate: one network or ensemble under comparison, as plain data with every option resolved (no torch)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from phoropter.core.spec import Spec
from phoropter.models.spec import BackboneSpec, FusionSpec, HeadSpec
from phoropter.training.augmentation.spec import batch_dependent, has_mixing_step
from phoropter.training.candidates.recipe import FEATURE_FIELDS, FINE_TUNING_FIELDS, Recipe
from phoropter.training.candidates.table_spec import TableSpec, describe_signal_recipe


class DistillationSpec(Spec):
    """How a teacher trains a student.

    teacher:       name of the candidate that teaches
    loss:          hard: cross-entropy with the teacher's argmax · soft: KL divergence at `temperature`, times T² (Hinton et al.
                   2015) · hard+soft: the mean of both · token: a distillation token learns from the teacher (Touvron et al. 2021)
    alpha:         weight of the teacher's loss; that of the labels is 1 − alpha
    teacher_views: images of which the teacher's logits are computed, once each. same: every augmented image the student sees ·
                   cycled: `n_teacher_views` augmented views of each image, which the student sees in turn · unaugmented: the
                   original image, whatever the student sees
    n_teacher_views: of teacher_views cycled: number of views
    """

    teacher: str
    loss: Literal["hard", "soft", "hard+soft", "token"] = "hard"
    alpha: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    teacher_views: Literal["same", "cycled", "unaugmented"] = "same"
    n_teacher_views: int = Field(default=8, ge=1)

    @property
    def unused_options(self) -> dict[str, str]:
        """Option that has no effect on this loss or these views → what it belongs to."""
        unused = {"temperature": "loss soft or hard+soft"} if self.loss in ("hard", "token") else {}
        return unused | ({"n_teacher_views": "teacher_views: cycled"} if self.teacher_views != "cycled" else {})

    @property
    def canonical_form(self) -> DistillationSpec:
        """Copy with options that have no effect reset to their defaults, so that equal configurations get equal keys."""
        default = DistillationSpec(teacher=self.teacher)
        unused = list(self.unused_options)
        if self.alpha == 0:  # a token is still trained, by the labels
            unused += ["temperature", "teacher_views", "n_teacher_views"] + (["loss"] if self.loss != "token" else [])
        return self.model_copy(update={name: getattr(default, name) for name in unused})


class Candidate(Spec):
    """One network or ensemble under comparison.

    frozen:  the backbones are not trained; their features are computed once for the whole study
    members: of a fusion: the candidates whose finished runs are averaged (modes ensemble and select), or with whose weights its
             branches start (warm_start)
    table:   of a candidate without a network of pictures: the features or predictions it consists of, or signal-1d
    """

    name: str
    backbones: tuple[BackboneSpec, ...] = ()
    head: HeadSpec = HeadSpec()
    fusion: FusionSpec | None = None
    frozen: bool = False
    distillation: DistillationSpec | None = None
    members: tuple[str, ...] = ()
    table: TableSpec | None = None
    recipe: Recipe

    @model_validator(mode="after")
    def _check_has_source(self) -> Candidate:
        if bool(self.backbones) == (self.table is not None):
            raise ValueError(f"candidate '{self.name}' needs backbones, or else a table; give exactly one of them")
        return self

    @property
    def is_ensemble(self) -> bool:
        """Whether it averages the predictions of its members, equally or by weights, without training."""
        return self.fusion is not None and self.fusion.averages_runs

    @property
    def selects(self) -> bool:
        """Whether it chooses among its members, by what they answer on inner folds."""
        return self.fusion is not None and self.fusion.mode == "select"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the candidates that must be finished before it, split by split: its members and its teacher."""
        taught = (self.distillation.teacher,) if self.distillation and self.distillation.alpha > 0 else ()
        return self.members + taught

    @property
    def description(self) -> str:
        """A description for tables."""
        if self.table is not None:
            return self.table.description
        names = " + ".join(b.name for b in self.backbones)
        how = []
        if self.fusion:
            how.append(f"fused by {self.fusion.mode}")
        if self.distillation:
            how.append(f"taught by {self.distillation.teacher} ({self.distillation.loss}, α {self.distillation.alpha:g})")
        if self.is_ensemble:
            chosen = ", chosen and weighted on inner folds" if self.selects else ""
            how.append(f"of the finished runs of {', '.join(self.members[:-1])} and {self.members[-1]}{chosen}")
        elif not self.recipe.phases:
            how.append("used as it is")
        elif self.recipe.l2_penalties and self.fusion and self.fusion.mode == "logits":
            how.append("frozen, a logistic regression on the features of each, stacked")
        elif self.recipe.l2_penalties:
            how.append("frozen, a logistic regression on its features")
        elif self.frozen:
            views = "" if self.recipe.cached_views is None else f" on {self.recipe.n_cached_views} cached views"
            how.append(f"frozen, only the head is trained{views}")
        else:
            trained = [f"{p.part_words} for {_format_epochs(p.epochs)}" for p in self.recipe.phases]
            how.append("trained " + ", then ".join(trained))
            if self.recipe.lora is not None and not self.recipe.trains_head_alone:
                how.append(f"of the backbone only low-rank adapters ({self.recipe.lora.layers}, rank {self.recipe.lora.rank})")
        if self.recipe.imbalance.n_bags > 1:
            how.append(f"{self.recipe.imbalance.n_bags} bags averaged")
        weights = {"pretrained": "pretrained", "random": "random weights", "built": "weights from its own code"}
        how.append(", ".join(dict.fromkeys(weights.get(b.weights, "weights from a file") for b in self.backbones)))
        return f"{names}: " + "; ".join(how)

    @property
    def how(self) -> str:
        """The description without the names of the networks: how it is trained, or what it is made of."""
        return self.description.partition(": ")[2]

    @property
    def stores_features(self) -> bool:
        """Whether the features of its backbones are cached: it is frozen and sees images unaugmented, or in cached views."""
        recipe = self.recipe
        return self.frozen and recipe.tta == "none" and (not recipe.augment or recipe.cached_views is not None)

    @property
    def uses_onnxruntime(self) -> bool:
        """Whether its features are computed by ONNX Runtime."""
        return self.stores_features and self.recipe.feature_engine == "onnxruntime"

    def identity(self) -> dict[str, Any]:
        """Everything that decides its result, as plain data for run keys: no names, and no options without effect.

        The plan adds a digest of the weights, and the run keys of teacher and members.
        """
        if self.table is not None:
            trained = {"recipe": describe_signal_recipe(self.recipe)} if self.table.is_signal_network else {}
            return {"table": self.table.identity(), **trained}
        plain = self.plain()
        plain.pop("name")
        plain.pop("table")
        plain.pop("members")
        if self.distillation:
            plain["distillation"] = self.distillation.canonical_form.plain()
            plain["distillation"].pop("teacher")
        recipe = plain["recipe"]
        recipe.pop("preset")
        idle = FINE_TUNING_FIELDS if self.frozen or self.recipe.trains_head_alone else ("grad_checkpointing",)  # the same numbers
        for name in idle:
            recipe.pop(name, None)
        for name in () if self.stores_features else FEATURE_FIELDS:
            recipe.pop(name, None)
        if self.recipe.cached_views is None:
            recipe.pop("cached_views")
        if not self.recipe.l2_penalties:
            recipe.pop("l2_penalties")
            recipe.pop("inner_folds")
        for backbone in plain["backbones"]:
            backbone.pop("weights")
            if not backbone["seed"]:  # the seed of the study decides
                backbone.pop("seed")
        return plain


def _format_epochs(count: int) -> str:
    return f"{count} epoch" + "s" * (count != 1)


def find_conflict(candidate: Candidate) -> str | None:
    """Why the options of a candidate contradict each other, in one sentence; None where they do not."""
    recipe, distillation = candidate.recipe, candidate.distillation
    if recipe.cached_views is not None and not candidate.frozen and recipe.kept_blocks is None:
        return (
            "cached_views is for what is frozen in every phase, and here all is trained; say frozen: true, or train: last-N, or "
            "leave cached_views out"
        )
    if conflict := _find_fine_tuning_conflict(candidate):
        return conflict
    if recipe.cached_views is not None and distillation:
        return (
            "cached_views and teacher contradict each other: a student says teacher_views: cycled and n_teacher_views; "
            "leave cached_views out"
        )
    if candidate.is_ensemble and not candidate.members:
        mode = candidate.fusion.mode if candidate.fusion else ""
        return f"mode: {mode} averages finished runs and is not reached by a sweep; write it as a candidate of its own"
    if recipe.imbalance.n_bags > 1 and (candidate.fusion or distillation or candidate.head.kind == "pretrained"):
        part = "a fusion" if candidate.fusion else "a student" if distillation else "head: pretrained"
        return (
            f"imbalance n_bags and {part} contradict each other: each bag is one network with a new head; leave one of them out"
        )
    custom = next((b.name for b in candidate.backbones if b.custom is not None), None)
    if custom is not None and candidate.head.kind == "pretrained":
        return f"'{custom}' is a network of your own and has no pretrained head; choose head linear or dense, or another recipe"
    if idle := _find_idle_branch_lr(candidate):
        return (
            f"branch_lr of '{idle}' has no effect: that backbone is frozen, without a head of its own; leave it out, and give lr"
        )
    if recipe.l2_penalties and not candidate.is_ensemble and not _can_be_solved(candidate):
        return (
            "l2_penalties are for what is linear on frozen features: head: linear, of a fusion without hidden, dropout, "
            "aux_loss_weight, start: random and warm_start; say frozen: true and leave those out, or choose another recipe"
        )
    return None if distillation is None else _find_distillation_conflict(candidate, distillation)


def _find_fine_tuning_conflict(candidate: Candidate) -> str | None:
    recipe = candidate.recipe
    for name in FINE_TUNING_FIELDS if candidate.frozen else ():
        if getattr(recipe, name):
            return f"{name} is for backbones that are trained; leave frozen or {name} out"
    if recipe.drop_path and any("drop_path_rate" in b.options for b in candidate.backbones):
        return "drop_path and the option drop_path_rate of a backbone are one thing; leave one of them out"
    if recipe.compile and recipe.grad_checkpointing:
        return (
            "compile and grad_checkpointing contradict each other: a compiled network plans itself what it keeps; leave one out"
        )
    if recipe.cached_views is not None and not candidate.frozen and recipe.compile:
        return "compile and cached_views contradict each other where last blocks are trained; leave one of them out"
    return None


def _find_idle_branch_lr(candidate: Candidate) -> str | None:
    """The name of a frozen backbone without a head of its own that branch_lr names; None where there is none."""
    if not candidate.frozen or (candidate.fusion and candidate.fusion.has_branch_heads):
        return None
    own = {b.name for b in candidate.backbones}
    return next((name for p in candidate.recipe.phases for name in p.branch_lr if name in own), None)


def _can_be_solved(candidate: Candidate) -> bool:
    """Whether its head is a convex problem on cached features."""
    linear = candidate.head.kind == "linear" and not candidate.head.dropout
    convex = candidate.fusion is None or (candidate.fusion.is_convex and not candidate.members)
    return candidate.frozen and linear and convex and candidate.distillation is None


def _find_distillation_conflict(candidate: Candidate, distillation: DistillationSpec) -> str | None:
    steps = candidate.recipe.augment
    if distillation.loss == "token" and not candidate.backbones[0].has_distillation_token:
        return (
            f"loss token needs a student with a distillation token (deit_*_distilled_*), and {candidate.backbones[0].name} has "
            "none; choose such a student, or loss hard"
        )
    if not candidate.recipe.phases:
        return f"a student is trained, and recipe '{candidate.recipe.preset}' trains nothing; choose another recipe"
    if distillation.teacher_views != "same" and has_mixing_step(steps):
        return (
            f"teacher_views {distillation.teacher_views} and {steps[-1].kind} contradict each other: the teacher must see the "
            "mixed images; choose teacher_views: same"
        )
    if distillation.teacher_views == "cycled" and batch_dependent(steps):
        return (
            "teacher_views cycled needs views that do not depend on the batch; give the cutting step per_sample: true, or choose "
            "teacher_views: same"
        )
    return None
