"""The family of a candidate: convolution, attention or both, by the timm module of its backbone; fused or distilled.

`cnn` mixes places by convolution (or shifts and pooling of fixed form) alone, `attention` by self-attention after the patch
embedding, `hybrid` has stages or blocks of both. Networks that mix places by something else (MLP-Mixers, state spaces, LSTMs,
pooling), and those of a user's own, are `other`: no contrast of families speaks of them.
"""

from __future__ import annotations

from phoropter.models.catalog import describe_backbone
from phoropter.models.spec import BackboneSpec
from phoropter.training.candidates.candidate import Candidate

_MODULES = {
    "cnn": (
        "alexnet convmixer convnext cspnet cspnext densenet dla dpn efficientnet fasternet ghostnet hgnet hrnet "
        "inception_next inception_resnet_v2 inception_v3 inception_v4 lcnetv2 mambaout mobilenetv3 nasnet nfnet pnasnet rdnet "
        "regnet repghost repvit resnet resnetv2 rexnet selecsls senet starnet tresnet vgg vovnet xception xception_aligned"
    ),
    "attention": (
        "beit cait convit crossvit davit deepseek_vit deit eva gcvit gemma4_vit hiera hieradet_sam2 mvitv2 naflexvit nest pit "
        "pvt_v2 qwen3_vit swin_transformer swin_transformer_v2 swin_transformer_v2_cr tnt twins vision_transformer "
        "vision_transformer_relpos vision_transformer_sam volo xcit"
    ),
    "hybrid": (
        "coat cpubone csatv2 edgenext efficientformer efficientformer_v2 efficientvit_mit efficientvit_msra fastvit iformer "
        "levit lowformer maxxvit mobilenetv5 nextvit shvit swiftformer tiny_vit visformer"
    ),
}
# Where one module of timm builds networks of several families: part of the name → family, the first that occurs.
_EXCEPTIONS = {
    "byobnet": dict.fromkeys(("botne", "halo", "lambda", "mobilevit", "bat_"), "hybrid") | {"": "cnn"},
    "fastvit": {"fastvit_t": "cnn", "fastvit_s1": "cnn"},  # the smallest have no stage with attention
    "metaformer": {"caformer": "hybrid", "convformer": "cnn"},
    "mobilenetv3": {"_hybrid_": "hybrid"},
    "vision_transformer": dict.fromkeys(("_r26_", "_r50_", "_resnet", "_mci_", "vitamin"), "hybrid"),  # a convolutional stem
}


def candidate_family(candidate: Candidate) -> str:
    """`cnn`, `attention`, `hybrid`, `fused`, `distilled` or `other`. Raises SpecError for an unknown backbone."""
    if candidate.table is not None:
        return "other"
    if len(candidate.backbones) > 1:
        return "fused"
    if candidate.distillation is not None and candidate.distillation.alpha > 0:
        return "distilled"
    return backbone_family(candidate.backbones[0])


def backbone_family(backbone: BackboneSpec) -> str:
    """`cnn`, `attention`, `hybrid` or `other`. Raises SpecError for an unknown backbone."""
    entry = describe_backbone(backbone)
    for part, family in _EXCEPTIONS.get(entry.family, {}).items():
        if part in entry.name:
            return family
    return next((family for family, modules in _MODULES.items() if entry.family in modules.split()), "other")
