"""CandidateEntry: a candidate as a study writes it, and what the parsing of entries of every kind shares (no torch)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from phoropter.core.errors import join_words
from phoropter.core.extensions import REFERENCE
from phoropter.core.spec import Spec
from phoropter.models.spec import Backbone, BackboneSpec, FusionMode, FusionSpec, HeadSpec
from phoropter.training.candidates.candidate import DistillationSpec
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import Recipe
from phoropter.training.candidates.table_spec import SIGNAL_NETWORK, BaselineName, ClassifierName


class CandidateEntry(Spec):
    """A candidate as written in a study. Exactly one of `backbone`, `fuse`, `student`, `baseline`, `features` and `predictions`
    says which kind it is, or `metadata` alone.

    A backbone is a name, a mapping with its own options (`{name: vgg19, pooling: average}`), or a Backbone of the user's own.

    name:     what the candidate is called (default: made of its parts)
    backbone: one network, with a new head
    fuse:     several networks as one, by their names or those of candidates; all-pairs, all-triples: every combination of `of`;
              all: with mode select, every other candidate that is a network or a fusion of its own
    of:       the networks that all-pairs and all-triples combine
    student:  a network that learns from `teacher`
    teacher:  name of a candidate or of a backbone, or a candidate as a mapping: {backbone: vit_small_patch16_224, frozen: true}
    baseline: simple features of each row under a classifier: mean-image, colour-texture, hrv (of ECGs) or ctg-features;
              or signal-1d, a network on the samples of each window of recordings
    features: file with an id and numbers for each row (CSV, Parquet or npz), under a classifier
    predictions: file with another tool's probabilities or logits for the tested rows of every split (CSV, Parquet or npz)
    metadata: columns of the data's own, such as [Age, Parity]: those of a manifest, or facts of recordings that are known
              beforehand; under a classifier by themselves, or joined with a baseline or features
    classifier: of a baseline, features or metadata: logistic or gradient-boosting
    columns:  of features or predictions: our name of a column of the file → theirs
    weights:  of one backbone: pretrained, random, or a path, see BackboneSpec
    size:     of one backbone: side in pixels of the images it is given
    mean:     of one backbone: mean of red, green and blue in 0..1, for normalisation
    std:      of one backbone: standard deviation of red, green and blue, for normalisation
    options:  of one backbone: arguments of the architecture's constructor
    seed:     of one backbone: another seed for its random parts than the study's own
    frozen:   backbones are not trained; their features are computed once
    head:     linear, dense or pretrained, or a mapping of HeadSpec; of a fusion: of each branch
    mode:     of a fusion: logits, concat, ensemble or select, see FusionSpec
    start:    of a fusion by logits: average or random, see FusionSpec
    hidden:   of a fusion: units of a dense layer in the fusing layer (default: none, it is linear)
    dropout:  of a fusion: dropout rate of the fusing layer
    aux_loss_weight: of a fusion: weight of each branch's own cross-entropy (default 0)
    warm_start: of a fusion: branches start from the weights and heads of their own finished runs
    loss:     of a student: how it learns from the teacher, hard, soft, hard+soft or token, see DistillationSpec
    alpha:    of a student: weight of the teacher's loss; that of the labels is 1 − alpha
    temperature: of a student with loss soft or hard+soft: temperature of both softmax functions
    teacher_views: of a student: images of which the teacher's logits are computed, see DistillationSpec
    n_teacher_views: of a student with teacher_views cycled: number of views
    recipe:   how it is trained (default: the study's recipe, for frozen candidates `probe`, for frozen
              fusions that are linear `logistic`, unless that trains heads alone; for signal-1d `signal-1d`)
    """

    name: str | None = None
    backbone: str | dict[str, Any] | Backbone | None = None
    fuse: tuple[str | dict[str, Any] | Backbone, ...] | Literal["all-pairs", "all-triples", "all"] | None = None
    of: tuple[str | dict[str, Any] | Backbone, ...] | None = None
    student: str | Backbone | None = None
    teacher: str | dict[str, Any] | Backbone | None = None
    baseline: BaselineName | None = None
    features: str | None = None
    predictions: str | None = None
    metadata: tuple[str, ...] | None = Field(default=None, min_length=1)
    classifier: ClassifierName | None = None
    columns: dict[str, str] | None = None
    weights: str | None = None
    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    options: dict[str, float | int | str | bool | None] = {}
    seed: int | None = None
    frozen: bool | None = None
    head: Literal["linear", "dense", "pretrained"] | HeadSpec | None = None
    mode: FusionMode | None = None
    start: Literal["average", "random"] | None = None
    hidden: int | None = None
    dropout: float | None = None
    aux_loss_weight: float | None = None
    warm_start: bool | None = None
    loss: Literal["hard", "soft", "hard+soft", "token"] | None = None
    alpha: float | None = None
    temperature: float | None = None
    teacher_views: Literal["same", "cycled", "unaugmented"] | None = None
    n_teacher_views: int | None = None
    recipe: str | dict[str, Any] | Recipe | None = None

    @property
    def is_table(self) -> bool:
        """Whether it has no network: a baseline, features, predictions or metadata."""
        return any(getattr(self, kind) is not None for kind in (*_TABLE_KINDS, "metadata"))

    @field_validator("student", mode="before")
    @classmethod
    def _check_student(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise ValueError(
                "a student is named by its backbone, and what else is said of it stands beside it: "
                "{student: test_vit, weights: random, teacher: …}"
            )
        return value

    @field_validator("teacher", mode="before")
    @classmethod
    def _resolve_teacher(cls, value: Any) -> Any:
        return Backbone.from_value(value) if isinstance(value, str) and REFERENCE.fullmatch(value) else value

    @model_validator(mode="after")
    def _check_one_kind(self) -> CandidateEntry:
        given = [k for k in _KINDS if getattr(self, k) is not None]
        if not given and self.metadata is not None:
            return self._check_table("metadata")
        if len(given) != 1:
            raise ValueError(f"a candidate names exactly one of {join_words(_KINDS)}; {' and '.join(given) or 'none'} came")
        kind = given[0]
        if kind in _TABLE_KINDS:
            return self._check_table(kind)
        if idle := next((name for name in ("classifier", "columns", "metadata") if getattr(self, name) is not None), None):
            raise ValueError(f"{idle} belongs to {join_words(_TABLE_KINDS)}, and contradicts {kind}; leave one of them out")
        for other, names in _FIELDS_OF_KIND.items():
            for name in names:
                if kind != other and getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to a candidate with {other}, and contradicts {kind}; leave one of them out")
        if self.of is not None and self.fuse not in ("all-pairs", "all-triples"):
            raise ValueError("of belongs to fuse: all-pairs or all-triples; put its backbones under fuse instead")
        if self.fuse == "all" and self.mode != "select":
            raise ValueError("fuse: all belongs to mode: select; name the networks, or choose mode: select")
        if self.fuse in ("all-pairs", "all-triples") and self.of is None:
            raise ValueError(f"fuse: {self.fuse} needs of, the list of backbones to combine")
        if self.student is not None and self.teacher is None:
            raise ValueError("a student needs a teacher: the name of a candidate or of a backbone")
        if self.student is not None and self.frozen:
            raise ValueError("frozen and student contradict each other: a frozen backbone cannot be taught; leave frozen out")
        if self.fuse is not None and any(getattr(self, k) is not None for k in ("weights", "size", "seed", "mean", "std")):
            raise ValueError(
                "weights, size, seed, mean and std belong to one backbone; write the members as mappings with their own"
            )
        return self

    def _check_table(self, kind: str) -> CandidateEntry:
        """Raises ValueError where options of networks of pictures stand beside a candidate without one."""
        trained = ("recipe",) if self.baseline == SIGNAL_NETWORK else ()
        read = ("name", kind, "metadata", "classifier", "columns", *trained)
        for name, info in type(self).model_fields.items():
            if name not in read and getattr(self, name) != info.get_default(call_default_factory=True):
                raise ValueError(f"{name} belongs to a network, and {kind} has none; leave one of them out")
        if kind == "predictions" and self.classifier is not None:
            raise ValueError("classifier has no effect on predictions, which are finished; leave it out")
        return self


_TABLE_KINDS = ("baseline", "features", "predictions")
_KINDS = ("backbone", "fuse", "student", *_TABLE_KINDS)
_FIELDS_OF_KIND = {
    "fuse": ("of", "mode", "start", "hidden", "dropout", "aux_loss_weight", "warm_start"),
    "student": ("teacher", "loss", "alpha", "temperature", "teacher_views", "n_teacher_views"),
}


def raise_on_unused(spec: HeadSpec | FusionSpec | DistillationSpec) -> None:
    """Raises ValueError for a written option without effect; one that a sweep sets may be without effect on some candidates."""
    for option, owner in spec.unused_options.items():
        if option in spec.model_fields_set:
            raise ValueError(f"{option} belongs to {owner} and has no effect here; leave it out, or choose {owner}")


def head_only_recipe(recipe: Recipe, own: bool) -> Recipe:
    """Recipe of a frozen candidate: its own with all phases set to `head`, else the study's if head-only, else `probe`.

    How features are stored is of the study's recipe also then: it acts on frozen candidates alone.
    """
    if not own and not recipe.trains_head_alone:
        return PRESETS["probe"].with_features_of(recipe)
    return recipe.with_changes(phases=[p.with_changes(train="head").model_dump() for p in recipe.phases])


def default_name(backbone: BackboneSpec, frozen: bool) -> str:
    source = {"pretrained": "", "random": " (random)"}.get(backbone.weights, "")
    return backbone.name + source + seed_suffix(backbone) + (" frozen" if frozen else "")


def seed_suffix(backbone: BackboneSpec) -> str:
    return f" seed {backbone.seed}" if backbone.seed else ""
