"""t-SNE: equal features give equal coordinates, computed or kept; a damaged or a foreign file is computed again."""

from pathlib import Path

import numpy as np
import pytest

from phoropter.report.figures import tsne

FEATURES = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float16)


def test_it_is_deterministic_and_kept_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = tsne.compute_tsne(FEATURES)
    np.testing.assert_array_equal(tsne.load_or_compute_tsne(FEATURES, tmp_path), computed)
    monkeypatch.setattr(tsne, "compute_tsne", None)
    np.testing.assert_array_equal(tsne.load_or_compute_tsne(FEATURES, tmp_path), computed)


def test_what_is_damaged_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsne, "compute_tsne", lambda features: np.arange(2.0 * len(features)).reshape(-1, 2))
    first = tsne.load_or_compute_tsne(FEATURES, tmp_path)
    (path,) = (tmp_path / "embeddings").iterdir()
    path.write_text(path.read_text().replace("2.0", "3.0", 1))
    np.testing.assert_array_equal(tsne.load_or_compute_tsne(FEATURES, tmp_path), first)
    assert "3.0, 3.0" not in path.read_text()


def test_other_features_have_other_coordinates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsne, "compute_tsne", lambda features: features[:, :2].astype(np.float64))
    for features in (FEATURES, FEATURES + np.float16(1)):
        np.testing.assert_array_equal(tsne.load_or_compute_tsne(features, tmp_path), features[:, :2])


def test_a_cache_that_cannot_be_written_stops_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsne, "compute_tsne", lambda features: features[:, :2].astype(np.float64))
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    np.testing.assert_array_equal(tsne.load_or_compute_tsne(FEATURES, blocked), FEATURES[:, :2])
