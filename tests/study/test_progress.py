"""What a results folder tells of its runs, in lines."""

from __future__ import annotations

from phoropter.study.progress import ProgressEvent, describe_failures, name_preparation


def test_failures_of_one_cause_are_one_line_with_their_number() -> None:
    notes = [{"candidate": "net", "split": f"fold {n}", "error": "no memory"} for n in (1, 2, 3)]
    notes.insert(1, {"candidate": "vit", "split": "fold 1", "error": "diverged"})
    assert describe_failures(notes) == [
        "failed: 3 runs, net · fold 1 and 2 more: no memory",
        "failed: vit · fold 1: diverged",
    ]
    assert describe_failures(notes[:1] + notes[2:3]) == ["failed: 2 runs, net · fold 1 and 1 more: no memory"]
    assert describe_failures([]) == []


def test_a_preparation_says_of_which_network() -> None:
    assert name_preparation(ProgressEvent("features", "resnet50", 1, 2)) == "computing features of resnet50"
    assert name_preparation(ProgressEvent("decoding", "", 1, 2)) == "decoding images"
