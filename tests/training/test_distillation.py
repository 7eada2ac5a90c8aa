"""A teacher asked once: stored = live to the last bit, what makes a new entry and what does not, examinations and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.core.errors import DiskError, LeakageError, RunError
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.classifier import Classifier
from phoropter.training.augmentation.custom_step import AugmentationStep
from phoropter.training.augmentation.pipeline import Augmentation
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.distillation import Teacher, compute_teacher_logits, digest_classifier
from phoropter.training.fit import TrainedRun, TrainingTask, fit
from phoropter.training.loop.checkpoint import Checkpoints, TrainingState

torch.set_num_threads(1)
MIXED: list[Any] = ["random-resized-crop", "hflip", "cutmix"]
CPU = torch.device("cpu")


def finished(task: TrainingTask) -> TrainedRun:
    training = fit(task)
    while True:
        try:
            next(training)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def task_of(digits: Any, folder: Path, entry: dict[str, Any], recipe: dict[str, Any], **fields: Any) -> TrainingTask:
    dataset, pixels = digits
    written = {"weights": "random", "size": 32, **entry}
    candidate = parse_candidates([written], parse_recipe({"batch_size": 32, **recipe}, PRESETS["scratch"]))[0]
    return TrainingTask(
        candidate, fields.pop("split", make_splits(dataset, KFold(3))[0]), dataset, pixels, CPU, folder / "cache", **fields
    )


@pytest.fixture(scope="module")
def taught(few_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A teacher that sees 48 pixels, trained on the first fold."""
    folder = tmp_path_factory.mktemp("teacher")
    return finished(task_of(few_digits, folder, {"backbone": "test_resnet", "size": 48}, {"epochs": 12, "lr": 0.02}))


def teacher_of(taught: TrainedRun, load: Callable[[], Classifier] | None = None, **fields: Any) -> Teacher:
    hashes = taught.task.dataset.hashed_ids[taught.task.split.train]
    return Teacher("the teacher", digest_classifier(taught.model), load or (lambda: taught.model), hashes, **fields)


def never() -> Classifier:
    raise AssertionError("the teacher was asked again")


def student(
    digits: Any, folder: Path, teacher: Teacher | None, recipe: dict[str, Any] | None = None, **distillation: Any
) -> TrainingTask:
    entry = {"student": "test_resnet", "teacher": "test_vit", **distillation}
    fields = {k: entry.pop(k) for k in ("split", "checkpoints") if k in entry}
    return task_of(digits, folder, entry, {"epochs": 2, "augment": MIXED, **(recipe or {})}, teacher=teacher, **fields)


def assert_same(one: TrainedRun, other: TrainedRun) -> None:
    for (key, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert [r["train_loss"] for r in one.history] == [r["train_loss"] for r in other.history]


RECIPES: list[dict[str, Any]] = [
    {},
    {"augment": ["hflip"]},
    {"augment": [{"random-crop": {"padding": 2}}, "cutout"]},
    {"augment": "none"},
    {
        "augment": [
            AugmentationStep("shade", apply=lambda x, u: (x * torch.from_numpy(u)[:, :, None, None]).to(torch.uint8)),
            "hflip",
        ]
    },
]


@pytest.mark.parametrize("loss", ["hard", "soft", "hard+soft"])
@pytest.mark.parametrize("recipe", RECIPES, ids=["mixed", "free", "boxed", "plain", "own step"])
def test_stored_answers_teach_as_a_live_teacher_does(
    few_digits: Any, taught: TrainedRun, tmp_path: Path, loss: str, recipe: Any
) -> None:
    distillation: dict[str, Any] = {"loss": loss} if loss == "hard" else {"loss": loss, "temperature": 2.0}
    live = finished(student(few_digits, tmp_path / "live", teacher_of(taught, uncached=True), recipe, **distillation))
    assert not list((tmp_path / "live/cache/teacher-logits").glob("*/0*"))
    for load in (None, never):  # the second student asks nobody
        stored = finished(student(few_digits, tmp_path, teacher_of(taught, load), recipe, **distillation))
        assert_same(live, stored)


def test_answers_are_those_of_the_teacher_asked_by_hand(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    """Pictures augmented, resized and normalised here; the teacher's last layer read through float16."""
    from phoropter.training.fit import _make_distillation_loader

    tap, _ = _make_distillation_loader(student(few_digits, tmp_path, teacher_of(taught), loss="soft"))
    assert tap is not None
    dataset, pixels = few_digits
    augmentation = Augmentation(tap.inputs.pixel_loader.augmentation.steps, seed=0)  # type: ignore[union-attr]
    for epoch in (0, 1):
        for index, rows in enumerate(tap.inputs.batch_sampler.epoch_batches(epoch)):
            pictures = augmentation.apply(torch.from_numpy(pixels.batch(rows)), dataset.hashed_ids[rows], epoch, index).pictures
            large = torch.nn.functional.interpolate(pictures.float(), size=(48, 48), mode="bilinear", antialias=True)
            branch = taught.model.eval().branches[0]
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (branch.mean, branch.std))
            with torch.inference_mode():
                logits = taught.model.forward_head((branch((large / 255 - mean) / std),)).logits
            batch = tap.batch(rows, epoch, index)
            assert torch.equal(batch.inputs, pictures) and batch.teacher_logits is not None  # type: ignore[arg-type]
            torch.testing.assert_close(batch.teacher_logits.softmax(1), logits.softmax(1), atol=2e-3, rtol=0)


def test_killed_and_resumed_from_the_cache_it_ends_with_the_same_bits(
    few_digits: Any, taught: TrainedRun, tmp_path: Path
) -> None:
    whole = finished(student(few_digits, tmp_path / "whole", teacher_of(taught, uncached=True)))

    class Killed(Exception):
        pass

    def task(load: Any = None) -> TrainingTask:
        (tmp_path / "work").mkdir(exist_ok=True)
        return student(few_digits, tmp_path, teacher_of(taught, load), checkpoints=Checkpoints(tmp_path / "work", 0))

    calls: list[int] = []

    def dies() -> Classifier:
        calls.append(1)
        if len(calls) == 2:  # the first is the examination
            raise Killed
        return taught.model

    with pytest.raises(Killed):
        finished(task(dies))
    killed = task()
    save, saved = killed.checkpoints.save, []

    def saving(state: TrainingState) -> None:
        save(state)
        saved.append(1)
        if len(saved) == 3:
            raise Killed

    killed.checkpoints.save = saving  # type: ignore[method-assign]
    with pytest.raises(Killed):
        finished(killed)
    assert_same(whole, finished(task(never)))


def entries(folder: Path) -> set[str]:
    return {p.name for p in (folder / "cache/teacher-logits").iterdir() if p.is_dir()}


def test_what_makes_a_new_entry_and_what_does_not(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    def asked_by(recipe: dict[str, Any] | None = None, teacher: Teacher | None = None, **distillation: Any) -> int:
        before = entries(tmp_path) if (tmp_path / "cache/teacher-logits").exists() else set()
        finished(student(few_digits, tmp_path, teacher or teacher_of(taught), {"epochs": 1, **(recipe or {})}, **distillation))
        return len(entries(tmp_path) - before)

    assert asked_by(loss="soft") == 1
    assert asked_by(loss="soft", alpha=0.9, temperature=4.0) == 0
    assert asked_by(loss="hard+soft") == 0 and asked_by(loss="hard") == 0  # the logits are there
    assert asked_by({"lr": 0.5, "ema": 0.9, "loss": {"smoothing": 0.1}}, loss="soft") == 0
    other = student(few_digits, tmp_path, teacher_of(taught, never), {"epochs": 1}, loss="soft")
    vit = other.candidate.with_changes(backbones=[{"name": "test_vit", "weights": "random", "size": 160}])
    finished(replace(other, candidate=vit))  # another network, the same pictures: the teacher is not asked
    assert asked_by({"augment": ["hflip", "cutmix"]}, loss="soft") == 1
    changed = finished(task_of(few_digits, tmp_path, {"backbone": "test_resnet", "size": 48}, {"epochs": 11, "lr": 0.02}))
    assert asked_by(teacher=teacher_of(changed), loss="soft") == 1
    assert asked_by({"batch_size": 16}, loss="soft") == 1  # pictures are mixed within a batch: other batches, other pictures
    assert asked_by({"augment": ["hflip"], "batch_size": 16}, loss="soft") == 1
    assert asked_by({"augment": ["hflip"], "batch_size": 32}, loss="soft") == 0  # and here they are not
    assert asked_by(loss="soft", split=replace(taught.task.split, seed=1)) == 1


def test_other_pixels_make_a_new_entry(few_digits: Any, taught: TrainedRun, tmp_path: Path, _own_cache: Path) -> None:
    from phoropter.data.images.cache import prepare_pixels

    finished(student(few_digits, tmp_path, teacher_of(taught), {"epochs": 1}))
    larger = prepare_pixels(few_digits[0], 40, resize="center-crop", interpolation="bicubic", cache=_own_cache)
    finished(student(larger, tmp_path, teacher_of(taught), {"epochs": 1}))
    assert len(entries(tmp_path)) == 2


def test_more_epochs_ask_only_about_the_new_ones(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    finished(student(few_digits, tmp_path, teacher_of(taught), {"epochs": 2}))
    (entry,) = entries(tmp_path)
    views = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache/teacher-logits" / entry).iterdir()}
    finished(student(few_digits, tmp_path, teacher_of(taught), {"epochs": 3}))
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache/teacher-logits" / entry).iterdir() if p.is_dir()}
    assert len(after) == 3 and all(after[p] == at for p, at in views.items() if p.is_dir())


def test_hard_answers_are_classes_alone_and_soft_ones_half_precision(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    finished(student(few_digits, tmp_path, teacher_of(taught), {"epochs": 1}, loss="hard"))
    finished(student(few_digits, tmp_path, teacher_of(taught), {"epochs": 1}, loss="soft"))
    kept = sorted((np.load(p).dtype.name, np.load(p).ndim) for p in (tmp_path / "cache/teacher-logits").glob("*/*/logits.npy"))
    assert kept == [("float16", 2), ("uint16", 1)]


@pytest.mark.parametrize(("views", "kept"), [("same", 5), ("cycled", 2), ("unaugmented", 1)])
def test_views_trade_exactness_for_disk(few_digits: Any, taught: TrainedRun, tmp_path: Path, views: str, kept: int) -> None:
    count = {"n_teacher_views": 2} if views == "cycled" else {}
    task = student(few_digits, tmp_path, teacher_of(taught), {"epochs": 5, "augment": ["hflip"]}, teacher_views=views, **count)
    fitted = finished(task)
    assert len(list((tmp_path / "cache/teacher-logits").glob("*/*/logits.npy"))) == kept
    assert fitted.distillation_info is not None and fitted.distillation_info["views"] == kept
    assert fitted.distillation_info["bytes"] == kept * len(task.split.train) * 2


def test_a_pool_s_views_come_round(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    from phoropter.training.fit import _make_distillation_loader

    recipe = {"epochs": 4, "augment": ["hflip", {"random-crop": {"padding": 4}}]}
    tap, _ = _make_distillation_loader(
        student(few_digits, tmp_path, teacher_of(taught), recipe, teacher_views="cycled", n_teacher_views=2, loss="soft")
    )
    assert tap is not None
    rows = tap.inputs.batch_sampler.split.train[:20]
    first, second, third = (tap.batch(rows, e, 0) for e in (0, 1, 2))
    assert torch.equal(first.inputs, third.inputs) and torch.equal(first.teacher_logits, third.teacher_logits)  # type: ignore[arg-type]
    assert not torch.equal(first.inputs, second.inputs)  # type: ignore[arg-type]
    np.testing.assert_allclose(compute_teacher_logits(taught.model, third.inputs).astype(float), third.teacher_logits, atol=0.05)  # type: ignore[arg-type]


def test_alpha_nought_is_plain_training_and_asks_nobody(few_digits: Any, tmp_path: Path) -> None:
    plain = finished(task_of(few_digits, tmp_path, {"backbone": "test_resnet"}, {"epochs": 2, "augment": MIXED}))
    assert_same(plain, finished(student(few_digits, tmp_path, None, alpha=0.0)))


def test_the_whole_weight_on_the_teacher_leaves_the_labels_unread(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    dataset, pixels = few_digits
    wrong = replace(dataset, labels=np.roll(dataset.labels, 1))
    split, teacher = make_splits(dataset, KFold(3))[0], teacher_of(taught)
    finished(student(few_digits, tmp_path, teacher, alpha=1.0, split=split))  # keeps the answers and the examination
    from phoropter.training import fit as room

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "check_teacher_accuracy", lambda *_: {})
        one, other = (finished(student((d, pixels), tmp_path, teacher, alpha=1.0, split=split)) for d in (dataset, wrong))
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_token_student_s_token_learns_the_teacher(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    """With the whole weight on the teacher the class head stays as it was drawn and the token's head moves."""
    entry = {"student": "deit_tiny_distilled_patch16_224", "teacher": "test_vit", "loss": "token", "alpha": 1.0}
    recipe = {"epochs": 1, "augment": "none", "optimizer": {"kind": "sgd", "weight_decay": 0.0}}
    task = task_of(few_digits, tmp_path, entry, recipe, teacher=teacher_of(taught))
    from phoropter.training.fit import build_model

    before, after = build_model(task).head.state_dict(), finished(task).model.head.state_dict()
    moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"token_head"}


def test_a_teacher_that_met_the_test_rows_is_refused(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    second = make_splits(few_digits[0], KFold(3))[1]
    with pytest.raises(LeakageError, match=r"the teacher 'the teacher' was trained on \d+ rows that are tested in .*fold 2"):
        finished(student(few_digits, tmp_path, teacher_of(taught), split=second))


def test_a_teacher_near_chance_is_refused(few_digits: Any, taught: TrainedRun, tmp_path: Path) -> None:
    """The trap: its last layer was silently drawn anew."""
    import copy

    ruined = copy.deepcopy(taught.model)
    torch.manual_seed(0)
    ruined.head.head.last.reset_parameters()  # type: ignore[union-attr, operator]
    teacher = Teacher("ruined", digest_classifier(ruined), lambda: ruined, np.array([], np.uint64))
    with pytest.raises(RunError, match=r"the teacher 'ruined' classifies .* of 100 training images correctly, and guessing"):
        finished(student(few_digits, tmp_path, teacher))
    assert digest_classifier(ruined) != digest_classifier(taught.model)


def test_a_disk_too_small_for_exact_is_said_before_anyone_is_asked(
    few_digits: Any, taught: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    finished(student(few_digits, tmp_path, teacher_of(taught), {"epochs": 1, "augment": "none"}))  # the examination is passed
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 0, 300))
    with pytest.raises(
        DiskError,
        match=r"logits of the teacher 'the teacher' \(teacher_views: same\) needs .* or choose teacher_views: unaugmented",
    ) as e:
        finished(student(few_digits, tmp_path, teacher_of(taught, never), {"augment": ["hflip"]}))
    assert "\n" not in str(e.value)


def test_a_bundle_keeps_the_teacher_s_identity(taught: TrainedRun, tmp_path: Path) -> None:
    from phoropter.models import classifier

    classifier.save_classifier(taught.model, tmp_path / "bundle")
    assert digest_classifier(classifier.load_classifier(tmp_path / "bundle")) == digest_classifier(taught.model)
