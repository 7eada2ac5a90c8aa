"""What weights were pretrained on, read from their name, in words (no torch).

timm's names end in a tag such as `augreg_in21k_ft_in1k`: a recipe, then data sets in the order in which they were used. A tag
that names none of these sets says nothing, and is described so.
"""

from __future__ import annotations

_SETS = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inat21": "iNaturalist 2021",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "laiona": "LAION-Aesthetics",
    "datacomp1b": "DataComp-1B",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "dfndr2b": "DFNDR-2B",
    "webli": "WebLI (not public)",
    "openai": "OpenAI's 400 M pairs of text and image (not public)",
    "metaclip": "MetaCLIP's pairs of text and image",
    "lvd142m": "LVD-142M, without labels (not public)",
    "lvd1689m": "LVD-1689M, without labels (not public)",
    "sat493m": "SAT-493M, without labels (not public)",
    "jft": "JFT-300M (not public)",
    "ns": "ImageNet-1k, and JFT-300M by a noisy student (not public)",
    "ig1b": "Instagram, 1 billion pictures (not public)",
    "swag": "Instagram by hashtags (not public)",
    "swsl": "Instagram by hashtags (not public)",
    "ssl": "YFCC-100M",
    "seer": "Instagram, without labels (not public)",
    "yfcc15m": "YFCC-15M",
    "yfcc100m": "YFCC-100M",
    "sa1b": "SA-1B",
    "cc12m": "CC-12M",
}
_TORCHVISION = ("tv", "tv2")


def describe_pretraining(tag: str | None) -> str:
    """`augreg_in21k_ft_in1k` → `ImageNet-21k, then ImageNet-1k`."""
    words = (tag or "").split("_")
    if "untrained" in words:
        return "nothing: random weights"
    named = [_SETS[word] for word in words if word in _SETS]
    if not named and set(words) & set(_TORCHVISION):
        named = ["ImageNet-1k"]
    return ", then ".join(dict.fromkeys(named)) or "not told by its name"
