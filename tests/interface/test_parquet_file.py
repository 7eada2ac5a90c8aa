"""A study without a finished run writes no Parquet file, and leaves an earlier one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.core.errors import StoreError
from phoropter.interface.parquet_file import write_parquet_file


def test_no_run_writes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    path.write_text("earlier")
    with pytest.raises(StoreError, match="the study has no finished run"):
        write_parquet_file([], path)
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]
