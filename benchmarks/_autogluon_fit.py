"""Run by the Python of an environment with AutoGluon MultiModal: it trains one network on a folder's parts, and nothing else.

    PYTHON _autogluon_fit.py FOLDER NETWORK SIDE BATCH EPOCHS OUT

FOLDER has `train` and `validation` with a folder of JPEG files for each class. Told as timm's script is (_timm_script.py): AdamW
with one rate and a cosine, no warm-up, resizing to a square and flip, float32, the validation after each epoch, the best
checkpoint. The rest is as it comes. Weights are random on both sides; they change no time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "src"))


def list_pictures(part: Path) -> Any:
    """A data frame of the files of a part and their classes."""
    import pandas as pd

    return pd.DataFrame([{"image": str(file), "label": file.parent.name} for file in sorted(part.rglob("*.jpg"))])


def main() -> None:
    # timm does not import where torchvision's compiled operators do not load, unless this module has been there first.
    from phoropter.models import timm_compat

    timm_compat.import_timm()
    from autogluon.multimodal import MultiModalPredictor
    from autogluon.multimodal.models import timm_image

    folder, name, out = Path(sys.argv[1]), sys.argv[2], sys.argv[6]
    side, batch, epochs = (int(word) for word in sys.argv[3:6])
    make = timm_image.create_model
    own: dict[str, Any] = {"pretrained_cfg_overlay": {"input_size": (3, side, side)}}
    if name.startswith("vit"):
        own["img_size"] = side

    def make_random(checkpoint: str, pretrained: bool = True, **given: Any) -> Any:
        return make(checkpoint, pretrained=False, **{**own, **given})

    timm_image.create_model = make_random
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=out, verbosity=0)
    predictor.fit(
        list_pictures(folder / "train"),
        tuning_data=list_pictures(folder / "validation"),
        hyperparameters={
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": name,
            "model.timm_image.image_size": side,
            "model.timm_image.train_transforms": ["resize_to_square", "random_horizontal_flip"],
            "model.timm_image.val_transforms": ["resize_to_square"],
            "env.num_gpus": 0,
            "env.batch_size": batch,
            "env.per_gpu_batch_size": batch,
            "env.num_workers": 0,
            "env.num_workers_inference": 0,
            "env.precision": 32,
            "optim.max_epochs": epochs,
            "optim.val_check_interval": 1.0,
            "optim.lr_choice": "single_stage",
            "optim.weight_decay": 0.05,
            "optim.warmup_steps": 0.0,
            "optim.top_k": 1,
            "optim.top_k_average_method": "best",
        },
    )


if __name__ == "__main__":
    main()
