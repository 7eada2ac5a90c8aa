"""A packed dataset is the dataset: the same pixels, labels, groups, sites, parts and ids, in as many shards as asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phoropter.core.errors import DataError, StoreError
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.recordings.views import ChannelView
from phoropter.data.sources.packed.parquet import open_parquet
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.operations import pack
from phoropter.operations.pack import pack_dataset
from phoropter.study.executors import execute_study
from phoropter.study.spec import StudySpec, read_study
from small_pictures import draw_dark_and_light
from small_recordings import CTG_STUDY, ECG_STUDY


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    """40 pictures: PNG, and JPEG with a rotation in its header; with groups, sites and parts."""
    folder = draw_dark_and_light(tmp_path / "pictures", 20)
    for kind in ("dark", "light"):
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees
        Image.open(folder / kind / "0.png").save(folder / kind / "0.jpg", exif=exif)
        (folder / kind / "0.png").unlink()
    found = open_dataset(DataSpec(folder=folder))
    rows = np.arange(len(found))
    groups, sites = np.array([f"g{r % 7}" for r in rows]), np.array([f"site {r % 2}" for r in rows])
    return replace(found, groups=groups, sites=sites, parts=np.where(rows % 4 == 0, "test", "train"))


def raise_on_difference(back: Dataset, dataset: Dataset) -> None:
    for name in ("ids", "labels", "groups", "sites", "parts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(dataset, name))
    assert back.classes == dataset.classes
    for row in range(len(dataset)):
        np.testing.assert_array_equal(back.read(row), dataset.read(row))


@pytest.mark.parametrize(("shard_bytes", "shards"), [(1 << 30, 1), (1, 1)])
def test_it_is_read_back_as_it_was(pictures: Dataset, tmp_path: Path, shard_bytes: int, shards: int) -> None:
    packed = pack_dataset(pictures, tmp_path / "out", shard_bytes=shard_bytes)
    assert (packed.rows, packed.shards, packed.problems) == (40, shards, ())
    raise_on_difference(open_dataset(DataSpec(parquet=tmp_path / "out")), pictures)


def test_the_bytes_of_a_picture_file_are_kept(pictures: Dataset, tmp_path: Path) -> None:
    from pyarrow import parquet

    pack_dataset(pictures, tmp_path / "out")
    cells = parquet.read_table(tmp_path / "out")["image"].to_pylist()
    names = [str(i) for i in pictures.ids]
    assert [c["bytes"] for c in cells] == [(tmp_path / "pictures" / name).read_bytes() for name in names]


def test_arrays_become_pngs_in_several_shards_that_the_hub_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "GROUP_ROWS", 64)
    dataset = open_dataset(DataSpec(digits=True))
    small = dataset.select_rows(np.arange(200))
    small = replace(small, classes=tuple(f"z{9 - int(c)}" for c in small.classes))  # names whose order is not that of numbers
    packed = pack_dataset(small, tmp_path / "out", shard_bytes=1)
    assert packed.shards == 4 and packed.rows == 200  # a shard holds at least one group of 64 rows
    raise_on_difference(open_dataset(DataSpec(parquet=tmp_path / "out")), small)
    datasets = pytest.importorskip("datasets")
    read = datasets.Dataset.from_parquet([str(p) for p in sorted((tmp_path / "out").iterdir())], cache_dir=str(tmp_path / "hf"))
    assert read.features["label"].names == list(small.classes)
    np.testing.assert_array_equal(np.array(read[7]["image"].convert("RGB")), small.read(7))


@pytest.mark.parametrize(("rows", "size", "groups"), [(7, 1 << 20, [7, 7, 7, 7, 7, 5]), (4096, 1, [1] * 40)])
def test_rows_are_written_a_few_at_a_time_by_number_and_by_bytes(
    pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, size: int, groups: list[int]
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(pack, "GROUP_ROWS", rows)
    monkeypatch.setattr(pack, "GROUP_BYTES", size)
    pack_dataset(pictures, tmp_path / "out")
    footer = parquet.read_metadata(tmp_path / "out" / "data-00000.parquet")
    assert [footer.row_group(at).num_rows for at in range(footer.num_row_groups)] == groups
    raise_on_difference(open_parquet(tmp_path / "out"), pictures)


def test_rows_without_a_label_stay_without(tmp_path: Path) -> None:
    small = open_dataset(DataSpec(digits=True)).select_rows(np.arange(40))
    parts, labels = np.where(np.arange(40) < 30, "train", "test"), small.labels.copy()
    labels[30:] = -1
    unlabelled = replace(small, parts=parts, labels=labels)
    pack_dataset(unlabelled, tmp_path / "out")
    raise_on_difference(open_dataset(DataSpec(parquet=tmp_path / "out")), unlabelled)


def test_a_bad_picture_stops_it_and_leaves_nothing_or_is_left_out(pictures: Dataset, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "dark" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"5\.png"):
        pack_dataset(pictures, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    packed = pack_dataset(pictures, tmp_path / "out", on_bad_input="skip")
    assert packed.rows == 39 and [p.where for p in packed.problems] == ["dark/5.png"]


def test_an_existing_folder_is_refused(pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="exists already"):
        pack_dataset(pictures, tmp_path / "pictures")


@pytest.fixture
def films(pictures: Dataset) -> Dataset:
    """Rows with two labels, one, none of three, and two rows whose labels are not known; a label that no row has."""
    rows = np.arange(len(pictures))
    labels = np.stack([rows % 2, rows % 3 == 0, np.zeros(len(rows))], axis=1).astype(np.int64)
    labels[[5, 9]] = -1
    return replace(pictures, labels=labels, classes=("mass", "edema", "a third"))


@pytest.mark.parametrize("shard_bytes", [1 << 30, 1])
def test_several_labels_a_row_are_read_back_as_they_were(films: Dataset, tmp_path: Path, shard_bytes: int) -> None:
    pack_dataset(films, tmp_path / "out", shard_bytes=shard_bytes)
    back = open_parquet(tmp_path / "out", multi_label=True, on_bad_input="skip")
    raise_on_difference(back, films)
    assert {back.describe_label(row) for row in range(40)} == {"mass|edema", "mass", "edema", "none", None}
    with pytest.raises(DataError, match="say multi_label: true"):
        open_parquet(tmp_path / "out")


def test_several_labels_are_a_sequence_of_class_labels_for_the_hub(films: Dataset, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pack_dataset(films, tmp_path / "out")
    read = datasets.Dataset.from_parquet(str(tmp_path / "out" / "data-00000.parquet"), cache_dir=str(tmp_path / "hf"))
    assert read.features["label"].feature.names == list(films.classes)
    for row in range(40):
        known = films.labels[row, 0] >= 0
        assert read[row]["label"] == (np.flatnonzero(films.labels[row]).tolist() if known else None)


RECORDED = [ECG_STUDY, ECG_STUDY.replace("size: 32", "size: 32\n  grey_scale: per-subject"), CTG_STUDY]


@pytest.mark.parametrize("study", RECORDED, ids=["ecg", "ecg-pooled", "ctg"])
def test_windows_of_recordings_are_read_back_as_they_were_drawn(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "GROUP_ROWS", 7)
    windows = open_dataset(read_recorded(study, tmp_path).data)
    packed = pack_dataset(windows, tmp_path / "out", shard_bytes=1)
    assert packed.rows == len(windows) and packed.shards > 1
    back = open_parquet(tmp_path / "out")
    raise_on_difference(back, windows)
    np.testing.assert_array_equal(back.recordings, windows.recordings)
    np.testing.assert_array_equal(back.spans, windows.spans)  # float64, to the bit
    assert set(windows.notes) <= set(back.notes)
    assert back.pictures.pools_grey_scale == windows.pictures.pools_grey_scale == ("per-subject" in study)
    assert back.select_rows(np.array([3])).pictures.pools_grey_scale == back.pictures.pools_grey_scale


def test_windows_whose_file_another_program_wrote_anew_are_said_and_an_empty_file_takes_nothing(tmp_path: Path) -> None:
    from pyarrow import parquet

    windows = open_dataset(read_recorded(ECG_STUDY, tmp_path).data)
    pack_dataset(windows, tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "data-00000.parquet")
    parquet.write_table(table.slice(0, 0), tmp_path / "out" / "data-00001.parquet")
    np.testing.assert_array_equal(open_parquet(tmp_path / "out").recordings, windows.recordings)
    plain = table.replace_schema_metadata({b"huggingface": table.schema.metadata[b"huggingface"]})
    parquet.write_table(plain, tmp_path / "out" / "data-00000.parquet")
    lost = open_parquet(tmp_path / "out")
    assert lost.spans is None and any("data-00000.parquet lost what phoropter pack wrote" in note for note in lost.notes)


def test_how_windows_were_drawn_is_in_the_metadata(tmp_path: Path) -> None:
    from pyarrow import parquet

    windows = open_dataset(read_recorded(ECG_STUDY, tmp_path).data)
    pack_dataset(windows, tmp_path / "out")
    said = json.loads(parquet.read_schema(tmp_path / "out" / "data-00000.parquet").metadata[b"phoropter"])
    assert isinstance(windows.pictures, RenderedPictures)
    assert ChannelView(**said["view"]) == windows.pictures.windows.view


def read_recorded(study: str, folder: Path) -> StudySpec:
    text = f"{study}recipe: logistic\ncandidates: [{{backbone: test_vit, weights: random, frozen: true}}]\n"
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")[0]


def test_a_study_of_packed_windows_predicts_the_same_bytes(tmp_path: Path) -> None:
    study = read_recorded(ECG_STUDY, tmp_path)
    pack_dataset(open_dataset(study.data), tmp_path / "packed")
    other = study.model_copy(update={"data": DataSpec(parquet=tmp_path / "packed", size=32)})
    found = []
    for each, name in ((study, "drawn"), (other, "packed")):
        store = execute_study(each, tmp_path / name, lambda event: None, cache=tmp_path / "cache")
        assert store.read_failures() == {}
        found.append({run.record["split"]["name"]: (run.folder / "predictions.npz").read_bytes() for run in store.runs()})
    assert len(found[0]) == 2 and found[0] == found[1]
