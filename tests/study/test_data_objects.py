"""Studies of data that are passed as objects: the keys, the smoke version, several processes, and what the record says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.deploy.bundle import load_bundle

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
LABELS = np.array(["cat", "dog"])[np.arange(48) % 2]
GROUPS = np.array([f"p{row // 4}" for row in range(48)])


def make_study(data: Any, **options: Any) -> ph.Study:
    return ph.Study(
        name="pets",
        data=data,
        candidates=[ph.finetune("test_resnet", weights="random")],
        recipe={"preset": "scratch", "epochs": 1},
        protocol=ph.GroupKFold(2),
        **options,
    )


class Items:
    classes = ("cat", "dog")

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return IMAGES[row], row % 2


def test_equal_contents_have_equal_run_keys_wherever_they_come_from(tmp_path: Path) -> None:
    np.savez(tmp_path / "pets.npz", images=IMAGES, labels=LABELS, groups=GROUPS)
    sources = [
        ph.npz(tmp_path / "pets.npz", size=32),
        ph.in_memory((IMAGES, LABELS, GROUPS), size=32),
        ph.in_memory(ph.from_torch(Items(), groups=GROUPS), size=32),
    ]
    keys = [[run.key for run in make_study(source).plan().runs] for source in sources]
    assert keys[0] == keys[1] == keys[2]
    changed = IMAGES.copy()
    changed[5, 3, 1, 2] ^= 1
    other = make_study(ph.in_memory((changed, LABELS, GROUPS), size=32)).plan()
    assert not {run.key for run in other.runs} & set(keys[0])


def test_a_sweep_and_the_smoke_version_keep_the_object() -> None:
    study = make_study((IMAGES, LABELS, GROUPS), sweep={"data.size": [32, 64]})
    assert {run.image_set.image_size for run in study.plan().runs} == {32, 64}
    assert {len(run.image_set.dataset) for run in study.smoke_version().plan().runs} == {48}


def test_an_object_of_another_kind_is_refused_when_the_study_is_made() -> None:
    with pytest.raises(SpecError, match=r"data.*: data is object, expected a Dataset"):
        make_study(object())
    with pytest.raises(SpecError, match="images are float64, expected uint8"):
        make_study((IMAGES / 255, LABELS))


@pytest.mark.slow
def test_two_processes_compute_a_study_of_arrays_and_its_bundle_is_loaded(tmp_path: Path) -> None:
    study = make_study(ph.in_memory((IMAGES, LABELS, GROUPS), size=32), save_models="all")
    results = study.run(tmp_path / "out", jobs=2, device="cpu", quiet=True)
    alone = study.run(tmp_path / "alone", device="cpu", quiet=True)
    assert results.to_dataframe().equals(alone.to_dataframe()) and len(results.runs) == 2
    recorded = results.store.study["study"]["data"]["object"]
    assert recorded["rows"] == 48 and recorded["fingerprint"] == ph.as_dataset((IMAGES, LABELS, GROUPS)).fingerprint
    bundle = load_bundle(results.runs[0].folder)
    assert bundle.data.source == "object" and bundle.data.size == 32
