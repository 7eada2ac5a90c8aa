"""One dataset written in every format opens to the same labels, groups, sites, official parts and pixels."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from phoropter.core.files import digest_array
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import detect_data_spec
from phoropter.data.source_table import detect_source
from phoropter.data.spec import open_dataset

h5py = pytest.importorskip("h5py")
pytest.importorskip("pydicom")

CLASS_NAMES = ("cat", "01", "1", "Größe b", "NA", "yes", "no", "None", "1.5", "train", "Cat")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Rows:
    """N rows. labels, groups, sites, parts: by row; groups are numbers, which formats write in ways of their own"""

    labels: list[str]
    groups: list[int]
    sites: list[str]
    parts: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, row: int) -> Any:
        return np.random.default_rng(row).integers(0, 256, (6, 8), dtype=np.uint8)

    def png(self, row: int) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(self.pixels(row)).save(stream, "PNG")
        return stream.getvalue()

    def by_picture(self) -> dict[str, tuple[str, str, str, str]]:
        """Digest of the decoded pixels → (label, group, site, part)."""
        keys = [digest_array(np.repeat(self.pixels(row)[:, :, None], 3, axis=2)) for row in range(len(self))]
        return dict(zip(keys, zip(self.labels, map(str, self.groups), self.sites, self.parts, strict=True), strict=True))


@st.composite
def made_rows(draw: Any) -> Rows:
    classes = draw(st.lists(st.sampled_from(CLASS_NAMES), min_size=2, max_size=4, unique=True))
    more = draw(st.lists(st.sampled_from(classes), min_size=2, max_size=8))
    labels = classes + classes + more  # every class is in the training part, and one row of it elsewhere
    elsewhere = draw(st.lists(st.sampled_from(PARTS), min_size=len(more), max_size=len(more)))
    parts = ["train"] * len(classes) + ["test"] * len(classes) + elsewhere
    count = len(labels)
    groups = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    sites = draw(st.lists(st.sampled_from(["Nord", "Süd 2", "007"]), min_size=count, max_size=count))
    return Rows(labels, groups, sites, parts)


def write_folder(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    for row in range(len(rows)):
        name = f"g{rows.groups[row]}_s{rows.sites[row]}_{row}.png"
        path = root / "d" / rows.parts[row] / rows.labels[row] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows.png(row))
    return {"folder": root / "d", "group_from": "/g([0-9])_", "site_from": "_s(.*)_[0-9]+.png"}


def write_csv(rows: Rows, root: Path, separator: str, encoding: str) -> dict[str, Any]:
    lines = [separator.join(("Path", "LABEL", "group", "Site ", "split"))]
    for row in range(len(rows)):
        (root / "img").mkdir(parents=True, exist_ok=True)
        (root / "img" / f"{row}.png").write_bytes(rows.png(row))
        lines.append(
            separator.join((f"img\\{row}.png", rows.labels[row], f"{rows.groups[row]}.0", rows.sites[row], rows.parts[row]))
        )
    (root / "m.csv").write_bytes("\r\n".join(lines).encode(encoding))
    return {"manifest": root / "m.csv"}


def write_comma_csv(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    return write_csv(rows, root, ",", "utf-8")


def write_semicolon_csv(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    return write_csv(rows, root, ";", "utf-16")


def make_table(rows: Rows, chosen: list[int], group: Callable[[int], Any]) -> pa.Table:
    return pa.table(
        {
            "image": [{"bytes": rows.png(row), "path": None} for row in chosen],
            "label": [rows.labels[row] for row in chosen],
            "group": [group(rows.groups[row]) for row in chosen],
            "site": [rows.sites[row] for row in chosen],
        }
    )


def rows_of_part(rows: Rows, part: str) -> list[int]:
    return [row for row in range(len(rows)) if rows.parts[row] == part]


def write_parquet(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    kinds = dict(zip(PARTS, (int, float, str), strict=True))  # of group, in each shard another one
    (root / "d").mkdir(parents=True)
    for part in PARTS:
        if chosen := rows_of_part(rows, part):
            parquet.write_table(make_table(rows, chosen, kinds[part]), root / "d" / f"{part}-00000-of-00001.parquet")
    return {"parquet": root / "d"}


def write_saved_dataset(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    names = [part for part in PARTS if rows_of_part(rows, part)]
    for part in names:
        folder = root / "d" / part
        folder.mkdir(parents=True)
        table = make_table(rows, rows_of_part(rows, part), int)
        with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (root / "d" / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    return {"saved_dataset": root / "d"}


def write_npz(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    root.mkdir(parents=True)
    images = np.stack([rows.pixels(row) for row in range(len(rows))])
    columns = {"labels": rows.labels, "groups": np.array(rows.groups, float), "sites": rows.sites, "parts": rows.parts}
    np.savez(root / "d.npz", images=images, **columns)
    return {"npz": root / "d.npz"}


def write_hdf5(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    root.mkdir(parents=True)
    names = sorted(set(rows.labels), reverse=True)
    with h5py.File(root / "d.h5", "w") as file:
        for part in PARTS:
            if chosen := rows_of_part(rows, part):
                file[f"{part}/images"] = np.stack([rows.pixels(row) for row in chosen])
                own = names if part == "train" else names[::-1]  # each part numbers the classes in its own order
                file[f"{part}/labels"] = [own.index(rows.labels[row]) for row in chosen]
                file[f"{part}/classes"] = own
                file[f"{part}/groups"] = [rows.groups[row] for row in chosen]
                file[f"{part}/sites"] = [rows.sites[row] for row in chosen]
    return {"hdf5": root / "d.h5"}


def write_webdataset(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    (root / "d").mkdir(parents=True)
    for part in PARTS:
        with tarfile.open(root / "d" / f"set-{part}-000000.tar", "w") as tar:
            for row in rows_of_part(rows, part):
                record = json.dumps({"group": rows.groups[row], "site": rows.sites[row]}).encode()
                for ending, content in (("png", rows.png(row)), ("cls", rows.labels[row].encode()), ("json", record)):
                    member = tarfile.TarInfo(f"{row:05d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return {"shards": root / "d"}


def write_dicom_folder(rows: Rows, root: Path, write_dicom: Callable[..., Path]) -> dict[str, Any]:
    for row in range(len(rows)):
        header = {"PatientID": f"P{rows.groups[row]}", "InstitutionName": rows.sites[row], "SpecificCharacterSet": "ISO_IR 192"}
        write_dicom(root / "d" / rows.parts[row] / rows.labels[row] / f"{row}.dcm", rows.pixels(row), **header)
    return {"folder": root / "d"}


def found_rows(dataset: Dataset) -> dict[str, tuple[str, str, str, str]]:
    assert dataset.groups is not None and dataset.sites is not None and dataset.parts is not None
    labels = [dataset.classes[label] for label in dataset.labels]
    keys = [digest_array(dataset.read(row)) for row in range(len(dataset))]
    columns = (labels, dataset.groups.tolist(), dataset.sites.tolist(), dataset.parts.tolist())
    return dict(zip(keys, zip(*columns, strict=True), strict=True))


FORMATS: dict[str, Callable[..., dict[str, Any]]] = {
    "folder": write_folder,
    "csv": write_comma_csv,
    "semicolon-csv": write_semicolon_csv,
    "parquet": write_parquet,
    "npz": write_npz,
    "webdataset": write_webdataset,
    "hdf5": write_hdf5,
    "saved-dataset": write_saved_dataset,
}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=made_rows())
def test_every_format_opens_to_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, write_dicom: Callable[..., Path], name: str, rows: Rows
) -> None:
    data = FORMATS[name](rows, tmp_path_factory.mktemp("d") / "x", write_dicom)
    dataset = open_dataset(detect_data_spec(Path(next(iter(data.values()))))) if len(data) == 1 else None
    named = open_dataset(type(detect_data_spec(Path("digits"))).model_validate(data))
    assert found_rows(named) == rows.by_picture() and named.problems == ()
    assert dataset is None or found_rows(dataset) == rows.by_picture()
    assert detect_source(Path(next(iter(data.values())))).key == next(iter(data))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=made_rows())
def test_dicom_opens_to_the_same_rows_with_other_names_of_groups_and_sites(
    tmp_path_factory: pytest.TempPathFactory, write_dicom: Callable[..., Path], rows: Rows
) -> None:
    data = write_dicom_folder(rows, tmp_path_factory.mktemp("d") / "x", write_dicom)
    found, right = found_rows(open_dataset(detect_data_spec(data["folder"]))), rows.by_picture()
    assert {key: (row[0], row[3]) for key, row in found.items()} == {key: (row[0], row[3]) for key, row in right.items()}
    for column in (1, 2):  # the same rows are together
        pairs = {(found[key][column], right[key][column]) for key in right}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
