"""Folders of `save_to_disk`, written here as `datasets` 5 writes them (checked by hand against folders that it wrote)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from phoropter.core.errors import DataError
from phoropter.data.inspect import detect_data_spec
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.packed.saved_dataset import open_saved_dataset
from phoropter.data.spec import open_dataset

NAMES = ["cat/a.png", "dog/a.png", "cat/b.png", "dog/b.png"]


def save(zoo: Path, folder: Path, shards: int = 1, names: Any = ("cat", "dog"), **columns: Any) -> Path:
    """Two rows a record batch."""
    folder.mkdir(parents=True)
    rows = [{"bytes": (zoo / name).read_bytes(), "path": name} for name in NAMES]
    table = pa.table({"image": rows, "label": [0, 1, 0, 1], **columns})
    info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    files = [f"data-{at:05d}-of-{shards:05d}.arrow" for at in range(shards)]
    for at, name in enumerate(files):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(at * 4 // shards, 4 // shards), max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in files], "_fingerprint": "0", "_format_type": None, "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps(info["info"]))
    return folder


def test_a_dataset_of_two_shards(zoo: Path, tmp_path: Path) -> None:
    dataset = open_dataset(detect_data_spec(save(zoo, tmp_path / "saved", shards=2, group=list("ppqq"))))
    assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 1, 0, 1] and dataset.parts is None
    assert dataset.groups is not None and dataset.groups.tolist() == list("ppqq")
    assert dataset.ids.tolist()[1:3] == ["data-00000-of-00002/1", "data-00001-of-00002/0"]
    files = open_folder(zoo)
    for row, name in enumerate(NAMES):
        np.testing.assert_array_equal(dataset.read(row), files.read(files.ids.tolist().index(name)))
    assert pickle.loads(pickle.dumps(dataset)).content_digest == dataset.content_digest  # noqa: S301


def test_a_dictionary_of_parts_whose_classes_are_numbered_differently(zoo: Path, tmp_path: Path) -> None:
    save(zoo, tmp_path / "d" / "train")
    save(zoo, tmp_path / "d" / "test", names=("dog", "cat"))
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    dataset = open_dataset(detect_data_spec(tmp_path / "d"))
    assert dataset.parts is not None and dataset.parts.tolist() == ["train"] * 4 + ["test"] * 4
    assert [dataset.classes[label] for label in dataset.labels] == ["cat", "dog", "cat", "dog", "dog", "cat", "dog", "cat"]
    assert dataset.ids[4] == "test/data-00000-of-00001/0"
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "extra"]}))
    with pytest.raises(DataError, match="the part is called 'extra'; expected train, validation or test"):
        open_saved_dataset(tmp_path / "d")


@pytest.mark.parametrize("name", ["../out.arrow", "/etc/passwd", "a/b.arrow", "..", "", 7, None])
def test_names_of_files_that_lead_out_of_the_folder_are_refused(zoo: Path, tmp_path: Path, name: Any) -> None:
    folder = save(zoo, tmp_path / "d")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="expected the names of data files in this folder"):
        open_saved_dataset(folder)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match="expected the names of parts under 'splits'"):
        open_saved_dataset(folder)


def test_what_cannot_be_read_is_named(zoo: Path, tmp_path: Path) -> None:
    folder = save(zoo, tmp_path / "d")
    data = folder / "data-00000-of-00001.arrow"
    dataset = open_saved_dataset(folder)
    content = data.read_bytes()
    data.write_bytes(content[:300])
    with pytest.raises(DataError, match="is damaged or no Arrow stream"):
        open_saved_dataset(folder)
    with pytest.raises(DataError, match=r"is damaged or no Arrow stream|has become shorter"):
        dataset.read(3)
    data.unlink()
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow is missing; copy the folder again"):
        open_saved_dataset(folder)
    state = {"_data_files": [{"filename": data.name}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"flatten_indices"):
        open_saved_dataset(folder)
    with pytest.raises(DataError, match=r"there is no state\.json"):
        open_saved_dataset(tmp_path)


def test_a_stream_that_ends_behind_one_of_its_batches_is_refused(zoo: Path, tmp_path: Path) -> None:
    file = save(zoo, tmp_path / "d") / "data-00000-of-00001.arrow"
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        first = reader.read_next_batch()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
    assert len(open_saved_dataset(file.parent)) == 2
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match="the end mark of an Arrow stream is missing"):
        open_saved_dataset(file.parent)


def test_pixels_as_lists_are_refused(zoo: Path, tmp_path: Path) -> None:
    folder = save(zoo, tmp_path / "d", image=[[[1, 2], [3, 4]]] * 4)
    with pytest.raises(DataError, match=r"the column 'image' is list<.*expected encoded pictures"):
        open_saved_dataset(folder)


def test_offsets_that_lead_out_of_the_file_are_found_before_they_are_followed(zoo: Path, tmp_path: Path) -> None:
    folder = save(zoo, tmp_path / "d")
    dataset = open_saved_dataset(folder)
    data = folder / "data-00000-of-00001.arrow"
    content = data.read_bytes()
    lengths = [len((zoo / name).read_bytes()) for name in NAMES[:2]]
    offsets = np.array([0, lengths[0], sum(lengths)], "<i4").tobytes()
    assert offsets in content
    data.write_bytes(content.replace(offsets, np.array([0, lengths[0], 2**31 - 1], "<i4").tobytes()))
    with pytest.raises(DataError, match="is damaged or no Arrow stream"):
        dataset.read(1)
