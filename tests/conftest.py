"""Shared by all tests: the marks that `make quick` leaves out, the folder of real data, a cache, and a small set of images."""

from __future__ import annotations

import ast
import gc
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_REPOSITORY = Path(__file__).parent.parent
sys.path.append(str(Path(__file__).parent))  # so that tests of several rooms find small_recordings.py and warm_python.py
_BEGUN_FIRST = ("test_kills.py", "test_studies.py")  # single tests of half a minute or more
_STARTS_PROCESS = re.compile(
    r"\b(subprocess|multiprocessing|ProcessPoolExecutor|Popen|playwright|WarmPython|serve_in_process)\b|\b(jobs|workers)=[2-9]"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests and files listed in slow.txt `slow`, and tests that start processes, themselves or by a helper, `process`.

    Nightly tests are skipped unless PHOROPTER_THOROUGH is set.
    """
    slow = set((_REPOSITORY / "tests" / "slow.txt").read_text(encoding="utf-8").split())
    for item in items:
        path = item.path.relative_to(_REPOSITORY).as_posix()
        name = item.name.partition("[")[0]
        if path in slow or f"{path}::{name}" in slow:
            item.add_marker(pytest.mark.slow)
        if name in _find_process_functions(item.path):
            item.add_marker(pytest.mark.process)
        if "nightly" in item.keywords and not os.environ.get("PHOROPTER_THOROUGH"):
            item.add_marker(pytest.mark.skip(reason="a nightly test: `make nightly`, or PHOROPTER_THOROUGH=1"))
    items.sort(key=lambda item: item.path.name not in _BEGUN_FIRST)  # else one process runs them while the other has ended


# Imports and test items are some million objects that stay. Looking through them over and over took a sixth of the quick tests
# and most of those that call gc.collect, as statsmodels does in every correction of p-values.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@cache
def _find_process_functions(path: Path) -> frozenset[str]:
    """Names of the functions of a test file that start processes, or use one that does."""
    text = path.read_text(encoding="utf-8")
    if not _STARTS_PROCESS.search(text):
        return frozenset()
    lines = text.splitlines()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    used = {f.name: {n.id for n in ast.walk(f) if isinstance(n, ast.Name)} | {a.arg for a in f.args.args} for f in functions}
    found = {f.name for f in functions if _STARTS_PROCESS.search("\n".join(lines[f.lineno - 1 : f.end_lineno]))}
    while new := {name for name, names in used.items() if names & found} - found:
        found |= new
    return frozenset(found)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings, pictures and weights; the test is skipped, and says so, where it is absent."""
    folder = Path(os.environ.get("PHOROPTER_TEST_DATA", _REPOSITORY / ".." / "shared" / "data")).resolve()
    if not (folder / "README.md").exists():
        pytest.skip(f"no real data at {folder} (set PHOROPTER_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path; the test is skipped, and says so, where there is none."""
    found = next((p for p in (os.environ.get("PHOROPTER_CHROMIUM"), "/usr/bin/chromium") if p and Path(p).exists()), None)
    if found is None:
        pytest.skip("no chromium at /usr/bin/chromium (set PHOROPTER_CHROMIUM)")
    return found


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
def warm() -> Iterator[Any]:
    """The WarmPython of tests that start many commands."""
    from warm_python import WarmPython

    server = WarmPython()
    yield server
    server.close()


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """write(path, pixels, **header): a DICOM file of (H, W) or (H, W, 3) whole numbers; other header values by their keyword."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    def write(path: Path, pixels: np.ndarray[Any, Any], **header: Any) -> Path:
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{zlib.crc32(str(path).encode())}"
        file = pydicom.Dataset()
        file.file_meta = meta
        colour = pixels.shape[-1] == 3 and pixels.ndim > 2
        bits = 8 * pixels.dtype.itemsize
        file.Rows, file.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        file.SamplesPerPixel, file.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
        if colour:
            file.PlanarConfiguration = 0
        file.BitsAllocated = file.BitsStored = bits
        file.HighBit, file.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
        file.add_new("PixelData", "OB" if bits == 8 else "OW", pixels.tobytes() + b"\0" * (pixels.nbytes % 2))
        for keyword, value in header.items():
            setattr(file, keyword, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, file, enforce_file_format=True)
        return path

    return write


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


@pytest.fixture(scope="module", params=["moto", "rclone"])
def object_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3-compatible server that holds an empty `bucket`."""
    import object_servers

    start = getattr(object_servers, f"start_{request.param}")
    with object_servers.serve_objects(start, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def store_url(object_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place of this test's own in the bucket, which every S3 client finds."""
    import object_servers

    for name, value in object_servers.describe_endpoint(object_server).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}"
