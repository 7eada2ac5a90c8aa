"""Specifications of backbones, heads, fusions and classifiers, as plain data (no torch).

The same classes hold what a user writes in a study, what a run key digests, and what `bundle.json` stores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from phoropter.core.extensions import REFERENCE, Extension
from phoropter.core.spec import Spec
from phoropter.models.weights.architecture_options import check_options

FusionMode = Literal["logits", "concat", "ensemble", "select"]
DropoutAt = Literal["input", "hidden"]
RgbTriple = tuple[float, float, float]

IMAGENET_MEAN: RgbTriple = (0.485, 0.456, 0.406)
IMAGENET_STD: RgbTriple = (0.229, 0.224, 0.225)
DEFAULT_INPUT_SIZE = 224


def _check_positive(value: RgbTriple) -> RgbTriple:
    if min(value) <= 0:
        raise ValueError("a deviation must be above 0")
    return value


@dataclass(frozen=True, eq=False)
class Backbone(Extension):
    """A network of the user's own, usable wherever the name of a timm network is.

    >>> Backbone("mine", build=make_network, width=512)                            # doctest: +SKIP

    build:      called as build(**options), returns an nn.Module without its last layer. It maps (B, 3, s, s) float images to
                (B, width) features, or to a map (B, width, H, W), which is averaged over places. Random layers are seeded.
    width:      number of features, checked when the network is built
    input_size: side in pixels of the images it is trained for; None: any, and images are shown at the size they are stored at
    mean, std:  of red, green and blue in 0..1, by which images are normalised; default: ImageNet's
    weights:    file of the network's state_dict (safetensors, or .pth of tensors alone), or a bundle; None: as `build` makes them

    It has no pretrained head, so `head: pretrained` is refused for it.
    Its name and version, and a digest of the weights, enter run keys. Raises ValueError for a name, width or size out of range.
    """

    build: Callable[..., Any]
    width: int = field(kw_only=True)
    input_size: int | None = field(default=None, kw_only=True)
    mean: RgbTriple = field(default=IMAGENET_MEAN, kw_only=True)
    std: RgbTriple = field(default=IMAGENET_STD, kw_only=True)
    weights: str | Path | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "." in self.name:
            raise ValueError(f"the name of the backbone '{self.name}' contains '.', which separates timm's tags; use another")
        if not callable(self.build):
            raise ValueError(f"build of the backbone '{self.name}' is {self.build!r}, expected a function that returns a network")
        if self.width < 1:
            raise ValueError(f"width of the backbone '{self.name}' is {self.width}, expected at least 1")
        if self.input_size is not None and not 8 <= self.input_size <= 2048:
            raise ValueError(f"input_size of the backbone '{self.name}' is {self.input_size}, expected 8 to 2048 pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std of the backbone '{self.name}' are not three numbers each, with every std above 0")

    @classmethod
    def from_value(cls, value: Any) -> Backbone:
        """The object itself, or the one that `module:NAME` or a recorded identity stands for. Raises ValueError."""
        backbone: Backbone = cls._validate_value(value)
        return backbone

    def source_digest(self) -> str:
        """As of every extension, without the place of the weights: they are digested by contents."""
        return super().source_digest() if self.weights is None else replace(self, weights=None).source_digest()


class BackboneSpec(Spec):
    """A network that turns an image into a feature vector.

    name:     a timm name (`resnet50`, `vit_small_patch16_224`, with or without a `.tag`), `alexnet`, `alexnet_2012`, or a
              Backbone of the user's own, as an object or as `module:NAME`
    weights:  `pretrained` (from the hub or its local cache), `random`, or a path: a safetensors file, a folder in the hub's
              layout (config.json + model.safetensors), or a bundle. Of a Backbone, `pretrained` becomes its own file, or
              `built` (as its code makes them) where it has none
    size:     side in pixels of the images the network is given; None: the side its weights were trained at
    mean, std: of red, green and blue in 0..1, used to normalise instead of the values its weights were trained with
    pooling:  pretrained: the features its pretrained head reads; average: the last feature map averaged over places, without
              the layers between that map and the last layer (the two dense layers of vgg19 and alexnet)
    options:  arguments of the architecture's constructor, plain numbers and words (`drop_path_rate: 0.1`); those of timm's
              networks are listed in models/weights/architecture_options.py, and no path or address is accepted
    seed:     another seed for its random parts than the study's own (0), so that one network can be fused with itself
    custom:   the Backbone behind a name that is not timm's; filled in from `name`
    """

    name: str
    weights: str = "pretrained"
    size: int | None = Field(default=None, ge=8, le=2048)
    mean: RgbTriple | None = None
    std: Annotated[RgbTriple, AfterValidator(_check_positive)] | None = None
    pooling: Literal["pretrained", "average"] = "pretrained"
    options: dict[str, float | int | str | bool | None] = {}
    seed: int = Field(default=0, ge=0, lt=2**31)
    custom: Backbone | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_custom_backbone(cls, data: Any) -> Any:
        """A Backbone as the name → its name beside it, and its own weights where no others are given."""
        if not isinstance(data, dict):
            return data
        name, given = data.get("name"), data.get("custom")
        if given is None and (isinstance(name, Backbone) or (isinstance(name, str) and REFERENCE.fullmatch(name))):
            given = name
        if given is None:
            return data
        custom = Backbone.from_value(given)
        weights = data.get("weights", "pretrained")
        if weights == "pretrained":
            weights = "built" if custom.weights is None else str(custom.weights)
        return {**data, "name": custom.name, "custom": custom, "weights": weights}

    @model_validator(mode="after")
    def _check_pooling(self) -> BackboneSpec:
        if self.custom is not None and self.pooling == "average":
            raise ValueError(
                f"pooling: average is for timm's networks, and '{self.name}' averages its own map; leave pooling out"
            )
        return self

    @model_validator(mode="after")
    def _check_options(self) -> BackboneSpec:
        try:
            check_options(self.options, self.custom is not None)
        except ValueError as error:
            raise ValueError(f"backbone '{self.name}': {error}") from None
        return self

    @model_serializer(mode="wrap")
    def _omit_custom(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if self.custom is None:
            plain.pop("custom", None)
        return plain

    @property
    def reference(self) -> str | Backbone:
        """What `name` was given: a timm name, or the Backbone."""
        return self.custom or self.name

    @property
    def weights_path(self) -> str | None:
        """The file, folder or bundle its weights come from; None: they come from the hub, from a seed, or from its own code."""
        in_words = ("pretrained", "random") if self.custom is None else ("random", "built")
        return None if self.weights in in_words else self.weights

    @property
    def depends_on_seed(self) -> bool:
        """Whether networks built from different seeds may have different weights."""
        return self.weights == "random" or (self.custom is not None and self.weights == "built")

    @property
    def has_distillation_token(self) -> bool:
        """Whether it has a distillation token beside the class token (DeiT)."""
        return self.custom is None and self.name.startswith("deit_") and "_distilled_" in self.name


class HeadSpec(Spec):
    """The classification head on the pooled features.

    kind:       linear: one linear layer; dense: dense-`hidden` → ReLU → linear; pretrained: the network's own last layer
    hidden:     units of the dense layer
    dropout:    rate; SONIC: 0.5
    dropout_at: of a dense head with dropout: before the hidden layer, or after its ReLU
    """

    kind: Literal["linear", "dense", "pretrained"] = "linear"
    hidden: int = Field(default=128, ge=1, le=65_536)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dropout_at: DropoutAt = "input"

    @property
    def unused_options(self) -> dict[str, str]:
        """Option that has no effect on this head → what it belongs to."""
        unused = {name: f"head {' or '.join(kinds)}" for name, kinds in _HEAD_OPTION_KINDS.items() if self.kind not in kinds}
        return unused if self.dropout else {"dropout_at": "a head with dropout", **unused}


_HEAD_OPTION_KINDS = {"hidden": ("dense",), "dropout": ("dense", "linear"), "dropout_at": ("dense",)}


class FusionSpec(Spec):
    """How the branches of several backbones are combined.

    mode:     logits: every branch has a head, and a fusing layer reads their concatenated logits · concat: a fusing layer reads
              the concatenated pooled features · ensemble: the probabilities of finished runs are averaged, nothing is trained ·
              select: the same by weights, chosen on inner folds of the training rows (Caruana et al. 2004)
    start:    of logits: average: the fused logits are the mean of the branches' plus what the fusing layer adds, which is 0
              before training · random: what the fusing layer says alone (SONIC, arXiv 2404.00827)
    hidden:   units of a dense layer with ReLU in the fusing layer; None: the fusing layer is linear, without a bottleneck
    dropout:  rate in the fusing layer
    dropout_at: of a fusing layer with `hidden`: before it, or after its ReLU
    aux_loss_weight: weight of each branch's own cross-entropy, added to that of the fused output (0: not added)
    """

    mode: FusionMode = "logits"
    start: Literal["average", "random"] = "average"
    hidden: int | None = Field(default=None, ge=1, le=65_536)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dropout_at: DropoutAt = "input"
    aux_loss_weight: float = Field(default=0.0, ge=0)

    @property
    def unused_options(self) -> dict[str, str]:
        """Option that has no effect on this fusion → what it belongs to."""
        unused = {} if self.dropout and self.hidden else {"dropout_at": "a fusion with hidden and dropout"}
        if self.mode != "logits":
            unused["start"] = "mode logits"
        if self.averages_runs:
            unused |= dict.fromkeys(("hidden", "dropout", "dropout_at", "aux_loss_weight"), "mode logits or concat")
        return unused

    @property
    def averages_runs(self) -> bool:
        """Whether it averages the probabilities of finished runs, equally or by weights."""
        return self.mode in ("ensemble", "select")

    @property
    def has_branch_heads(self) -> bool:
        """Whether every branch has a head of its own that is trained with the fusion."""
        return self.mode == "logits" or (self.mode == "concat" and self.aux_loss_weight > 0)

    @property
    def is_convex(self) -> bool:
        """Whether, on frozen features and with linear heads, it can be solved: linear throughout, and begun at the average."""
        plain = self.hidden is None and not self.dropout and not self.aux_loss_weight
        return plain and (self.mode == "concat" or (self.mode == "logits" and self.start == "average"))


class ClassifierSpec(Spec):
    """Normalisation → backbones → fusion → head: all that is needed to build the classifier again, except its weights.

    classes: C names in the order of the logits
    picture: side in pixels of the square uint8 image the classifier is given
    center_crop: side of the centre crop taken from it at prediction time; None: no crop
    multi_label: whether an image may have several of the classes: a probability each, by the sigmoid of its logit
    student: token: a class head learns the labels and a second head, on the distillation token, learns the teacher (DeiT)
    """

    backbones: tuple[BackboneSpec, ...] = Field(min_length=1)
    head: HeadSpec = HeadSpec()
    fusion: FusionSpec | None = None
    classes: tuple[str, ...] = Field(min_length=2)
    picture: int = Field(ge=8, le=4096)
    center_crop: int | None = Field(default=None, ge=8)
    # Left out of plain data where it is false, so that bundles of one class a row stay as they were
    multi_label: bool = Field(default=False, exclude_if=lambda several: not several)
    student: Literal["plain", "token"] = "plain"

    @model_validator(mode="after")
    def _check_consistency(self) -> ClassifierSpec:
        if len(self.backbones) > 1 and self.fusion is None:
            raise ValueError("several backbones need a fusion mode: logits, concat, ensemble or select")
        if len(self.backbones) == 1 and self.fusion is not None:
            raise ValueError("a fusion needs at least two backbones; name another one, or leave the fusion out")
        if self.fusion and self.fusion.mode == "select":
            raise ValueError("mode select averages several classifiers, and this is one; choose logits, concat or ensemble")
        if self.fusion and self.head.kind == "pretrained":
            raise ValueError("head 'pretrained' belongs to one network and cannot be fused; choose linear or dense")
        if self.head.kind == "pretrained" and self.backbones[0].pooling == "average":
            raise ValueError(
                "head 'pretrained' reads the network's own features; leave out pooling: average, or choose head linear"
            )
        if self.student == "token" and (self.fusion or not self.backbones[0].has_distillation_token):
            raise ValueError(
                f"a token student is one network with a distillation token (deit_*_distilled_*), not "
                f"{' + '.join(b.name for b in self.backbones)}; name one, or leave out loss: token"
            )
        if self.center_crop is not None and self.center_crop > self.picture:
            raise ValueError(f"center_crop {self.center_crop} is larger than the image's side {self.picture}")
        return self

    @property
    def reads_tokens(self) -> bool:
        """Whether class and distillation token have a head each: a token student, or a distilled network with its own heads."""
        return self.student == "token" or (self.head.kind == "pretrained" and self.backbones[0].has_distillation_token)
