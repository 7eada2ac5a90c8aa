"""What an exported file says of itself: classes, preprocessing, temperature, decision, evidence, and of which bundle it is."""

from __future__ import annotations

from typing import Any

import phoropter
from phoropter.core.files import digest_file
from phoropter.deploy.export.onnx_file import INPUT, OUTPUTS
from phoropter.deploy.predict import Bundle, choose_views
from phoropter.training.candidates.recipe import TtaViews


def describe_exported(bundle: Bundle, views: TtaViews | None) -> dict[str, Any]:
    """Key → plain value of the metadata.

    classes: names in the order of the outputs · positive_class: of two classes
    threshold: of its probability; null: the likeliest class is the answer · threshold_level: whose answers it is for
    temperature: by which the logits were divided for the probabilities · aggregation: over the windows of a recording
    preprocessing: how a file becomes the square that is the input, and what the graph then does · evidence: the study's estimate
    digests: of the bundle's files
    """
    refit, rule = bundle.refit, bundle.rule
    return {
        "phoropter": phoropter.__version__,
        "classes": list(bundle.classes),
        **({"task": "multi-label"} if bundle.multi_label else {}),
        "positive_class": rule.positive,
        "threshold": rule.threshold,
        "threshold_level": rule.level,
        "temperature": bundle.temperature,
        "aggregation": rule.aggregation,
        "candidate": bundle.candidate.name,
        "input": {"name": INPUT, "type": "uint8", "shape": ["N", 3, bundle.model.spec.picture, bundle.model.spec.picture]},
        "outputs": list(OUTPUTS),
        "preprocessing": describe_preprocessing(bundle, views),
        "evidence": None if refit is None else refit.evidence.plain(),
        "digests": {name: digest_file(bundle.folder / name) for name in ("bundle.json", "model.safetensors")},
    }


def describe_preprocessing(bundle: Bundle, views: TtaViews | None) -> dict[str, Any]:
    """How a file becomes the (3, S, S) square of red, green and blue bytes, and what happens to it inside the graph."""
    data, spec = bundle.data, bundle.model.spec
    view = bundle.recording_view
    outside: dict[str, Any] = {"side": spec.picture, "channels": "RGB", "layout": "channels first", "range": [0, 255]}
    if view is None:
        options = data.picture_options
        outside |= {"resize": data.resize, "interpolation": data.interpolation, "antialias": True, "library": "Pillow"}
        outside |= {"intensity": options.window, "picked_channels": options.channels, "page": options.page}
    else:
        outside["recordings"] = view.plain()
    branches = [
        {
            "name": branch.name,
            "side": branch.side,
            "mean": list(branch.mean),
            "std": list(branch.std),
            "center_crop": member.spec.center_crop,
        }
        for member in bundle.model.members
        for branch in member.branches
    ]
    return outside | {"inside": {"views": list(choose_views(bundle, views)), "branches": branches}}
