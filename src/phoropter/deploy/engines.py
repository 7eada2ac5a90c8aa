"""Which engine computes the answers of a bundle: torch, or ONNX Runtime by the ONNX file in the bundle, without loading torch."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from phoropter.core.errors import SpecError
from phoropter.core.extensions import Extension
from phoropter.deploy.described_bundle import DescribedBundle, read_described_bundle
from phoropter.deploy.export.bundled_export import (
    BundledExport,
    computes_in_float32,
    find_obstacle,
    make_export_predictor,
    read_bundled_export,
)
from phoropter.deploy.predictions import BundlePredictions, ProgressFunction, SquarePredictor, predict_files
from phoropter.signals.recording import OnBadInput
from phoropter.training.candidates.recipe import TtaViews

EngineName = Literal["auto", "torch", "onnx"]
_GPU_PLACES = ("/proc/driver/nvidia/gpus", "/dev/kfd", "/dev/dxg")  # of NVIDIA's and AMD's drivers, and of Windows' for Linux


@dataclass(frozen=True, eq=False)
class AnsweringBundle:
    """A bundle and the engine that computes its answers.

    bundle: with its network (deploy/bundle.py) where torch computes · export: what its ONNX file is, where that computes
    """

    bundle: DescribedBundle
    predict_squares: SquarePredictor
    export: BundledExport | None = None

    def predict_paths(
        self, paths: Sequence[Path], on_bad_input: OnBadInput = "skip", progress: ProgressFunction | None = None
    ) -> BundlePredictions:
        """As `predictions.predict_files`; notes say where ONNX Runtime has computed."""
        found = predict_files(self.bundle, self.predict_squares, paths, on_bad_input, progress)
        return found if self.export is None else replace(found, notes=(*found.notes, self.export.describe_answers()))


def open_answering_bundle(
    folder: Path,
    engine: EngineName = "auto",
    *,
    device: str = "auto",
    views: TtaViews | None = None,
    extensions: Sequence[Extension] = (),
) -> AnsweringBundle:
    """Opens a bundle with the engine that is asked for, or with `auto` the sooner one that gives torch's answers.

    engine: `auto`: ONNX Runtime where the bundle holds a verified file that computes what torch would, on a machine without a
            GPU or with device `cpu`; else torch
    views:  averaged; None: those with which its study evaluated it

    Raises WeightsError for a damaged bundle; SpecError where `onnx` cannot answer, and for views the bundle cannot make.
    """
    if engine != "torch":
        described = read_described_bundle(folder, extensions)
        find_export = choose_export if engine == "auto" else _require_export
        if (export := find_export(described, device, views)) is not None:
            return AnsweringBundle(described, make_export_predictor(described, export), export)
    from phoropter.deploy.bundle import load_bundle
    from phoropter.deploy.predict import make_square_predictor
    from phoropter.training.loop.devices import resolve_device

    loaded = load_bundle(folder, extensions)
    return AnsweringBundle(loaded, make_square_predictor(loaded, resolve_device(device), views))


def choose_export(bundle: DescribedBundle, device: str, views: TtaViews | None = None) -> BundledExport | None:
    """The ONNX file of a bundle where it gives torch's answers sooner than torch on this device; else None.

    Raises WeightsError for a damaged bundle.
    """
    export = read_bundled_export(bundle.folder)
    if find_obstacle(bundle, export, device, views) is not None or not computes_in_float32(bundle):
        return None
    return export if device == "cpu" or not _may_have_gpu() else None


def _require_export(bundle: DescribedBundle, device: str, views: TtaViews | None) -> BundledExport | None:
    """The ONNX file of a bundle. Raises SpecError where it cannot answer."""
    export = read_bundled_export(bundle.folder)
    if obstacle := find_obstacle(bundle, export, device, views):
        raise SpecError(f"--engine onnx: {obstacle}; leave --engine out, or mend that")
    return export


def _may_have_gpu() -> bool:
    """Whether torch might find a GPU here, told by the drivers' files: asking torch takes longer than an answer."""
    return platform.system() == "Darwin" or any(Path(place).exists() for place in _GPU_PLACES)
