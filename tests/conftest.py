"""What all tests share: where real data lie, a cache of their own, and a small set of real pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings, pictures and weights; the test is skipped, and says so, where it is absent."""
    folder = Path(os.environ.get("PHOROPTER_TEST_DATA", _REPOSITORY / ".." / "shared" / "data")).resolve()
    if not (folder / "README.md").exists():
        pytest.skip(f"no real data at {folder} (set PHOROPTER_TEST_DATA)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the user's cache, and none asks a hub."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOROPTER_CACHE", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(folder / "hub"))
        yield folder


@pytest.fixture(scope="session")
def few_digits(_own_cache: Path) -> Any:
    """(Dataset, Pixels): 150 of scikit-learn's digits at 32 pixels, classes in proportion."""
    from phoropter.data.images.cache import prepare_pixels
    from phoropter.data.spec import DataSpec, open_dataset

    dataset = open_dataset(DataSpec(digits=True, max_samples=150))
    return prepare_pixels(dataset, 32, resize="center-crop", interpolation="bicubic", cache=_own_cache)
