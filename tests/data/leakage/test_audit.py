"""Planted leaks of every kind are found and counted, and clean splits are not accused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from phoropter.core.errors import DataError, LeakageError
from phoropter.core.language.unit_words import parse_unit_word
from phoropter.data.dataset import Dataset
from phoropter.data.leakage.audit import Finding, audit_splits, raise_on_leak
from phoropter.data.leakage.checks import PriorFit
from phoropter.data.leakage.near_duplicates import DuplicatePairs, dct_features, find_near_duplicates
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import GroupKFold, HeldOutSites, HoldOut, KFold, LeaveOneGroupOut
from phoropter.data.time_overlap import overlap_mask

Bytes = NDArray[np.uint8]


@dataclass
class Squares:
    """(N, 3, S, S) uint8 behind the door of Pixels."""

    array: Bytes
    stored: bool = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, high, wide = self.array.shape
        return count, channels, high, wide

    def __len__(self) -> int:
        return len(self.array)

    def batch(self, rows: NDArray[np.int64]) -> Bytes:
        return self.array[rows]


def some(count: int = 40, images: Bytes | None = None, **columns: list[Any]) -> Dataset:
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return from_arrays(images, [str(row % 2) for row in range(count)], name="some", **columns)


def halves(count: int = 40) -> Split:
    """Even rows train, odd rows test."""
    rows = np.arange(count, dtype=np.int64)
    return Split(0, 0, 0, 1, "halves", rows[::2], rows[1::2])


def only(found: list[Finding], kind: str) -> Finding:
    (finding,) = [f for f in found if f.kind == kind]
    return finding


def kinds(found: list[Finding]) -> set[str]:
    return {finding.kind for finding in found}


# rows, groups, sites


def test_a_clean_split_has_no_finding() -> None:
    dataset = some(groups=[f"p{row // 4}" for row in range(40)])
    assert audit_splits(dataset, make_splits(dataset, GroupKFold(5))) == []


def test_a_row_on_both_sides_stops() -> None:
    split = halves()
    found = only(audit_splits(some(), [replace(split, test=np.append(split.test, [0, 2]))]), "rows")
    assert (found.severity, found.count, found.of, found.share) == ("stop", 2, 22, 2 / 22)
    assert found.examples == (("00",), ("02",))


def test_groups_on_both_sides_are_counted_by_tested_rows() -> None:
    groups = [f"p{row // 2}" if row < 10 else f"q{row}" for row in range(40)]
    found = only(audit_splits(some(groups=groups), [halves()]), "groups")
    assert (found.severity, found.count, found.of) == ("stop", 5, 20)
    assert found.words == "Groups lie on both sides (5 of the 20 that are tested): 5 of 20 tested rows (25 %)"
    assert set(found.examples) == {(f"p{n}",) for n in range(5)}


def test_groups_that_the_study_wants_on_both_sides_are_a_warning_that_says_so() -> None:
    dataset = some(groups=[f"p{row // 10}" for row in range(40)])
    found = audit_splits(dataset, make_splits(dataset, KFold(5, allow_group_overlap=True)), allow_group_overlap=True)
    groups = only(found, "groups")
    assert groups.severity == "warn" and groups.share == 1 and groups.splits == (5, 5)
    assert groups.words.startswith("As the study allows, groups lie on both sides")
    raise_on_leak(found)


def test_the_inner_validation_part_counts_as_learned_from_and_unseen_sites_as_tested() -> None:
    dataset = some(4, groups=["a", "b", "a", "b"])
    split = Split(0, 0, 0, 1, "made", np.array([0]), np.array([], dtype=np.int64), val=np.array([1]), external=np.array([2, 3]))
    assert only(audit_splits(dataset, [split]), "groups").count == 2


def test_sites_are_a_note_unless_they_are_meant_to_be_unseen() -> None:
    dataset = some(sites=["Brno" if row < 20 else "Tokyo" for row in range(40)])
    assert only(audit_splits(dataset, [halves()]), "sites").severity == "note"
    assert only(audit_splits(dataset, [halves()], by_site=True), "sites").severity == "stop"
    assert audit_splits(dataset, make_splits(dataset, HeldOutSites(test_sites=["Tokyo"], folds=2)), by_site=True) == []


def test_a_single_site_is_no_finding() -> None:
    assert audit_splits(some(sites=["Brno"] * 40), [halves()]) == []


def test_the_worst_split_is_reported_and_how_many_have_it() -> None:
    dataset = some(groups=[f"p{row // 2}" for row in range(40)])
    rows = np.arange(40, dtype=np.int64)
    clean = Split(0, 0, 0, 3, "clean", rows[:20], rows[20:])
    bad = [replace(clean, name=f"bad {n}", test=np.append(clean.test, rows[19 - n : 19] + 1)) for n in (1, 2)]
    moved = [replace(split, train=np.setdiff1d(split.train, split.test)) for split in bad]
    found = only(audit_splits(dataset, [clean, *moved]), "groups")
    assert found.splits == (1, 3) and (found.count, found.of) == (1, 21)
    assert "in 1 split," in found.words


# windows


def recordings(length_s: float, step_s: float, subjects: int = 10, each: int = 60) -> Dataset:
    """Windows of ten people, one recording each."""
    starts = np.tile(np.arange(each) * step_s, subjects)
    groups = np.repeat([f"p{n}" for n in range(subjects)], each)
    dataset = some(len(starts), groups=groups.tolist())
    return replace(dataset, spans=np.stack([starts, starts + length_s], axis=1), recordings=groups)


def test_random_folds_of_overlapping_windows_share_samples_as_the_arithmetic_says() -> None:
    """Windows of 5 s every 2 s overlap two neighbours to each side: 1 - 0.2^4 of the inner ones meet one that is trained on."""
    dataset = recordings(5, 2, each=400)
    made = make_splits(dataset, KFold(5, allow_group_overlap=True, seeds=[0, 1, 2]))
    inner = np.tile((np.arange(400) >= 2) & (np.arange(400) < 398), 10)
    assert dataset.groups is not None and dataset.spans is not None
    codes = np.unique(dataset.groups, return_inverse=True)[1].astype(np.int64)
    shares = []
    for split in made:
        tested = split.test[inner[split.test]]
        shares.append(overlap_mask(dataset.spans, codes, split.train, tested).mean())
    assert np.mean(shares) == pytest.approx(1 - 0.2**4, abs=0.001)
    found = audit_splits(dataset, made, allow_group_overlap=True)
    windows = only(found, "windows")
    assert windows.severity == "warn" and windows.splits == (15, 15) and windows.share > 0.995
    assert only(found, "groups").share == 1
    one, other, common = windows.examples[0]
    assert abs(int(one) - int(other)) == 1 and common == "3 s in common"


def test_windows_with_a_gap_share_a_subject_and_no_samples() -> None:
    dataset = recordings(5, 7)
    found = audit_splits(dataset, make_splits(dataset, KFold(5, allow_group_overlap=True)), allow_group_overlap=True)
    assert kinds(found) == {"groups"}


@pytest.mark.parametrize("protocol", [GroupKFold(5), LeaveOneGroupOut()])
def test_subject_folds_share_neither(protocol: Any) -> None:
    dataset = recordings(5, 2)
    assert audit_splits(dataset, make_splits(dataset, protocol)) == []


def test_windows_that_only_touch_do_not_overlap_however_their_ends_were_computed() -> None:
    rate, length = 360.0, 301
    starts = np.arange(40) * length / rate
    spans = np.stack([starts, starts + length / rate], axis=1)
    assert (spans[1:, 0] < spans[:-1, 1]).any(), "rounding should make some seem to overlap"
    dataset = replace(some(), spans=spans, recordings=np.array(["r"] * 40))
    assert kinds(audit_splits(dataset, [halves()])) == {"recordings"}


def test_one_name_in_two_groups_is_two_recordings() -> None:
    spans = np.tile([[0.0, 5.0]], (40, 1))
    dataset = replace(some(groups=[f"p{n}" for n in range(40)]), spans=spans, recordings=np.array(["rest"] * 40))
    assert audit_splits(dataset, [halves()]) == []


def test_overlap_that_cannot_be_judged_is_said() -> None:
    dataset = replace(some(), spans=np.tile([[0.0, 5.0]], (40, 1)))
    (found,) = audit_splits(dataset, [halves()])
    assert found.severity == "note" and "neither recordings nor groups are named" in found.words


def test_stopping_names_the_count_an_example_and_what_to_do() -> None:
    dataset = replace(recordings(5, 2), groups=None)
    found = audit_splits(dataset, make_splits(dataset, KFold(5)))
    assert [f.kind for f in found] == ["windows", "recordings"] and found[0].severity == "stop"
    with pytest.raises(LeakageError, match=r"of 120 tested rows \(.* %\), for example \d+ and \d+: name the subject") as caught:
        raise_on_leak(found)
    assert "\n" not in str(caught.value)


# fitted beforehand


def test_what_was_fitted_on_tested_rows_is_counted_split_by_split() -> None:
    """Weights that met ten rows, two of them tested in one split, none in the other."""
    rows = np.arange(40, dtype=np.int64)
    first, second = replace(halves(), name="first", test=rows[1:20:2], train=rows[20:]), halves()
    second = replace(second, name="second", test=rows[21::2], train=rows[:20])
    thing = PriorFit("what 'net' begins with", lambda split: rows[[1, 3, 20, 22]] if split.name == "first" else rows[[20, 22]])
    found = only(audit_splits(some(), [first, second], fitted=[thing]), "fitted")
    assert (found.severity, found.count, found.of, found.splits) == ("stop", 2, 10, (1, 2))
    assert found.examples == (("01",), ("03",))
    assert found.words == "What 'net' begins with was fitted on rows that are tested: in 1 split, 2 of 10 tested rows (20 %)"
    with pytest.raises(LeakageError, match=r"fitted on rows that are tested.*for example 01: fit it on the training rows"):
        raise_on_leak([found])


def test_what_was_fitted_on_training_rows_is_not_accused() -> None:
    """A scale, a teacher and weights of each split's own training rows, over five folds: no finding."""
    dataset = some(groups=[f"p{row // 4}" for row in range(40)])
    things = [PriorFit(name, lambda split: split.train) for name in ("the scale", "the teacher", "the weights")]
    assert audit_splits(dataset, make_splits(dataset, GroupKFold(5)), fitted=things) == []


def test_what_has_seen_pictures_alone_is_a_warning_and_known_groups_are_named() -> None:
    dataset = some(groups=[f"p{row // 4}" for row in range(40)])
    made = make_splits(dataset, GroupKFold(5))
    everyone = np.arange(40, dtype=np.int64)
    scale = only(audit_splits(dataset, made, fitted=[PriorFit("the scale", lambda s: everyone, uses="pictures")]), "fitted")
    assert (scale.severity, scale.share, scale.splits) == ("warn", 1.0, (5, 5))
    met = PriorFit("what 'net' begins with", lambda s: everyone[:8], group_level=True)
    person = only(audit_splits(dataset, made, fitted=[met]), "fitted")
    assert person.severity == "stop" and "knows the group of rows that are tested" in person.words
    assert set(person.examples) <= {("p0",), ("p1",)} and len(person.examples) >= 1
    assert only(audit_splits(dataset, made, fitted=[met], allow_group_overlap=True), "fitted").severity == "warn"


# pictures


def photographs(count: int, side: int = 64, seed: int = 0) -> Bytes:
    """(N, 3, S, S): noise with the spectrum of photographs, a little coloured."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * side
    noise = np.fft.rfft2(random.normal(size=(count, 1, side, side))) / np.maximum(frequency, 1) ** 1.2
    grey = np.fft.irfft2(noise, s=(side, side))
    grey = grey / grey.std(axis=(2, 3), keepdims=True) * 45 + 128 + random.normal(0, 15, (count, 3, 1, 1))
    return np.clip(grey, 0, 255).astype(np.uint8)


def changed(pictures: Bytes, change: Callable[[Image.Image], Image.Image]) -> Bytes:
    made = [np.array(change(Image.fromarray(p.transpose(1, 2, 0)))) for p in pictures]
    return np.stack(made).transpose(0, 3, 1, 2)


def saved(image: Image.Image, quality: int = 40) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_identical_pictures_across_the_split_are_a_warning() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    images[[1, 3, 5]] = images[0]  # one trains, three test
    images[8] = images[6]  # both train: no leak
    found = only(audit_splits(some(images=images), [halves()]), "exact_duplicates")
    assert (found.severity, found.count, found.of) == ("warn", 3, 20)
    assert ("01", "00", "byte for byte") in found.examples


def test_one_picture_under_two_labels_is_a_note() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    images[21] = images[20]
    images[11] = images[13]  # the same label
    found = only(audit_splits(some(images=images), [halves()]), "label_conflicts")
    assert found.severity == "note" and found.count == 2 and found.examples == (("20", "21", "0 and 1"),)


@pytest.mark.parametrize(
    ("change", "view"),
    [
        (saved, "as it is"),
        (lambda image: image.resize((32, 32)).resize((64, 64)), "as it is"),
        (lambda image: ImageEnhance.Brightness(image).enhance(0.7), "as it is"),
        (lambda image: ImageEnhance.Contrast(image).enhance(0.6), "as it is"),
        (lambda image: image.convert("L").convert("RGB"), "as it is"),
        (lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), "mirrored"),
        (lambda image: saved(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)), "mirrored top to bottom"),
        (lambda image: saved(image.transpose(Image.Transpose.ROTATE_180)), "turned by 180°"),
        (lambda image: saved(image.transpose(Image.Transpose.ROTATE_90)), "turned to the left"),
        (lambda image: saved(image.transpose(Image.Transpose.ROTATE_270)), "turned to the right"),
        (lambda image: saved(image.transpose(Image.Transpose.TRANSPOSE)), "mirrored over a diagonal"),
    ],
)
def test_copies_are_found_however_they_were_changed(change: Callable[[Image.Image], Image.Image], view: str) -> None:
    pictures = photographs(300)
    copies = changed(pictures[:20], change)
    found = find_near_duplicates(dct_features(Squares(np.concatenate([pictures, copies]))))
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(row, 300 + row) for row in range(20)}
    assert set(found.relation.tolist()) == {view}
    assert (found.score > 0.8).all()


def test_unrelated_pictures_are_not_called_copies() -> None:
    found = find_near_duplicates(dct_features(Squares(photographs(3000, side=32))))
    assert len(found.pairs) == 0 and found.skipped == ()


def test_what_all_pictures_share_does_not_make_them_copies() -> None:
    """A frame, as of strip charts, far stronger than what differs."""
    pictures = photographs(400).astype(np.float64) * 0.2
    pictures[:, :, ::8] = 255
    pictures[:, :, :, :6] = 255
    assert len(find_near_duplicates(dct_features(Squares(pictures.astype(np.uint8)))).pairs) == 0


def test_blank_pictures_are_not_called_copies() -> None:
    pictures = photographs(60)
    pictures[10] = 200
    pictures[11] = 90
    assert len(find_near_duplicates(dct_features(Squares(pictures))).pairs) == 0


def test_the_digits_of_scikit_learn_are_not_accused() -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images * 15.9).astype(np.uint8)  # 1,797 of 8 × 8
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    squares = Squares(np.repeat(images[:, None].repeat(4, axis=2).repeat(4, axis=3), 3, axis=1))
    assert len(find_near_duplicates(dct_features(squares)).pairs) == 0


def test_every_pair_within_reach_is_compared() -> None:
    """The blocks leave no pair out: a literal loop over all pairs finds the same."""
    from phoropter.data.leakage.near_duplicates import MAX_HAMMING, _find_close_hashes

    random = np.random.default_rng(0)
    words = random.integers(0, 2**63, 700, dtype=np.uint64)
    words[300:600] = words[:300] ^ (np.uint64(1) << random.integers(0, 60, 300).astype(np.uint64))
    plain = {
        (i, j) for i in range(700) for j in range(i + 1, 700) if bin(int(words[i]) ^ int(words[j])).count("1") <= MAX_HAMMING
    }
    blocks = list(_find_close_hashes(words, words))
    assert {tuple(pair) for block in blocks for pair in block.tolist()} == plain and len(plain) >= 300


def test_near_identical_pictures_across_the_split_are_shown_as_pairs() -> None:
    pictures = photographs(60)
    pictures[[1, 4]] = changed(pictures[[2, 6]], saved)  # 1 tests what 2 trains; 4 and 6 both train
    dataset = some(60, images=pictures.transpose(0, 2, 3, 1))
    found = audit_splits(dataset, [halves(60)], Squares(pictures))  # type: ignore[arg-type]
    near = only(found, "near_duplicates")
    assert (near.severity, near.count, near.of) == ("warn", 1, 30)
    assert near.examples == (("01", "02", "as it is"),)
    assert only(found, "label_conflicts").examples == (("01", "02", "1 and 0"),)


def test_identical_pictures_are_not_told_twice() -> None:
    pictures = photographs(60)
    pictures[1] = pictures[2]
    found = audit_splits(some(60, images=pictures.transpose(0, 2, 3, 1)), [halves(60)], Squares(pictures))  # type: ignore[arg-type]
    assert kinds(found) == {"exact_duplicates", "label_conflicts"}


def test_pairs_by_features_are_told_where_nothing_else_told_them() -> None:
    pictures = photographs(60)
    pictures[[1]] = changed(pictures[[2]], saved)
    pictures[5] = pictures[6]
    pairs = np.array([[1, 2], [5, 6], [7, 8], [10, 12]])  # found before · byte for byte · new · both on one side
    seen = DuplicatePairs(pairs, np.full(4, 0.9, dtype=np.float32), np.full(4, "by the features of net"))
    dataset = some(60, images=pictures.transpose(0, 2, 3, 1))
    found = audit_splits(dataset, [halves(60)], Squares(pictures), feature_pairs=seen)  # type: ignore[arg-type]
    alike_to_it = only(found, "feature_duplicates")
    assert (alike_to_it.severity, alike_to_it.count) == ("warn", 1)
    assert alike_to_it.examples == (("07", "08", "by the features of net"),)


def test_streamed_pictures_are_left_alone_and_it_says_so() -> None:
    pictures = photographs(60)
    found = audit_splits(some(60), [halves(60)], Squares(pictures, stored=False))  # type: ignore[arg-type]
    assert [f.severity for f in found] == ["note"] and "streamed" in found[0].words


def test_groups_and_sites_are_called_by_their_own_names() -> None:
    words = parse_unit_word("person"), parse_unit_word("hospital")
    dataset = some(groups=[f"p{i // 2}" for i in range(40)], sites=["Brno", "Brno", "Oslo", "Oslo"] * 10)
    everyone = np.arange(40, dtype=np.int64)
    met = PriorFit("a teacher", lambda split: everyone, group_level=True)
    found = {f.kind: f.words for f in audit_splits(dataset, [halves()], fitted=[met], words=words)}
    assert found["groups"].startswith("People lie on both sides") and found["sites"].startswith("Hospitals lie on both sides")
    assert "knows the person of rows" in found["fitted"] and "group" not in "".join(found.values())


def test_pixels_of_another_dataset_are_refused() -> None:
    with pytest.raises(DataError, match="60 images were given for 40 rows"):
        audit_splits(some(), [halves()], Squares(photographs(60)))  # type: ignore[arg-type]


def test_a_finding_is_plain_data() -> None:
    import json

    dataset = some(groups=["p"] * 40)
    (found,) = audit_splits(dataset, make_splits(dataset, HoldOut(allow_group_overlap=True)), allow_group_overlap=True)
    plain = json.loads(json.dumps(found.plain()))
    assert plain["kind"] == "groups" and plain["examples"] == [["p"]] and plain["share"] == 1 and plain["splits"] == [1, 1]
