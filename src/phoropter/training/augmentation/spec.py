"""Augmentation of training images as plain data (no torch): its steps, in order.

In a study: `none`, the name of a step, a mapping of one name to its options, or a list of these:
`augment: [{random-crop: {padding: 4}}, hflip, {cutmix: {alpha: 0.5}}]`. Steps that move or colour an image come
first, then cutouts, last a step that mixes two images. Each step is used at most once, because its random numbers are named
after it. `module:NAME` is an AugmentationStep of the user's own (custom_step.py).

Left out: filling with the mean of the dataset (an augmented image would then depend on the training rows), and policies learned
on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from phoropter.core.errors import did_you_mean
from phoropter.core.extensions import REFERENCE, HeldExtension, suggest_wrapping
from phoropter.core.spec import Spec
from phoropter.training.augmentation.custom_step import AugmentationStep

Probability = Annotated[float, Field(ge=0, le=1, description="probability that the step is applied")]
GreyLevel = Annotated[int, Field(ge=0, le=255, description="grey level of the pixels that no image covers, 0 to 255")]
PixelSize = Annotated[int, Field(ge=1, le=4096)]
Alpha = Annotated[float, Field(gt=0, le=100, description="the first image has the weight λ ~ Beta(alpha, alpha)")]
PerSample = Annotated[bool, Field(description="every image draws for itself, instead of one draw for the batch")]
SlitWidth = Annotated[
    Literal["area", "sqrt"],
    Field(description="sqrt: √(1 − λ) of the image, the width of CutOut's box · area: 1 − λ, its area"),
]
Strength = Annotated[float, Field(ge=0, le=1)]


class HorizontalFlip(Spec):
    """Mirror left-right with probability `p`."""

    kind: Literal["hflip"] = "hflip"
    p: Probability = 0.5


class VerticalFlip(Spec):
    """Mirror top-bottom with probability `p`."""

    kind: Literal["vflip"] = "vflip"
    p: Probability = 0.5


class RandomCrop(Spec):
    """A crop at a random place (Krizhevsky et al. 2012: 224 of 256; He et al. 2016: 32 after padding by 4).

    size:    side of the crop in pixels; None: the side of the image
    padding: pixels of grey level `fill` added on every side first
    """

    kind: Literal["random-crop"] = "random-crop"
    size: PixelSize | None = None
    padding: int = Field(default=0, ge=0, le=512)
    fill: GreyLevel = 0

    @model_validator(mode="after")
    def _check_size_or_padding(self) -> RandomCrop:
        if self.size is None and not self.padding:
            raise ValueError(
                "random-crop needs size (the side of the crop) or padding (pixels added around the image); give one of them"
            )
        return self


class RandomResizedCrop(Spec):
    """A crop of random area and aspect ratio, resized with antialiasing (Szegedy et al. 2015).

    scale: smallest and largest share of the image's area · ratio: smallest and largest width / height
    size:  side after resizing in pixels; None: the side of the image
    """

    kind: Literal["random-resized-crop"] = "random-resized-crop"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    size: PixelSize | None = None

    @model_validator(mode="after")
    def _check_ranges(self) -> RandomResizedCrop:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is {list(self.scale)}, expected the smaller and the larger of two shares in (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1] <= 100:
            raise ValueError(f"ratio is {list(self.ratio)}, expected the smaller and the larger of two positive ratios")
        return self


class RandomRotation(Spec):
    """Rotation about the centre by an angle uniform in ±`degrees`, bilinear; the outside has grey level `fill`."""

    kind: Literal["rotate"] = "rotate"
    degrees: float = Field(default=15.0, gt=0, le=180, description="largest angle to either side")
    fill: GreyLevel = 0


class PcaLighting(Spec):
    """A shift along the principal components of ImageNet's colours (Krizhevsky et al. 2012, §4.1)."""

    kind: Literal["pca-lighting"] = "pca-lighting"
    sigma: float = Field(default=0.1, gt=0, le=10, description="scale of the shift")


class ColorJitter(Spec):
    """Brightness, contrast, saturation and hue, in this order, after Howard 2013 (arXiv 1312.5402).

    brightness: its factor is uniform in 1 ± this
    contrast: its factor is uniform in 1 ± this, around the mean grey level
    saturation: its factor is uniform in 1 ± this; 0 would be grey
    hue: the shift is uniform in ± this, in turns
    """

    kind: Literal["color-jitter"] = "color-jitter"
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.4
    hue: float = Field(default=0.0, ge=0, le=0.5)

    @model_validator(mode="after")
    def _check_any_strength(self) -> ColorJitter:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            raise ValueError(
                "brightness, contrast, saturation and hue are all 0, which changes nothing; raise one, or leave color-jitter out"
            )
        return self


class AutoAugment(Spec):
    """One of 25 learned pairs of operations per image (Cubuk et al. 2019)."""

    kind: Literal["autoaugment"] = "autoaugment"
    policy: Literal["imagenet", "cifar10", "svhn"] = Field("imagenet", description="dataset for which the pairs were learned")
    fill: GreyLevel = 0


class RandAugment(Spec):
    """`ops` uniformly drawn operations, all at `magnitude` of 30 (Cubuk et al. 2020)."""

    kind: Literal["randaugment"] = "randaugment"
    ops: int = Field(default=2, ge=1, le=10, description="operations per image")
    magnitude: int = Field(default=9, ge=0, le=30, description="their strength, 30 being the largest")
    fill: GreyLevel = 0


class CutOut(Spec):
    """Fills a box with grey level `fill`, by default white as in Hemmi 2024 (after DeVries & Taylor 2017).

    p:          probability that a batch (with `per_sample`: an image) is cut at all
    alpha:      the box covers 1 − λ of the image before it is clipped at the border, λ ~ Beta(alpha, alpha)
    per_sample: a box for each image instead of one for the batch
    box_size:   a square of this side in pixels instead, as 112 of 224 in DeVries & Taylor; excludes alpha
    fill:       grey level of the box
    """

    kind: Literal["cutout"] = "cutout"
    p: Probability = 0.5
    alpha: Alpha = 1.0
    per_sample: PerSample = False
    box_size: PixelSize | None = None
    fill: GreyLevel = 255

    @model_validator(mode="after")
    def _check_box_size(self) -> CutOut:
        if self.box_size is not None and self.alpha != 1.0:
            raise ValueError(
                "box_size and alpha contradict each other: a square of one size, or one drawn from Beta(alpha, alpha)"
            )
        return self


class SlitCutOut(Spec):
    """Fills a slit of the full height: the same span of time in every channel (Hemmi 2024). Options as in CutOut.

    The paper fixes the height of CutOut's rectangle to the picture's and leaves its width, which is `width: sqrt`.

    alpha: of λ ~ Beta(alpha, alpha), which decides the width · fill: grey level of the slit
    """

    kind: Literal["slit-cutout"] = "slit-cutout"
    p: Probability = 0.5
    alpha: Alpha = 1.0
    per_sample: PerSample = False
    width: SlitWidth = "sqrt"
    fill: GreyLevel = 255


class MixUp(Spec):
    """Averages two images and their labels, the first with weight λ ~ Beta(alpha, alpha) (Zhang et al. 2018; 0.2 on ImageNet)."""

    kind: Literal["mixup"] = "mixup"
    p: Probability = 1.0
    alpha: Alpha = 0.2
    per_sample: PerSample = False


class CutMix(Spec):
    """Fills a box of CutOut's size from another image of the batch; labels are mixed by area (Yun et al. 2019)."""

    kind: Literal["cutmix"] = "cutmix"
    p: Probability = 0.5
    alpha: Alpha = 1.0
    per_sample: PerSample = False


class SlitCutMix(Spec):
    """Fills a slit of SlitCutOut's size from another image of the batch; labels are mixed by area (Hemmi 2024)."""

    kind: Literal["slit-cutmix"] = "slit-cutmix"
    p: Probability = 0.5
    alpha: Alpha = 1.0
    per_sample: PerSample = False
    width: SlitWidth = "sqrt"


CutoutStep = CutOut | SlitCutOut
MixingStep = MixUp | CutMix | SlitCutMix
BuiltinStep = (
    HorizontalFlip
    | VerticalFlip
    | RandomCrop
    | RandomResizedCrop
    | RandomRotation
    | PcaLighting
    | ColorJitter
    | AutoAugment
    | RandAugment
    | CutOut
    | SlitCutOut
    | MixUp
    | CutMix
    | SlitCutMix
)


def _step_branch(value: Any) -> str:
    return "Custom" if isinstance(value, (AugmentationStep, HeldExtension)) else "Builtin"


# Tags in capitals: messages leave out the names of branches that begin with one (core/spec)
StepSpec = Annotated[
    Annotated[BuiltinStep, Field(discriminator="kind"), Tag("Builtin")] | Annotated[AugmentationStep, Tag("Custom")],
    Discriminator(_step_branch),
]


def has_mixing_step(steps: Sequence[Any]) -> bool:
    """Whether images and labels of a batch are mixed."""
    return any(isinstance(step, MixingStep) for step in steps)


def batch_dependent(steps: Sequence[Any]) -> bool:
    """Whether an augmented image depends on its batch: one draw serves all its images, or two of them are mixed."""
    return has_mixing_step(steps) or any(isinstance(step, CutoutStep) and not step.per_sample for step in steps)


def parse_steps(value: Any) -> list[Any]:
    """The short forms → a list of mappings with `kind`, Specs and AugmentationSteps.

    Raises ValueError, in one sentence, for an unknown step, one given twice, two that contradict each other, and a wrong order.
    """
    if value is None or value in ("none", ["none"]):
        return []
    items = [_expand_step(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
    kinds = [item["kind"] if isinstance(item, dict) else item.kind for item in items]
    _raise_on_conflicts(kinds)
    _raise_on_wrong_order(kinds)
    return items


def _expand_step(item: Any) -> Any:
    recorded = isinstance(item, dict) and set(item) == {"name", "version"}
    if recorded or isinstance(item, HeldExtension) or (isinstance(item, str) and REFERENCE.fullmatch(item)):
        item = AugmentationStep.parse_value(item)
    if isinstance(item, AugmentationStep) and item.name in _STEP_STAGES:
        raise ValueError(f"a step of your own is called '{item.name}', the name of a built-in step; choose another name")
    if isinstance(item, (*get_args(BuiltinStep), AugmentationStep)):
        return item
    if isinstance(item, str):
        item = {"kind": item}
    elif isinstance(item, dict) and "kind" not in item and len(item) == 1:
        ((name, options),) = item.items()
        if not isinstance(options, (dict, type(None))):
            raise ValueError(f"the options of {name} are {options!r}, expected a mapping of their names to values")
        item = {"kind": name, **(options or {})}
    if hint := suggest_wrapping(item, AugmentationStep):
        raise ValueError(f"expected the name of a step, a mapping of one name to its options, or an AugmentationStep; {hint}")
    if not isinstance(item, dict) or "kind" not in item:
        raise ValueError(f"{item!r} is not a step: write its name, or a mapping of one name to its options")
    name = str(item["kind"])
    if name not in _STEP_STAGES:
        raise ValueError(f"unknown step '{name}'{did_you_mean(name, _STEP_STAGES) or '; known are ' + ', '.join(_STEP_STAGES)}")
    return item


def _raise_on_conflicts(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ValueError(f"{kind} is given twice; keep one")
    for effect, rivals in _MUTUALLY_EXCLUSIVE.items():
        given = [kind for kind in kinds if kind in rivals]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} contradict each other: both {effect}; keep one")


def _raise_on_wrong_order(kinds: Sequence[str]) -> None:
    for before, after in pairwise(kinds):
        if _STEP_STAGES.get(before, 0) > _STEP_STAGES.get(after, 0):  # one of the user's own moves or colours
            raise ValueError(
                f"{after} stands after {before}: steps that move or colour an image come first, then cutouts, last a step that "
                f"mixes two images; write {after} before {before}"
            )


_STEP_STAGES: dict[str, int] = {
    **dict.fromkeys(("hflip", "vflip", "random-crop", "random-resized-crop", "rotate"), 0),
    **dict.fromkeys(("pca-lighting", "color-jitter", "autoaugment", "randaugment"), 0),
    **dict.fromkeys(("cutout", "slit-cutout"), 1),
    **dict.fromkeys(("mixup", "cutmix", "slit-cutmix"), 2),
}
_MUTUALLY_EXCLUSIVE: dict[str, tuple[str, ...]] = {
    "crop the image": ("random-crop", "random-resized-crop"),
    "are policies": ("autoaugment", "randaugment"),
    "mix two images": ("mixup", "cutmix", "slit-cutmix"),
}
