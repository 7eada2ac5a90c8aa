from __future__ import annotations

from pathlib import Path

import pytest

from phoropter.core.errors import DataError
from phoropter.data.source import SourceRequest, resolve_path, resolve_snapshot
from phoropter.data.spec import DataSpec


def test_paths_start_from_the_base_or_from_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert resolve_path(Path("x/y"), Path("/studies")) == Path("/studies/x/y")
    assert resolve_path(Path("~/x"), Path("/studies")) == Path("/home/ann/x")
    assert resolve_path(Path("/x"), Path("/studies")) == Path("/x") and resolve_path(Path("x"), None) == Path("x")
    with pytest.raises(DataError, match="the home folder of that user is unknown"):
        resolve_path(Path("~nobody-of-that-name/x"), None)


def test_a_request_gives_options_and_resolved_paths() -> None:
    spec = DataSpec.model_validate({"imagenet": "in", "labels": "val.txt", "name": "ours"})
    request = SourceRequest(spec, Path("/data/in"), Path("/data"))
    assert (request.path, request.name, request.on_bad_input) == (Path("/data/in"), "ours", "stop")
    assert request.option_path("labels") == Path("/data/val.txt") and request.option("labels_order") is None
    assert SourceRequest(DataSpec.model_validate({"imagenet": "in"}), Path("in")).option_path("labels") is None


def test_the_cache_of_the_hub_is_read_at_the_snapshot_that_main_names(tmp_path: Path) -> None:
    root = tmp_path / "datasets--org--beans"
    for revision in ("abc", "def"):
        (root / "snapshots" / revision).mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("def\n")
    assert resolve_snapshot(root) == root / "snapshots" / "def"
    for wrong in ("../../x", "", "ghi", "/etc"):
        (root / "refs" / "main").write_text(wrong)
        assert resolve_snapshot(root) == root
    assert resolve_snapshot(tmp_path) == tmp_path
