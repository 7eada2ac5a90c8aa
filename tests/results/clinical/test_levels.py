"""Rows joined into answers of recordings and people: which levels a study has, and the answers against a loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.results.clinical.levels import Aggregation, LevelName, find_levels
from phoropter.results.stats.held_out_rows import HeldOutRows, join_answers
from phoropter.results.store import Predictions


def make_run(fold: int, pure: bool = True) -> Predictions:
    """Four people, two recordings of each, three windows a recording; recording names repeat between people."""
    draw = np.random.default_rng(fold)
    people = np.repeat([f"p{fold}{i}" for i in range(4)], 6)
    recordings = np.tile(np.repeat(["a", "b"], 3), 4)
    labels = np.repeat([0, 1, 0, 1], 6) if pure else (recordings == "b").astype(np.int64)
    logits = draw.normal(size=(24, 2)).astype(np.float32)
    ids = np.array([f"{fold}-{i}" for i in range(24)])
    sites = np.repeat(["north", "south"], 12)
    shuffled = draw.permutation(24)
    columns = (ids, labels, logits, people, sites, None, None, recordings)
    return Predictions(*(c if c is None else c[shuffled] for c in columns))


def join(level: str, rule: str = "mean", temperature: float = 1.0) -> tuple[HeldOutRows, NDArray[np.str_]]:
    aggregation = Aggregation(level, rule, 1, temperature)  # type: ignore[arg-type]
    return join_answers([aggregation.apply_to(make_run(f)) for f in (0, 1)], [(0, 0), (0, 0)])


def test_answers_of_recordings_and_people_are_those_of_a_loop() -> None:
    for level, per_run in (("recording", 8), ("group", 4)):
        rows, names = join(level, "mean", 1.7)
        assert len(rows.labels) == 2 * per_run and rows.splits.tolist().count(0) == per_run
        for fold in (0, 1):
            run = make_run(fold)
            p = np.exp(run.logits.astype(float) / 1.7)
            p /= p.sum(axis=1, keepdims=True)
            assert run.groups is not None and run.recordings is not None
            keys = [g if level == "group" else f"{g}\u001f{r}" for g, r in zip(run.groups, run.recordings, strict=True)]
            for name in set(keys):
                mine = np.array([key == name for key in keys])
                at = np.flatnonzero(names == name)
                assert len(at) == 1 and rows.unit_names[at[0]] == run.groups[mine][0]
                np.testing.assert_allclose(rows.probabilities[at[0]], p[mine].mean(axis=0), rtol=1e-6)
                assert rows.labels[at[0]] == run.labels[mine][0]


@pytest.mark.parametrize("level", ["row", "recording", "group"])
def test_labels_alone_are_those_of_the_answers(level: LevelName) -> None:
    aggregation = Aggregation(level)
    np.testing.assert_array_equal(aggregation.labels_of(make_run(0)), aggregation.apply_to(make_run(0)).labels)


def test_the_level_of_rows_is_the_rows() -> None:
    rows, names = join("row")
    assert sorted(names) == sorted([*make_run(0).ids, *make_run(1).ids])
    assert set(rows.unit_names) == {*make_run(0).groups, *make_run(1).groups}  # type: ignore[misc]


def test_a_level_needs_owners_of_one_class_with_several_rows() -> None:
    assert find_levels([make_run(0), make_run(1)]) == (["row", "recording", "group"], {})
    assert find_levels([make_run(0, pure=False)]) == (["row", "recording"], {"group": "4 of 4"})
    run = make_run(0)
    alone = Predictions(run.ids, run.labels, run.logits)
    assert find_levels([alone]) == (["row"], {})
    assert find_levels([Predictions(run.ids, run.labels, run.logits, run.groups)])[0] == ["row", "group"]


def test_an_owner_without_one_class_or_without_a_name_has_no_answer() -> None:
    with pytest.raises(StoreError, match=r"the group 'p0[0-3]' has rows of several classes"):
        Aggregation("group").apply_to(make_run(0, pure=False))
    run = make_run(0)
    for level, column in (("recording", "recordings"), ("group", "groups")):
        with pytest.raises(StoreError, match=f"name no {level}s"):
            Aggregation(level).apply_to(replace(run, **{column: None}))  # type: ignore[arg-type]
