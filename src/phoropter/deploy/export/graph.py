"""What an exported file computes: squares as the study stored them → logits and calibrated probabilities.

Inside the graph: the crop, the resizing to each branch's side, normalisation, every branch, the fusion, the views averaged at
prediction, the average over models, and the temperature. Outside: decoding a file, and making it square. Pillow rounds to whole
greys between its two passes of resizing and orients, converts and composites before; no operator of ONNX does the same, so the
square is the input, and the file says how its study made one.

The graph computes in float32, with the weights as they are saved.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phoropter.deploy.predict import Bundle, choose_views
from phoropter.models.backbones import BackboneModule
from phoropter.models.classifier import Classifier
from phoropter.models.fusion import log_mean_probability
from phoropter.training.candidates.recipe import TtaViews
from phoropter.training.predict import make_tta_views


class ExportedClassifier(nn.Module):
    """(B, 3, S, S) uint8 → (B, C) logits, and (B, C) probabilities: the softmax of the logits divided by the temperature, or of
    several labels the sigmoid.

    members: the classifiers whose probabilities are averaged, mostly one, by their weights · views: of each member · side: S
    """

    def __init__(self, bundle: Bundle, views: TtaViews | None = None) -> None:
        super().__init__()
        model = copy.deepcopy(bundle.model).cpu().float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.members = nn.ModuleList(model.eval().requires_grad_(False).members)
        self.weights = bundle.model.member_weights
        self.views = choose_views(bundle, views)
        self.temperature, self.multi_label = bundle.temperature, bundle.multi_label
        self.side: int = bundle.model.spec.picture
        for member in self.members:
            assert isinstance(member, Classifier)
            crop = member.spec.center_crop
            for branch in member.branches:
                _compute_in_graph(branch, self.side if crop is None else min(crop, self.side))
        self.eval()  # also this module itself: the tracing exporter sets all parts to the mode in which it found the whole

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) uint8 → logits, probabilities."""
        pictures = squares.float()
        parts = [self._predict_member(m, v, pictures) for m, v in zip(self.members, self.views, strict=True)]
        logits = parts[0] if len(parts) == 1 else log_mean_probability(parts, self.weights, self.multi_label)
        calibrated = logits / self.temperature
        return logits, torch.sigmoid(calibrated) if self.multi_label else torch.softmax(calibrated, 1)

    def _predict_member(self, member: Any, views: TtaViews, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) → (B, C): as `predict_from_pixels`, without batches."""
        logits = [member(view) for view in make_tta_views(pictures, views, member.spec.center_crop)]
        return logits[0] if len(logits) == 1 else log_mean_probability(logits, multi_label=self.multi_label)


class _GraphBackbone(BackboneModule):
    """A backbone whose preprocessing has neither chunks nor an antialiased resize operator, which few runtimes have.

    resize_down: (s, S) and resize_across: (S, s), the weights of torch's antialiased resizing; absent where S is s
    """

    def preprocess(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) float in 0..255 → (B, 3, s, s) resized and normalised, as `BackboneModule.preprocess`."""
        if "resize_down" in self._buffers:
            pictures = self.get_buffer("resize_down") @ pictures @ self.get_buffer("resize_across")
        return pictures * self.scale - self.shift


def _compute_in_graph(branch: BackboneModule, side: int) -> None:
    branch.__class__ = _GraphBackbone
    if side != branch.side:
        weights = make_resize_weights(side, branch.side)
        branch.register_buffer("resize_down", weights, persistent=False)
        branch.register_buffer("resize_across", weights.T.contiguous(), persistent=False)


def make_resize_weights(side: int, to: int) -> Tensor:
    """(to, side) float32: what torch's antialiased bilinear resizing of `side` rows to `to` rows multiplies them by."""
    identity = torch.eye(side, dtype=torch.float64)[None, None]
    return F.interpolate(identity, size=(to, side), mode="bilinear", antialias=True, align_corners=False)[0, 0].float()
