"""A loss of the user's own: what is accepted as one, how a recipe takes it, and what it adds to a run's key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import phoropter as ph
from phoropter.core.errors import SpecError
from phoropter.core.extensions import trust_code
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.custom_loss import Loss
from phoropter.training.candidates.presets import PRESETS, parse_recipe


def hinge(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.multi_margin_loss(logits, labels, reduction="none")


HINGE = Loss("hinge", compute=hinge)


def test_a_recipe_takes_the_object_or_a_mapping_that_holds_it() -> None:
    for written in (HINGE, {"kind": HINGE}, {"kind": HINGE, "class_weights": "auto"}):
        recipe = parse_recipe({"epochs": 3, "loss": written}, PRESETS["scratch"])
        assert recipe.loss.kind is HINGE and recipe.total_epochs == 3
        assert recipe.plain()["loss"]["kind"] == {"name": "hinge", "version": "1"}
    (candidate,) = parse_candidates([ph.finetune("resnet50", recipe={"loss": HINGE})], PRESETS["finetune"])
    assert candidate.recipe.loss.kind is HINGE and ph.Loss is Loss


def test_its_name_and_version_enter_the_identity_of_a_candidate() -> None:
    def identity(loss: Any) -> dict[str, Any]:
        (candidate,) = parse_candidates([{"backbone": "resnet50", "recipe": {"loss": loss}}], PRESETS["finetune"])
        return candidate.identity()

    assert identity(HINGE) == identity(Loss("hinge", compute=lambda z, y: hinge(z, y)))
    assert identity(HINGE) != identity(Loss("hinge", compute=hinge, version="2"))
    assert identity(HINGE) != identity("focal") != identity("cross-entropy")
    assert HINGE.source_digest() != Loss("hinge", compute=lambda z, y: hinge(z, y)).source_digest()


def test_a_study_file_names_it_and_is_read_only_when_trusted(tmp_path: Path) -> None:
    (tmp_path / "losses_of_mine.py").write_text(
        "import phoropter as ph\n\ndef square(logits, labels):\n"
        "    return (1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]) ** 2\n\nSQUARE = ph.Loss('square', compute=square)\n"
    )
    with pytest.raises(SpecError, match="--trust-code"):
        parse_recipe({"loss": "losses_of_mine:SQUARE"}, PRESETS["scratch"])
    with trust_code(tmp_path):
        kind = parse_recipe({"loss": {"kind": "losses_of_mine:SQUARE"}}, PRESETS["scratch"]).loss.kind
        assert isinstance(kind, Loss) and kind.name == "square"
        with pytest.raises(SpecError, match="has no 'CUBE'"):
            parse_recipe({"loss": "losses_of_mine:CUBE"}, PRESETS["scratch"])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"loss": {"kind": HINGE, "smoothing": 0.1}}, "smoothing has no effect on the loss 'hinge' of your own"),
        ({"loss": {"kind": HINGE, "gamma": 1}}, "gamma has no effect on the loss 'hinge' of your own"),
        ({"loss": "hingee"}, "expected 'cross-entropy' or 'focal'"),
        ({"loss": hinge}, "loss"),
    ],
)
def test_what_a_recipe_refuses(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_recipe(recipe, PRESETS["scratch"])


def test_a_solved_head_takes_no_other_loss() -> None:
    with pytest.raises(SpecError, match="loss contradict"):
        parse_recipe({"preset": "logistic", "loss": HINGE}, PRESETS["scratch"])


def test_a_built_in_name_and_what_cannot_be_called_are_refused() -> None:
    with pytest.raises(ValueError, match="'focal', the name of a built-in loss"):
        Loss("focal", compute=hinge)
    with pytest.raises(ValueError, match="compute of the loss 'mine' is a int, expected a function"):
        Loss("mine", compute=3)  # type: ignore[arg-type]
