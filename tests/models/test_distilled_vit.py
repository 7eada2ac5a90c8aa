"""Token students have two tokens and two heads, and predict the mean of their logits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from phoropter.core.errors import WeightsError
from phoropter.models import classifier as classifiers
from phoropter.models import timm_compat
from phoropter.models.classifier import Classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec, HeadSpec

DISTILLED = BackboneSpec(name="deit_tiny_distilled_patch16_224", weights="random", size=64, options={"depth": 2})


def student(classes: int = 5, **fields: object) -> Classifier:
    names = tuple(map(str, range(classes)))
    return classifiers.build_classifier(ClassifierSpec(backbones=(DISTILLED,), classes=names, picture=64, **fields), seed=0)  # type: ignore[arg-type]


def pictures(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_each_token_has_a_head_and_the_prediction_is_their_mean() -> None:
    ours = student(student="token")
    branch = ours.branches[0]
    with torch.no_grad():
        tokens = branch.body.forward_features(branch.preprocess(pictures().float()))  # type: ignore[operator]
        state = ours.head.state_dict()
        by_class = F.linear(tokens[:, 0], state["class_head.last.weight"], state["class_head.last.bias"])
        by_token = F.linear(tokens[:, 1], state["token_head.last.weight"], state["token_head.last.bias"])
        out = ours.forward_outputs(pictures())
    assert out.class_logits is not None and out.token_logits is not None
    torch.testing.assert_close(out.class_logits, by_class)
    torch.testing.assert_close(out.token_logits, by_token)
    torch.testing.assert_close(out.logits, (by_class + by_token) / 2)
    assert not torch.equal(by_class, by_token)


def test_a_plain_classifier_uses_the_mean_of_the_tokens_and_has_no_token_head() -> None:
    ours = student()
    branch = ours.branches[0]
    with torch.no_grad():
        tokens = branch.body.forward_features(branch.preprocess(pictures().float()))  # type: ignore[operator]
        torch.testing.assert_close(ours.forward_features(pictures())[0], tokens[:, :2].mean(1))
    assert ours.forward_outputs(pictures()).token_logits is None


def test_pretrained_heads_of_a_distilled_network_give_the_logits_of_timm() -> None:
    ours = student(1000, head=HeadSpec(kind="pretrained"))
    branch = ours.branches[0]
    theirs = copy.deepcopy(branch.body)
    theirs.head = ours.head.class_head.last  # type: ignore[union-attr, assignment]
    theirs.head_dist = ours.head.token_head.last  # type: ignore[union-attr, assignment]
    assert isinstance(theirs, timm_compat.import_timm("models.deit").VisionTransformerDistilled)
    with torch.no_grad():
        torch.testing.assert_close(ours(pictures()), theirs(branch.preprocess(pictures().float())))


def test_gradients_reach_both_heads_and_both_tokens() -> None:
    ours = student(student="token").train()
    ours(pictures()).square().sum().backward()
    assert [n for n, p in ours.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_pretrained_heads_with_another_number_of_classes_are_refused() -> None:
    with pytest.raises(WeightsError, match="has 1000 classes and the dataset has 5"):
        student(head=HeadSpec(kind="pretrained"))
