from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from phoropter.core.errors import DataError
from phoropter.data.source import PathContents
from phoropter.data.source_table import SOURCES, detect_source
from phoropter.data.sources.manifest import from_dataframe
from phoropter.data.spec import DataSpec, in_memory, manifest, npz, open_dataset, parquet


def test_every_source_is_a_key_of_data_with_its_own_options() -> None:
    for key, source in SOURCES.items():
        assert source.key == key and source.help and key in DataSpec.model_fields
        assert set(source.option_names) <= set(DataSpec.model_fields)
        assert DataSpec.model_fields[key].description == source.help
        for option in source.options:
            assert DataSpec.model_fields[option.name].description == option.help


def test_two_sources_with_one_option_mean_the_same_by_it() -> None:
    by_name: dict[str, Any] = {}
    for source in SOURCES.values():
        for option in source.options:
            assert by_name.setdefault(option.name, option) is option


def test_the_first_source_that_recognises_a_path_reads_it(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    assert detect_source(tmp_path).key == "folder"
    (tmp_path / "a.parquet").touch()
    assert detect_source(tmp_path).key == "parquet"
    (tmp_path / "a.png").touch()
    assert detect_source(tmp_path).key == "folder"  # Parquet files beside pictures are no data set
    for number in range(500):
        (tmp_path / f"n{number:08d}").mkdir()
    assert detect_source(tmp_path).key == "imagenet"
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert detect_source(tmp_path).key == "cifar10"


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"x\.parquet is damaged or no Parquet file"):
        detect_source(tmp_path / "x.parquet")


def test_contents_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "A.PNG").touch()
    folder, file = PathContents(tmp_path), PathContents(tmp_path / "A.PNG")
    assert folder.is_folder and folder.names == ("A.PNG",) and folder.suffixes == {".png"}
    assert not folder.is_file_like("") and file.is_file_like(".png") and file.names == ()


# --- one dataset in every format ---------------------------------------------------------------------------------------------

CLASSES = ["adenoma", "carcinoma, in situ", "caf\u00e9"]
ROWS = [
    {
        "path": f"img/{i}.png",
        "label": CLASSES[i % 3],
        "group": i // 2 + 1,
        "site": "Brno" if i < 6 else "T\u014dky\u014d",
        "split": part,
    }
    for i, part in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 4)
]


def draw_picture(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (9, 8, 3), dtype=np.uint8)


def as_csv(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame, **options: Any) -> DataSpec:
    change(pd.DataFrame(ROWS)).to_csv(folder / "rows.csv", index=False, **options)
    return manifest(folder / "rows.csv")


def as_excel_csv(folder: Path) -> DataSpec:
    frame = pd.DataFrame(ROWS).rename(columns=str.upper).assign(PATH=[row["path"].replace("/", "\\") for row in ROWS])
    text = "\ufeffsep=;\r\n" + frame.assign(AGE="0,5").to_csv(index=True, sep=";", lineterminator="\r\n")
    (folder / "rows.csv").write_text(text, encoding="utf-8", newline="")
    return manifest(folder / "rows.csv")


def as_parquet_manifest(folder: Path) -> DataSpec:
    pd.DataFrame(ROWS).astype({"group": float, "label": "category"}).to_parquet(folder / "rows.parquet")
    return manifest(folder / "rows.parquet")


def as_shards(folder: Path) -> DataSpec:
    """Each part numbers the classes in its own order and holds groups of its own type."""
    for number, (part, kind) in enumerate({"train": int, "val": float, "test": str}.items()):
        rows = [row for row in ROWS if row["split"] == part]
        names = CLASSES[number:] + CLASSES[:number]
        images = [{"bytes": (folder / row["path"]).read_bytes(), "path": None} for row in rows]
        columns = {"label": [names.index(row["label"]) for row in rows], "group": [kind(row["group"]) for row in rows]}
        table = pa.table({"image": images, **columns, "site": [row["site"] for row in rows]})
        info = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
        (folder / "hub" / part).mkdir(parents=True)
        pq.write_table(table.replace_schema_metadata({"huggingface": info}), folder / "hub" / part / "0000.parquet")
    return parquet(folder / "hub")


def as_npz(folder: Path) -> DataSpec:
    columns = {f"{key}s": np.array([row[key] for row in ROWS]) for key in ("label", "site")}
    parts = np.array([row["split"] for row in ROWS])
    groups = np.array([float(row["group"]) for row in ROWS])
    np.savez(folder / "x.npz", images=np.stack([draw_picture(i) for i in range(12)]), **columns, groups=groups, parts=parts)
    return npz(folder / "x.npz")


def as_npz_of_parts(folder: Path) -> DataSpec:
    arrays = {}
    for part in ("train", "val", "test"):
        at = [i for i, row in enumerate(ROWS) if row["split"] == part]
        arrays[f"{part}_images"] = np.stack([draw_picture(i) for i in at])
        arrays[f"{part}_labels"] = np.array([[CLASSES.index(ROWS[i]["label"])] for i in at], dtype=np.uint8)
        for key in ("group", "site"):
            arrays[f"{part}_{key}s"] = np.array([ROWS[i][key] for i in at])
    np.savez(folder / "x.npz", **arrays, classes=np.array(CLASSES))
    return npz(folder / "x.npz")


def as_frame(folder: Path) -> DataSpec:
    frame = pd.DataFrame(ROWS).astype({"group": "Int64"})
    return in_memory(from_dataframe(frame.assign(path=[str(folder / path) for path in frame["path"]])))


FORMATS: dict[str, Callable[[Path], DataSpec]] = {
    "csv": as_csv,
    "csv of pandas with floats": lambda folder: as_csv(folder, lambda frame: frame.astype({"group": float})),
    "csv in another Unicode form": lambda folder: as_csv(
        folder, lambda frame: frame.assign(label=[unicodedata.normalize("NFD", name) + "\u200b" for name in frame["label"]])
    ),
    "semicolons": lambda folder: as_csv(folder, sep=";", encoding="utf-8-sig"),
    "tabs in UTF-16": lambda folder: as_csv(folder, sep="\t", encoding="utf-16"),
    "excel": as_excel_csv,
    "parquet manifest": as_parquet_manifest,
    "parquet shards": as_shards,
    "npz": as_npz,
    "npz of parts": as_npz_of_parts,
    "frame": as_frame,
}


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_is_the_same_in_every_format(tmp_path: Path, format: str) -> None:
    (tmp_path / "img").mkdir()
    for row in range(12):
        Image.fromarray(draw_picture(row)).save(tmp_path / "img" / f"{row}.png")
    dataset = open_dataset(FORMATS[format](tmp_path))
    assert dataset.groups is not None and dataset.sites is not None and dataset.parts is not None and dataset.problems == ()
    number = {draw_picture(row).tobytes(): row for row in range(12)}
    read = {
        number[dataset.read(at).tobytes()]: {
            "path": f"img/{number[dataset.read(at).tobytes()]}.png",
            "label": dataset.classes[dataset.labels[at]],
            "group": int(dataset.groups[at]),
            "site": str(dataset.sites[at]),
            "split": str(dataset.parts[at]),
        }
        for at in range(len(dataset))
    }
    assert [read[row] for row in range(12)] == ROWS and set(dataset.groups) == {str(i) for i in range(1, 7)}


def test_of_two_snapshots_of_the_hub_one_is_read(tmp_path: Path, zoo: Path) -> None:
    root = tmp_path / "datasets--org--beans"
    cells = [{"bytes": (zoo / name).read_bytes(), "path": None} for name in ("cat/a.png", "dog/a.png")]
    for revision in ("abc", "def"):
        (root / "snapshots" / revision / "data").mkdir(parents=True)
        pq.write_table(
            pa.table({"image": cells, "label": ["cat", "dog"]}), root / "snapshots" / revision / "data" / "train-0.parquet"
        )
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("def")
    dataset = open_dataset(DataSpec.model_validate({detect_source(root).key: root}))
    assert len(dataset) == 2 and dataset.name == "beans" and dataset.parts is not None
    assert open_dataset(parquet(root, name="mine")).name == "mine"
