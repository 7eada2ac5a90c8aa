"""Five pages that a reader may meet: a clear winner, a tie of seven, noise, five people each left out, a sweep of forty."""

from __future__ import annotations

from made_study import Made

NETWORKS = ("resnet50", "convnext_tiny", "vit_small_patch16_224", "efficientnet_b0", "swin_tiny_patch4_window7_224")
_NAMES = (*NETWORKS, "mobilenetv3_large_100", "resnet50 + convnext_tiny")
_AUGMENTATIONS = ("none", "cutout", "cutmix", "mixup", "slit-cutmix")
_SIX = (*NETWORKS, "mobilenetv3_large_100", "densenet121", "maxvit_tiny_tf_224")


def _sweep_name(network: str, augmentation: str) -> str:
    return f"{network} · augment {augmentation}"


FIVE: dict[str, Made] = {
    "winner": Made(
        accuracies={"resnet50": 0.86, "resnet50 + convnext_tiny": 0.97, "vit_small_patch16_224": 0.78, "mobilenet frozen": 0.7},
        classes=("calm", "stress", "fun"),
        rows=600,
        seeds=(0,),
        features=8,
        pictures=6,
        validation=60,
        validation_history=True,
        audit=[],
        branches=True,
        published={
            "resnet50": {"accuracy": 0.84, "macro_f1": 0.83},
            "resnet50 + convnext_tiny": {"accuracy": 96.1, "macro_precision": 95.8},
            "a network that was not run": {"accuracy": 0.9},
        },
        name="clear winner",
    ),
    "tie": Made(
        accuracies=dict.fromkeys(_NAMES, 0.88),
        rows=400,
        seeds=(0,),
        groups=24,
        pictures=3,
        epochs=4,
        audit=[],
        unit_words={"group_word": "patient"},
        name="tie of seven",
        seed=3,
    ),
    "noise": Made(
        accuracies=dict.fromkeys(_NAMES[:4], 0.5),
        classes=("healthy", "acidosis"),
        shuffled=True,
        rows=240,
        seeds=(0,),
        pictures=2,
        metrics=("roc_auc", "accuracy"),
        audit=[],
        name="noise",
    ),
    "people": Made(
        accuracies={"resnet50": 0.84, "vit_small_patch16_224": 0.78, "resnet50 + vit_small_patch16_224": 0.86},
        classes=("baseline", "stress"),
        rows=300,
        groups=5,
        folds=5,
        seeds=(0,),
        spans=True,
        features=6,
        split="leave-one-group-out",
        unit_words={"group_word": "person/people"},
        name="leave one person out",
    ),
    "sweep": Made(
        accuracies={
            _sweep_name(n, a): 0.8 + 0.01 * i + 0.012 * k for i, n in enumerate(_SIX) for k, a in enumerate(_AUGMENTATIONS)
        },
        rows=210,
        folds=3,
        seeds=(0,),
        epochs=3,
        pictures=3,
        audit=[],
        settings={_sweep_name(n, a): {"recipe.augment": a} for n in _SIX for a in _AUGMENTATIONS},
        name="forty candidates",
    ),
}
