"""What all tests share: where real data lie, a cache of their own, and a small set of real pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.fixture(scope="session")
def write_ptbxl() -> Callable[..., Path]:
    """write(root, {ecg_id: (patient, site, statements, fold)}): a folder like PTB-XL's with two leads of noise a record.

    Lead II has the mean ecg_id / 10 mV at 100 Hz, and 1 mV more at 500 Hz.
    """

    def write(root: Path, rows: dict[int, tuple[str, str, str, int]]) -> Path:
        text = "ecg_id,patient_id,site,scp_codes,strat_fold,filename_lr,filename_hr\n"
        for ident, (patient, site, codes, fold) in rows.items():
            names = {ending: f"records{rate}/00000/{ident:05d}_{ending}" for rate, ending in ((100, "lr"), (500, "hr"))}
            for rate, ending in ((100, "lr"), (500, "hr")):
                noise = np.random.default_rng(ident).integers(-300, 300, (10 * rate, 2))
                digital = (noise - noise.mean(axis=0) + [0, 100 * ident + (1000 if rate == 500 else 0)]).astype("<i2")
                sums = digital.astype(np.int64).sum(axis=0) % 65536
                stem = root / names[ending]
                stem.parent.mkdir(parents=True, exist_ok=True)
                stem.with_name(stem.name + ".dat").write_bytes(digital.tobytes())
                lines = [f"{stem.name} 2 {rate} {10 * rate}"]
                lines += [f"{stem.name}.dat 16 1000(0)/mV 16 0 {digital[0, i]} {sums[i]} 0 {'I' * (i + 1)}" for i in (0, 1)]
                stem.with_name(stem.name + ".hea").write_text("\n".join(lines) + "\n")
            text += f'{ident},{patient},{site},"{codes}",{fold},{names["lr"]},{names["hr"]}\n'
        (root / "ptbxl_database.csv").write_text(text)
        return root

    return write
