"""Extensions are recorded with their source, and code that changed under one version is refused in the folder of the old one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phoropter as ph
from phoropter.core.errors import SpecError


def hits(labels: Any, probabilities: Any) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def errors(labels: Any, probabilities: Any) -> float:
    return float((probabilities.argmax(axis=1) != labels).mean())


def make_study(metric: Any = None, **keys: Any) -> ph.Study:
    metrics = ["accuracy"] if metric is None else ["accuracy", metric]
    return ph.Study(
        name="own",
        data=ph.digits(size=32, max_samples=60),
        candidates=[ph.probe("test_resnet", weights="random", name="net", recipe={"preset": "probe", "epochs": 1})],
        protocol=ph.KFold(2, seeds=[0]),
        save_models="none",
        metrics=metrics,
        **keys,
    )


def recorded(folder: Path) -> list[dict[str, str]]:
    extensions: list[dict[str, str]] = json.loads((folder / "study.json").read_text()).get("extensions", [])
    return extensions


def test_changed_code_under_one_version_is_refused_and_a_new_version_is_not(tmp_path: Path) -> None:
    mine = ph.Metric("mine", compute=hits, range=(0, 1))
    make_study(mine).run(tmp_path, quiet=True)
    (entry,) = recorded(tmp_path)
    assert (entry["kind"], entry["name"], entry["version"]) == ("metric", "mine", "1")
    assert entry["source_digest"] == mine.source_digest()
    make_study(mine).run(tmp_path, quiet=True)  # unchanged code goes on
    changed = ph.Metric("mine", compute=errors, range=(0, 1))
    message = r"^the metric 'mine' \(version 1\) has changed since this results folder was begun; give it a new version, or use"
    with pytest.raises(SpecError, match=message):
        make_study(changed).run(tmp_path, quiet=True)
    make_study(ph.Metric("mine", compute=errors, range=(0, 1), version="2")).run(tmp_path, quiet=True)
    assert [e["version"] for e in recorded(tmp_path)] == ["1", "2"]
    make_study().run(tmp_path, quiet=True)
    with pytest.raises(SpecError, match=message):  # known although the last study did not use it
        make_study(changed).run(tmp_path, quiet=True)


def test_a_study_without_extensions_records_none(tmp_path: Path) -> None:
    make_study().run(tmp_path, quiet=True)
    assert "extensions" not in json.loads((tmp_path / "study.json").read_text())


def test_an_object_that_other_processes_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    local = ph.Metric("local", compute=lambda labels, probabilities: 0.5, range=(0, 1))
    with pytest.raises(SpecError, match=r"study 'own' holds an object .* define it in a module of its own, .*\(jobs=1\)"):
        make_study(local).run(tmp_path, jobs=2, quiet=True)


def test_an_augmentation_step_in_a_recipe_is_found(tmp_path: Path) -> None:
    step = ph.AugmentationStep("same", apply=lambda images, uniforms: images, uniforms=1)
    study = make_study(recipe={"preset": "scratch", "epochs": 1, "augment": ["hflip", step]})
    study = ph.Study(**{**vars(study), "candidates": [ph.finetune("test_resnet", weights="random")]})
    study.run(tmp_path, quiet=True)
    assert [(e["kind"], e["name"]) for e in recorded(tmp_path)] == [("augmentation step", "same")]
    assert np.isfinite(study.run(tmp_path, quiet=True).to_dataframe()["accuracy"]).all()


def test_an_object_inside_the_recipe_of_one_candidate_is_recorded(tmp_path: Path) -> None:
    schedule = ph.Schedule("flat", factor=lambda step, steps_per_epoch, epochs: 1.0)
    net = ph.probe("test_resnet", weights="random", recipe={"preset": "probe", "epochs": 1, "schedule": schedule})
    ph.Study(**{**vars(make_study()), "candidates": [net]}).run(tmp_path, quiet=True)
    assert [(e["kind"], e["name"]) for e in recorded(tmp_path)] == [("schedule", "flat")]
    (candidate,) = json.loads((tmp_path / "study.json").read_text())["study"]["candidates"]
    assert candidate["recipe"]["schedule"] == {"name": "flat", "version": "1"}
