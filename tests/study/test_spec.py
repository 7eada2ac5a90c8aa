"""Study files: reading, error messages, sweeps, comparisons of protocols, and the shipped studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.core.errors import SpecError
from phoropter.study.screening import make_probe_candidates
from phoropter.study.smoke_scale import MAX_EPOCHS, STUDENT_EPOCHS, make_smoke_version
from phoropter.study.spec import list_shipped_studies, read_study
from phoropter.study.variants.sweep import expand_sweep

GOOD = """\
name: tiny
data: {digits: true, size: 16}
protocol: {split: k-fold, folds: 3}
candidates:
  - test_resnet
  - {backbone: test_vit, frozen: true}
sweep: {recipe.augment: [none, hflip], data.size: [16, 32]}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return file


def test_a_study_is_read_with_its_name_folder_and_text(tmp_path: Path) -> None:
    (study,) = read_study(written(tmp_path, GOOD))
    assert study.name == "tiny" and study.base == tmp_path and study.context.text == GOOD
    assert [c.name for c in study.parsed_candidates] == ["test_resnet", "test_vit frozen"]


def test_a_sweep_expands_into_every_combination(tmp_path: Path) -> None:
    (study,) = read_study(written(tmp_path, GOOD))
    made = list(expand_sweep(study))
    assert [tuple(v.settings.values()) for v in made] == [("none", 16), ("none", 32), ("hflip", 16), ("hflip", 32)]
    assert [v.data.size for v in made] == [16, 32, 16, 32]
    assert [len(v.candidates[0].recipe.augment) for v in made] == [0, 0, 1, 1]
    assert made[3].candidates[0].name == "test_resnet · augment hflip, size 32"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: tiny", "nmae: tiny", r"study.yaml, line 1: unknown key 'nmae'; did you mean 'name'\?"),
        ("name: tiny", "name: ../escape", "line 1: name is '../escape'"),
        ("folds: 3", "fold: 3", r"line 3: unknown key 'fold' in protocol; did you mean 'folds'\?"),
        ("k-fold", "k-flod", r"line 3: .*did you mean 'k-fold'\?"),
        ("digits: true", "digit: true", r"line 2: unknown key 'digit' in data; did you mean 'digits'\?"),
        ("test_resnet", "{backbone: test_resnet, recpie: x}", r"line 5: unknown key 'recpie'.*did you mean 'recipe'"),
        ("test_resnet", "{backbone: test_resnet, recipe: {lr: .nan}}", "line 5: lr is nan"),
        ("recipe.augment", "recpie.augment", r"line 7: a sweep is over .*'recpie.augment' came; did you mean 'recipe'"),
        ("[none, hflip]", "[none, hflop]", r"line 7: .*hflip"),
        ("[none, hflip]", "[]", "line 7: the sweep over recipe.augment has no values"),
        ("name: tiny", "name: tiny\nmetrics: [acuracy]", r"line 2: .*accuracy"),
        ("name: tiny", "name: tiny\nmetrics: [accuracy, ece, accuracy]", "line 2: metrics: the metric 'accuracy' is named twice"),
        ("{digits: true, size: 16}", "{digits: true, folder: x}", r"line 2: .*digits.*folder|line 2: .*folder.*digits"),
        ("candidates:", "nothing:", "line 4: unknown key 'nothing'"),
    ],
)
def test_a_mistake_names_its_line_and_the_nearest_word(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        list(expand_sweep(read_study(written(tmp_path, GOOD.replace(old, new, 1)))[0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "just words", "- a list"])
def test_a_file_that_is_not_a_study_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError):
        read_study(written(tmp_path, text))


def test_an_unknown_name_offers_the_nearest_shipped_study() -> None:
    with pytest.raises(SpecError, match="neither a file nor a shipped study; did you mean 'digits'"):
        read_study("digit")


@pytest.mark.parametrize("name", list_shipped_studies())
def test_shipped_studies_name_their_source_and_have_a_smoke_version(name: str) -> None:
    for part in read_study(name):
        assert part.about and part.about.source and part.about.time and part.about.expect
        made = make_smoke_version(part)
        left_out = sum("is left out" in sentence for sentence in made.context.smoke_changes)
        assert made.context.smoke_changes and len(made.parsed_candidates) + left_out == len(part.parsed_candidates)
        teachers = {c.distillation.teacher for c in made.parsed_candidates if c.distillation}
        short = [c for c in made.parsed_candidates if c.name not in teachers]  # a teacher must know something
        taught = [
            c.backbones for c in made.parsed_candidates if c.distillation
        ]  # and of students, and their like, one wants to see a trend
        most = [STUDENT_EPOCHS if c.backbones in taught else MAX_EPOCHS for c in short]
        assert all(c.recipe.total_epochs <= n * max(1, len(c.recipe.phases)) for c, n in zip(short, most, strict=True))


def test_a_smoke_version_lists_everything_it_changed() -> None:
    said = " ".join(make_smoke_version(read_study("attention-or-convolution")[1]).context.smoke_changes)
    for word in ("600 rows", "64 pixels", "2 folds", "random weights", "test_vit", f"{MAX_EPOCHS} epochs", "a rate of 0.001"):
        assert word in said


def test_second_protocol_takes_the_other_protocol_and_published_values_stay_with_the_stated_one(tmp_path: Path) -> None:
    about = "about: {source: a paper, published: {test_resnet: {accuracy: 0.9}}}\n"
    held_out_stated = GOOD + about + "second_protocol: {split: hold-out, test_size: 0.3}\n"
    within, held_out = read_study(written(tmp_path, held_out_stated))
    assert (within.protocol.split, within.protocol.allow_group_overlap) == ("hold-out", True)
    assert (held_out.protocol.split, held_out.protocol.folds) == ("k-fold", 3)
    assert within.about and held_out.about and not within.about.published and held_out.about.published
    mixed_stated = held_out_stated.replace("folds: 3", "folds: 3, allow_group_overlap: true")
    within, held_out = read_study(written(tmp_path, mixed_stated))
    assert (within.protocol.split, held_out.protocol.split) == ("k-fold", "hold-out")
    assert within.protocol.allow_group_overlap and not held_out.protocol.allow_group_overlap
    assert within.about and held_out.about and within.about.published and not held_out.about.published
    with pytest.raises(SpecError, match=r"line 9: .*tset_size.*did you mean 'test_size'"):
        read_study(written(tmp_path, held_out_stated.replace("test_size", "tset_size")))


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("mitdb: x", ["t-intra-patient", "t-inter-patient"]),
        ("wesad: x, task: 2-class", ["t-within-subject", "t-subject-held-out"]),
    ],
)
def test_the_halves_of_a_comparison_are_named_as_the_literature_does(tmp_path: Path, data: str, names: list[str]) -> None:
    text = f"name: t\ndata: {{{data}}}\nsecond_protocol: true\ncandidates: [test_resnet]\n"
    assert [part.name for part in read_study(written(tmp_path, text))] == names


def test_changes_keep_where_a_study_came_from(tmp_path: Path) -> None:
    (study,) = read_study(written(tmp_path, GOOD))
    changed = study.with_changes(save_models="none")
    assert changed.context == study.context and (study.save_models, changed.save_models) == ("first", "none")


def test_screening_true_is_its_defaults_and_false_is_none(tmp_path: Path) -> None:
    with_defaults, without = (read_study(written(tmp_path, GOOD + f"screening: {word}\n"))[0] for word in ("true", "false"))
    assert with_defaults.screening and with_defaults.screening.keep == 3 and without.screening is None


def study_of(recipe: str, candidate: str, *more: str) -> str:
    return "\n".join(
        ["name: t", "data: {digits: true}", "protocol: {split: k-fold}", f"recipe: {recipe}", f"candidates: [{candidate}]", *more]
    )


FROZEN, TRAINED = "{backbone: test_vit, frozen: true}", "test_vit"


@pytest.mark.parametrize(
    ("recipe", "candidate", "why"),
    [
        ("{feature_dtype: float16}", TRAINED, "feature_dtype .* changes no candidate: none stores features; say frozen: true"),
        ("{preset: scratch, feature_engine: onnxruntime}", TRAINED, "feature_engine .* none stores features"),
        ("{feature_dtype: float16}", "{backbone: test_vit, recipe: finetune}", "feature_dtype .* none stores features"),
        (
            "{feature_dtype: float16}",
            "{backbone: test_vit, frozen: true, recipe: probe}",
            "feature_dtype .* all that store features have recipes of their own",
        ),
    ],
)
def test_how_features_are_stored_is_refused_where_none_are(tmp_path: Path, recipe: str, candidate: str, why: str) -> None:
    with pytest.raises(SpecError, match=f"study.yaml, line 4: {why}"):
        read_study(written(tmp_path, study_of(recipe, candidate)))


@pytest.mark.parametrize(
    ("recipe", "candidate", "more"),
    [
        ("{feature_dtype: float16}", FROZEN, ()),
        ("{feature_dtype: float16}", f"{TRAINED}, {FROZEN}", ()),
        ("{feature_dtype: float32, epochs: 10}", TRAINED, ()),  # the defaults, written out
        ("{preset: probe, epochs: 3}", FROZEN, ()),
        ("{feature_dtype: float16}", TRAINED, ("screening: true",)),
        ("{preset: probe, augment: hflip, feature_dtype: float16}", FROZEN, ("sweep: {recipe.augment: [hflip, []]}",)),
    ],
)
def test_words_that_somebody_reads_pass(tmp_path: Path, recipe: str, candidate: str, more: tuple[str, ...]) -> None:
    assert read_study(written(tmp_path, study_of(recipe, candidate, *more)))


def test_how_features_are_stored_is_no_word_of_a_final_recipe(tmp_path: Path) -> None:
    text = study_of("finetune", TRAINED, "screening: {final_recipe: {preset: head-then-all, feature_dtype: float16}}")
    with pytest.raises(SpecError, match=r"line 6: feature_dtype is for stored features, and the final recipe trains networks"):
        read_study(written(tmp_path, text))


def test_how_features_are_stored_reaches_frozen_candidates_and_probes_of_a_screening(tmp_path: Path) -> None:
    """They take `probe` in place of a recipe that trains all, and lost it there."""
    (study,) = read_study(written(tmp_path, study_of("{feature_dtype: float16}", FROZEN)))
    assert [(c.recipe.preset, c.recipe.feature_dtype) for c in study.parsed_candidates] == [("probe", "float16")]
    fusion = "{fuse: [test_vit, test_resnet], mode: concat, frozen: true}"
    (study,) = read_study(written(tmp_path, study_of("{feature_dtype: float16}", fusion)))
    assert [(c.recipe.preset, c.recipe.feature_dtype) for c in study.parsed_candidates] == [("logistic", "float16")]
    (study,) = read_study(written(tmp_path, study_of("{feature_engine: onnxruntime}", TRAINED, "screening: true")))
    assert [c.uses_onnxruntime for c in make_probe_candidates(study)] == [True]


def test_a_word_of_the_command_line_is_for_the_parts_that_read_it(tmp_path: Path) -> None:
    frozen, trained = study_of("probe", FROZEN), study_of("finetune", TRAINED).replace("name: t", "name: u")
    assert read_study(written(tmp_path, f"{frozen}\n---\n{trained}"), ["recipe.feature_dtype=float16"])
    with pytest.raises(SpecError, match=r"--set recipe\.feature_dtype=float16: feature_dtype in the study's recipe changes no"):
        read_study(written(tmp_path, study_of("finetune", TRAINED)), ["recipe.feature_dtype=float16"])
