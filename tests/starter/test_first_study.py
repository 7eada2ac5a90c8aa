"""phoropter init on the layouts people have: what it writes plans, two run to a report, groups are guessed and never split."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from phoropter.cli import main
from phoropter.commands.study_schema import make_study_schema
from phoropter.core.durations import format_duration
from phoropter.core.errors import DataError
from phoropter.core.spec import load_yaml, parse_yaml
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.starter.choices import FirstStudy, choose_candidates, choose_protocol
from phoropter.starter.first_look import look_at_path
from phoropter.starter.recordings_list import write_recordings_list
from phoropter.starter.study_text import make_study_name, write_study_text
from phoropter.study.plan import plan_study
from phoropter.study.spec import StudySpec, read_study

CLASSES = ("benign", "malign")
ROWS = 24


def call(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=answer, catch_exceptions=False)


def draw(row: int) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(row).integers(0, 120, (16, 16, 3), np.uint8)
    return pixels + np.uint8(100 * (row % 2))


def png(row: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw(row)).save(file, "png")
    return file.getvalue()


def put(path: Path, contents: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


def make_folders(root: Path) -> Path:
    for row in range(ROWS):
        put(root / "d" / CLASSES[row % 2] / f"picture{row}.png", png(row))
    return root / "d"


def make_parts(root: Path) -> Path:
    for row in range(ROWS):
        put(root / "d" / ("test" if row % 6 > 3 else "train") / CLASSES[row % 2] / f"picture{row}.png", png(row))
    return root / "d"


def make_patients(root: Path) -> Path:
    for row in range(ROWS):
        put(root / "d" / CLASSES[row // 4 % 2] / f"patient{row // 4:03d}_{row % 4}.png", png(row))
    return root / "d"


def make_csv(root: Path) -> Path:
    lines = ["image,diagnosis,PatientID"]
    for row in range(ROWS):
        put(root / "img" / f"{row}.png", png(row))
        lines.append(f"img/{row}.png,{CLASSES[row % 2]},{row // 3}")
    return put(root / "cells.csv", "\n".join(lines) + "\n")


def make_parquet(root: Path) -> Path:
    import pandas as pd

    pictures = [{"bytes": png(row), "path": None} for row in range(ROWS)]
    labels = [CLASSES[row % 2] for row in range(ROWS)]
    pd.DataFrame({"image": pictures, "label": labels}).to_parquet(root / "cells.parquet")
    return root / "cells.parquet"


def make_npz(root: Path) -> Path:
    images = np.stack([draw(row) for row in range(ROWS)])
    np.savez(root / "cells.npz", images=images, labels=np.arange(ROWS) % 2, groups=np.arange(ROWS) // 3)
    return root / "cells.npz"


def make_webdataset(root: Path) -> Path:
    with tarfile.open(root / "cells-000000.tar", "w") as tar:
        for row in range(ROWS):
            for ending, contents in (("png", png(row)), ("cls", CLASSES[row % 2].encode())):
                member = tarfile.TarInfo(f"{row:05d}.{ending}")
                member.size = len(contents)
                tar.addfile(member, io.BytesIO(contents))
    return root / "cells-000000.tar"


def make_wesad(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for subject in ("S2", "S3", "S4"):
        seconds = 200
        time = np.arange(700 * seconds) / 700
        ecg = (np.exp(-(((time % 0.8) - 0.4) ** 2) / 2e-4) + 0.02 * rng.normal(size=len(time)))[:, None].astype(np.float32)
        label = np.repeat([1, 2, 3, 0], 700 * seconds // 4).astype(np.int32)
        session = {"subject": subject, "signal": {"chest": {"ECG": ecg}, "wrist": {"BVP": np.zeros((128, 1))}}, "label": label}
        put(root / "d" / subject / f"{subject}.pkl", pickle.dumps(session, protocol=2))
    return root / "d"


def make_edf(root: Path) -> Path:
    def field(text: object, size: int) -> bytes:
        return str(text).encode().ljust(size)[:size]

    columns = [(16, "ECG"), (80, ""), (8, "mV"), (8, -3.2768), (8, 3.2767), (8, -32768), (8, 32767), (80, ""), (8, 100), (32, "")]
    lines = ["path,subject,label"]
    for person in range(6):
        head = field(0, 8) + field("X", 80) + field("", 80) + b"01.01.1100.00.00" + field(512, 8) + field("", 44)
        head += field(60, 8) + field(1, 8) + field(1, 4) + b"".join(field(value, size) for size, value in columns)
        beats = (np.exp(-(((np.arange(6000) / 100 % 0.8) - 0.4) ** 2) / 2e-3) * 9000).astype("<i2")
        put(root / f"{person}.edf", head + beats.tobytes())
        lines.append(f"{person}.edf,person{person},{CLASSES[person % 2]}")
    return put(root / "recordings.csv", "\n".join(lines) + "\n")


def write_wfdb(record: Path, digital: np.ndarray[Any, Any], signals: list[str], rate: int, gain: str, end: str) -> None:
    folder, name = record.parent, record.name
    sums = (digital.astype(int).sum(axis=0) % 65536).astype(np.uint16).astype(np.int16).tolist()
    lines = [f"{name} {len(signals)} {rate} {len(digital)}"]
    lines += [f"{name}.dat 16 {gain} 16 0 {digital[0, i]} {sums[i]} 0 {word}" for i, word in enumerate(signals)]
    put(folder / f"{name}.hea", "\n".join(lines) + "\n" + end)
    put(folder / f"{name}.dat", digital.astype("<i2").tobytes())


def make_ctu(root: Path) -> Path:
    for number in range(8):
        rng = np.random.default_rng(number)
        fhr = 13000 + 500 * np.sin(np.arange(4 * 3600) / 400) + rng.integers(-200, 200, 4 * 3600)
        digital = np.stack([fhr, 2000 + rng.integers(0, 900, 4 * 3600)], axis=1).astype("<i2")
        low = number % 2
        outcome = f"#-- Outcome\n#pH           {7.0 if low else 7.3}\n#Apgar1       {5 if low else 9}\n#Apgar5       9\n"
        write_wfdb(root / "d" / str(1001 + number), digital, ["FHR", "UC"], 4, "100(0)/bpm", outcome)
    return root / "d"


def make_mitdb(root: Path) -> Path:
    for name in ("100", "101", "103", "105"):
        seconds, rate = 60, 360
        beats = np.arange(200, seconds * rate, 300)
        digital = np.random.default_rng(int(name)).integers(1000, 1050, (seconds * rate, 2)).astype("<i2")
        write_wfdb(root / "d" / name, digital, ["MLII", "V1"], rate, "200(1024)/mV", "")
        codes, last = [], 0
        for number, at in enumerate(beats.tolist()):
            codes.append((1, 5, 8)[number // 4 % 3] << 10 | (at - last))
            last = at
        put(root / "d" / f"{name}.atr", np.array([*codes, 0], "<u2").tobytes())
    return root / "d"


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "folders": (make_folders, "stratified-k-fold"),
    "parts": (make_parts, "predefined"),
    "patients": (make_patients, "stratified-group-k-fold"),
    "csv": (make_csv, "stratified-group-k-fold"),
    "parquet": (make_parquet, "stratified-k-fold"),
    "npz": (make_npz, "stratified-group-k-fold"),
    "webdataset": (make_webdataset, "stratified-k-fold"),
    "wesad": (make_wesad, "stratified-group-k-fold"),
    "edf": (make_edf, "stratified-group-k-fold"),
    "ctu": (make_ctu, "stratified-group-k-fold"),
    "mitdb": (make_mitdb, "stratified-group-k-fold"),
}


BASELINES = {"wesad": "hrv", "edf": "hrv", "ctu": "ctg-features"}  # by layout; of pictures, and of other channels, none


def check_first_study(path: Path, out: Path, split: str) -> StudySpec:
    """Writes a study, holds it against what it says of itself, and plans it."""
    written = call("init", path, "-o", out)
    assert written.exit_code == 0, written.output
    (study,) = read_study(out)
    assert study.protocol.split == split and len(study.parsed_candidates) >= 2
    dataset = open_dataset(study.data, study.base)
    text = out.read_text(encoding="utf-8")
    for name, count in zip(dataset.classes, dataset.class_counts.tolist(), strict=True):
        assert f"{name} {count}" in text
    if dataset.groups is not None and split != "predefined":
        for part in make_splits(dataset, study.protocol, study.base):
            assert not set(dataset.groups[part.train].tolist()) & set(dataset.groups[part.test].tolist())
    planned = call("plan", out, "-o", out.parent / "runs")
    assert planned.exit_code == 0 and "runs to compute" in planned.output, planned.output
    return study


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_first_study_plans(name: str, tmp_path: Path) -> None:
    make, split = LAYOUTS[name]
    study = check_first_study(make(tmp_path), tmp_path / "study.yaml", split)
    at_random = all(c.backbones[0].weights == "random" for c in study.parsed_candidates if not c.table)
    assert ("These start at random" in (tmp_path / "study.yaml").read_text()) == at_random
    assert [c.table.baseline for c in study.parsed_candidates if c.table] == ([BASELINES[name]] if name in BASELINES else [])


def test_of_one_hospital_no_protocol_by_sites_is_named(tmp_path: Path) -> None:
    text = []
    for sites in (1, 2):
        root = tmp_path / str(sites)
        rows = make_csv(root).read_text().splitlines()
        lines = [f"{row},{'site' if not n else n % sites}" for n, row in enumerate(rows)]
        put(root / "cells.csv", "\n".join(lines))
        call("init", root / "cells.csv", "-o", root / "study.yaml")
        text.append((root / "study.yaml").read_text())
    assert "leave-one-site-out" not in text[0] and "2 sites: `protocol: leave-one-site-out`" in text[1]


def test_a_first_study_of_dicom_plans(tmp_path: Path, write_dicom: Callable[..., Path]) -> None:
    for row in range(ROWS):
        write_dicom(tmp_path / "d" / CLASSES[row % 2] / f"{row}.dcm", draw(row)[..., 0], PatientID=f"P{row // 3}")
    check_first_study(tmp_path / "d", tmp_path / "study.yaml", "stratified-group-k-fold")


@pytest.mark.parametrize(
    "name", [name if name in ("patients", "csv") else pytest.param(name, marks=pytest.mark.nightly) for name in LAYOUTS]
)
def test_a_first_study_runs_to_a_report(name: str, tmp_path: Path) -> None:
    make, split = LAYOUTS[name]
    check_first_study(make(tmp_path), tmp_path / "study.yaml", split)
    ran = call("run", tmp_path / "study.yaml", "--smoke", "-o", tmp_path / "out", "--device", "cpu")
    assert ran.exit_code == 0 and (tmp_path / "out" / "report" / "index.html").is_file(), ran.output


def test_guessed_groups_are_shown_and_written(tmp_path: Path) -> None:
    path = make_patients(tmp_path)
    result = call("init", path, "-o", tmp_path / "study.yaml")
    assert "6 groups by numbers in the names of files" in result.output
    assert "benign/patient000_0.png → patient000" in result.output
    (study,) = read_study(tmp_path / "study.yaml")
    groups = open_dataset(study.data, study.base).groups
    assert groups is not None and set(groups.tolist()) == {f"patient{n:03d}" for n in range(6)}
    look = look_at_path(make_csv(tmp_path))
    assert look.guess is not None and look.guess.keys == {"columns": {"group": "PatientID"}} and look.guess.count == 8
    assert look.with_guess().keys == {"columns": {"path": "image", "label": "diagnosis", "group": "PatientID"}}


def put_recordings(root: Path, name: str) -> None:
    """Six recordings of three people, each at rest and at work, called by `name`."""
    make_edf(root / "made")
    for n in range(6):
        file = root / "ward" / name.format(person=f"P{n // 2:02d}", state=("rest", "work")[n % 2])
        put(file, (root / "made" / f"{n}.edf").read_bytes())


@pytest.mark.parametrize(
    ("name", "told"), [("{person}_{state}.edf", "a word of their names"), ("{state}/{person}.edf", "the folders they lie in")]
)
def test_a_folder_of_recordings_gets_a_manifest(name: str, told: str, tmp_path: Path) -> None:
    put_recordings(tmp_path, name)
    done = call("init", tmp_path / "ward", "-o", tmp_path / "study.yaml")
    assert done.exit_code == 0 and f"a manifest of 6 recordings (3 people by their names, labels by {told})" in done.output
    (study,) = read_study(tmp_path / "study.yaml")
    dataset = open_dataset(study.data, study.base)
    assert dataset.classes == ("rest", "work") and set(dataset.groups.tolist()) == {"P00", "P01", "P02"}
    for row, recording in enumerate(dataset.recordings.tolist()):
        assert dataset.describe_label(row) in str(recording) and dataset.groups[row] in str(recording)
    again = call("init", tmp_path / "ward", "-o", tmp_path / "other.yaml")
    assert again.exit_code == 2 and "ward-recordings.csv is there already" in again.output


@pytest.mark.parametrize(
    ("names", "people", "told_by"),
    [
        (
            "P1/rest.edf P1/work.edf P2/rest.edf P2/work.edf P3/rest.edf P3/work.edf",
            "P1 P1 P2 P2 P3 P3",
            "the folders they lie in",
        ),
        ("rest/P1.edf work/P1.edf rest/P2.edf work/P2.edf rest/P3.edf", "P1 P2 P3 P1 P2", "their names"),
        ("1001/ecg.edf 1002/ecg.edf 1003/ecg.edf", "1001 1002 1003", "the folders they lie in"),
        ("P1/a.edf P1/b.edf P2/c.edf P2/d.edf P3/e.edf P3/f.edf", "P1 P1 P2 P2 P3 P3", "the folders they lie in"),
        ("north/a.edf north/b.edf south/c.edf south/d.edf", "", "their names"),
    ],
)
def test_people_of_recordings_are_told_by_folders_or_names(names: str, people: str, told_by: str, tmp_path: Path) -> None:
    for name in names.split():
        put(tmp_path / "ward" / name, b"")
    listed = write_recordings_list(tmp_path / "ward", tmp_path / "study.yaml")
    assert listed is not None and listed.people == len(set(people.split()))
    header, *rows = [line.split(",") for line in listed.file.read_text().splitlines()]
    assert [row[header.index("subject")] for row in rows if people] == people.split()
    assert not people or listed.people_by == told_by


def test_a_manifest_of_the_current_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "ward" / "rest" / "P1.edf", b"")
    monkeypatch.chdir(tmp_path / "ward" / "rest")
    names = [write_recordings_list(Path(place), Path("study.yaml")).file.name for place in (".", "..")]  # type: ignore[union-attr]
    assert names == ["rest-recordings.csv", "ward-recordings.csv"]


def test_labels_that_nothing_tells_are_left_to_fill_in(tmp_path: Path) -> None:
    lines = [f"{n / 4:.2f},{130 + n % 7},{10 + n % 5}" for n in range(4 * 2400)]
    for birth in range(4):
        put(tmp_path / "export" / f"{birth + 17}.csv", "\n".join(["time,fhr,uc", *lines]) + "\n")
    put(tmp_path / "export" / "outcomes.csv", "record,pH\n17,7.1\n")
    out, manifest = tmp_path / "study.yaml", tmp_path / "export-recordings.csv"
    done = call("init", tmp_path / "export", "-o", out)
    assert done.exit_code == 2 and not out.exists()
    assert (
        f"fill in the column `label` of {manifest} (docs/recordings.md has others), then phoropter init {manifest} -o {out}"
        in done.output
    )
    header, *rows = manifest.read_text().splitlines()
    assert header == "path,label,rate_hz" and rows == [f"export/{birth + 17}.csv,,4" for birth in range(4)]
    manifest.write_text("\n".join([header, *(row.replace(",,", f",{CLASSES[n % 2]},") for n, row in enumerate(rows))]))
    filled = call("init", manifest, "-o", out)
    assert filled.exit_code == 0 and "4 rows of 2 classes\n  4 recordings of 4 " in filled.output, filled.output
    assert call("plan", out, "-o", tmp_path / "runs").exit_code == 0


def test_parquet_recordings_are_listed_at_the_rate_of_their_times(tmp_path: Path) -> None:
    times = pd.Timestamp("2024-03-01 11:59:58") + pd.to_timedelta(np.arange(1250) / 125, unit="s")
    for person in range(3):
        for label in ("rest", "work"):
            frame = pd.DataFrame({"ECG": np.random.default_rng(person).normal(size=1250)}, index=times)
            put(tmp_path / "export" / f"p{person}_{label}.parquet", frame.to_parquet())
    put(tmp_path / "export" / "people.parquet", pd.DataFrame({"subject": ["p0"], "age": [40]}).to_parquet())
    with pytest.raises(
        DataError, match=f"recordings are listed in a manifest .* which phoropter init {tmp_path / 'export'} writes"
    ):
        open_dataset(DataSpec.model_validate({"parquet": tmp_path / "export" / "p0_rest.parquet"}))
    done = call("init", tmp_path / "export", "-o", tmp_path / "study.yaml")
    assert done.exit_code == 0 and "not used: 1 tables that are empty or have no column of times (people.parquet)" in done.output
    header, *rows = (tmp_path / "export-recordings.csv").read_text().splitlines()
    assert header == "path,label,subject,rate_hz" and rows[1] == "export/p0_work.parquet,work,p0,125" and len(rows) == 6


def test_a_rate_that_times_do_not_tell_is_left_to_fill_in(tmp_path: Path) -> None:
    clock = [f"11:59:{n // 25:02d} AM" for n in range(500)]  # to the second
    for person in range(3):
        for label in ("rest", "work"):
            lines = [f"{time},{n % 7}" for n, time in enumerate(clock)]
            put(tmp_path / "export" / f"p{person}_{label}.csv", "\n".join(["time,ECG", *lines]) + "\n")
    out, manifest = tmp_path / "study.yaml", tmp_path / "export-recordings.csv"
    done = call("init", tmp_path / "export", "-o", out)
    assert (
        done.exit_code == 2
        and f"fill in the column `rate_hz` of {manifest}, in Hz, then phoropter init {manifest}" in done.output
    )
    manifest.write_text("".join(re.sub(",$", ",25", line) + "\n" for line in manifest.read_text().splitlines()))
    assert call("init", manifest, "-o", out).exit_code == 0


def test_a_rate_is_that_of_the_first_table_that_tells_it(tmp_path: Path) -> None:
    put(tmp_path / "export" / "a.csv", "time,ECG\n" + "".join(f"{n // 3},{n % 7}\n" for n in range(40)))
    put(tmp_path / "export" / "b.csv", "time,ECG\n" + "".join(f"{n / 4},{n % 7}\n" for n in range(40)))
    listed = write_recordings_list(tmp_path / "export", tmp_path / "study.yaml")
    assert listed is not None and not listed.no_rate
    assert listed.file.read_text().splitlines()[1:] == ["export/a.csv,,4", "export/b.csv,,4"]


def test_a_folder_without_recordings_is_refused_as_before(tmp_path: Path) -> None:
    put(tmp_path / "notes" / "a.csv", "one,two\n1,2\n")
    put(tmp_path / "notes" / "b.tsv", "time\tfhr\n0\t140\n1\t141\n")  # no manifest may list such a file
    assert "no pictures were found" in call("init", tmp_path / "notes", "-o", tmp_path / "study.yaml").output
    assert write_recordings_list(tmp_path / "notes", tmp_path / "study.yaml") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "notes"]


@pytest.mark.parametrize("pattern", ["IMG_{:04d}.png", "{}.png", "{:03d}_left.png", "scan-{}.png"])
def test_numbers_of_pictures_are_no_groups(pattern: str, tmp_path: Path) -> None:
    for row in range(ROWS):
        put(tmp_path / "d" / CLASSES[row % 2] / pattern.format(row), png(row))
    assert look_at_path(tmp_path / "d").guess is None


def test_on_a_terminal_one_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_patients(tmp_path)
    monkeypatch.setattr("phoropter.commands.init_command._is_terminal", lambda: True)
    refused = call("init", path, "-o", tmp_path / "no.yaml", answer="n\n")
    assert "belong together" in refused.output and read_study(tmp_path / "no.yaml")[0].protocol.split == "stratified-k-fold"
    taken = call("init", path, "-o", tmp_path / "yes.yaml", answer="y\n")
    assert taken.exit_code == 0 and read_study(tmp_path / "yes.yaml")[0].data.group_from
    unasked = call("init", path, "-o", tmp_path / "flag.yaml", "--yes")
    assert "belong together" not in unasked.output and read_study(tmp_path / "flag.yaml")[0].data.group_from


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    out = put(tmp_path / "study.yaml", "mine")
    result = call("init", make_folders(tmp_path), "-o", out)
    assert result.exit_code == 2 and "is there already" in result.output and out.read_text() == "mine"


def test_a_folder_in_the_place_of_the_study_or_its_schema_is_named(tmp_path: Path) -> None:
    path = make_folders(tmp_path)
    (tmp_path / "phoropter.schema.json").mkdir()
    for name, words in (("study.yaml", "phoropter.schema.json is a folder, expected none or a file"), (".", "is there already")):
        result = call("init", path, "-o", tmp_path / name)
        assert result.exit_code == 2 and words in result.output
    assert not (tmp_path / "study.yaml").exists()


def test_hours_are_a_number(tmp_path: Path) -> None:
    result = call("init", make_folders(tmp_path), "-o", tmp_path / "study.yaml", "--hours", "nan")
    assert result.exit_code == 2 and "--hours is nan, expected a number above 0" in result.output


def test_the_file_names_a_schema_that_it_obeys(tmp_path: Path) -> None:
    """Also where that of an older version lay beside it."""
    stale = put(tmp_path / "phoropter.schema.json", '{"title": "of an older version"}')
    said = call("init", make_folders(tmp_path), "-o", tmp_path / "study.yaml").output
    assert "written anew" in said and stale.name in said.replace("\n", "")
    first = (tmp_path / "study.yaml").read_text().splitlines()[0]
    schema = json.loads((tmp_path / first.partition("$schema=")[2]).read_text())
    assert first.startswith("# yaml-language-server: $schema=") and schema == json.loads(json.dumps(make_study_schema()))
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="schemathesis, which brings this validator, is not installed")
    jsonschema_rs.validator_for(schema).validate(load_yaml(tmp_path / "study.yaml")[0][0])


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FirstStudy:
    """A study of folders of pictures but for its candidates, with an empty folder of weights and a cache of its own."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    look = look_at_path(make_folders(tmp_path))
    return FirstStudy("d", look.spec, choose_protocol(look.dataset))


def test_weights_at_hand_and_time_decide_the_candidates(first: FirstStudy, tmp_path: Path) -> None:
    without = choose_candidates(first, 1)
    assert [c.entry["weights"] for c in without.chosen] == ["random", "random"] and len(without.missing) == 6
    for name in ("resnet50.a1_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k", "efficientnet_b0.ra_in1k"):
        put(tmp_path / "weights" / f"{name}.safetensors", b"stands for weights")
    chosen = choose_candidates(first, 1)
    assert {c.entry["backbone"] for c in chosen.chosen} == {"resnet50", "vit_small_patch16_224", "efficientnet_b0"}
    assert chosen.fits and chosen.estimate.seconds <= 3600 and len(chosen.missing) == 3 and chosen.unused == {}
    cheaper = choose_candidates(first, (chosen.estimate.seconds - 1) / 3600)
    assert cheaper.fits and 0 < len(cheaper.chosen) < len(chosen.chosen) and cheaper.left_out
    least = choose_candidates(first, 1e-6)
    assert not least.fits and [c.title for c in least.chosen] == [min(chosen.chosen, key=lambda c: c.seconds).title]


def test_what_init_reckons_is_what_plan_reckons(first: FirstStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("init", "d", "-o", Path("none.yaml"))
    assert "If you have files of weights, set PHOROPTER_WEIGHTS" in Path("none.yaml").read_text(encoding="utf-8")
    for name in ("resnet50.a1_in1k", "efficientnet_b0.ra_in1k"):
        put(tmp_path / "weights" / f"{name}.safetensors", b"stands for weights")
    for hours in ("1", "0.01", "0.0001"):
        out = Path(f"{hours}.yaml")
        written = call("init", "d", "-o", out, "--hours", hours)
        seconds = json.loads(call("plan", out, "--json").stdout)["parts"][0]["estimate"]["seconds"]
        assert f"about {format_duration(seconds)} on " in written.output, (written.output, seconds)
        if seconds > 3600 * float(hours):
            (would_do,) = re.findall(r"nothing fits into .* it would fit into --hours ([0-9.]+)", written.output)
            assert seconds <= 3600 * float(would_do) <= seconds + 36 and "# Nothing fits into" in out.read_text()
        assert ("nothing fits" in written.output) == (seconds > 3600 * float(hours))


def test_a_study_of_frozen_candidates_alone_says_how_to_get_one_round(first: FirstStudy, tmp_path: Path) -> None:
    put(tmp_path / "weights" / "resnet50.a1_in1k.safetensors", b"stands for weights")
    call("init", tmp_path / "d", "-o", tmp_path / "study.yaml", "--hours", "0.001")
    text = (tmp_path / "study.yaml").read_text()
    assert "# 5 seeds × 5 folds, since all candidates are frozen" in text and "`seeds: [0]` under protocol" in text
    ((data, _),) = parse_yaml(text.replace("folds: 5}", "folds: 5, seeds: [0]}"), "s.yaml")
    assert plan_study(StudySpec.model_validate(data).with_context(base=tmp_path)).study.protocol.seeds == (0,)


def test_other_files_of_the_folder_of_weights_become_candidates_by_path(first: FirstStudy, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "weights"
    save_file({"a": np.zeros(2, np.float32)}, folder / "test_resnet.mine.safetensors")
    put(folder / "test_vit.broken.safetensors", b"no tensors")
    put(folder / "unknown_network.safetensors", b"")
    save_file({"a": np.zeros(2, np.float32)}, folder / "called_otherwise.safetensors")
    put(folder / "called_otherwise.json", '{"architecture": "test_efficientnet"}')
    save_file({"a": np.zeros(2, np.float32)}, folder / "resnet50.of_a_colleague.safetensors")
    choice = choose_candidates(first, 100)
    entries = {each.title: each.entry for each in choice.chosen}
    place = (folder / "test_resnet.mine.safetensors").as_posix()
    assert entries["test_resnet.mine"] == {
        **{"name": "test_resnet.mine", "backbone": "test_resnet", "weights": place},
        **{"frozen": True, "recipe": "logistic"},
    }
    assert entries["called_otherwise"]["backbone"] == "test_efficientnet"
    assert entries["resnet50.of_a_colleague"]["backbone"] == "resnet50", "another tag of a network that init knows by name"
    assert set(choice.unused) == {"test_vit.broken.safetensors", "unknown_network.safetensors"}
    written = call("init", tmp_path / "d", "-o", tmp_path / "study.yaml", "--hours", "100")
    for words in (
        "unknown_network.safetensors: neither its name nor its JSON states a network",
        "test_vit.broken.safetensors: wei",
    ):
        assert f"not used: {words}" in written.output and f"# not used: {words}" in (tmp_path / "study.yaml").read_text()


def test_a_folder_of_weights_that_is_not_there_is_told(
    first: FirstStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(tmp_path / "weigths"))
    written = call("init", tmp_path / "d", "-o", tmp_path / "study.yaml")
    words = "not used: PHOROPTER_WEIGHTS: "
    assert written.exit_code == 0 and words in written.output and "weigths" in written.output
    assert f"# {words}" in (tmp_path / "study.yaml").read_text()


@pytest.mark.parametrize("name", ["true", "a: b", "#1", "007", "x'y", 'q"z', "é ü", "- dash", "1e3"])
def test_names_that_yaml_would_read_otherwise_are_quoted(name: str, tmp_path: Path) -> None:
    for row in range(ROWS):
        put(tmp_path / name / CLASSES[row % 2] / f"{row}.png", png(row))
    look = look_at_path(tmp_path / name)
    first = FirstStudy(make_study_name(look.dataset.name), look.spec, choose_protocol(look.dataset))
    text = write_study_text(look, first.protocol, choose_candidates(first, 1), tmp_path / "s.yaml", 1)
    ((data, _),) = parse_yaml(text, "s.yaml")
    assert data["data"]["folder"] == name and data["protocol"] == first.protocol.keys
