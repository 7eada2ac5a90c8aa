"""`about:` of a study: figures as numbers or with their spread, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.study.settings.about import About, PublishedFigure


def test_a_published_figure_is_a_number_or_has_its_spread() -> None:
    figures = {"a": {"roc_auc": {"value": 0.8, "std": 0.02}, "unseen_roc_auc": 0.65}}
    about = validate_as(About, {"source": "a paper", "published": figures, "published_sample": {"runs": 30, "folds": 10}})
    assert about.published["a"] == {"roc_auc": PublishedFigure(value=0.8, std=0.02), "unseen_roc_auc": 0.65}
    assert about.model_dump(exclude_unset=True)["published"] == figures


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"runs": 30}, "'runs' and 'folds' say one thing together; give both, or none"),
        ({"unseen_negatives": 30}, "'unseen_positives' and 'unseen_negatives' say one thing together"),
        ({"rows": 0}, "rows"),
        ({"row": 10}, "unknown key 'row'"),
    ],
)
def test_half_a_sample_is_refused(sample: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate_as(About, {"source": "a paper", "published_sample": sample})
