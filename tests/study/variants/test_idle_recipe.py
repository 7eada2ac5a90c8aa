from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.study.plan import plan_study
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import read_study

OWN = "in the study's recipe change{} no candidate: all have recipes of their own (frozen ones `probe`), or none"


@pytest.mark.parametrize(
    ("recipe", "candidates", "idle"),
    [
        ("{epochs: 3}", "{backbone: test_vit, weights: random, frozen: true}", "epochs"),
        ("{batch_size: 8, lr: 1e-3}", "{backbone: test_vit, weights: random, recipe: scratch}", "batch_size and lr"),
        ("{batch_size: 8, lr: 1e-3}", "{backbone: test_vit, weights: random, recipe: {lr: 0.1}}", "lr"),
        ("{lr: 1e-3}", "{baseline: colour-texture}", "lr"),
        ("{epochs: 3}", "{backbone: test_vit, weights: random}, {baseline: colour-texture}", ""),
        ("{preset: probe, epochs: 3}", "{backbone: test_vit, weights: random, frozen: true}", ""),
        ("{epochs: 10}", "{backbone: test_vit, weights: random, recipe: scratch}", ""),  # the default, written out
        ("scratch", "{backbone: test_vit, weights: random, frozen: true}", ""),
    ],
)
def test_a_plan_tells_the_words_that_nobody_reads(tmp_path: Path, recipe: str, candidates: str, idle: str) -> None:
    """Against the candidates of a study without these words, which are the same."""
    text = "name: t\ndata: {digits: true, max_samples: 100}\nprotocol: {split: k-fold, folds: 2, seeds: [0]}\n"
    (tmp_path / "study.yaml").write_text(f"{text}recipe: {recipe}\ncandidates: [{candidates}]\n")
    (tmp_path / "without.yaml").write_text(f"{text}candidates: [{candidates}]\n")
    study, without = (read_study(tmp_path / name)[0] for name in ("study.yaml", "without.yaml"))
    planned, plain = plan_study(study, tmp_path), plan_study(without, tmp_path)
    notes = planned.study.context.settled_defaults
    assert notes == ((f"{idle} {OWN.format('' if ' and ' in idle else 's')}",) if idle else ())
    if idle == "epochs" or idle == "batch_size and lr":
        assert [run.key for run in planned.runs] == [run.key for run in plain.runs]
    assert not plan_study(make_smoke_version(study), tmp_path).study.context.settled_defaults
