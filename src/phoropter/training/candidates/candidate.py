"""Candidate: one thing being compared, as plain data with nothing left open (no torch)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from phoropter.core.spec import Spec
from phoropter.models.spec import BackboneSpec, FusionSpec, HeadSpec
from phoropter.training.augmentation.spec import batch_dependent, has_mixing_step
from phoropter.training.candidates.recipe import Recipe


class DistillationSpec(Spec):
    """By whom and how a student is taught.

    teacher:     the name of the candidate that teaches
    loss:        hard: cross-entropy with the teacher's argmax · soft: KL at `temperature`, times T² (Hinton et al. 2015) ·
                 mixed: the mean of both · token: a distillation token learns the teacher (Touvron et al. 2021)
    alpha:       weight of the teacher; 1 − alpha is the labels'
    views:       what the teacher is asked about, once each. exact: every view the student sees · pool: the student sees `pool`
                 views of each picture in turn, and the teacher those · clean: the picture itself, whatever the student sees
    """

    teacher: str
    loss: Literal["hard", "soft", "hard+soft", "token"] = "hard"
    alpha: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    teacher_views: Literal["same", "cycled", "unaugmented"] = "same"
    pool: int = Field(default=8, ge=1)

    @property
    def canonical_form(self) -> DistillationSpec:
        """The same without what has no say: a temperature where the teacher names a class, everything where its weight is 0."""
        default = DistillationSpec(teacher=self.teacher)
        deaf = ["temperature"] if self.loss in ("hard", "token") else []
        deaf += ["pool"] if self.teacher_views != "cycled" else []
        deaf += ["temperature", "teacher_views", "pool"] + (["loss"] if self.loss != "token" else []) if self.alpha == 0 else []
        return self.model_copy(update={name: getattr(default, name) for name in deaf})


class Candidate(Spec):
    """One thing being compared.

    frozen:  the backbones stay as they are; each is asked once per picture for the whole study
    members: of a fusion: the candidates whose finished runs are averaged (mode ensemble), or whose weights its branches begin with
    """

    name: str
    backbones: tuple[BackboneSpec, ...] = Field(min_length=1)
    head: HeadSpec = HeadSpec()
    fusion: FusionSpec | None = None
    frozen: bool = False
    teaching: DistillationSpec | None = None
    members: tuple[str, ...] = ()
    recipe: Recipe

    @property
    def is_ensemble(self) -> bool:
        """Whether it is computed from its members' predictions, and nothing is trained."""
        return self.fusion is not None and self.fusion.mode == "ensemble"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the candidates that come before it, split by split: its members, its teacher."""
        taught = (self.teaching.teacher,) if self.teaching and self.teaching.alpha > 0 else ()
        return self.members + taught

    @property
    def description(self) -> str:
        """In words, for tables."""
        names = " + ".join(b.name for b in self.backbones)
        how = []
        if self.fusion:
            how.append(f"fused by {self.fusion.mode}")
        if self.teaching:
            how.append(f"taught by {self.teaching.teacher} ({self.teaching.loss}, α {self.teaching.alpha:g})")
        if self.is_ensemble:
            how.append(f"of the finished runs of {' and '.join(self.members)}")
        elif not self.recipe.phases:
            how.append("used as it is")
        elif self.recipe.l2_penalties:
            how.append("frozen, a logistic regression on its features")
        elif self.frozen:
            views = "" if self.recipe.cached_views is None else f" on {self.recipe.n_cached_views} fixed views"
            how.append(f"frozen, only the head is trained{views}")
        else:
            trained = [
                ("the head" if p.train == "head" else "everything") + f" for {_format_epochs(p.epochs)}"
                for p in self.recipe.phases
            ]
            how.append("trained " + ", then ".join(trained))
        if self.recipe.imbalance.n_bags > 1:
            how.append(f"{self.recipe.imbalance.n_bags} bags averaged")
        weights = {"pretrained": "pretrained", "random": "random weights"}
        how.append(", ".join(dict.fromkeys(weights.get(b.weights, "weights from a file") for b in self.backbones)))
        return f"{names}: " + "; ".join(how)

    @property
    def stores_features(self) -> bool:
        """Whether its backbones are asked once for the whole study: frozen, and shown pictures as they are or in fixed views."""
        recipe = self.recipe
        return self.frozen and recipe.tta == "single" and (not recipe.augment or recipe.cached_views is not None)

    def identity(self) -> dict[str, Any]:
        """What decides its result: everything but what people call it. Weights are added by the plan, by contents; teacher and
        members by the keys of their runs."""
        plain = self.plain()
        plain.pop("name")
        plain.pop("members")
        if self.teaching:
            plain["teaching"] = self.teaching.canonical_form.plain()
            plain["teaching"].pop("teacher")
        plain["recipe"].pop("preset")
        if self.recipe.feature_dtype == "float32":  # keys are as they were before there was a choice
            plain["recipe"].pop("feature_dtype")
        if self.recipe.cached_views is None:
            plain["recipe"].pop("cached_views")
        if not self.recipe.l2_penalties:
            plain["recipe"].pop("l2_penalties")
            plain["recipe"].pop("inner_folds")
        for backbone in plain["backbones"]:
            backbone.pop("weights")
            if not backbone["seed"]:  # the study's own: what it was before one could be given
                backbone.pop("seed")
        return plain


def _format_epochs(count: int) -> str:
    return f"{count} epoch" + "s" * (count != 1)


def validate_candidate(candidate: Candidate) -> str | None:
    """What of a candidate does not fit together, in a sentence; None: it fits."""
    teaching, steps = candidate.teaching, candidate.recipe.augment
    if candidate.recipe.cached_views is not None and not candidate.frozen:
        return "fixed_views is for frozen backbones, whose features are kept; say frozen: true, or leave fixed_views out"
    if candidate.recipe.cached_views is not None and teaching:
        return (
            "fixed_views and teacher contradict each other: a student says views: pool, and pool: how many; leave fixed_views out"
        )
    if candidate.is_ensemble and not candidate.members:
        return "mode: ensemble averages finished runs and is not reached by a sweep; write it as a candidate of its own"
    if candidate.recipe.imbalance.n_bags > 1 and (candidate.fusion or teaching or candidate.head.kind == "pretrained"):
        part = "a fusion" if candidate.fusion else "a student" if teaching else "head: pretrained"
        return f"imbalance bags and {part} contradict each other: each bag is one network with a new head; leave one of them out"
    if candidate.recipe.l2_penalties:
        simple = candidate.head.kind == "linear" and not candidate.head.dropout and not candidate.fusion
        if not candidate.frozen or not simple or teaching is not None:
            return (
                "penalties are for the linear head of one frozen backbone; say frozen: true, head: linear and nothing else, or "
                "choose another recipe"
            )
    if teaching is None:
        return None
    if teaching.loss == "token" and not candidate.backbones[0].has_distillation_token:
        return (
            f"loss token needs a student with a distillation token (deit_*_distilled_*), and {candidate.backbones[0].name} has "
            "none; choose such a student, or loss hard"
        )
    if not candidate.recipe.phases:
        return f"a student is trained, and recipe '{candidate.recipe.preset}' trains nothing; choose another recipe"
    if teaching.teacher_views != "same" and has_mixing_step(steps):
        return f"views {teaching.teacher_views} and {steps[-1].kind} contradict each other: the teacher sees mixed pictures; choose exact"
    if teaching.teacher_views == "cycled" and batch_dependent(steps):
        return "views pool needs views that do not depend on the batch; give the cutting step per_sample: true, or choose exact"
    return None
