"""On a GPU every way of training gives what it gives on the CPU, within the tolerance of float32 sums.

Each task is trained twice, and the probabilities on the test rows are compared. Dropout is off, because the two devices draw
different numbers; TF32 is off, because its products keep three digits.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import KFold
from phoropter.models.classifier import Classifier
from phoropter.results.metrics.probabilities import softmax
from phoropter.training import fit as training_fit
from phoropter.training.branch_ablation import ablate_branches
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.presets import PRESETS, parse_recipe
from phoropter.training.distillation import Teacher, digest_classifier
from phoropter.training.estimator import VisionClassifier
from phoropter.training.fit import TrainedRun, TrainingTask
from phoropter.training.frozen.batched_fit import fit_batched
from phoropter.training.loop.checkpoint import Checkpoints
from phoropter.training.loop.parallel.training_group import join_group
from phoropter.training.train import train_candidate

pytestmark = pytest.mark.gpu
torch.set_num_threads(1)

DEVICES = ("cpu", "cuda")
BACKBONE = {"weights": "random", "size": 32}
SINGLE = {"backbone": "test_resnet", **BACKBONE}
PAIR = {"fuse": [{"name": "test_resnet", **BACKBONE}, {"name": "test_vit", **BACKBONE}], "dropout": 0.0}
VIEWS: list[Any] = ["hflip", {"random-crop": {"padding": 2}}]


@pytest.fixture(autouse=True)
def _full_precision_on_cuda() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = allowed


def make_task(digits: Any, folder: Path, device: str, entry: dict[str, Any], **fields: Any) -> TrainingTask:
    """The first of three folds of one candidate; each device has a cache of its own."""
    dataset, pixels = digits
    base = parse_recipe({"batch_size": 16, "epochs": 2, "lr": 1e-3}, PRESETS["scratch"])
    candidate = parse_candidates([entry], base)[0]
    split = fields.pop("split", make_splits(dataset, KFold(3))[0])
    return TrainingTask(candidate, split, dataset, pixels, torch.device(device), folder / device, **fields)


def train_to_end(task: TrainingTask, stop_after: int | None = None) -> TrainedRun | None:
    """The finished run; None where it is abandoned after `stop_after` epochs, as by a kill."""
    training, rows = train_candidate(task), 0
    try:
        while stop_after is None or rows < stop_after:
            rows += isinstance(next(training), dict)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    training.close()
    return None


def probabilities(run: object) -> np.ndarray[Any, Any]:
    assert isinstance(run, TrainedRun)
    assert {p.device.type for p in run.model.parameters()} == {run.task.device.type}
    return softmax(run.predict_held_out(run.task.split.test)[0])


def assert_close(on_cpu: object, on_gpu: object, atol: float = 0.01) -> None:
    np.testing.assert_allclose(probabilities(on_gpu), probabilities(on_cpu), atol=atol)


@pytest.fixture(scope="module")
def teacher_model(few_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    entry = {**SINGLE, "recipe": {"epochs": 12, "lr": 0.02}}
    run = train_to_end(make_task(few_digits, tmp_path_factory.mktemp("teacher"), "cpu", entry))
    assert run is not None
    return run.model


FROZEN: dict[str, dict[str, Any]] = {
    "linear head": {**SINGLE, "recipe": {"preset": "probe", "epochs": 3}},
    "class weights, smoothing": {
        **SINGLE,
        "head": "dense",
        "recipe": {"preset": "probe", "epochs": 3, "loss": {"class_weights": "auto", "smoothing": 0.1}},
    },
    "focal loss": {**SINGLE, "recipe": {"preset": "probe", "epochs": 3, "loss": "focal"}},
    "logistic regression": {**SINGLE, "recipe": {"preset": "logistic", "l2_penalties": [0.1, 0.01], "inner_folds": 2}},
    "logistic regression, class weights": {**SINGLE, "recipe": {"preset": "logistic", "loss": {"class_weights": "auto"}}},
    "fusion of logits": {**PAIR, "recipe": {"preset": "probe", "epochs": 2}},
    "fusion of features": {**PAIR, "mode": "concat", "aux_loss_weight": 0.3, "recipe": {"preset": "probe", "epochs": 2}},
    "cached views": {**SINGLE, "recipe": {"preset": "probe", "epochs": 3, "augment": VIEWS, "cached_views": 2}},
    "float16 features": {**SINGLE, "recipe": {"preset": "probe", "epochs": 3, "feature_dtype": "float16"}},
}


@pytest.mark.parametrize("name", FROZEN)
def test_batched_heads_equal_those_of_the_cpu(few_digits: Any, tmp_path: Path, name: str) -> None:
    splits = make_splits(few_digits[0], KFold(2, seeds=[0, 1]))
    entry = {"frozen": True, **FROZEN[name]}
    runs = [fit_batched([make_task(few_digits, tmp_path, device, entry, split=s) for s in splits]) for device in DEVICES]
    for on_cpu, on_gpu in zip(*runs, strict=True):
        assert_close(on_cpu, on_gpu)


@pytest.mark.parametrize("name", ["logistic regression", "fusion of logits", "cached views"])
def test_a_single_head_equals_that_of_the_cpu(few_digits: Any, tmp_path: Path, name: str) -> None:
    entry = {"frozen": True, **FROZEN[name]}
    assert_close(*(train_to_end(make_task(few_digits, tmp_path, device, entry)) for device in DEVICES))


@pytest.mark.parametrize("frozen", [False, True])
def test_bagged_runs_equal_those_of_the_cpu(few_digits: Any, tmp_path: Path, frozen: bool) -> None:
    dataset, pixels = few_digits
    rare = replace(dataset, labels=np.where(dataset.labels < 2, 0, 1).astype(np.int64), classes=("rare", "frequent"))
    recipe = {"preset": "probe" if frozen else "scratch", "epochs": 2, "batch_size": 16, "lr": 1e-3}
    recipe |= {"imbalance": {"undersample": 1, "n_bags": 2, "stratified_batches": True}}
    entry = {**SINGLE, "frozen": frozen, "recipe": recipe}
    assert_close(*(train_to_end(make_task((rare, pixels), tmp_path, device, entry)) for device in DEVICES), atol=0.02)


TEACHING: dict[str, dict[str, Any]] = {
    "every view": {"loss": "soft", "temperature": 2.0, "recipe": {"augment": ["hflip", "cutmix"]}},
    "views in turn": {"loss": "hard+soft", "teacher_views": "cycled", "n_teacher_views": 2, "recipe": {"augment": VIEWS}},
    "classes alone": {"loss": "hard", "teacher_views": "unaugmented", "recipe": {"augment": ["hflip"]}},
    "token": {"student": "deit_tiny_distilled_patch16_224", "loss": "token", "recipe": {"augment": "none", "epochs": 1}},
}


@pytest.mark.parametrize("name", TEACHING)
def test_students_equal_those_of_the_cpu(few_digits: Any, tmp_path: Path, teacher_model: Classifier, name: str) -> None:
    runs = []
    for device in DEVICES:
        identity = digest_classifier(teacher_model)  # where its weights lie must not matter: it has met no rows of this dataset
        teacher = Teacher("the teacher", identity, lambda: teacher_model, np.array([], np.uint64))
        entry = {"student": "test_resnet", "teacher": "test_vit", **BACKBONE, **TEACHING[name]}
        task = make_task(few_digits, tmp_path, device, entry, teacher=teacher)
        runs.append(train_to_end(task))
        stored = replace(teacher, load_model=_refuse_to_load)
        assert_close(runs[-1], train_to_end(replace(task, teacher=stored)), atol=0.01)  # from the cache alone
    assert_close(*runs, atol=0.02)
    assert digest_classifier(teacher_model.cpu()) == identity


def _refuse_to_load() -> Classifier:
    raise AssertionError("the teacher was evaluated a second time")


@pytest.mark.parametrize("frozen", [False, True], ids=["pixels", "features"])
@pytest.mark.parametrize("mode", ["logits", "concat"])
def test_branch_ablation_equals_that_of_the_cpu(few_digits: Any, tmp_path: Path, frozen: bool, mode: str) -> None:
    entry = {**PAIR, "mode": mode, "frozen": frozen, "recipe": {"preset": "probe" if frozen else "scratch", "epochs": 2}}
    tables = []
    for device in DEVICES:
        run = train_to_end(make_task(few_digits, tmp_path, device, entry))
        assert run is not None
        tables.append(ablate_branches(run, run.task.split.train, run.task.split.test))
    for on_cpu, on_gpu in zip(*tables, strict=True):
        assert on_cpu.keys() == on_gpu.keys() and on_cpu["name"] == on_gpu["name"]
        for key in ("accuracy", "without", "fused"):
            assert on_gpu[key] == (None if on_cpu[key] is None else pytest.approx(on_cpu[key], abs=0.07))  # a few of 50 rows


@pytest.mark.parametrize("tta", ["none", "flip", "ten-crop"])
def test_fine_tuning_with_validation_equals_that_of_the_cpu(few_digits: Any, tmp_path: Path, tta: str) -> None:
    dataset = few_digits[0]
    split = make_splits(dataset, KFold(3))[0]
    split = replace(split, train=split.train[:-30], val=split.train[-30:])
    recipe = {"checkpoint": "best-val", "ema": 0.9, "grad_clip": 1.0, "tta": tta, "loss": {"class_weights": "auto"}}
    recipe |= {"augment": [*VIEWS, "mixup"], "center_crop": 24} if tta == "ten-crop" else {"augment": [*VIEWS, "mixup"]}
    runs = [train_to_end(make_task(few_digits, tmp_path, d, {**SINGLE, "recipe": recipe}, split=split)) for d in DEVICES]
    assert_close(*runs, atol=0.02)
    losses = [[row["validation_loss"] for row in run.history] for run in runs if run is not None]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_killed_run_resumes_on_the_gpu(few_digits: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    entry = {**SINGLE, "recipe": {"epochs": 3, "ema": 0.9, "checkpoint": "last"}}
    task = make_task(few_digits, tmp_path, "cuda", entry)
    killed = replace(task, checkpoints=Checkpoints(tmp_path / "work", 0))
    assert train_to_end(killed, stop_after=1) is None
    assert_close(train_to_end(task), train_to_end(replace(task, checkpoints=Checkpoints(tmp_path / "work", 0))))


def test_short_memory_of_a_gpu_changes_no_gradient(few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator itself says that more than 8 rows at once are too many."""
    entry = {"backbone": "test_vit", **BACKBONE, "recipe": {"epochs": 1, "grad_accum_steps": 2}}
    make = training_fit._make_objective

    def make_hungry(*given: Any) -> Any:
        objective = make(*given)

        def compute(batch: Any) -> Any:
            if len(batch.own_labels) > 8:
                torch.empty(2**46, device="cuda")  # 64 TiB
            return objective(batch)

        return compute

    plain = train_to_end(make_task(few_digits, tmp_path, "cuda", entry))
    monkeypatch.setattr(training_fit, "_make_objective", make_hungry)
    cut = train_to_end(make_task(few_digits, tmp_path, "cuda", entry))
    assert plain is not None and cut is not None and (plain.micro_batch, cut.micro_batch) == (0, 8)
    assert_close(plain, cut, atol=1e-4)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_group_of_one_process_trains_on_the_gpu_as_none_does(
    few_digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    """Through NCCL, and with the batch norm that several processes share."""
    recipe = {"epochs": 1, "optimizer": "sgd", "lr": 1e-3, "grad_clip": 1.0, "augment": ["hflip", "cutmix"]}
    entry = {"backbone": backbone, **BACKBONE, "recipe": recipe}
    alone = train_to_end(make_task(few_digits, tmp_path, "cuda", entry))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }.items():
        monkeypatch.setenv(name, value)
    group = join_group("cuda")
    try:
        together = train_to_end(make_task(few_digits, tmp_path, "cuda", entry, group=group))
    finally:
        torch.distributed.destroy_process_group()
    assert_close(alone, together, atol=1e-3)


def test_the_estimator_equals_that_of_the_cpu() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)[:150] / 16
    recipe = {"preset": "scratch", "epochs": 2, "lr": 1e-3, "batch_size": 32}
    found = []
    for device in DEVICES:
        model = VisionClassifier("test_resnet", weights="random", recipe=recipe, size=32, device=device)
        found.append(model.fit(images[:100], labels[:100]).predict_proba(images[100:]))
    np.testing.assert_allclose(found[1], found[0], atol=0.02)
