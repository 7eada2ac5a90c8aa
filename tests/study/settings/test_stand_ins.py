"""Stand-ins: a sibling of the same family, or weights at hand, each network another as long as there are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from phoropter.core.errors import WeightsError
from phoropter.models.spec import BackboneSpec
from phoropter.study.settings.stand_ins import SIBLINGS, CarriedWeights, StandIns, list_carried_weights

FIRST = CarriedWeights(Path("/w/a.safetensors"), "mobilenetv1_100", "cnn", True)
SECOND = CarriedWeights(Path("/w/b.safetensors"), "mobilenetv2_100", "cnn", False)


def test_files_that_fit_no_network_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOROPTER_WEIGHTS", raising=False)
    assert list_carried_weights() == ()
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path))
    for name in ("resnet18.mine", "unknown.mine"):
        save_file({"x": np.zeros(1, dtype=np.float32)}, tmp_path / f"{name}.safetensors")
    assert list_carried_weights() == (CarriedWeights(tmp_path / "resnet18.mine.safetensors", "resnet18", "cnn", False),)
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="there is no such folder"):
        list_carried_weights()


def test_each_network_takes_other_weights_until_all_are_taken() -> None:
    stand_ins = StandIns((FIRST, SECOND), 128, {})
    taken = [
        stand_ins.replace_backbone(BackboneSpec(name=n), carry=True).name for n in ("vgg19", "resnet50", "vgg19", "resnet152")
    ]
    assert taken == ["mobilenetv1_100", "mobilenetv2_100", "mobilenetv1_100", "mobilenetv1_100"]
    alone = StandIns((FIRST, SECOND), 128, {})
    assert [alone.replace_backbone(BackboneSpec(name=n), carry=True, with_classes=True).name for n in ("vgg19", "resnet50")] == [
        "mobilenetv1_100"
    ] * 2


@pytest.mark.parametrize(
    ("name", "options"), [("vit_base_patch16_224", {}), ("resnet50", {"weights": "random"}), ("coatnet_1_rw_224", {})]
)
def test_weights_of_another_family_and_random_networks_are_left(name: str, options: dict[str, str]) -> None:
    small = StandIns((FIRST, SECOND), 128, {}).replace_backbone(BackboneSpec(name=name, **options), carry=True)  # type: ignore[arg-type]
    assert small.weights == "random" and small.name in {sibling for _, sibling, _ in SIBLINGS}
