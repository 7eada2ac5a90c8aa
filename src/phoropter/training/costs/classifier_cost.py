"""What a classifier takes: parameters, and multiply-adds of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from phoropter.core.files import digest
from phoropter.models.classifier import Classifier
from phoropter.models.timm_compat import defer_compiler


@dataclass(frozen=True)
class ClassifierCost:
    """Number of parameters, of trainable ones, and multiply-adds per image (None: they cannot be counted)."""

    parameters: int
    trainable: int
    macs: int | None


_counted_macs: dict[tuple[str, int, int], int | None] = {}  # of each architecture: all runs of a candidate have one


def measure_cost(classifier: Classifier, side: int) -> ClassifierCost:
    """The cost of one image of `side` pixels. Multiply-adds are counted once for each architecture in a process."""
    count = sum(p.numel() for p in classifier.parameters())
    trainable = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    architecture = digest(classifier.spec.plain()), side, count
    if architecture not in _counted_macs:
        _counted_macs[architecture] = _count_classifier_macs(classifier, side)
    return ClassifierCost(count, trainable, _counted_macs[architecture])


def _count_classifier_macs(classifier: Classifier, side: int) -> int | None:
    """Multiply-adds of one image, by a pass on the meta device, which takes no arithmetic but some Python."""
    named = (*classifier.named_parameters(), *classifier.named_buffers())
    was = classifier.training
    classifier.eval()
    try:
        with defer_compiler(), FlopCounterMode(display=False) as counter, torch.no_grad():
            tensors = {n: t.detach().to("meta") for n, t in named}
            functional_call(classifier, tensors, (torch.empty(2, 3, side, side, device="meta"),))
        macs = counter.get_total_flops() // 2 // 2  # two pictures; a multiply-add is two operations
    except Exception:
        macs = None  # a network whose forward reads values; the cost is only for a table
    finally:
        classifier.train(was)
    return macs or None
