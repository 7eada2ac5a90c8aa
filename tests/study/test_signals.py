"""Studies of recordings: subject and time of each prediction, sweeps over cleaning, and the shipped studies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from phoropter.data.spec import open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.study.executors import execute_study
from phoropter.study.plan import plan_study
from phoropter.study.settings.about import PublishedFigure
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.variants.sweep import expand_sweep
from phoropter.study.worker import ComputeOptions
from small_recordings import CTG_STUDY, ECG_STUDY

HERE = ComputeOptions("cpu", threads=1)
ECG = (
    ECG_STUDY
    + """\
recipe: {preset: scratch, epochs: 2}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""
)
CTG = (
    CTG_STUDY
    + """\
recipe: {preset: scratch, epochs: 2}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
metrics: [roc_auc]
"""
)


def write_study(folder: Path, text: str) -> StudySpec:
    file = folder / "study.yaml"
    file.write_text(text)
    return read_study(file)[0]


def test_predictions_hold_subject_site_and_seconds(tmp_path: Path) -> None:
    store = execute_study(write_study(tmp_path, ECG), tmp_path / "out", lambda event: None, options=HERE)
    seen: list[set[str]] = []
    for one in store.runs():
        held_out = one.load_predictions()
        assert held_out is not None and held_out.groups is not None and held_out.spans is not None and held_out.sites is not None
        assert (held_out.spans[:, 1] - held_out.spans[:, 0] == 5).all()
        seen.append(set(held_out.groups))
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 4
    notes = store.study["dataset"]["notes"]
    assert any(note.startswith("windows of 5 s 5 s apart") for note in notes)


def test_a_sweep_over_cleaning_gives_image_sets_of_its_own(tmp_path: Path) -> None:
    asked = write_study(
        tmp_path, CTG + "sweep: {data.clean.filter.fhr_lowpass: [0, 5, 50], data.representation.fhr_axis: [[50, 210]]}\n"
    )
    made = list(expand_sweep(asked))
    assert [v.data.clean.filter.fhr_lowpass for v in made] == [0, 5, 50]  # type: ignore[union-attr]
    planned = plan_study(asked, tmp_path / "cache")
    assert len({m.dataset.content_digest for m in planned.image_sets}) == 3
    assert len({tuple(m.dataset.ids) for m in planned.image_sets}) == 1  # the same births, the same folds
    store = execute_study(asked, tmp_path / "out", lambda event: None, options=HERE, cache=tmp_path / "cache")
    assert len(list(store.runs())) == 6 and len(list((tmp_path / "cache" / "pixels").glob("*/pixels.u8"))) == 3


# --- shipped ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ecg-simulated", "ctg-simulated"])
def test_the_halves_of_a_demo_differ_in_their_protocol_alone(name: str) -> None:
    dealt, apart = read_study(name)
    assert dealt.data == apart.data and dealt.parsed_candidates == apart.parsed_candidates
    (first, *_), (other, *_) = (plan_splits(part) for part in (dealt, apart))
    assert first > 0.9 and other == 0


def plan_splits(part: StudySpec) -> list[float]:
    """For each split, the share of test rows whose subject is in the training set."""
    dataset = open_dataset(part.data)
    assert dataset.groups is not None
    made = make_splits(dataset, part.protocol)
    return [float(np.isin(dataset.groups[s.test], dataset.groups[s.train]).mean()) for s in made]


def test_the_study_of_births_covers_the_paper() -> None:
    parts = {part.name.removeprefix("ctg-high-risk-"): part for part in read_study("ctg-high-risk")}
    sources = ("simulated", "ctu", "hospitals")
    assert set(parts) == {
        *(f"{source}{sweep}" for source in sources for sweep in ("", "-lowpass", "-uc")),
        *("ctu-ph", "simulated-by-hospital", "hospitals-by-hospital"),
    }
    for name in (*sources, "ctu-ph"):
        study = parts[name]
        assert len(study.parsed_candidates) == 8 and study.protocol.folds == 10 and study.protocol.seeds == (0, 1, 2)
        (augmentations,) = study.sweep.values()
        assert [a for a in augmentations if isinstance(a, str)] == ["none", "cutout", "slit-cutout", "cutmix", "slit-cutmix"]
        assert [a for a in augmentations if not isinstance(a, str)] == [
            {f"slit-{cut}": {"width": "area"}} for cut in ("cutout", "cutmix")
        ]
        assert {c.backbones[0].name.rpartition("_")[2] for c in study.parsed_candidates} == {"in1k"}, "one pretraining for all"
        recipe = study.parsed_candidates[0].recipe
        assert recipe.imbalance.stratified_batches and recipe.imbalance.undersample == pytest.approx(3942 / 648)
    for source in sources:
        assert parts[f"{source}-lowpass"].sweep == {"data.clean.filter.fhr_lowpass": list(range(0, 51, 5))}
        assert parts[f"{source}-uc"].sweep == {"data.clean.filter.uc_factor": list(range(0, 121, 10))}
        uc = next(expand_sweep(parts[f"{source}-uc"])).data.representation
        assert uc.uc_axis == (0, 120)  # type: ignore[union-attr]
    assert parts["simulated"].protocol.split == parts["hospitals"].protocol.split == "held-out-sites"
    assert {parts[f"{source}-by-hospital"].protocol.split for source in ("simulated", "hospitals")} == {"leave-one-site-out"}
    about = parts["hospitals"].about
    assert about is not None and len(about.published) == 40
    named = {c.name for v in expand_sweep(parts["hospitals"]) for c in v.candidates}
    assert (
        named - set(about.published) == {name for name in named if name.endswith(" width area")} and set(about.published) < named
    )
    found = about.published["ViT-B/16 · augment slit-cutmix"]
    assert found == {"roc_auc": PublishedFigure(value=0.8228, std=0.0211), "unseen_roc_auc": 0.6848}


def test_the_study_of_stress_covers_the_paper() -> None:
    *parts, every_fusion = read_study("sonic-wesad")
    assert [p.name for p in parts] == [
        f"sonic-wesad-{k}-class-{half}" for k in (2, 3) for half in ("within-subject", "subject-held-out")
    ]
    fused = Counter(c.fusion.mode for c in every_fusion.parsed_candidates if c.fusion)
    assert fused == {"logits": 6, "concat": 6, "ensemble": 6} and every_fusion.protocol.split == "leave-one-group-out"
    for part in parts:
        made = part.parsed_candidates
        assert len(made) == 10 and sum(c.fusion is not None for c in made) == 6
        assert all(c.head.kind == "dense" and c.head.hidden == 128 and c.head.dropout == 0.5 for c in made)
        assert all(c.fusion.mode == "logits" and c.fusion.hidden == 12 for c in made if c.fusion)
        assert all((c.recipe.total_epochs, c.recipe.batch_size, c.recipe.optimizer.kind) == (20, 32, "adam") for c in made)
        assert {b.name.split("_")[0] for c in made for b in c.backbones if b.pooling == "average"} == {"vgg19.tv", "vit"}
        if part.about and part.about.published:
            others = {name for name in part.about.published if name.startswith("by others (")}
            assert set(part.about.published) - others == {c.name for c in made} and others
            assert part.protocol.allow_group_overlap and len(part.protocol.seeds) == 5
        else:
            assert part.protocol.split == "leave-one-group-out"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_simulated_part_of_the_paper_plans_at_full_and_smoke_scale(number: int, tmp_path: Path) -> None:
    part = read_study("ctg-high-risk")[number]
    assert len(list(expand_sweep(part))) in (7, 11, 13)
    planned = plan_study(make_smoke_version(part), tmp_path)
    assert planned.runs and all(m.image_size <= 64 for m in planned.image_sets)
