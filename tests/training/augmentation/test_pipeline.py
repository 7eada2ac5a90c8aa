"""The pipeline: batched against per image, the order of steps, cutouts and mixing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from augmented_images import (
    CUTS,
    MIXES,
    PER_IMAGE,
    POLICIES,
    augment,
    make_augmentation,
    make_hashes,
    make_images,
)
from numpy.typing import NDArray

from phoropter.training.augmentation.pipeline import (
    AugmentationDraws,
    AugmentedBatch,
    apply_batched,
    apply_per_image,
    boxes_from_lambda,
)

# ---- draws


@pytest.mark.parametrize("step", PER_IMAGE + POLICIES + CUTS, ids=str)
def test_a_sample_is_the_same_in_a_batch_of_other_order_and_size(step: Any) -> None:
    given, names = make_images(), make_hashes()
    augmentation = make_augmentation(step)
    whole = augmentation.apply(given, names, epoch=3, batch_index=0).pictures
    chosen = np.array([7, 2, 9, 4])
    part = augmentation.apply(given[chosen], names[chosen], epoch=3, batch_index=5).pictures
    alone = augmentation.apply(given[2:3], names[2:3], epoch=3, batch_index=1).pictures
    assert torch.equal(part, whole[chosen])
    assert torch.equal(alone, whole[2:3])


@pytest.mark.parametrize("step", PER_IMAGE + POLICIES + CUTS + MIXES, ids=str)
def test_draws_differ_by_epoch_and_seed_and_repeat_otherwise(step: Any) -> None:
    given = make_images(32)

    def first(epoch: int, seed: int) -> list[torch.Tensor]:  # several batches, for steps that leave every second one alone
        return [augment(step, given, epoch, batch, seed).pictures for batch in range(6)]

    same, again, later, other = first(0, 0), first(0, 0), first(1, 0), first(0, 1)
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(same, later, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(same, other, strict=True))


def test_global_generators_and_the_input_stay_unchanged() -> None:
    given = make_images()
    before, torch_state, numpy_state = given.clone(), torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    for step in PER_IMAGE + POLICIES + CUTS + ["cutout", "slit-cutout", *MIXES]:
        for batch in range(3):
            augment(step, given, batch=batch)
    assert torch.equal(given, before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert repr(np.random.get_state()) == numpy_state  # noqa: NPY002


def test_several_threads_compute_the_same_bytes_as_one() -> None:
    given = make_images(6, 120, 130)
    steps = [{"random-resized-crop": {"size": 112}}, "hflip", "rotate", {"color-jitter": {"hue": 0.1}}, "pca-lighting"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = augment(steps, given).pictures
        torch.set_num_threads(3)
        several = augment(steps, given).pictures
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, several)


@pytest.mark.parametrize("step", [*PER_IMAGE, [{"random-resized-crop": {"size": 15}}, "hflip", "rotate"]], ids=str)
def test_batched_ops_agree_with_per_image_ops_within_a_grey_level(step: Any) -> None:
    given = make_images(16, 24, 30)
    draws = AugmentationDraws(make_hashes(16), seed=0, epoch=2, batch_index=0)
    steps = make_augmentation(step).steps
    alone, whole = apply_per_image(steps, given, draws), apply_batched(steps, given, draws)
    assert alone.shape == whole.shape and whole.dtype == torch.uint8
    assert int((alone.int() - whole.int()).abs().max()) <= (1 if len(steps) == 1 else 2)  # a level for each that resamples


def test_policies_run_image_by_image_in_a_batch() -> None:
    given, draws = make_images(), AugmentationDraws(make_hashes(), seed=0, epoch=0, batch_index=0)
    steps = make_augmentation(["hflip", "randaugment"]).steps
    assert torch.equal(apply_per_image(steps, given, draws), apply_batched(steps, given, draws))


def test_steps_are_applied_in_the_order_written() -> None:
    given = make_images()
    flipped = augment("hflip", given).pictures
    assert torch.equal(
        augment(["hflip", {"random-crop": {"size": 10}}], given).pictures,
        augment({"random-crop": {"size": 10}}, flipped).pictures,
    )
    cropped = augment({"random-crop": {"size": 10}}, given).pictures
    assert torch.equal(augment([{"random-crop": {"size": 10}}, "hflip"], given).pictures, augment("hflip", cropped).pictures)


# ---- cutting out and mixing


def one_box(lam: float, y: int, x: int, form: str) -> list[int]:
    return boxes_from_lambda(np.array([lam]), np.array([[y, x]]), (224, 224), form)[0].tolist()


VECTORS = [  # signals-and-protocols, §6: λ, centre, form → y0, y1, x0, x1, λ'
    (0.75, (112, 112), "rect", [56, 168, 56, 168], 0.75),
    (0.75, (112, 112), "area", [0, 224, 84, 140], 0.75),
    (0.75, (112, 112), "sqrt", [0, 224, 56, 168], 0.5),
    (0.75, (0, 0), "rect", [0, 56, 0, 56], 0.9375),
    (0.75, (0, 0), "area", [0, 224, 0, 28], 0.875),
    (0.0, (112, 112), "rect", [0, 224, 0, 224], 0.0),
    (0.0, (112, 112), "area", [0, 224, 0, 224], 0.0),
]


@pytest.mark.parametrize(("lam", "centre", "form", "expected", "share"), VECTORS)
def test_boxes_of_the_specification(lam: float, centre: tuple[int, int], form: str, expected: list[int], share: float) -> None:
    found = one_box(lam, *centre, form)
    assert found == expected
    assert 1 - (found[1] - found[0]) * (found[3] - found[2]) / 224**2 == share


@pytest.mark.parametrize("form", ["rect", "area", "sqrt"])
def test_lambda_1_is_an_empty_box(form: str) -> None:
    y0, y1, x0, x1 = one_box(1.0, 100, 50, form)
    assert (y1 - y0) * (x1 - x0) == 0


@pytest.mark.parametrize(("form", "area"), [("rect", 0.5 - 0.2 + 1 / 48), ("area", 5 / 12)])
def test_the_mean_area_of_clipped_boxes(form: str, area: float) -> None:
    rng = np.random.default_rng(0)
    y0, y1, x0, x1 = boxes_from_lambda(rng.random(200_000), rng.integers(0, 224, (200_000, 2)), (224, 224), form).T
    assert ((y1 - y0) * (x1 - x0)).mean() / 224**2 == pytest.approx(area, abs=0.004)


def batches(step: Any, given: torch.Tensor, count: int = 40) -> list[AugmentedBatch]:
    return [augment(step, given, batch=b) for b in range(count)]


def spans(changed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and the columns of an (H, W) mask that hold anything."""
    return np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))


@pytest.mark.parametrize("name", ["cutout", "slit-cutout"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_cutout_fills_one_white_box_and_nothing_else(name: str, per_sample: bool) -> None:
    given = make_images(6)
    sizes = set()
    for out in batches({name: {"per_sample": per_sample, "p": 0.9}}, given, 10):
        assert out.mix_index is None and out.mix_lambda is None and out.pictures.dtype == torch.uint8
        masks = (out.pictures != given).numpy()
        assert (masks.any(1) == masks.all(1)).all()  # the same places in all channels
        assert (out.pictures.numpy()[masks] == 255).all()
        for mask in masks.any(1):
            rows, columns = spans(mask)
            assert mask.sum() == len(rows) * len(columns)
            assert name == "cutout" or len(rows) in (0, 24)
        sizes.add(len({int(m.sum()) for m in masks}))
    assert (max(sizes) > 1) == per_sample


def test_a_cutout_of_given_size_is_a_square_clipped_at_the_border() -> None:
    given = make_images(200, 24, 24)
    out = augment({"cutout": {"box_size": 11, "per_sample": True, "p": 1, "fill": 0}}, given + 1).pictures
    shapes = [tuple(map(len, spans(mask))) for mask in (out == 0).all(1).numpy()]
    assert max(shapes) == (11, 11) and min(h for h, _ in shapes) == 6 and shapes.count((11, 11)) > 40


@pytest.mark.parametrize("name", ["cutmix", "slit-cutmix"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_cutmix_copies_the_box_from_the_partner_and_counts_its_pixels(name: str, per_sample: bool) -> None:
    base = make_images(8)
    base[:, 0] = torch.arange(8, dtype=torch.uint8)[:, None, None]  # the first channel says whose pixel it is
    applied = 0
    for out in batches({name: {"per_sample": per_sample}}, base):
        if out.mix_index is None or out.mix_lambda is None:
            assert out.mix_index is None and out.mix_lambda is None and torch.equal(out.pictures, base)
            continue
        applied += 1
        if not per_sample:
            assert sorted(out.mix_index.tolist()) == list(range(8))
        for i in range(8):
            j = int(out.mix_index[i])
            foreign = (out.pictures[i, 0] != i).numpy()
            rows, columns = spans(foreign)
            assert torch.equal(out.pictures[i][:, ~foreign], base[i][:, ~foreign])
            assert torch.equal(out.pictures[i][:, foreign], base[j][:, foreign])
            assert foreign.sum() == len(rows) * len(columns)
            assert name == "cutmix" or len(rows) in (0, 24)
            if i != j:
                assert float(out.mix_lambda[i]) == pytest.approx(1 - foreign.mean())
            assert 0 <= float(out.mix_lambda[i]) <= 1
    assert applied == 40 if per_sample else 10 < applied < 30


def test_a_batch_has_one_box_and_one_share() -> None:
    for out in batches("cutmix", make_images(), 10):
        assert out.mix_lambda is None or len(set(out.mix_lambda.tolist())) == 1


def test_per_sample_mixing_leaves_about_half_of_the_images_unchanged() -> None:
    given = make_images(400, 8, 8)
    out = augment({"cutmix": {"per_sample": True}}, given)
    assert out.mix_index is not None and out.mix_lambda is not None
    alone = out.mix_lambda == 1
    assert 180 < int(alone.sum()) < 260  # half, and boxes too small for a pixel
    assert torch.equal(out.mix_index[alone], torch.arange(400)[alone])
    assert torch.equal(out.pictures[alone], given[alone])


@pytest.mark.parametrize("name", MIXES)
def test_the_same_rows_in_another_order_meet_the_same_partners(name: str) -> None:
    given, names = make_images(), make_hashes()
    augmentation = make_augmentation({name: {"p": 1}})
    shuffled = np.random.default_rng(0).permutation(12)
    one = augmentation.apply(given, names, 0, 4)
    two = augmentation.apply(given[shuffled], names[shuffled], 0, 4)
    assert one.mix_index is not None and two.mix_index is not None
    assert torch.equal(two.pictures, one.pictures[shuffled])
    assert (shuffled[two.mix_index.numpy()] == one.mix_index.numpy()[shuffled]).all()


def test_batches_of_one_epoch_have_their_own_boxes_and_permutations() -> None:
    outs = batches({"cutmix": {"p": 1}}, make_images(), 12)
    assert len({o.mix_lambda[0].item() for o in outs if o.mix_lambda is not None}) > 8
    assert len({tuple(o.mix_index.tolist()) for o in outs if o.mix_index is not None}) == 12


@pytest.mark.parametrize("per_sample", [False, True])
def test_mixup_is_the_weighted_mean_of_two_images(per_sample: bool) -> None:
    given = make_images()
    out = augment({"mixup": {"per_sample": per_sample}}, given)
    assert out.mix_index is not None and out.mix_lambda is not None and out.pictures.dtype == torch.float32
    for i in range(12):
        share, j = float(out.mix_lambda[i]), int(out.mix_index[i])
        expected = share * given[i].double() + (1 - share) * given[j].double()
        torch.testing.assert_close(out.pictures[i].double(), expected, rtol=0, atol=1e-4)
    assert (len(set(out.mix_lambda.tolist())) == 1) != per_sample


def test_mixup_of_share_one_is_the_image_in_the_same_type() -> None:
    out = augment({"mixup": {"p": 0}}, make_images())
    assert out.mix_index is None and torch.equal(out.pictures, make_images().float())


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_follows_its_beta_distribution(alpha: float) -> None:
    from scipy import stats

    out = augment({"mixup": {"alpha": alpha, "per_sample": True}}, torch.zeros((3000, 3, 1, 1), dtype=torch.uint8))
    assert out.mix_lambda is not None
    assert stats.kstest(out.mix_lambda.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_a_batch_of_one_can_be_mixed() -> None:
    for name in MIXES:
        out = make_augmentation({name: {"p": 1}}).apply(make_images(1), make_hashes(1), 0, 0)
        assert out.mix_index is None or out.mix_index.tolist() == [0]
        assert torch.allclose(out.pictures.float(), make_images(1).float())


# ---- what it says of itself


def test_the_identity_follows_steps_and_seed() -> None:
    one = make_augmentation(["hflip", {"random-crop": {"padding": 4}}])
    assert one.identity() == make_augmentation([{"hflip": {"p": 0.5}}, {"random-crop": {"padding": 4, "fill": 0}}]).identity()
    others = [
        make_augmentation(["hflip", {"random-crop": {"padding": 3}}]),
        make_augmentation([{"random-crop": {"padding": 4}}, "hflip"]),
        make_augmentation(["hflip"]),
        make_augmentation(one.steps, 1),
    ]
    assert len({a.identity() for a in [one, *others]}) == 5


def test_images_of_another_type_and_hashes_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 12 uint8 images"):
        make_augmentation("hflip").apply(make_images().float(), make_hashes(), 0, 0)
    with pytest.raises(ValueError, match="expected 5 uint8 images"):
        make_augmentation("hflip").apply(make_images(), make_hashes(5), 0, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("step", [*PER_IMAGE, *POLICIES, *CUTS, "cutout", "slit-cutout", *MIXES], ids=str)
def test_a_gpu_agrees_with_the_cpu_within_a_grey_level(step: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    given = make_images(16, 40, 40)
    here = make_augmentation(step).apply(given, make_hashes(16), 1, 1)
    there = make_augmentation(step).apply(given.cuda(), make_hashes(16), 1, 1)
    assert there.pictures.is_cuda and there.pictures.dtype == here.pictures.dtype
    assert float((there.pictures.cpu().float() - here.pictures.float()).abs().max()) <= 1
    for a, b in ((here.mix_index, there.mix_index), (here.mix_lambda, there.mix_lambda)):
        assert (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b.cpu()))
