"""Copies by a network's features: planted ones are found, pictures of one kind and windows of one person are not accused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phoropter.data.leakage.feature_duplicates import MAX_ROWS, MIN_ROWS, find_feature_duplicates


def features(count: int = 400, width: int = 64, classes: int = 6, seed: int = 0) -> NDArray[np.float32]:
    """(N, D) as a trained network gives them: classes lie apart, pictures of one class are alike."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(classes, width))
    return (centres[np.arange(count) % classes] + draw.normal(0, 1.0, (count, width))).astype(np.float32)


def copies(of: NDArray[np.float32], seed: int = 1, noise: float = 0.3) -> NDArray[np.float32]:
    return (of + np.random.default_rng(seed).normal(0, noise, of.shape)).astype(np.float32)


def test_planted_copies_are_found_and_nothing_else() -> None:
    made = features()
    found = find_feature_duplicates(np.concatenate([made, copies(made[:30])]), "net")
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(row, 400 + row) for row in range(30)}
    assert set(found.relation.tolist()) == {"by the features of net"} and found.skipped == ()
    assert (np.diff(found.score) <= 0).all()


def test_clean_sets_are_not_accused() -> None:
    """False alarms, counted over 20 sets of 400 pictures, half of them with few and close classes."""
    assert sum(len(find_feature_duplicates(features(classes=2 + 6 * (seed % 2), seed=seed)).pairs) for seed in range(20)) == 0


def test_several_copies_of_one_picture_are_all_pairs() -> None:
    made = features()
    found = find_feature_duplicates(np.concatenate([made, copies(made[:1], 1), copies(made[:1], 2)]))
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(0, 400), (0, 401), (400, 401)}


def test_windows_of_one_person_are_no_copies() -> None:
    """Twenty people of twenty windows: every window has nineteen about equally near neighbours."""
    draw = np.random.default_rng(0)
    people = np.repeat(draw.normal(size=(20, 64)), 20, axis=0)
    assert len(find_feature_duplicates(people + draw.normal(0, 0.5, people.shape)).pairs) == 0


def test_pairs_are_those_of_a_literal_look_at_all_cosines() -> None:
    made = features(120)
    made = np.concatenate([made, copies(made[:10], noise=0.8)])
    white = (made - made.mean(0)) / made.std(0)
    unit = [a / np.linalg.norm(a) for a in white]
    cosines = np.array([[float(a @ b) for b in unit] for a in unit])
    np.fill_diagonal(cosines, -2)
    listed: list[set[int]] = []
    for row in cosines:
        order = np.argsort(-row)[:8]
        best = [n for n in range(1, 8) if row[order[n - 1]] - row[order[n]] >= 0.2 and row[order[n - 1]] >= 0.65]
        listed.append({int(i) for i in order[: max(best, default=0)]})
    literal = {(a, b) for a in range(130) for b in listed[a] if a < b and a in listed[b]}
    found = {tuple(pair) for pair in find_feature_duplicates(made).pairs.tolist()}
    assert found == literal and literal


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (np.zeros((MIN_ROWS - 1, 4)), "too few"),
        (np.lib.stride_tricks.as_strided(np.zeros(4), (MAX_ROWS + 1, 4), (0, 8)), "at most 30,000"),
        (np.full((60, 4), np.nan), "not finite"),
    ],
)
def test_what_is_not_compared_is_said(made: Any, words: str) -> None:
    found = find_feature_duplicates(made)
    assert not len(found.pairs) and words in found.skipped[0]


def test_features_without_any_spread_are_no_copies() -> None:
    assert len(find_feature_duplicates(np.ones((60, 8), dtype=np.float32)).pairs) == 0
