"""Loading a study refuses what its splits cannot give, before an image is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from phoropter.core.errors import MissingExtraError, SpecError
from phoropter.deploy.predict import make_square_predictor, open_bundle
from phoropter.models.inference import onnx_exporter
from phoropter.study.compute import prepare_image_set
from phoropter.study.load import check_feature_engines, load_study
from phoropter.study.plan import plan_study
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import compute_missing_runs

STUDY = """\
name: t
data: {digits: true, size: 32}
protocol: {split: k-fold, folds: 3}
candidates: [{name: x, backbone: test_resnet, weights: random, recipe: {checkpoint: best-val}}]
"""


def written(folder: Path, text: str) -> StudySpec:
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")[0]


def test_an_epoch_chosen_on_a_validation_part_needs_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"candidate .x.: checkpoint: best-val .*give val_size in protocol, or") as caught:
        load_study(written(tmp_path, STUDY))
    assert "\n" not in str(caught.value) and "study.yaml" in str(caught.value)
    with_val = STUDY.replace("folds: 3", "folds: 3, val_size: 0.2")
    assert all(split.val is not None for split in load_study(written(tmp_path, with_val))[0].splits)
    swept = STUDY.replace("best-val", "last") + "sweep: {recipe.checkpoint: [last, best-val]}\n"
    with pytest.raises(SpecError, match="checkpoint: best-val"):
        load_study(written(tmp_path, swept))


def test_an_ensemble_chooses_no_epoch(tmp_path: Path) -> None:
    last = "recipe: {preset: scratch, checkpoint: last}"
    members = (
        f"{{name: x, backbone: test_resnet, weights: random, {last}}}, {{name: y, backbone: test_vit, weights: random, {last}}}"
    )
    text = STUDY.split("candidates")[0] + "recipe: {preset: scratch, checkpoint: best-val}\n"
    text += f"candidates: [{members}, {{fuse: [x, y], mode: ensemble}}]\n"
    assert len(load_study(written(tmp_path, text))[0].candidates) == 3


PROBE = STUDY.split("candidates")[0] + "candidates: [{name: x, backbone: test_resnet, weights: random, frozen: true}]\n"


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("head.hidden: [64, 128]", "hidden belongs to head dense"),
        ("head.dropout_at: [input, hidden]", "dropout_at belongs to a head with dropout|dropout_at belongs to head dense"),
        ("fusion.hidden: [12, 24]", "no candidate has a fusion of its own"),
        ("distillation.alpha: [0, 1]", "no candidate has a distillation of its own"),
    ],
)
def test_a_sweep_that_changes_nothing_is_refused(tmp_path: Path, sweep: str, reason: str) -> None:
    with pytest.raises(SpecError, match=f"line 5: the sweep over {sweep.partition(':')[0]} changes nothing: ({reason})"):
        load_study(written(tmp_path, PROBE + f"sweep: {{{sweep}}}\n"))


def test_a_sweep_over_stored_features_is_for_candidates_that_store_them(tmp_path: Path) -> None:
    sweep = "sweep: {recipe.feature_dtype: [float32, float16]}\n"
    with pytest.raises(SpecError, match=r"the sweep over recipe\.feature_dtype changes nothing: no candidate stores features"):
        load_study(written(tmp_path, PROBE.replace(", frozen: true", "") + sweep))
    both = PROBE.replace("candidates: [", "candidates: [{name: y, backbone: test_resnet, weights: random}, ") + sweep
    made = [name for variant in load_study(written(tmp_path, both)) for name, _ in variant.candidates.items()]
    assert sorted(set(made)) == ["x", "y"]
    found = [c.name for variant in load_study(written(tmp_path, both)) for c, _ in variant.candidates.values()]
    assert sorted(set(found)) == ["x · feature_dtype float16", "x · feature_dtype float32", "y"]


def test_a_swept_option_multiplies_only_the_candidates_that_read_it(tmp_path: Path) -> None:
    variants = load_study(written(tmp_path, PROBE + "sweep: {head.kind: [linear, dense], head.hidden: [64, 256]}\n"))
    made = [(c.name, c.head.kind, c.head.hidden) for v in variants for c, _ in v.candidates.values()]
    assert made == [
        ("x · kind linear", "linear", 128),
        ("x · kind linear", "linear", 128),
        ("x · kind dense, hidden 64", "dense", 64),
        ("x · kind dense, hidden 256", "dense", 256),
    ]
    assert variants[0].candidates["x"][0].identity() == variants[1].candidates["x"][0].identity()


SWEPT = """\
name: t
data: {digits: true, size: 32}
protocol: {split: k-fold, folds: 3}
candidates: [{name: x, backbone: test_resnet, weights: random}, {name: y, backbone: test_vit, weights: random}]
sweep: {recipe.augment: [none, hflip, cutmix]}
compare:
  primary: {contrast: {factor: recipe.augment, level: hflip, against: none}}
  secondary: [{metric: macro_f1, contrast: {family: attention, against: cnn}}]
"""


def test_planned_contrasts_are_settled_with_the_plan(tmp_path: Path) -> None:
    primary, secondary = plan_study(written(tmp_path, SWEPT), tmp_path).contrasts
    assert [u.side for u in primary.units] == [("x · augment hflip",), ("y · augment hflip",)]
    assert (secondary.metric, secondary.units[0].against[0]) == ("macro_f1", "x · augment none")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "level: hflip",
            "level: hflp",
            r"study.yaml, line 7: compare.primary: 'hflp' is no value of the sweep over recipe.augment",
        ),
        (
            "factor: recipe.augment",
            "factor: recipe.lr",
            "line 7: compare.primary: the factor 'recipe.lr' is not swept; did you mean 'recipe.augment'",
        ),
        (
            "family: attention",
            "family: hybrid",
            "line 8: compare.secondary.0: no candidate of this study is of the family 'hybrid'",
        ),
        (
            "metric: macro_f1",
            "metric: ece",
            "line 8: compare.secondary.0: 'ece' is none of the study's metrics; add it to metrics",
        ),
    ],
)
def test_a_question_that_nobody_can_answer_is_refused_when_it_is_planned(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        plan_study(written(tmp_path, SWEPT.replace(old, new)), tmp_path)


def test_a_smoke_version_keeps_the_questions_it_can_answer(tmp_path: Path) -> None:
    study = written(tmp_path, SWEPT.replace("[none, hflip, cutmix]", "[none, cutmix, hflip]"))
    third = study.with_changes(
        compare={"primary": {"contrast": {"factor": "recipe.augment", "level": "cutmix", "against": "none"}}}
    )
    assert len(plan_study(make_smoke_version(study), tmp_path).contrasts) == 2
    assert plan_study(make_smoke_version(third), tmp_path).contrasts == ()


def test_a_screening_and_planned_contrasts_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'compare' and 'screening' contradict each other"):
        written(tmp_path, SWEPT + "screening: true\n")


def test_python_states_its_questions_too(tmp_path: Path) -> None:
    import phoropter as ph

    candidates = [{"name": n, "backbone": f"test_{n}", "weights": "random"} for n in ("resnet", "vit")]
    asked = {"primary": {"contrast": {"candidate": "vit", "against": "resnet"}}}
    study = ph.Study(name="s", data=ph.digits(size=32), candidates=candidates, compare=asked)
    assert study.plan().contrasts[0].title == "vit against resnet"


def test_features_by_onnx_runtime_need_its_packages_and_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    study = written(tmp_path, PROBE.replace("frozen: true", "frozen: true, recipe: {preset: probe, feature_engine: onnxruntime}"))
    loaded = load_study(study)
    check_feature_engines(loaded, "cpu")
    with pytest.raises(
        SpecError, match=r"^candidate 'x', feature_engine: onnxruntime .*and this study on cuda; leave it out, or"
    ):
        check_feature_engines(loaded, "cuda")
    check_feature_engines(load_study(written(tmp_path, PROBE)), "cuda")
    monkeypatch.setattr(onnx_exporter, "find_spec", lambda name: None)
    load_study(written(tmp_path, PROBE))
    with pytest.raises(MissingExtraError, match=r"^candidate 'x', feature_engine: onnxruntime, needs the package onnx,"):
        load_study(study)


def test_a_study_by_onnx_runtime_runs_and_its_bundle_answers_alike(tmp_path: Path) -> None:
    """The bundle's own network, by torch, answers as the study's predictions from features of ONNX Runtime, up to rounding."""
    pytest.importorskip("onnxruntime")
    few = STUDY.split("protocol")[0].replace("digits: true", "digits: true, max_samples: 60")
    probe = (
        "{name: x, backbone: test_resnet, weights: random, frozen: true, recipe: {preset: logistic, feature_engine: onnxruntime}}"
    )
    study = written(tmp_path, f"{few}protocol: {{split: k-fold, folds: 2}}\ncandidates: [{probe}]\nsave_models: all\n")
    store = compute_missing_runs(study, tmp_path / "out", lambda event: None, cache=tmp_path / "cache")
    one = next(run for run in store.runs() if run.bundle_folder)
    held_out = one.load_predictions()
    assert one.record["candidate"]["recipe"]["feature_engine"] == "onnxruntime" and held_out is not None
    dataset, pixels = prepare_image_set(load_study(study)[0].image_set, tmp_path / "cache", lambda event: None)
    assert one.bundle_folder is not None
    logits = make_square_predictor(open_bundle(one.bundle_folder), torch.device("cpu"))(pixels)
    by_id = dict(zip(dataset.ids, logits, strict=True))
    came = np.array([by_id[i] for i in held_out.ids])
    np.testing.assert_allclose(came, held_out.logits, rtol=1e-3, atol=1e-3 * np.abs(held_out.logits).max())
    assert not np.array_equal(came, held_out.logits), "or torch computed the features"
