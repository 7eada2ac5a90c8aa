"""A table of outcomes, labels and hospitals joined to a folder of recordings, by itself and through phoropter init."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phoropter.cli import main
from phoropter.core.errors import DataError
from phoropter.data.spec import open_dataset
from phoropter.starter.recordings_table import read_recordings_table
from phoropter.study.spec import read_study

NAMES = ("a/17.csv", "a/18.csv", "a/19.csv")


def write_table(root: Path, text: str) -> Path:
    file = root / "known.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize("names", ["a/17 a/18", "a/17.csv a/18.csv", "17 18", "17.csv 18.csv", "P1 P2"])
def test_a_recording_is_found_by_path_file_or_person(names: str, tmp_path: Path) -> None:
    first, second = names.split()
    file = write_table(tmp_path, f"note,birth,pH,Hospital\nx,{second},7.2,north\ny,{first},7.1,south\nz,other,7.0,south\n")
    found = read_recordings_table(file, NAMES, ("P1", "P2", "P3"), "ph<=7.15")
    assert (found.matched, found.named_by) == ((0, 1), "birth")
    assert found.columns == {"outcome.ph": ["7.1", "7.2"], "site": ["south", "north"], "about.note": ["y", "x"]}


def test_columns_become_those_of_a_manifest(tmp_path: Path) -> None:
    file = write_table(tmp_path, "id,Diagnosis,class,patient,apgar1,apgar5,age\n17,ill,1,p4,6,8,30\n")
    found = read_recordings_table(file, NAMES, (), "apgar<=6")
    expected = ["outcome.Apgar1", "outcome.Apgar5", "label", "about.class", "subject", "about.age"]
    assert list(found.columns) == expected and [found.columns[name] for name in expected] == [
        ["6"],
        ["8"],
        ["ill"],
        ["1"],
        ["p4"],
        ["30"],
    ]


def test_decimal_commas_become_points(tmp_path: Path) -> None:
    file = write_table(tmp_path, "birth;pH;note\n17;7,14;left, right\n18;7,2;\n")
    found = read_recordings_table(file, NAMES, (), "pH<=7.15")
    assert found.columns == {"outcome.pH": ["7.14", "7.2"], "about.note": ["left, right", ""]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("birth,pH\n21,7.1\n", "no column names a recording: they are called 17, 18 or 19; there are the columns birth or pH"),
        ("birth,pH\n17,7.1\n18,7\n17,7.2\n", "lines 2 and 4 have the same birth, '17'"),
        ("birth,pHa\n17,7.1\n", "pH<=7.15 asks for the column pH, there are pHa"),
        ("age,birth,pH\n19,17,7.1\n18,18,7\n17,19,7.2\n", "the columns age and birth both have names of recordings"),
        ("age,birth,pH\n17,40,7.1\n18,17,7.2\n19,18,7.3\n", "the columns age and birth both have names of recordings"),
    ],
)
def test_what_cannot_be_joined_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_recordings_table(write_table(tmp_path, text), NAMES, (), "pH<=7.15")
    assert words in str(refused.value)


def test_ages_that_are_also_names_of_recordings_name_none(tmp_path: Path) -> None:
    file = write_table(tmp_path, "age,birth,pH\n17,18,7.1\n18,17,7.2\n19,40,7.3\n17,41,7.4\n")
    found = read_recordings_table(file, NAMES, (), "pH<=7.15")
    assert (found.named_by, found.matched, found.unused) == ("birth", (0, 1), ("40", "41"))
    assert found.columns == {"outcome.pH": ["7.2", "7.1"], "about.age": ["18", "17"]}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five half hours of heart rate, called by the number of the birth, and a table of outcomes without the last and with
    one that was not recorded."""
    folder = tmp_path_factory.mktemp("ward") / "export"
    folder.mkdir()
    lines = [f"{n / 4:.2f},{130 + n % 7},{10 + n % 5}" for n in range(4 * 1860)]
    for birth in range(17, 22):
        (folder / f"{birth}.csv").write_text("\n".join(["time,fhr,uc", *lines]) + "\n")
    rows = ["20,7.30,north", "19,7.25,south", "18,7.10,north", "17,7.05,south", "99,7.1,south"]
    (folder / "outcomes.csv").write_text("\n".join(["birth,pH,hospital", *rows]))
    return folder


def test_outcomes_of_a_table_make_the_classes(export: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "study.yaml", export / "outcomes.csv"
    done = call("init", export, "--table", table, "--outcome", "pH<=7.15", "-o", out)
    assert done.exit_code == 0 and "labels by pH<=7.15 of outcomes.csv" in done.output, done.output
    assert "left out: 1 recordings that the table does not have (21)" in done.output
    assert "not used: 1 lines of the table, of which there is no recording (99)" in done.output
    (study,) = read_study(out)
    dataset = open_dataset(study.data, study.base)
    assert dataset.recordings is not None and dataset.sites is not None
    told = {
        Path(name).name: (dataset.describe_label(row), dataset.sites[row]) for row, name in enumerate(dataset.recordings.tolist())
    }
    risk, fine = "high-risk", "normal"
    assert told == {"17": (risk, "south"), "18": (risk, "north"), "19": (fine, "south"), "20": (fine, "north")}
    assert study.data.positive == risk and study.parsed_candidates[0].name == "ctg-features"


def test_tables_that_are_no_recordings_are_listed(export: Path, tmp_path: Path) -> None:
    """An export that broke off has no byte; it was counted nowhere."""
    folder = tmp_path / "ward"
    shutil.copytree(export, folder)
    (folder / "23.csv").touch()
    manifest = tmp_path / "ward-recordings.csv"
    untold = call("init", folder, "-o", tmp_path / "study.yaml")
    assert "not used: 2 tables that are empty or have no column of times (23.csv, outcomes.csv)" in untold.output
    manifest.unlink()
    told = call("init", folder, "--table", folder / "outcomes.csv", "--outcome", "pH<=7.15", "-o", tmp_path / "study.yaml")
    assert "not used: 1 tables that are empty or have no column of times (23.csv)" in told.output and manifest.is_file()


def test_a_table_without_classes_or_recordings_is_refused(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "study.yaml"
    untold = call("init", export, "--table", export / "outcomes.csv", "-o", out)
    assert untold.exit_code == 2 and "say which outcome makes the classes, as in --outcome 'pH<=7.15'" in untold.output
    assert not list(tmp_path.iterdir())
    malformed = call("init", export, "--table", export / "outcomes.csv", "--outcome", "pH", "-o", out)
    assert malformed.exit_code == 2 and "expected a name, a comparison and a number" in malformed.output
    other = call("init", tmp_path, "--table", export / "outcomes.csv", "-o", out)
    assert other.exit_code == 2 and "--table goes with a folder of recordings" in other.output


def test_a_manifest_of_outcomes_says_how_they_become_classes(export: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "births.csv"
    lines = [f"{export / f'{birth}.csv'},4,7.{birth - 14}" for birth in range(17, 22)]
    manifest.write_text("\n".join(["path,rate_hz,outcome.pH", *lines]))
    refused = call("inspect", manifest)
    assert refused.exit_code == 2 and "they have outcomes (pH), and a rule makes classes of one" in refused.output
    out = tmp_path / "study.yaml"
    done = call("init", manifest, "--outcome", "pH<=7.45", "-o", out)
    assert done.exit_code == 0, done.output
    assert 'outcome: "pH<=7.45"' in out.read_text() and "positive: high-risk" in out.read_text()
    by_name = call("init", export, "--outcome", "pH<=7.15", "-o", out.with_name("other.yaml"))
    assert by_name.exit_code == 2 and "name a table of labels or outcomes" in by_name.output
    assert f"which phoropter init {export} writes" in call("inspect", export).output
