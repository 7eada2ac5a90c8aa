"""The ONNX file in a bundle, by which its predictions are computed without torch: what proves it, and the function it is.

    model.onnx       the file, under the checksum that bundle.json has of it
    bundle.json      under `onnx`: of which weights it was made, and how near it was to them (BundledExport)

A file that merely lies in the folder is never opened. Writing it is export_into_bundle.py's.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.cpu_count import count_default_threads
from phoropter.core.errors import WeightsError
from phoropter.core.spec import SourceMap, Spec, validate_as
from phoropter.data.images.pixels import Pixels
from phoropter.deploy.described_bundle import DescribedBundle
from phoropter.deploy.export.onnx_file import open_onnx
from phoropter.deploy.predictions import SquarePredictor
from phoropter.models.weights.bundle_files import raise_on_bundle_damage
from phoropter.models.weights.weight_files import read_sidecar_json
from phoropter.training.candidates.recipe import TtaViews
from phoropter.training.costs.inference_batch import choose_inference_batch

ONNX_FILE: Literal["model.onnx"] = "model.onnx"
ONNX_KEY = "onnx"  # of bundle.json
WEIGHTS_FILE = "model.safetensors"
MAX_BUNDLED_DIFFERENCE = 1e-5  # in a probability, between the file in a bundle and the bundle's own network


class BundledExport(Spec):
    """What bundle.json says of the ONNX file in a bundle.

    weights:     [bytes, checksum] of the weights that it was made of
    views:       averaged in it, of each member of an average
    exporter:    that wrote it · opset: of ONNX
    probability: the largest difference from what torch gave, on the inputs of the proof · logit: the same of a logit
    n_inputs:    how many those were; what they are is not kept, because bundles are passed on and a path may name somebody
    versions:    of the packages that wrote it and ran it
    """

    file: Literal["model.onnx"] = ONNX_FILE
    weights: tuple[int, str]
    views: tuple[TtaViews, ...]
    exporter: str
    opset: int
    probability: float
    logit: float
    n_inputs: int
    versions: dict[str, str | None]

    def describe_proof(self) -> str:
        """One sentence for who made the file."""
        return (
            f"Written by {self.exporter} and compared with the bundle on {self.n_inputs} inputs, in batches of 1, 2 and 7: "
            f"probabilities differ by at most {self.probability:.2g}, and every answer is the same."
        )

    def describe_answers(self) -> str:
        """One sentence for who reads predictions by the file."""
        return (
            f"computed by ONNX Runtime from the bundle's own ONNX file, whose probabilities differed by at most "
            f"{self.probability:.1g} from torch's on {self.n_inputs} inputs when it was made"
        )


def read_bundled_export(folder: Path) -> BundledExport | None:
    """What a bundle says of its ONNX file, after all its files were compared with their checksums; None where it has none.

    Raises WeightsError for a damaged bundle, and for a file that was made of other weights.
    """
    content = read_sidecar_json(folder / "bundle.json")
    recorded = content.get(ONNX_KEY) if isinstance(content, dict) else None
    if recorded is None:
        return None
    raise_on_bundle_damage(folder)
    found = validate_as(BundledExport, recorded, SourceMap(str(folder / "bundle.json")), (ONNX_KEY,))
    files = content.get("files")
    if not isinstance(files, dict) or found.file not in files or files.get(WEIGHTS_FILE) != list(found.weights):
        raise WeightsError(
            f"{folder / found.file} was not made of the weights in this bundle: take the bundle from where it came, or "
            "export it anew"
        )
    return found


def find_obstacle(bundle: DescribedBundle, export: BundledExport | None, device: str, views: TtaViews | None) -> str | None:
    """Why the ONNX file of a bundle cannot answer for it, in words; None where it can. views: None: those of its study"""
    if export is None:
        return f"{bundle.folder} holds no ONNX file, which `phoropter export {bundle.folder} --into-bundle` makes"
    if device not in ("auto", "cpu"):
        return f"it computes on the processor, and --device is {device}"
    if views is not None and any(of != views for of in export.views):
        return f"the ONNX file averages the views '{export.views[0]}', and --views is {views}"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'phoropter[deploy]')"
    return None


def computes_in_float32(bundle: DescribedBundle) -> bool:
    """Whether torch computes the bundle's answers in float32 everywhere, as its ONNX file does."""
    return all(c.stores_features or c.recipe.precision == "float32" for c in bundle.member_candidates)


def make_export_predictor(bundle: DescribedBundle, export: BundledExport) -> SquarePredictor:
    """The function that predicts squares by the ONNX file, on the processor.

    Raises WeightsError for a file of other classes or another image size, and what `open_onnx` raises.
    """
    model = open_onnx(bundle.folder / export.file, threads=count_default_threads())
    if model.classes != bundle.classes or model.side != bundle.spec.picture:
        raise WeightsError(f"{bundle.folder / export.file} is of another classifier than the bundle: export it anew")
    size = choose_inference_batch(bundle.spec.picture, "cpu")

    def predict_squares(pixels: Pixels) -> NDArray[np.float32]:
        rows = np.arange(len(pixels), dtype=np.int64)
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        return np.concatenate([model(pixels.batch(some)).logits for some in batches])

    return predict_squares
