"""Writes a bundle's ONNX file into the bundle, where `phoropter predict` finds it; the bundle's weights stay as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from phoropter.core.errors import StoreError, WeightsError
from phoropter.core.files import atomic_write, require_writable, temporary_folder
from phoropter.core.storage.checksums import checksum_file
from phoropter.core.storage.sealed_json import read_json_object, write_sealed_json
from phoropter.deploy.export.bundled_export import MAX_BUNDLED_DIFFERENCE, ONNX_FILE, ONNX_KEY, WEIGHTS_FILE, BundledExport
from phoropter.deploy.export.export import collect_export_versions
from phoropter.deploy.export.exporters import ProvedFile, check_weight_bytes, export_proved
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.metadata import describe_exported
from phoropter.deploy.export.proof import ProofInputs, compute_reference
from phoropter.deploy.predict import Bundle, choose_views
from phoropter.models.inference.onnx_exporter import require_onnx_packages


def check_bundle_target(folder: Path) -> None:
    """Raises StoreError for a bundle that has an ONNX file, or no checksums; DiskError; MissingExtraError."""
    content, sealed = read_json_object(folder / "bundle.json", WeightsError)
    if ONNX_KEY in content:
        raise StoreError(f"--into-bundle: {folder} holds an ONNX file already, which `phoropter predict` uses")
    if not sealed or WEIGHTS_FILE not in content.get("files", ()):
        raise StoreError(f"--into-bundle: the bundle {folder} is of an earlier version, without checksums; make it anew by refit")
    require_writable(folder)
    require_onnx_packages("exporting a bundle to ONNX")


def export_into_bundle(bundle: Bundle, inputs: ProofInputs, say: Callable[[str], None] = lambda words: None) -> BundledExport:
    """Writes `model.onnx` and what proves it into a bundle, or leaves the bundle as it was.

    inputs: real inputs on which the file is compared with the bundle · say: is told what is being done

    Raises what `check_bundle_target` raises; WeightsError, with the reasons, where no file is within MAX_BUNDLED_DIFFERENCE of
    the bundle; SpecError for weights beyond an ONNX file.
    """
    check_bundle_target(bundle.folder)
    check_weight_bytes(bundle.model)
    reference = compute_reference(bundle, inputs, None)
    say(f"the bundle answered {len(inputs.squares)} inputs ({inputs.source})")
    metadata = describe_exported(bundle, None)
    del metadata["digests"]["bundle.json"]  # it will say that the file is there
    with temporary_folder("export") as work:
        made = work / ONNX_FILE
        say(f"writing the network as {ONNX_FILE}, running it and comparing its answers")
        proved = export_proved(partial(ExportedClassifier, bundle), reference, metadata, made)
        if not proved.difference.probability <= MAX_BUNDLED_DIFFERENCE:
            raise WeightsError(
                f"the ONNX file differs by {proved.difference.probability:.2g} in a probability, expected at most "
                f"{MAX_BUNDLED_DIFFERENCE:g} of one in a bundle, so there is none; `-o FILE.onnx` accepts more"
            )
        return _put_into_bundle(bundle, made, proved, inputs)


def _put_into_bundle(bundle: Bundle, made: Path, proved: ProvedFile, inputs: ProofInputs) -> BundledExport:
    """The file first, then the bundle.json that lists it: until then nobody opens it."""
    folder, target = bundle.folder, bundle.folder / ONNX_FILE
    content, _ = read_json_object(folder / "bundle.json", WeightsError)
    assert proved.opset is not None
    export = BundledExport(
        weights=content["files"][WEIGHTS_FILE],
        views=choose_views(bundle, None),
        exporter=proved.exporter,
        opset=proved.opset,
        probability=proved.difference.probability,
        logit=proved.difference.logit,
        n_inputs=len(inputs.squares),
        versions=collect_export_versions(),
    )
    with atomic_write(target) as aside:
        shutil.copyfile(made, aside)
    files = {**content["files"], ONNX_FILE: [target.stat().st_size, checksum_file(target)]}
    write_sealed_json(folder / "bundle.json", {**content, ONNX_KEY: export.plain(), "files": files})
    return export
