"""The script of the small studies: data that stand in, studies with their words, and the line of a part."""

from __future__ import annotations

import re
import runpy
import tarfile
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import StoreError
from phoropter.core.storage.sealed_json import read_sealed_json, write_sealed_json
from phoropter.study.spec import list_shipped_studies
from tiny_study import run_tiny_study

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "small_studies.py"))


def test_what_is_there_is_unpacked_and_what_is_missing_is_said(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "intel" / "seg_train").mkdir(parents=True)
    with tarfile.open(source / "intel.tar", "w") as archive:
        archive.add(source / "intel", "intel")
    (source / "cifar10-mini").mkdir()
    for _ in range(2):  # a second call changes nothing
        said = SCRIPT["gather_data"](source, tmp_path / "data")
        assert len(said) == 4 and all("is missing, so parts that need" in sentence for sentence in said)
        assert not any("intel" in sentence or "cifar" in sentence for sentence in said)
        assert (tmp_path / "data/intel/seg_train").is_dir() and (tmp_path / "data/cifar10").samefile(source / "cifar10-mini")


def test_every_pattern_finds_its_words_in_a_shipped_study(tmp_path: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in list_shipped_studies().values()]
    for pattern, _ in SCRIPT["INSTEAD"]:
        assert any(re.search(pattern, text) for text in texts), pattern
    (tmp_path / "data").mkdir()
    named = {
        key for name in SCRIPT["PAPERS"] for part in SCRIPT["read_parts"](name, tmp_path) for key in part.data.model_fields_set
    }
    assert {"eegmat", "simulate", "folder"} <= named and not {"wesad", "cifar100"} & named
    first = {part.name: part.metric_names for part in SCRIPT["read_parts"]("sonic-wesad", tmp_path)}
    assert first["sonic-wesad-2-class-within-subject"] == ["macro_f1", "accuracy"], "three rows of rest to one of arithmetic"
    assert first["sonic-wesad-3-class-within-subject"] == ["macro_f1", "accuracy"], "more than half are of the first class"
    births = {part.name: part for part in SCRIPT["read_parts"]("ctg-high-risk", tmp_path)}
    assert births["ctg-high-risk-simulated"].metric_names[0] == "roc_auc"
    assert SCRIPT["name_data"](births["ctg-high-risk-simulated"]) == "simulated births"
    assert SCRIPT["name_data"](births["ctg-high-risk-ctu"]) == "CTU-UHB"


@pytest.mark.timeout(120)
def test_the_line_of_a_part_tells_the_best_candidate_from_guessing(tmp_path: Path) -> None:
    store = run_tiny_study(tmp_path)
    found = [run.load_predictions() for run in store.runs()]
    labels = np.concatenate([p.labels for p in found if p is not None])
    right = np.concatenate([p.logits.argmax(axis=1) == p.labels for p in found if p is not None])
    said = SCRIPT["describe_best"](store.folder)
    assert said.startswith(f"vit: {100 * right.mean():.1f} % (") and said.endswith("clearly better")
    assert f"guessing {100 * np.bincount(labels).max() / len(labels):.1f} %" in said
    recorded = read_sealed_json(store.folder / "study.json", StoreError)
    recorded["study"]["metrics"] = ["macro_f1", "accuracy"]
    write_sealed_json(store.folder / "study.json", recorded)
    assert SCRIPT["describe_best"](store.folder).startswith("vit: macro F1 "), "the metric is named where it is not accuracy"


def test_seconds_of_several_calls_are_added_up(tmp_path: Path) -> None:
    add = SCRIPT["add_seconds"]
    assert [add(tmp_path / "s.json", name, 2.0) for name in ("a", "b", "a")] == [2.0, 2.0, 4.0]
