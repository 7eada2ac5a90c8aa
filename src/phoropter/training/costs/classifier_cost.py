"""What a classifier takes: parameters, and multiply-adds of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from phoropter.core.files import digest
from phoropter.models.catalog import describe_backbone
from phoropter.models.classifier import Classifier
from phoropter.models.timm_compat import defer_compiler

QUICK_MACS = 4e9  # a tenth of a second of a core
FUSED_ON_PROCESSOR = (nn.RNNBase, nn.MultiheadAttention)  # by operations of its own, which the counter does not know


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
    """Multiply-adds of one image, by a pass of it where that is quick, else on the meta device."""
    was = classifier.training
    classifier.eval()
    try:
        count = _count_on_processor if _is_quick(classifier) else _count_on_meta
        macs = count(classifier, side)
    except Exception:
        macs = None  # a network whose forward reads values; the cost is only for a table
    finally:
        classifier.train(was)
    return macs or None


def _is_quick(classifier: Classifier) -> bool:
    """Whether a processor shows it an image in less time than the import takes that the meta device needs (half a second).

    Never where a layer is computed there by an operation that cannot be counted.
    """
    if any(p.device.type != "cpu" for p in classifier.parameters()):
        return False
    if any(isinstance(module, FUSED_ON_PROCESSOR) for module in classifier.modules()):
        return False
    counts = [
        describe_backbone(spec).estimate_macs(branch.side)
        for spec, branch in zip(classifier.spec.backbones, classifier.branches, strict=True)
    ]
    return sum(QUICK_MACS + 1 if count is None else count for count in counts) <= QUICK_MACS


def _count_on_processor(classifier: Classifier, side: int) -> int:
    """By a pass of a black image, with attention written out: the counter does not know the fused one of the processor."""
    fused: bool = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_flash_sdp(False)  # despite its place in torch, the processor's obeys it too
    try:
        with defer_compiler(), FlopCounterMode(display=False) as counter, torch.no_grad():
            functional_call(classifier, _detached_tensors(classifier), (torch.zeros(1, 3, side, side),))
    finally:
        torch.backends.cuda.enable_flash_sdp(fused)
    return int(counter.get_total_flops()) // 2  # a multiply-add is two operations


def _count_on_meta(classifier: Classifier, side: int) -> int:
    """By a pass of two images on the meta device, which takes no arithmetic but some Python, and the import of SymPy."""
    with defer_compiler(), FlopCounterMode(display=False) as counter, torch.no_grad():
        tensors = {n: t.to("meta") for n, t in _detached_tensors(classifier).items()}
        functional_call(classifier, tensors, (torch.empty(2, 3, side, side, device="meta"),))
    return int(counter.get_total_flops()) // 2 // 2


def _detached_tensors(classifier: Classifier) -> dict[str, Tensor]:
    """By name. The counter asks views of what is trained, as queries of attention pools are, for gradient functions they lack."""
    return {n: t.detach() for n, t in (*classifier.named_parameters(), *classifier.named_buffers())}
