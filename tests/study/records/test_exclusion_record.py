"""The flow of exclusions of a study of pictures, in study.json and on its page, against files counted one by one."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.in_memory import from_arrays
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.results.exclusions import count_analysed, make_step, read_steps
from phoropter.study.records.study_record import list_exclusions
from small_pictures import draw_dark_and_light, run_small_study

STUDY = """\
name: kept
data: {folder: pictures, exclude: [grey], on_bad_input: skip, max_samples: 16, size: 16}
protocol: {split: stratified-k-fold, folds: 2}
candidates: [{baseline: mean-image}]
"""


def read_class(path: Path) -> str:
    """The class folder of a picture that Pillow opens, else why it cannot be used."""
    if path.parent.name == "pictures":
        return "loose"
    try:
        Image.open(path).load()
    except (UnidentifiedImageError, OSError):
        return "damaged" if path.suffix == ".png" else "unread"
    return path.parent.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 sound pictures of two classes, 3 of a third, 2 loose ones, one damaged, one of a format that is not read."""
    base = tmp_path_factory.mktemp("kept")
    root = draw_dark_and_light(base / "pictures", 12, size=(16, 16))
    (root / "grey").mkdir()
    for name in ("grey/0.png", "grey/1.png", "grey/2.png", "loose.png", "stray.png"):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / name)
    (root / "dark" / "damaged.png").write_bytes(b"\x89PNG no picture")
    (root / "light" / "phone.heic").write_bytes(b"no picture")
    return base


def test_every_step_has_the_counts_of_the_files(folder: Path) -> None:
    store = run_small_study(folder, STUDY)
    kinds = [read_class(path) for path in (folder / "pictures").rglob("*.*")]
    count = {kind: kinds.count(kind) for kind in set(kinds)}
    sound = count["dark"] + count["light"]
    dataset = store.study["dataset"]
    steps = read_steps(dataset["exclusions"])
    assert steps == (
        make_step(
            "pictures", sound + 4, {"cannot be read": count["unread"], "in no class folder or official part": count["loose"]}
        ),
        make_step("pictures", sound + 1, {"of other classes (grey)": count["grey"]}),
        make_step("pictures", 16, {"beyond max_samples of 16": sound + 1 - 16}),
        *steps[3:],
    )
    assert steps[0].found == len(kinds) and steps[-1].kept == dataset["rows"]
    for before, after in itertools.pairwise(steps):
        assert before.kept == after.found
    lost = [step.left_out for step in steps[3:]]
    assert lost in ([], [(("cannot be read", 1),)]), "the damaged picture, where it is among the 16"


def test_rows_without_a_label_and_missing_files_are_steps(folder: Path, tmp_path: Path) -> None:
    names = ["dark/0.png", "dark/1.png", "light/0.png", "light/1.png", "gone.png", "light/2.png"]
    labels = ["dark", "dark", "light", "light", "light", ""]
    lines = [f"{folder}/pictures/{name},{label},{name[:3]}" for name, label in zip(names, labels, strict=True)]
    (tmp_path / "list.csv").write_text("path,label,group\n" + "\n".join(lines))
    dataset = open_dataset(DataSpec.model_validate({"manifest": tmp_path / "list.csv", "on_bad_input": "skip"}))
    missing, unlabelled = list_exclusions(dataset, dataset.labelled)
    assert missing == make_step("pictures", 5, {"the file is missing": 1}, 2)
    assert unlabelled == make_step("pictures", 4, {"without a label": 1}, 2)


def test_what_is_used_as_a_whole_has_no_step() -> None:
    dataset: Dataset = from_arrays(np.zeros((4, 8, 8, 3), np.uint8), ["a", "a", "b", "b"])
    assert list_exclusions(dataset, dataset.labelled) == ()
    assert (dataset.labels != UNLABELLED).all()
    part = dataset.note_exclusion(dataset.select_rows(np.array([0, 2])), "for a reason")
    assert list_exclusions(part, part.labelled) == (make_step("pictures", 2, {"for a reason": 2}),)
    smaller = part.select_rows(np.array([1]))
    assert list_exclusions(smaller, smaller.labelled)[-1] == make_step("pictures", 1, {"left out by the data object": 1})


OF_PARTS = """\
name: parts
data: {manifest: list.csv, size: 16}
protocol: {split: PROTOCOL}
candidates: [{baseline: mean-image}]
"""


@pytest.mark.parametrize("protocol", ["predefined", "file, folds_file: folds.csv"])
def test_rows_of_no_part_or_fold_are_left_out_and_counted_nowhere(folder: Path, tmp_path: Path, protocol: str) -> None:
    rows = [(f"{folder}/pictures/{kind}/{i}.png", kind, f"p{i // 2}", i) for kind in ("dark", "light") for i in range(12)]
    parts = ["train" if i < 4 else "test" if i < (10 if kind == "dark" else 8) else "" for _, kind, _, i in rows]
    lines = [f"{path},{kind},{person},{part}" for (path, kind, person, _), part in zip(rows, parts, strict=True)]
    (tmp_path / "list.csv").write_text("path,label,group,split\n" + "\n".join(lines))
    folds = [f"{row[0]},1,1,{part or 'unused'}" for row, part in zip(rows, parts, strict=True)]
    (tmp_path / "folds.csv").write_text("id,repeat,fold,part\n" + "\n".join(folds))
    store = run_small_study(tmp_path, OF_PARTS.replace("PROTOCOL", protocol))
    dataset = store.study["dataset"]
    used = [(kind, person) for (_, kind, person, _), part in zip(rows, parts, strict=True) if part]
    people = len({person for _, person in used})
    assert read_steps(dataset["exclusions"]) == (make_step("pictures", len(used), {"in no part of any split": 6}, people),)
    assert dict(zip(dataset["classes"], dataset["counts"], strict=True)) == {"dark": 10, "light": 8}
    assert count_analysed(dataset) == (18, 5) and dataset["rows"] == 24
