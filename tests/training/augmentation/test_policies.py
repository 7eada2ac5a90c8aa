"""AutoAugment and RandAugment against torchvision's, with the same random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from augmented_images import (
    augment,
    make_hashes,
    make_images,
    to_pil,
)

from phoropter.core.seeds import uniform_numbers
from phoropter.models import timm_compat


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_equals_torchvision_s_under_our_random_numbers(policy: str) -> None:
    given = make_images(60)
    out = augment({"autoaugment": {"policy": policy, "fill": 128}}, given).pictures
    module = timm_compat.import_torchvision("transforms.autoaugment")
    theirs = module.AutoAugment(module.AutoAugmentPolicy(policy), fill=[128, 128, 128])
    for picture, found, u in zip(given, out, uniform_numbers(make_hashes(60), 5, 0, "augment/autoaugment", 0), strict=True):
        signs = torch.tensor([int(u[3] >= 0.5), int(u[4] >= 0.5)])
        theirs.get_params = lambda count, u=u, signs=signs: (int(u[0] * count), torch.from_numpy(u[1:3]), signs)
        assert np.array_equal(found.permute(1, 2, 0), np.asarray(theirs(to_pil(picture))))
    assert not torch.equal(out, given)


def test_randaugment_equals_torchvision_s_under_our_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_images(60)
    out = augment({"randaugment": {"ops": 3, "magnitude": 14}}, given).pictures
    module = timm_compat.import_torchvision("transforms.autoaugment")
    theirs = module.RandAugment(num_ops=3, magnitude=14, fill=[0, 0, 0])
    for picture, found, u in zip(given, out, uniform_numbers(make_hashes(60), 6, 0, "augment/randaugment", 0), strict=True):
        pairs = iter(u.reshape(3, 2).tolist())
        sign = 0.0

        def drawn(high: int, size: Any, pairs: Any = pairs) -> torch.Tensor:
            nonlocal sign
            if high == 2:  # asked for only where the operation has a sign; 1 is negative there
                return torch.tensor([int(sign < 0.5)])
            which, sign = next(pairs)
            return torch.tensor([int(which * high)])

        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", drawn)
            expected = np.asarray(theirs(to_pil(picture)))
        assert np.array_equal(found.permute(1, 2, 0), expected)
