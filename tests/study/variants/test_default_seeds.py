"""Which studies get five seeds without saying so, and what always wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from phoropter.cli import main
from phoropter.models.timm_compat import import_timm
from phoropter.study.plan import plan_study
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.variants.default_seeds import MAX_FREE_ROWS, settle_seeds

PROBE = {"name": "a", "backbone": "resnet18", "frozen": True, "recipe": "probe"}
TRAINED = {"name": "b", "backbone": {"name": "test_resnet", "weights": "random", "seed": 1}, "recipe": "scratch"}


def study_of(*candidates: dict, **keys) -> StudySpec:
    return StudySpec.model_validate({"name": "s", "data": {"digits": True}, "candidates": list(candidates), **keys})


def seeds_of(study: StudySpec, rows: int = 500) -> tuple[int, ...]:
    return settle_seeds(study, rows).protocol.seeds


@pytest.mark.parametrize("split", ["k-fold", "stratified-k-fold", "group-k-fold"])
def test_frozen_alone_in_folds(split: str) -> None:
    settled = settle_seeds(study_of(PROBE, protocol=split), 500)
    assert settled.protocol.seeds == (0, 1, 2, 3, 4)
    assert "all candidates are frozen" in settled.context.settled_defaults[0]
    assert seeds_of(study_of(PROBE, {**PROBE, "name": "l", "recipe": "logistic"})) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("said", [{"seeds": [0]}, {"seeds": [7, 8]}, {"repeats": 2}, {"reshuffle": True}])
def test_what_is_written_wins(said: dict) -> None:
    study = study_of(PROBE, protocol=said)
    assert settle_seeds(study, 500) is study


def test_baselines_beside_frozen_networks_are_as_cheap() -> None:
    settled = settle_seeds(study_of(PROBE, {"baseline": "colour-texture"}), 500)
    assert settled.protocol.seeds == (0, 1, 2, 3, 4)
    assert "all candidates are frozen or baselines" in settled.context.settled_defaults[0]
    assert seeds_of(study_of({"baseline": "colour-texture"})) == (0,)  # without a network there is no training to vary
    assert seeds_of(study_of(PROBE, {"baseline": "signal-1d"})) == (0,)  # which is trained
    assert seeds_of(study_of(PROBE, {"predictions": "theirs.csv"})) == (0,)  # made for the splits of one seed


def test_one_seed_where_folds_are_not_free() -> None:
    assert seeds_of(study_of(PROBE, TRAINED)) == (0,)
    assert seeds_of(study_of(PROBE, protocol="hold-out")) == (0,)
    assert seeds_of(study_of(PROBE, protocol="leave-one-group-out")) == (0,)
    assert seeds_of(study_of({**PROBE, "backbone": {"name": "test_resnet", "weights": "random"}})) == (0,)  # drawn by the seed
    assert seeds_of(study_of(PROBE, screening=True)) == (0,)
    assert seeds_of(study_of(PROBE), MAX_FREE_ROWS + 1) == (0,)


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    save_file(import_timm().create_model("test_resnet").state_dict(), tmp_path / "net.safetensors")
    backbone = "{name: test_resnet, weights: net.safetensors, size: 32}"
    text = "name: tiny\ndata: {digits: true, size: 32, max_samples: 60}\nprotocol: {folds: 2}\ncandidates:\n"
    text += f"  - {{name: a, backbone: {backbone}, frozen: true, recipe: logistic}}\n"
    (tmp_path / "study.yaml").write_text(text)
    return tmp_path / "study.yaml"


def test_the_plan_has_the_settled_seeds(study_file: Path) -> None:
    planned = plan_study(read_study(study_file)[0], study_file.parent / "cache")
    assert len(planned.runs) == 10 and planned.study.protocol.seeds == (0, 1, 2, 3, 4)
    assert planned.study.context.settled_defaults


def test_plan_and_run_say_what_was_settled_and_how_to_get_one_round(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study_file.parent)
    words = "5 seeds × 2 folds, since all candidates are frozen and folds cheap; for one round of folds say `seeds: [0]`"
    plan, run = (["plan", str(study_file)], ["run", str(study_file), "--device", "cpu"])
    for command in (plan, run):
        shown = CliRunner().invoke(main, command, catch_exceptions=False)
        assert shown.exit_code == 0 and shown.output.count(words) == 1, shown.output
    (setting,) = set(re.findall(r"--set '(.*?)'", shown.output))
    once = CliRunner().invoke(main, [*plan, "--set", setting, "-o", "once"], catch_exceptions=False)
    assert "2 of 2 runs to compute" in once.output and words not in once.output, once.output
