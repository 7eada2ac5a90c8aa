"""Names of DICOM rows: opaque, stable, of the same partition as patients and institutions; nothing that identifies leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import detect_data_spec, summarize_dataset
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.manifest import open_manifest
from phoropter.data.spec import open_dataset
from phoropter.deploy.inputs import open_pictures

pytest.importorskip("pydicom")
Write = Callable[..., Path]

PATIENTS = ["MRN77001", "MRN77001", "MRN77002", "MRN77003", "MRN77003", "MRN77002"]
PLACES = ["Saint Planted", "Saint Planted", "Saint Planted", "Clinic Planted", "Clinic Planted", "Saint Planted"]
CLASSES = ["ill", "well", "ill", "well", "ill", "well"]


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (20, 20), dtype=np.uint8)


def exported(root: Path, write_dicom: Write, name: str = "{patient}_{row}.dcm", **header: Any) -> Path:
    for row, (patient, place, label) in enumerate(zip(PATIENTS, PLACES, CLASSES, strict=True)):
        own = {key: value[row] if isinstance(value, list) else value for key, value in header.items()}
        words = {"PatientID": patient, "PatientName": f"Doe{patient}^Jane", "InstitutionName": place, **own}
        write_dicom(root / label / name.format(patient=patient, row=row), picture(row), **words)
    return root


def partition(values: Any) -> set[frozenset[int]]:
    """Which rows belong together, whatever they are called."""
    return {frozenset(np.flatnonzero(np.array(values) == value).tolist()) for value in np.unique(values)}


def rows_by_seed(dataset: Dataset) -> list[int]:
    """The row of each picture, in the order in which they were written."""
    found = [dataset.read(row)[:, :, 0].tobytes() for row in range(len(dataset))]
    return [found.index(picture(seed).tobytes()) for seed in range(len(PATIENTS))]


def no_identifier(text: str) -> bool:
    return not any(word in text for word in ("MRN", "Doe", "Planted"))


def test_a_folder_has_patients_as_groups_and_institutions_as_sites(tmp_path: Path, write_dicom: Write) -> None:
    root = exported(tmp_path / "d", write_dicom)
    dataset = open_folder(root)
    rows = rows_by_seed(dataset)
    assert dataset.groups is not None and dataset.sites is not None
    assert partition(dataset.groups[rows]) == partition(PATIENTS) and partition(dataset.sites[rows]) == partition(PLACES)
    assert [dataset.classes[label] for label in dataset.labels[rows]] == CLASSES
    assert set(dataset.groups) == {"patient-0001", "patient-0002", "patient-0003"} and set(dataset.sites) == {
        "site-01",
        "site-02",
    }
    files = {path.name: path for path in root.rglob("*.dcm")}
    digests = {hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in files.values()}  # b2sum -l 128
    assert set(dataset.ids) == {f"image-{each[:16]}" for each in digests}
    assert no_identifier(str(summarize_dataset(dataset))) and no_identifier(str(dataset.ids) + str(dataset.groups))


def test_groups_are_in_the_order_of_the_smallest_digest_of_their_files(tmp_path: Path, write_dicom: Write) -> None:
    dataset = open_folder(exported(tmp_path / "d", write_dicom))
    assert dataset.groups is not None
    smallest = {group: min(dataset.ids[dataset.groups == group]) for group in dataset.groups.tolist()}
    assert sorted(smallest) == sorted(smallest, key=lambda group: smallest[group])


def test_names_depend_on_contents_alone(tmp_path: Path, write_dicom: Write) -> None:
    one = open_folder(exported(tmp_path / "d", write_dicom))
    for path in sorted((tmp_path / "d").rglob("*.dcm")):
        target = tmp_path / "other" / path.parent.name / f"IM{path.stem[-1]}"  # without a suffix, as archives export
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    other = open_folder(tmp_path / "other")
    order = [other.ids.tolist().index(name) for name in one.ids.tolist()]
    assert one.groups is not None and other.groups is not None and one.groups.tolist() == other.groups[order].tolist()
    assert one.content_digest == other.select_rows(np.array(order)).content_digest


def test_equal_files_have_ids_of_their_own(tmp_path: Path, write_dicom: Write) -> None:
    root = exported(tmp_path / "d", write_dicom)
    source = next((root / "ill").iterdir())
    (root / "well" / "copy.dcm").write_bytes(source.read_bytes())
    ids = open_folder(root).ids.tolist()
    assert len(set(ids)) == 7 and sum(name.endswith("-2") for name in ids) == 1


def test_a_manifest_may_give_groups_and_they_become_opaque_too(tmp_path: Path, write_dicom: Write) -> None:
    exported(tmp_path / "d", write_dicom)
    lines = ["path,label,group,id"]
    for row, (patient, label) in enumerate(zip(PATIENTS, CLASSES, strict=True)):
        lines.append(f"d/{label}/{patient}_{row}.dcm,{label},MRN-pair-{row // 2},DoeJane{row}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    dataset = open_manifest(tmp_path / "m.csv")
    assert dataset.groups is not None and dataset.groups.tolist() != ["MRN-pair-0"] and len(set(dataset.groups)) == 3
    assert partition(dataset.groups) == partition([0, 0, 1, 1, 2, 2]) and no_identifier(f"{dataset.ids} {dataset.groups}")
    (tmp_path / "m.csv").write_text("\n".join([*lines, "d/ill/MRN9.dcm,ill,MRN9,DoeX"]))
    with pytest.raises(DataError, match=r"m\.csv, line 8: the picture does not exist") as caught:
        open_manifest(tmp_path / "m.csv")
    assert no_identifier(str(caught.value))
    skipped = open_manifest(tmp_path / "m.csv", on_bad_input="skip")
    assert len(skipped) == 6 and no_identifier(str(skipped.problems))


def test_a_patient_in_some_files_only_is_refused_with_counts(tmp_path: Path, write_dicom: Write) -> None:
    root = exported(tmp_path / "d", write_dicom, PatientID=["a", "", "a", "b", "b", ""])
    with pytest.raises(DataError, match=r"d: 2 of 6 files name no patient \(PatientID\) and others do"):
        open_folder(root)


def test_exams_are_the_groups_where_no_file_names_a_patient(tmp_path: Path, write_dicom: Write) -> None:
    exams = ["1.2.3", "1.2.3", "1.2.4", "1.2.5", "1.2.5", "1.2.4"]
    dataset = open_folder(exported(tmp_path / "d", write_dicom, PatientID="", StudyInstanceUID=exams))
    assert dataset.groups is not None and partition(dataset.groups[rows_by_seed(dataset)]) == partition(exams)
    assert "no DICOM file names a patient; the groups are exams" in dataset.notes and dataset.groups[0].startswith("exam-")
    none = open_folder(exported(tmp_path / "e", write_dicom, PatientID=""))
    assert none.groups is None and any("one person may stand on both sides" in note for note in none.notes)


def test_notes_on_one_patient_half_an_institution_and_burnt_in_text(tmp_path: Path, write_dicom: Write) -> None:
    header = {"PatientID": "ANON", "InstitutionName": ["A", "", "A", "", "A", "A"], "BurnedInAnnotation": ["YES", *["NO"] * 5]}
    notes = " | ".join(open_folder(exported(tmp_path / "d", write_dicom, **header)).notes)
    assert "all DICOM files name one patient" in notes and "2 of 6 DICOM files name no institution" in notes
    assert "WARNING: 1 of 6 DICOM files say that text is burnt into their pixels" in notes


def test_a_class_called_like_its_patient_is_refused(tmp_path: Path, write_dicom: Write) -> None:
    for row, patient in enumerate(("Jane Doe", "John Roe")):
        write_dicom(tmp_path / "d" / patient / "a.dcm", picture(row), PatientName="^".join(patient.split()[::-1]), PatientID="1")
    with pytest.raises(DataError, match="a class is called like the patient in its files") as caught:
        open_folder(tmp_path / "d")
    assert "Jane" not in str(caught.value)


def test_a_damaged_header_is_told_without_the_name_of_its_file(tmp_path: Path, write_dicom: Write) -> None:
    root = exported(tmp_path / "d", write_dicom)
    (root / "ill" / "MRN_Doe.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00")
    with pytest.raises(DataError, match=r"image-[0-9a-f]{16}: the DICOM file names no transfer syntax") as caught:
        open_folder(root)
    assert no_identifier(str(caught.value))
    skipped = open_folder(root, on_bad_input="skip")
    assert len(skipped) == 6 and len(skipped.problems) == 1 and no_identifier(str(skipped.problems[0]))
    assert skipped.groups is not None and len(set(skipped.groups)) == 3


def test_other_files_beside_them_are_counted_and_not_named(tmp_path: Path, write_dicom: Write) -> None:
    root = exported(tmp_path / "d", write_dicom)
    (root / "ill" / "Doe_report.txt").write_text("x")
    (root / "Doe.pdf").write_text("x")
    write_dicom(root / "MRN1.dcm", picture(9), PatientID="MRN1")
    with pytest.raises(DataError, match=r"a file: files in the format \.pdf are not read") as caught:
        open_folder(root)
    assert no_identifier(str(caught.value))
    dataset = open_dataset(detect_data_spec(root))
    assert no_identifier(str(summarize_dataset(dataset)))
    assert {str(problem) for problem in dataset.problems} == {
        "1 file: files in the format .pdf are not read; convert it to PNG or JPEG",
        "1 file: lies in no class folder, so has no label, and was left out",
    }


def test_inputs_of_a_prediction_are_opaque_and_need_no_patient(tmp_path: Path, write_dicom: Write) -> None:
    root = exported(tmp_path / "d", write_dicom, PatientID=["a", "", "a", "b", "b", ""])
    one = next((root / "ill").iterdir())
    for paths in ([root], [one], [one, root / "well"]):
        dataset = open_pictures(paths, ("ill", "well"), "stop")
        assert all(name.startswith("image-") for name in dataset.ids.tolist()) and dataset.groups is None
        assert dataset.read(0).shape == (20, 20, 3)


def test_pictures_without_dicom_keep_their_names(zoo: Path) -> None:
    assert open_folder(zoo).ids[0] == "cat/a.png"


def test_the_cache_holds_no_name_of_a_file(tmp_path: Path, write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phoropter.data.sources.file_hashes.SETTLED_S", -1.0)  # so that files made now are remembered
    root = exported(tmp_path / "d", write_dicom)
    first = open_folder(root)
    again = open_folder(root)  # from what was remembered
    assert again.groups is not None and first.groups is not None and again.groups.tolist() == first.groups.tolist()
    assert again.notes == first.notes
    content = (cache_dir() / "digests.sqlite").read_bytes()
    assert b"patient-0001" in content and not any(word in content for word in (b"MRN", b"Planted", b"Doe"))


def test_a_class_called_by_the_surname_of_its_only_patient_is_refused(tmp_path: Path, write_dicom: Write) -> None:
    for row, (patient, name) in enumerate((("Doe", "Doe^Jane"), ("Roe", "Roe^John"))):
        for image in range(2):
            file = tmp_path / "d" / patient / f"{image}.dcm"
            write_dicom(file, picture(2 * row + image), PatientName=name, PatientID=f"id{row}")
    with pytest.raises(DataError, match="a class is called like the patient in its files") as caught:
        open_folder(tmp_path / "d")
    assert "Doe" not in str(caught.value)


def test_a_class_whose_word_the_names_of_several_patients_hold_is_none_of_them(tmp_path: Path, write_dicom: Write) -> None:
    for row in range(4):
        kind = ("covid", "normal")[row % 2]
        write_dicom(tmp_path / "d" / kind / f"{row}.dcm", picture(row), PatientName=f"{kind}^{row}", PatientID=f"p{row}")
    assert open_folder(tmp_path / "d").classes == ("covid", "normal")
