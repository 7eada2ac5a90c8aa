"""Treatments in a results folder: drawn once at the end of a run, bounded in bytes, or a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.report.page import create_report, read_report_input
from phoropter.results.shown_treatments import read_treated_pictures, read_treatments
from phoropter.study.executors import execute_study
from phoropter.study.records.completion import is_complete
from phoropter.study.treatments import kept_treatments
from phoropter.study.treatments.kept_treatments import keep_treatments, shorten_trace
from tiny_study import HERE, run_tiny_study, write_tiny_study


def test_a_run_draws_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = run_tiny_study(tmp_path)
    shown, jpegs = read_treatments(store.folder), read_treated_pictures(store.folder)
    assert shown is not None and not shown.reason and len(shown.rows) == 3
    assert [step.title for step in shown.steps] == ["as in the file", "made square (center-crop), 32 pixels a side"]
    assert {name for step in shown.steps for name in step.pictures} == set(jpegs)
    assert all(jpeg.startswith(b"\xff\xd8\xff") for jpeg in jpegs.values())
    study = write_tiny_study(tmp_path)
    monkeypatch.setattr(kept_treatments, "draw_treatments", lambda *_: pytest.fail("they are there"))
    keep_treatments(study, store)
    monkeypatch.undo()
    monkeypatch.setattr(kept_treatments, "BYTE_BUDGET", sum(map(len, list(jpegs.values())[:3])))
    keep_treatments(study, store)
    small = read_treatments(store.folder)
    assert small is not None and [s.title for s in small.steps] == ["as in the file"]
    assert small.left_out == ["made square (center-crop), 32 pixels a side"]


@pytest.mark.parametrize("left", [b"PK", None])
def test_damaged_pictures_are_drawn_again_and_keep_no_page_from_being_written(tmp_path: Path, left: bytes | None) -> None:
    store, study = run_tiny_study(tmp_path), write_tiny_study(tmp_path)
    cache, archive = tmp_path / "cache", store.folder / "treatments" / "pictures.npz"
    execute_study(study, store.folder, lambda event: None, options=HERE, cache=cache)
    whole = archive.read_bytes()
    assert is_complete(study, store, cache)
    archive.unlink() if left is None else archive.write_bytes(left)
    assert "the results folder has none" in create_report(read_report_input(store.folder)).page.read_text()
    assert not is_complete(study, store, cache)
    keep_treatments(study, store)
    assert archive.read_bytes() == whole and is_complete(study, store, cache)


def test_where_the_data_are_gone_the_reason_is_kept_and_the_runs_stay(tmp_path: Path) -> None:
    store = run_tiny_study(tmp_path)
    gone = write_tiny_study(tmp_path, ("digits: true", "folder: nowhere"))
    (store.folder / "treatments" / "treatments.json").write_text("damaged")
    keep_treatments(gone, store)
    shown = read_treatments(store.folder)
    assert shown is not None and "nowhere" in shown.reason and not shown.steps and not read_treated_pictures(store.folder)
    assert "nowhere" in create_report(read_report_input(store.folder)).page.read_text()


def test_they_are_drawn_when_the_data_have_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason was kept for ever: nothing in study and data had changed."""
    store, study, cache = run_tiny_study(tmp_path), write_tiny_study(tmp_path), tmp_path / "cache"

    def is_gone(*_: object) -> None:
        raise DataError("the disk is not there")

    (store.folder / "treatments" / "treatments.json").unlink()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(kept_treatments, "draw_treatments", is_gone)
        execute_study(study, store.folder, lambda event: None, options=HERE, cache=cache)
    assert "the disk is not there" in create_report(read_report_input(store.folder)).page.read_text()
    assert not is_complete(study, store, cache)
    execute_study(study, store.folder, lambda event: None, options=HERE, cache=cache)
    shown = read_treatments(store.folder)
    assert shown is not None and shown.steps and not shown.reason and is_complete(study, store, cache)


def test_a_short_trace_has_the_extremes_of_every_stretch() -> None:
    samples = np.random.default_rng(0).normal(size=1000)
    samples[100:200] = np.nan
    trace = shorten_trace(samples, 10)
    for place in range(10):
        piece = samples[100 * place : 100 * place + 100]
        expected = (None, None) if place == 1 else (float(f"{piece.min():.4g}"), float(f"{piece.max():.4g}"))
        assert (trace.low[place], trace.high[place]) == expected
    assert shorten_trace(np.arange(3.0), 10).low == [0, 1, 2], "no more columns than samples"
