"""Mutated bytes of every kind of file that phoropter reads: nothing but a PhoropterError may come out, soon and in little memory.

The suite tries a few mutations of each kind; by hand, `python tests/test_fuzz.py 20000` tries that many and prints the figures.
The draws are functions of the kind and a number, so a failure is found again by `mutate(KIND, NUMBER)`.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mutations import mutate_bytes
from phoropter.core.errors import PhoropterError
from phoropter.core.seeds import named_generator
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.data.splits.spec import FoldsFile, KFold
from phoropter.results.store import Predictions, Store
from phoropter.signals.readers import edf, monitor_csv, physionet, signal_tables, tables, wesad
from phoropter.study.forecasts.measured_speeds import load_measured_speeds
from phoropter.study.spec import read_study
from phoropter.training.array_cache import CachedArray, load_sound_array, read_entry_info, write_entry_info
from phoropter.training.array_cache import FeatureEntryInfo as EntryInfo

TRIES = int(os.environ.get("PHOROPTER_FUZZ", "12"))  # of each kind, in the suite
SLOW_S = 5.0
MAX_GROWTH_MIB = 500
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
WORDS = ["cat", "dog"] * 3


@dataclass(frozen=True)
class Kind:
    """make: writes sound files into an empty folder, of which one at a time is mutated · read: reads them all"""

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    pattern: str = "*"


def read_pictures(data: dict[str, Any], folder: Path) -> None:
    dataset = open_dataset(DataSpec.model_validate(data), folder)
    for row in range(len(dataset)):
        dataset.read(row)


def make_folder_of(ending: str, mode: str = "RGB") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for number, word in enumerate(WORDS):
            (folder / word).mkdir(exist_ok=True)
            Image.fromarray(PIXELS[number]).convert(mode).save(folder / word / f"{number}{ending}")

    return make


def read_folder_of_pictures(folder: Path) -> None:
    read_pictures({"folder": "."}, folder)


def make_manifest(folder: Path) -> None:
    lines = ["path;label;group;site"]
    for number, word in enumerate(WORDS):
        Image.fromarray(PIXELS[number]).save(folder / f"{number}.png")
        lines.append(f"{number}.png;{word};p{number % 3};s{number % 2}")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")


def make_npz(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", images=PIXELS, labels=np.array([0, 1] * 3), groups=np.array(list("aabbcc")))


def make_parquet(folder: Path) -> None:
    import pandas as pd

    (folder / "png").mkdir()
    make_manifest(folder / "png")
    blobs = [(folder / "png" / f"{number}.png").read_bytes() for number in range(6)]
    pd.DataFrame({"image": [{"bytes": blob, "path": None} for blob in blobs], "label": WORDS}).to_parquet(folder / "a.parquet")
    shutil.rmtree(folder / "png")


def make_webdataset(folder: Path) -> None:
    make_manifest(folder)
    with tarfile.open(folder / "data-000.tar", "w") as archive:
        for number, word in enumerate(WORDS):
            archive.add(folder / f"{number}.png", f"{number}.png")
            (folder / "a.cls").write_text(word)
            archive.add(folder / "a.cls", f"{number}.cls")
    for file in [*folder.glob("*.png"), folder / "a.cls", folder / "all.csv"]:
        file.unlink()


def make_hdf5(folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        file["images"], file["labels"] = PIXELS, np.array([0, 1] * 3)


def make_cifar(folder: Path) -> None:
    names = [f"{number}.png" for number in range(4)]
    batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3], "filenames": names}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"w{i}" for i in range(10)]}, protocol=2))


STUDY = """\
name: fuzzed
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0, 1]}
recipe: {preset: finetune, epochs: 3, lr: 1e-3, augment: [hflip, {kind: rotate, degrees: 10}]}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: taught, student: test_vit, weights: random, teacher: cnn, loss: soft}
  - {name: fused, fuse: [{name: test_resnet, weights: random}, {name: test_vit, weights: random}], mode: concat}
sweep: {recipe.lr: [1e-3, 1e-4]}
"""


def make_edf(folder: Path) -> None:
    def field(text: object, size: int) -> bytes:
        return str(text).encode().ljust(size)[:size]

    columns = [(16, "ECG"), (80, ""), (8, "mV"), (8, -32.768), (8, 32.767), (8, -32768), (8, 32767), (80, ""), (8, 50), (32, "")]
    head = field(0, 8) + field("X", 80) + field("", 80) + b"01.01.1100.00.00" + field(512, 8) + field("", 44)
    head += field(4, 8) + field(1, 8) + field(1, 4) + b"".join(field(value, size) for size, value in columns)
    (folder / "a.edf").write_bytes(head + (np.arange(200, dtype="<i2") % 90).tobytes())


def make_wfdb(folder: Path) -> None:
    digital = np.random.default_rng(1).integers(100, 150, (400, 2)).astype("<i2")
    sums = digital.astype(int).sum(axis=0) % 65536
    lines = [f"a 2 4 {len(digital)}"]
    lines += [f"a.dat 16 1(0)/bpm 12 0 {digital[0, i]} {int(np.int16(sums[i]))} 0 {name}" for i, name in enumerate(("FHR", "UC"))]
    (folder / "a.hea").write_text("\n".join(lines) + "\n#-- Outcome\n#pH           7.14\n#Apgar1       6\n#Apgar5       8\n")
    (folder / "a.dat").write_bytes(digital.tobytes())


def read_wfdb_twice(folder: Path) -> None:
    for read in (physionet.read_wfdb, physionet.read_ctu):
        with suppress(PhoropterError):  # so that the second is tried where the first refuses
            read(folder / "a.hea")


def make_mitdb(folder: Path) -> None:
    make_wfdb(folder)
    header = folder / "a.hea"
    header.write_text(header.read_text().replace("a 2 4 400", "a 2 360 400").replace("FHR", "MLII"))
    beats = [1 << 10 | 50, 1 << 10 | 80, 28 << 10 | 10, 63 << 10 | 5]
    (folder / "a.atr").write_bytes(np.array(beats, "<u2").tobytes() + b"(AFIB\0" + b"\0\0")


def make_monitor_csv(folder: Path) -> None:
    lines = ["time,fhr,uc", *(f"{number / 4:.2f},{120 + number % 9},{number % 30}" for number in range(200))]
    (folder / "a.csv").write_text("\n".join(lines) + "\n")


def make_recordings(folder: Path) -> None:
    lines = ["ECG,RESP", *(f"{number % 7 / 10},{number % 11}" for number in range(300))]
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    (folder / "spans.csv").write_text("start,stop,label\n0,1,rest\n1,2.5,stress\n")
    (folder / "manifest.csv").write_text("path,rate_hz,subject,spans\na.csv,100,p1,spans.csv\n")


def make_wesad(folder: Path) -> None:
    signal = {"chest": {"ECG": np.zeros((1400, 1))}, "wrist": {"BVP": np.zeros((128, 1))}}
    (folder / "S2").mkdir()
    session = {"subject": "S2", "signal": signal, "label": np.repeat([1, 2], 700).astype(np.int32)}
    (folder / "S2" / "S2.pkl").write_bytes(pickle.dumps(session, protocol=2))


@cache
def sixty_rows() -> Any:
    return open_dataset(DataSpec.model_validate({"digits": True, "max_samples": 60}))


def make_folds(folder: Path) -> None:
    from phoropter.data.splits.protocol import write_folds_file

    write_folds_file(sixty_rows(), KFold(2), folder / "folds.csv")


def read_folds(folder: Path) -> None:
    from phoropter.data.splits.protocol import make_splits

    make_splits(sixty_rows(), FoldsFile("folds.csv"), folder)


def make_store(folder: Path) -> None:
    store, key = Store(folder), "0" * 32
    row = {
        "key": key,
        "candidate": "c",
        "seed": 0,
        "split": "fold 1",
        "repeat": 0,
        "fold": 0,
        "folds": 2,
        "n_train": 2,
        "n_test": 2,
    }
    store.write_study(
        {"name": "x", "study": {}, "dataset": {}, "plan": [row, {**row, "key": "1" * 32}], "versions": {}, "machine": {}}
    )
    with store.create_run(key) as run:
        split = {name: row[name] for name in ("repeat", "fold", "folds", "n_train", "n_test")}
        run.write_record(
            {"candidate": {"name": "c"}, "seed": 0, "split": split, "classes": ["a", "b"], "metrics": {}, "cost": {}}
        )
        run.write_predictions(Predictions(np.array(["a", "b"]), np.array([0, 1]), np.eye(2, dtype=np.float32)))
        run.write_history([{"epoch": 1, "train_loss": 0.5}])
        run.write_pictures({"a": b"\xff\xd8one"})
    store.record_failure("1" * 32, {"candidate": "c", "split": "fold 2", "seed": 0, "error": "it diverged"})


def make_old_store(folder: Path) -> None:
    """As versions before the checksums wrote it."""
    make_store(folder)
    (folder / "runs" / ("0" * 32) / "checksums.json").unlink()
    for file in folder.rglob("*.json"):
        value = json.loads(file.read_text())
        value.pop("checksum", None)
        file.write_text(json.dumps({**value, "format": 1, "recipe": {}, "digests": {}}))


def read_store(folder: Path) -> None:
    store = Store(folder)
    store.read_run_states()
    store.read_failures()
    for run in store.runs():
        run.load_predictions()
        run.load_pictures()
        assert run.record["candidate"] and run.history is not None
    run = store.run("0" * 32)
    for read in (lambda: run.record, run.load_predictions, run.load_pictures, lambda: run.history):
        with suppress(PhoropterError):
            read()


ENTRY = ("entry", "features.npy", (40, 3), "float32", "the features")


def make_cache(folder: Path) -> None:
    from phoropter.study.forecasts.measured_speeds import update_measured_speed

    array = CachedArray(folder / ENTRY[0], *ENTRY[1:])
    array.load_or_compute([20, 20], lambda block: np.full((20, 3), block, np.float32))
    write_entry_info(array.folder, EntryInfo(pixels="p", backbone="b", weights="pretrained"))
    update_measured_speed(folder, "cpu", 1e9)
    for file in folder.rglob("*.lock"):
        file.unlink()


def read_cache(folder: Path) -> None:
    load_measured_speeds(folder)
    read_entry_info(folder / "entry")
    load_sound_array(folder / "entry", "features.npy")
    array = CachedArray(folder / ENTRY[0], *ENTRY[1:])
    came = array.load_or_compute([20, 20], lambda block: np.full((20, 3), block, np.float32))
    np.testing.assert_array_equal(came, np.repeat([0, 1], 20)[:, None] * np.ones((1, 3)))


@cache
def toy_classifier() -> Any:
    from phoropter.models.classifier import build_classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec

    backbone = BackboneSpec(name="test_resnet", weights="random", size=32)
    return build_classifier(ClassifierSpec(backbones=(backbone,), classes=("a", "b"), picture=32), seed=0)


def make_bundle(folder: Path) -> None:
    from phoropter.models.classifier import save_classifier
    from phoropter.training.trained_on import write_trained_on

    def add_rows(bundle: Path) -> None:
        write_trained_on(bundle, sixty_rows(), np.arange(9))

    save_classifier(toy_classifier(), folder / "bundle", add_files=add_rows)


def read_bundle(folder: Path) -> None:
    import torch

    from phoropter.models.classifier import load_classifier
    from phoropter.training.trained_on import read_trained_on

    with suppress(PhoropterError):
        read_trained_on(folder / "bundle")
    came = load_classifier(folder / "bundle").state_dict()
    assert all(torch.equal(came[name], value) for name, value in toy_classifier().state_dict().items())


def make_checkpoint(folder: Path) -> None:
    from phoropter.training.loop.checkpoint import Checkpoints, TrainingState

    Checkpoints(folder).save(TrainingState(epoch=2, model=dict(toy_classifier().head.state_dict())))


def read_checkpoint(folder: Path) -> None:
    from phoropter.training.loop.checkpoint import Checkpoints

    assert Checkpoints(folder).load().epoch in (0, 2)


def make_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"a.weight": torch.zeros(3, 4), "a.bias": torch.ones(3)}
    save_file(state, folder / "w.safetensors")
    torch.save(state, folder / "w.pth")


def read_weights(folder: Path) -> None:
    from phoropter.models.weights.state_dicts import read_state_dict

    for name in ("w.safetensors", "w.pth"):
        with suppress(PhoropterError):
            read_state_dict(folder / name)


KINDS = {
    "study": Kind(lambda folder: (folder / "s.yaml").write_text(STUDY), lambda folder: read_study(folder / "s.yaml")),
    "png": Kind(make_folder_of(".png"), read_folder_of_pictures, "*/*"),
    "jpeg": Kind(make_folder_of(".jpg"), read_folder_of_pictures, "*/*"),
    "tiff": Kind(make_folder_of(".tiff"), read_folder_of_pictures, "*/*"),
    "grey tiff": Kind(make_folder_of(".tif", "I"), read_folder_of_pictures, "*/*"),
    "bmp": Kind(make_folder_of(".bmp"), read_folder_of_pictures, "*/*"),
    "webp": Kind(make_folder_of(".webp"), read_folder_of_pictures, "*/*"),
    "gif": Kind(make_folder_of(".gif", "P"), read_folder_of_pictures, "*/*"),
    "manifest": Kind(make_manifest, lambda folder: read_pictures({"manifest": "all.csv"}, folder), "*.csv"),
    "npz": Kind(make_npz, lambda folder: read_pictures({"npz": "a.npz"}, folder)),
    "parquet": Kind(make_parquet, lambda folder: read_pictures({"parquet": "a.parquet"}, folder)),
    "webdataset": Kind(make_webdataset, lambda folder: read_pictures({"shards": "data-000.tar"}, folder)),
    "hdf5": Kind(make_hdf5, lambda folder: read_pictures({"hdf5": "a.h5"}, folder)),
    "cifar": Kind(make_cifar, lambda folder: read_pictures({"cifar10": "."}, folder)),
    "edf": Kind(make_edf, lambda folder: edf.read_edf(folder / "a.edf")),
    "wfdb": Kind(make_wfdb, read_wfdb_twice),
    "mitdb": Kind(make_mitdb, lambda folder: physionet.read_mitdb(folder / "a.hea")),
    "monitor csv": Kind(make_monitor_csv, lambda folder: monitor_csv.read_export(folder / "a.csv")),
    "signal table": Kind(make_monitor_csv, lambda folder: signal_tables.read_signal_table(folder / "a.csv", 4.0)),
    "recordings": Kind(make_recordings, lambda folder: tables.read_manifest(folder / "manifest.csv", "stop")),
    "wesad": Kind(make_wesad, lambda folder: wesad.read_wesad_subject(folder / "S2" / "S2.pkl"), "*/*"),
    "folds": Kind(make_folds, read_folds),
    "store": Kind(make_store, read_store, "**/*"),
    "old store": Kind(make_old_store, read_store, "**/*"),
    "cache": Kind(make_cache, read_cache, "**/*"),
    "bundle": Kind(make_bundle, read_bundle, "*/*"),
    "checkpoint": Kind(make_checkpoint, read_checkpoint),
    "weights": Kind(make_weights, read_weights),
}


@contextmanager
def made_files(kind: Kind) -> Iterator[tuple[Path, list[Path]]]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "sound").mkdir()
        kind.make(Path(name) / "sound")
        files = sorted(p.relative_to(Path(name) / "sound") for p in (Path(name) / "sound").glob(kind.pattern))
        yield Path(name), [p for p in files if (Path(name) / "sound" / p).is_file() and p.suffix != ".lock"]


def try_mutations(name: str, numbers: range) -> tuple[list[str], float, float]:
    """What came out that may not, the seconds of the slowest, and how much the memory grew, in MiB."""
    kind, faults, slowest = KINDS[name], [], 0.0
    with made_files(kind) as (folder, files), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind.read(folder / "sound")
        before = peak_mib()
        for number in numbers:
            random = named_generator("fuzz", name, number)
            shutil.rmtree(folder / "mutated", ignore_errors=True)
            shutil.copytree(folder / "sound", folder / "mutated")
            file = folder / "mutated" / files[int(random.integers(len(files)))]
            file.write_bytes(mutate_bytes(file.read_bytes(), random))
            began = time.monotonic()
            try:
                kind.read(folder / "mutated")
            except PhoropterError as error:
                if "\n" in str(error):
                    faults.append(f"{name} {number} ({file.name}): a message of several lines: {error!r}")
            except Exception as error:
                faults.append(f"{name} {number} ({file.name}): {type(error).__name__}: {str(error)[:120]}")
            slowest = max(slowest, time.monotonic() - began)
        return faults, slowest, peak_mib() - before


def peak_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("name", KINDS)
def test_mutated_files_give_errors_raised_on_purpose(name: str) -> None:
    faults, slowest, growth = try_mutations(name, range(TRIES))
    assert faults == []
    assert growth < MAX_GROWTH_MIB
    assert slowest < 12 * SLOW_S  # a hang, not a measurement: machines of tests are shared


if __name__ == "__main__":
    total, all_faults = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, []
    chosen = sys.argv[2].split(",") if len(sys.argv) > 2 else list(KINDS)
    for name in chosen:
        found, slowest, growth = try_mutations(name, range(total // len(chosen)))
        figures = f"{len(found)} faults, slowest {slowest:.2f} s, +{growth:.0f} MiB"
        print(f"{name}: {total // len(chosen)} mutations, {figures}", flush=True)
        all_faults += found
    print("\n".join(all_faults))
    sys.exit(bool(all_faults))
