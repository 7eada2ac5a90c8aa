from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phoropter.core.errors import DataError
from phoropter.data.source import PathContents
from phoropter.data.source_table import SOURCES, detect_source
from phoropter.data.spec import DataSpec


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
