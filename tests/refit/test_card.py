"""The card of a bundle is one that the hub reads, with the study's figures and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from phoropter.models.spec import BackboneSpec
from phoropter.refit.card import _describe_license
from phoropter.results.store import Store
from phoropter.training.candidates.refit_record import RefitRecord
from small_pictures import run_small_study

Refit = Callable[..., RefitRecord]


def test_the_hub_reads_the_card_with_the_study_s_figures(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    record = refit(shapes, tmp_path / "bundle", "logits")
    card = ModelCard.load(tmp_path / "bundle" / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("phoropter", "image-classification", "other")
    assert data.tags == ["image-classification", "phoropter", "test_resnet", "test_vit"]
    assert data.model_name == "shapes-logits" and data.eval_results is not None
    figures = {r.metric_name: r.metric_value for r in data.eval_results}
    assert figures["Accuracy"] == pytest.approx(record.evidence.metrics["accuracy"])
    assert len(figures) == len(record.evidence.metrics) and {r.dataset_name for r in data.eval_results} == {"pictures"}
    accuracy = next(r for r in data.eval_results if r.metric_name == "Accuracy")
    assert (accuracy.metric_args or {}) == (
        {}
        if record.evidence.figure.low is None
        else {"low": record.evidence.figure.low, "high": record.evidence.figure.high, "level": 0.95}
    )
    index = eval_results_to_model_index(data.model_name, data.eval_results)
    assert index == data.to_dict()["model-index"]
    assert "trained anew on 24 rows of the study" in card.text and "24 labelled rows" in card.text
    assert str(tmp_path) not in card.content and str(shapes.folder) not in card.content


def test_names_are_words_and_no_markup(refit: Refit, tmp_path: Path) -> None:
    text = "name: s\ndata: {digits: true, size: 32, max_samples: 40}\nprotocol: {split: stratified-k-fold, folds: 2}\n"
    text += "candidates: [{name: 'a <i>', backbone: test_resnet, weights: random, frozen: true, recipe: logistic}]\n"
    refit(run_small_study(tmp_path, text), tmp_path / "bundle", None)
    words = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8").split("---")[2]
    assert words.count(r"a \<i\>") >= 2 and "<i>" not in words


def test_the_card_of_recordings_names_no_task_of_pictures(signals: dict[str, Store], refit: Refit, tmp_path: Path) -> None:
    refit(signals["people"], tmp_path / "bundle", None)
    card = ModelCard.load(tmp_path / "bundle" / "README.md")
    assert card.data.pipeline_tag == "other" and "recordings" in (card.data.tags or [])
    assert "new/recordings" in card.text and "4 people" in card.text.replace("subjects", "people")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"resnet50": "pretrained", "vit_small_patch16_224": "pretrained"}, "apache-2.0"),
        ({"resnet50.tv_in1k": "pretrained"}, "bsd-3-clause"),
        ({"resnet50.tv_in1k": "pretrained", "resnet50": "pretrained"}, "other"),
        ({"resnet50": "random"}, "other"),
        ({"alexnet": "pretrained"}, "other"),
    ],
)
def test_the_licence_is_that_of_the_pretrained_weights(weights: dict[str, str], expected: str) -> None:
    backbones = [BackboneSpec(name=name, weights=of) for name, of in weights.items()]
    assert _describe_license(backbones)["license"] == expected
