"""What a network is made of, as plain data (no torch): backbones, head, fusion, and the classifier they form.

These are at once what a user writes in a study, what the run key digests, and what a bundle's `bundle.json` holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from phoropter.core.spec import Spec

FusionMode = Literal["logits", "concat", "ensemble"]
DropoutAt = Literal["input", "hidden"]
Colour = tuple[float, float, float]


def _check_positive(value: Colour) -> Colour:
    if min(value) <= 0:
        raise ValueError("a deviation must be above 0")
    return value


class BackboneSpec(Spec):
    """A network that turns a picture into a feature vector.

    name:     a timm name (`resnet50`, `vit_small_patch16_224`, with or without a `.tag`) or `alexnet_2012`
    weights:  `pretrained` (from the hub or its local cache), `random`, or a path: a safetensors file, a folder in the
              hub's layout (config.json + model.safetensors), or a bundle
    size:     side in pixels the network is shown; None: what its weights were trained at
    mean, std: of red, green and blue in 0..1, to be normalised by instead of those its weights were trained with
    pool:     own: the features its pretrained head reads; average: the last map averaged over places, without what the
              network has between that map and its last layer (the two dense layers of vgg19 and alexnet)
    options:  keyword arguments of the architecture's constructor, plain numbers and words (`drop_path_rate: 0.1`)
    seed:     another beginning for its random parts than the study's own (0); what lets one network be fused with itself
    """

    name: str
    weights: str = "pretrained"
    size: int | None = Field(default=None, ge=8, le=2048)
    mean: Colour | None = None
    std: Annotated[Colour, AfterValidator(_check_positive)] | None = None
    pool: Literal["own", "average"] = "own"
    options: dict[str, float | int | str | bool | None] = {}
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def has_distillation_token(self) -> bool:
        """Whether it has a distillation token beside the class token (DeiT)."""
        return self.name.startswith("deit_") and "_distilled_" in self.name


class HeadSpec(Spec):
    """What stands on the pooled features: one linear layer, or dense-`hidden` → ReLU → linear; `pretrained` keeps the network's last layer.

    dropout: rate; SONIC: 0.5
    dropout_at: before the hidden layer, or after its ReLU (before the linear one where there is none)
    """

    kind: Literal["linear", "dense", "pretrained"] = "linear"
    hidden: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dropout_at: DropoutAt = "input"


class FusionSpec(Spec):
    """How several branches become one.

    logits:   each branch pool → dense-128 → C logits; concatenated → dense-`hidden` → C (SONIC, arXiv 2404.00827)
    concat:   pooled features concatenated → dense-`hidden` → C
    ensemble: probabilities averaged; nothing is trained
    hidden:   width of the fusing layer; dropout: its rate; dropout_at: before that layer, or after its ReLU
    aux_loss_weight: weight of each branch's own cross-entropy beside the fused one (0: fused output alone)
    """

    mode: FusionMode = "logits"
    hidden: int = Field(default=12, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    dropout_at: DropoutAt = "input"
    aux_loss_weight: float = Field(default=0.0, ge=0)


class ClassifierSpec(Spec):
    """normalise → backbones → fusion → head: everything needed to build the network again, but not its weights.

    classes: C names in the order of the logits
    picture: side in pixels of the square uint8 picture the classifier is given
    crop:    side of the centre crop taken from it at prediction time (None: the whole picture)
    student: token: a class head learns the labels and a second head, on the distillation token, the teacher (DeiT)
    """

    backbones: tuple[BackboneSpec, ...] = Field(min_length=1)
    head: HeadSpec = HeadSpec()
    fusion: FusionSpec | None = None
    classes: tuple[str, ...] = Field(min_length=2)
    picture: int = Field(ge=8, le=4096)
    crop: int | None = Field(default=None, ge=8)
    student: Literal["plain", "token"] = "plain"

    @model_validator(mode="after")
    def _check_consistency(self) -> ClassifierSpec:
        if len(self.backbones) > 1 and self.fusion is None:
            raise ValueError("several backbones need a fusion mode: logits, concat or ensemble")
        if len(self.backbones) == 1 and self.fusion is not None:
            raise ValueError("a fusion needs at least two backbones; name another one, or leave the fusion out")
        if self.fusion and self.head.kind == "pretrained":
            raise ValueError("head 'pretrained' belongs to one network and cannot be fused; choose linear or dense")
        if self.head.kind == "pretrained" and self.backbones[0].pool == "average":
            raise ValueError("head 'pretrained' reads the network's own features; leave out pool: average, or choose head linear")
        if self.student == "token" and (self.fusion or not self.backbones[0].has_distillation_token):
            raise ValueError(
                f"a token student is one network with a distillation token (deit_*_distilled_*), not "
                f"{' + '.join(b.name for b in self.backbones)}; name one, or leave out loss: token"
            )
        if self.crop is not None and self.crop > self.picture:
            raise ValueError(f"crop {self.crop} is larger than the picture's side {self.picture}")
        return self

    @property
    def reads_tokens(self) -> bool:
        """Whether class and distillation token have a head each: a token student, or a distilled network with its own heads."""
        return self.student == "token" or (self.head.kind == "pretrained" and self.backbones[0].has_distillation_token)
