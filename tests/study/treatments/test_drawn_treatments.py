"""Rows of a study's data at every step: that each changes what it should, held against what training computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.spec import open_dataset
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.treatments.drawn_treatments import draw_treatments, show_treatment
from phoropter.study.treatments.treatment_list import Treatment, list_treatments

CANDIDATES = "candidates: [{name: small, backbone: test_resnet, weights: random}]\n"
BIRTHS = "{simulate: ctg, cohort: {hospitals: 2, swapped_hospitals: 0, records: 6}, size: 32, clean: {filter: {uc_factor: 50}}}"
CTG = f"name: ctg\ndata: {BIRTHS}\nrecipe: {{preset: scratch, augment: none}}\n{CANDIDATES}"


def read_text(folder: Path, text: str) -> list[StudySpec]:
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")


def show_rows(treatment: Treatment, ids: list[str]) -> NDArray[np.uint8]:
    return show_treatment(treatment, open_dataset(treatment.data), ids)


def test_each_treatment_changes_what_it_should(tmp_path: Path) -> None:
    parts = read_text(tmp_path, CTG + "sweep: {data.clean.filter.fhr_lowpass: [0, 50], recipe.augment: [none, slit-cutout]}\n")
    by_title = {t.title: t for t in list_treatments(parts)}
    ids = [str(name) for name in open_dataset(parts[0].data).ids[:3]]
    plain, cut = (show_rows(by_title[title], ids) for title in ("As it is", "slit-cutout"))
    white = (cut == 255).all(axis=(0, 1, 2))  # columns that are white from top to bottom in all channels
    assert white.any() and (cut[..., ~white] == plain[..., ~white]).all()
    flat, shaped = (show_rows(by_title[f"fhr_lowpass {cutoff}"], ids) for cutoff in (0, 50))
    assert not np.array_equal(flat, shaped) and np.array_equal(flat[:, 1:], plain[:, 1:]), "the heart rate alone is filtered"


def test_stages_of_a_birth_begin_with_the_record_and_end_with_what_is_drawn(tmp_path: Path) -> None:
    parts = read_text(tmp_path, CTG)
    drawn, dataset = draw_treatments(parts), open_dataset(parts[0].data)
    assert isinstance(dataset.pictures, RenderedPictures)
    by_channel = {name: [s for s in drawn.steps if s.channel == name] for name in ("FHR", "UC", "baseline")}
    assert [len(steps) for steps in by_channel.values()] == [6, 5, 1]
    for column, shown in enumerate(drawn.rows):
        row = int(np.flatnonzero(dataset.ids == shown.id)[0])
        last = dataset.pictures.source_signals(row)
        for channel, steps in by_channel.items():
            np.testing.assert_array_equal(steps[-1].traces[column], last[channel])
        windows = dataset.pictures.windows
        recording = next(r for r in windows.recordings if shown.id.startswith(f"{r.id}@"))
        start = int(windows.table.start[row])
        whole = recording.channel("FHR")[start : start + len(last["FHR"])]
        np.testing.assert_array_equal(by_channel["FHR"][0].traces[column], whole)
    assert drawn.steps[-1].title == "drawn as ctg, 32 pixels a side"


def test_pictures_of_a_folder_begin_as_in_the_file_and_one_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(random.integers(0, 255, (20, 40, 3), np.uint8)).save(tmp_path / "pictures" / name / f"{number}.png")
    text = f"name: folder\ndata: {{folder: pictures, size: 16}}\nrecipe: {{preset: scratch, augment: hflip}}\n{CANDIDATES}"
    parts = read_text(tmp_path, text)
    file, square, flipped = draw_treatments(parts).steps
    assert (file.title, square.title, flipped.title) == ("as in the file", "made square (center-crop), 16 pixels a side", "hflip")
    assert file.pictures[0].shape == (20, 40, 3) and square.pictures[0].shape == (16, 16, 3)
    np.testing.assert_array_equal(flipped.pictures, np.array(square.pictures)[:, :, ::-1])
    first = draw_treatments(parts).rows[0].id
    (tmp_path / "pictures" / first).write_bytes(b"no picture")
    assert first not in {row.id for row in draw_treatments(parts).rows}
    for path in (tmp_path / "pictures").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture can be shown"):
        draw_treatments(parts)


def test_a_centre_crop_is_the_centre(tmp_path: Path) -> None:
    text = (
        f"name: crop\ndata: {{digits: true, size: 40}}\nrecipe: {{preset: scratch, augment: none, center_crop: 32}}\n{CANDIDATES}"
    )
    *_, whole, crop = draw_treatments(read_text(tmp_path, text)).steps
    np.testing.assert_array_equal(crop.pictures, np.array(whole.pictures)[:, 4:36, 4:36])


def test_windows_that_begin_elsewhere_are_other_rows(tmp_path: Path) -> None:
    data = "{simulate: ecg, cohort: {subjects: 3}, size: 32}"
    text = f"name: ecg\ndata: {data}\nsweep: {{data.window.step_s: [2, 7]}}\n{CANDIDATES}"
    drawn = draw_treatments(read_text(tmp_path, text))
    assert [step.channel for step in drawn.steps][:1] == ["ECG"] and drawn.steps[0].unit
    other = {step.title: "Other rows:" in step.about for step in drawn.steps if step.title.startswith("step_s")}
    assert other == {"step_s 2": False, "step_s 7": True}
