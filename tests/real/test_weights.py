"""Real ImageNet weights load strictly and reach the accuracy stated in their metadata on the ImageNet sample."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from phoropter.models import backbones, catalog
from phoropter.models import classifier as classifiers
from phoropter.models.spec import BackboneSpec, ClassifierSpec, HeadSpec

pytestmark = pytest.mark.real
SETS = {"mobilenetv2_100.tf_in1k": 1000, "mobilenetv1_100.tf_qat_in1k": 1000, "mobilenetv2_100.onnxzoo_in1k_headless": 0}


def spec_of(real_data: Path, stem: str) -> BackboneSpec:
    return BackboneSpec(name=stem.partition(".")[0], weights=str(real_data / "weights" / f"{stem}.safetensors"))


@pytest.fixture(scope="module")
def sample(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thousand images, unpacked; sorted by name they are classes 0 to 999."""
    folder = tmp_path_factory.mktemp("imagenet")
    with tarfile.open(real_data / "imagenet-sample-images.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "imagenet-sample-images"


def picture(path: Path) -> np.ndarray:
    """Short side 256, centre 224, RGB → (3, 224, 224) uint8."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    if scale != 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)


@pytest.mark.parametrize(("stem", "classes"), SETS.items())
def test_weights_load_strictly_with_the_values_of_their_sidecar(real_data: Path, stem: str, classes: int) -> None:
    spec = spec_of(real_data, stem)
    catalog.check_weights(spec)
    said = json.loads((real_data / "weights" / f"{stem}.json").read_text())
    made = backbones.build_backbone(spec, seed=0, keep_heads=classes > 0)
    assert made.build_record.num_classes == classes and made.num_features == catalog.find_architecture(spec.name).num_features
    assert (list(made.mean), list(made.std), made.side) == (said["mean"], said["std"], said["input_size"][1])
    again = backbones.build_backbone(spec, seed=1)
    assert made.identity == again.identity  # nothing was left to chance


@pytest.mark.slow
@pytest.mark.parametrize("stem", [s for s, classes in SETS.items() if classes])
def test_the_imagenet_sample_reaches_the_stated_top_1(real_data: Path, sample: Path, stem: str) -> None:
    said = json.loads((real_data / "weights" / f"{stem}.json").read_text())["verified"]
    spec = ClassifierSpec(
        backbones=(spec_of(real_data, stem),), head=HeadSpec(kind="pretrained"), classes=tuple(map(str, range(1000))), picture=224
    )
    model = classifiers.build_classifier(spec, seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    paths = sorted(sample.glob("*.JPEG"))
    assert len(paths) == 1000
    ranks = []
    with torch.inference_mode():
        for start in range(0, 1000, 50):
            batch = torch.from_numpy(np.stack([picture(p) for p in paths[start : start + 50]]))
            ranks.append(model(batch).topk(5).indices)
    hits = torch.cat(ranks) == torch.arange(1000)[:, None]
    top1, top5 = 100 * hits[:, 0].double().mean().item(), 100 * hits.any(1).double().mean().item()
    print(f"{stem}: top-1 {top1:.1f}, top-5 {top5:.1f}")
    assert abs(top1 - said["top1_on_imagenet_sample_as_packed_here"]) <= 1
    assert abs(top5 - said["top5_on_imagenet_sample_as_packed_here"]) <= 1
