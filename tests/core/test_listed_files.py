"""Files that a table lists are found however their names are written."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from phoropter.core.listed_files import ListedFiles

NFD = unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("there", "written"),
    [
        ("img/a.png", "img/a.png"),
        ("img/a.png", r"img\a.png"),
        ("img/a.png", "./img//a.png"),
        ("img/a.png", "\ufeffimg/a.png "),
        (f"{NFD}/{NFD}.png", "café/café.png"),
        ("café/café.png", f"{NFD}/{NFD}.png"),
        ("img/a\u200b b.png", "img/a b.png"),
        ("img/a\u00a0b.png", "img/a b.png"),
        (" img/a.png", " img/a.png"),
    ],
)
def test_a_name_finds_the_file_that_reads_the_same(tmp_path: Path, there: str, written: str) -> None:
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    found = ListedFiles(tmp_path).find_name(written)
    assert found is not None and (tmp_path / found).samefile(tmp_path / there)
    assert ListedFiles(tmp_path / "..").find_path(f"{tmp_path.name}/{written.strip()}").is_file() or written.startswith(" ")
    assert ListedFiles(Path("/")).find_name(f"{tmp_path}/{written}") is not None or written[0] in "\ufeff "


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    files = ListedFiles(tmp_path)
    assert [files.find_name(name) for name in ("b.png", "", ".", "a\0.png", "x/a.png", "a" * 5000)] == [None] * 6
    assert files.find_name("A.png") is None and files.suggest_name("A.PNG") == " (there is 'a.png')"
    assert files.suggest_name("b.png") == "" and files.find_path("b.png") == tmp_path / "b.png"


def test_of_two_files_that_read_the_same_none_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a\u00a0b.png").touch()
    (tmp_path / "a\u200b b.png").touch()
    assert ListedFiles(tmp_path).find_name("a b.png") is None
    assert ListedFiles(tmp_path).find_name("a\u00a0b.png") == "a\u00a0b.png"


def test_a_name_without_its_ending_is_told_where_one_file_is_meant(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for name in ("ISIC_1.jpg", "ISIC_2.jpg", "ISIC_2.png", ".hidden", "plain"):
        (tmp_path / "img" / name).touch()
    files = ListedFiles(tmp_path)
    found = [files.find_ending(f"img/{name}") for name in ("ISIC_1", "ISIC_2", "ISIC_3", "", "plain")]
    assert found == [".jpg", "", "", "", ""] and files.find_ending("gone/ISIC_1") == ""
