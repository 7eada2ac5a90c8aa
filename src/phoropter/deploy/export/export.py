"""`phoropter export`: a bundle → an ONNX file, a torch program, or a Triton repository, with a report beside it.

The file appears under its name only after it was run and compared with the original; else there is none, and the reason is told.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import phoropter
from phoropter.core.errors import SpecError, StoreError
from phoropter.core.files import (
    atomic_write,
    atomic_write_folder,
    digest_file,
    require_writable_place,
    temporary_folder,
    write_json,
    write_text,
)
from phoropter.deploy.export.exporters import MakeGraph, ProvedFile, check_weight_bytes, export_proved
from phoropter.deploy.export.graph import ExportedClassifier
from phoropter.deploy.export.int8 import Int8Record, MeasuredRows, count_changed_answers, measure_loss, quantize_onnx
from phoropter.deploy.export.metadata import describe_exported
from phoropter.deploy.export.onnx_file import LEVELS
from phoropter.deploy.export.proof import BATCHES, MAX_DIFFERENCE, MAX_INPUTS, ProofInputs, Reference, compute_reference
from phoropter.deploy.export.torch_program import export_program
from phoropter.deploy.export.triton import CONFIG_FILE, MODEL_PLACE, check_model_name, format_triton_config
from phoropter.deploy.predict import Bundle
from phoropter.models.inference.onnx_exporter import ONNX_PACKAGES, require_onnx_packages
from phoropter.training.candidates.recipe import TtaViews

Layout = Literal["file", "triton"]
REPORT_FORMAT = 1


@dataclass(frozen=True)
class ExportOptions:
    """layout: one file, or a model's folder for Triton · views: averaged in the graph; None: as the study evaluated
    most: the loss of a metric by int8 that is accepted, as a point estimate"""

    layout: Layout = "file"
    views: TtaViews | None = None
    most: float = 0.01


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    file: the model · proved: by which exporter, and how near it is · n_inputs, source: what it was compared on
    int8: None where it computes in float32 · changed_inputs: of int8, inputs whose likeliest class is not the bundle's
    """

    file: Path
    proved: ProvedFile
    n_inputs: int
    source: str
    int8: Int8Record | None
    changed_inputs: int | None = None

    def describe(self) -> list[str]:
        """Sentences for the terminal."""
        d = self.proved.difference
        lines = [
            f"Written by {self.proved.exporter} and compared with the bundle on {self.n_inputs} inputs ({self.source}), in "
            f"batches of 1, 2 and 7: probabilities differ by at most {d.probability:.2g}, and every answer is the same."
        ]
        lines += [f"Not kept: the file by {name}, because {why}." for name, why in self.proved.failed.items()]
        if self.int8 is not None:
            lines += describe_int8(self.int8)
            lines.append(f"The int8 file answers {self.changed_inputs} of the {self.n_inputs} inputs otherwise than the bundle.")
        return lines


def describe_int8(record: Int8Record) -> list[str]:
    """Sentences on what int8 costs, and on which rows of which model that was measured."""
    lines = [f"int8 ({record.kind}): {each.describe()}." for each in record.losses]
    return [*lines, f"Measured on {record.n_rows} rows: {record.source}; {record.changed} answers changed."]


def check_export_target(out: Path, options: ExportOptions, int8: bool) -> None:
    """Raises SpecError for a name that no export has, StoreError where it exists, DiskError, and MissingExtraError."""
    if options.layout == "triton":
        check_model_name(out)
    elif out.suffix not in (".onnx", ".pt2"):
        raise SpecError(f"-o: {out} ends in neither .onnx nor .pt2; give a file with one of these endings, or --layout triton")
    if int8 and out.suffix == ".pt2":
        raise SpecError("--int8: a .pt2 file computes in float32; export to a .onnx file, or leave --int8 out")
    for place in (out, report_file(out)):
        if place.exists():
            raise StoreError(f"{place} exists already; give the file a new name")
    require_writable_place(out)
    if out.suffix != ".pt2" or options.layout == "triton":
        require_onnx_packages("exporting a bundle to ONNX")


def export_bundle(
    bundle: Bundle,
    out: Path,
    inputs: ProofInputs,
    options: ExportOptions,
    rows: MeasuredRows | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> ExportReport:
    """Writes a bundle as `out` (a .onnx or .pt2 file, or a folder for Triton) with its report, or neither.

    inputs: real inputs on which the file is compared with the bundle · rows: for int8, what its loss is measured with
    say: is told what is being done

    Raises what `check_export_target` raises; WeightsError, with the reasons, where no file equals the original, and where int8
    loses more than `options.most`; SpecError for views the bundle cannot make, and for weights beyond an ONNX file.
    """
    check_export_target(out, options, rows is not None)
    if rows is not None and bundle.multi_label:
        raise SpecError(
            "--int8: its loss is measured on rows of one class each, and this bundle has several labels: leave it out"
        )
    if options.layout == "triton" or out.suffix == ".onnx":
        for written in (bundle, *([rows.measured] if rows else [])):
            check_weight_bytes(written.model)
    reference = compute_reference(bundle, inputs, options.views)
    say(f"the bundle answered {len(inputs.squares)} inputs ({inputs.source})")
    metadata = describe_exported(bundle, options.views)
    with temporary_folder("export") as work:
        made = work / f"model{out.suffix if options.layout == 'file' else '.onnx'}"
        say(f"writing the network as {made.name}, running it and comparing its answers")
        proved = _export_float(partial(ExportedClassifier, bundle, options.views), reference, metadata, made)
        int8, changed = None, None
        if rows is not None:
            plain = made
            say(f"int8: calibrated on {len(rows.training)} training rows, its loss measured on {len(rows.test)} held-out rows")
            int8, made = _export_int8(bundle, plain, rows, metadata | {"exporter": proved.exporter}, options)
            changed = count_changed_answers(made, reference)
        report = ExportReport(out, proved, len(inputs.squares), inputs.source, int8, changed)
        _put_in_place(made, out, _describe_report(report, made, metadata), metadata, options.layout)
    return report


def _export_float(make_graph: MakeGraph, reference: Reference, metadata: dict[str, Any], made: Path) -> ProvedFile:
    """Writes the file that computes in float32, by the exporter that its name asks for."""
    if made.suffix == ".pt2":
        return ProvedFile("torch.export", None, export_program(make_graph, reference, metadata, made), {})
    return export_proved(make_graph, reference, metadata, made)


def _export_int8(
    bundle: Bundle, plain: Path, rows: MeasuredRows, metadata: dict[str, Any], options: ExportOptions
) -> tuple[Int8Record, Path]:
    """Measures what int8 loses, and writes the bundle's own int8 file where that is accepted. plain: its file in float32"""
    made, measured, measured_plain = (plain.with_name(name) for name in ("int8.onnx", "measured-int8.onnx", "measured.onnx"))
    is_itself = rows.measured is bundle
    if is_itself:
        measured, measured_plain = made, plain
    else:
        sample = ProofInputs(rows.test[:MAX_INPUTS], rows.source)
        reference = compute_reference(rows.measured, sample, options.views)
        export_proved(partial(ExportedClassifier, rows.measured, options.views), reference, metadata, measured_plain)
    kind = quantize_onnx(measured_plain, measured, rows.training, metadata)
    record = measure_loss(measured_plain, measured, rows, kind)
    record.raise_if_beyond(options.most)
    if not is_itself:
        quantize_onnx(plain, made, rows.calibration, metadata)
    return record, made


def _put_in_place(made: Path, out: Path, report: dict[str, Any], metadata: dict[str, Any], layout: Layout) -> None:
    """Copies a proved file and its report to their names: both, or neither."""
    if layout == "file":
        try:
            with atomic_write(out) as aside:
                shutil.copyfile(made, aside)
                write_json(report_file(out), report)
        except BaseException:
            with suppress(OSError):  # on a read-only disk even this fails, and would hide the reason
                report_file(out).unlink(missing_ok=True)
            raise
        return
    with atomic_write_folder(out) as aside:
        place = aside / MODEL_PLACE
        place.parent.mkdir()
        shutil.copyfile(made, place)
        write_json(report_file(place), report)
        write_text(aside / CONFIG_FILE, format_triton_config(out.name, metadata))


def report_file(out: Path) -> Path:
    """Where the report of a file stands: its name with `.json` after it."""
    return out.with_name(f"{out.name}.json")


def _describe_report(report: ExportReport, made: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data."""
    proved, int8 = report.proved, report.int8
    return {
        "format": REPORT_FORMAT,
        "digest": digest_file(made),
        "bytes": made.stat().st_size,
        "exporter": proved.exporter,
        "opset": proved.opset,
        "difference": asdict(proved.difference),
        "accepted_difference": MAX_DIFFERENCE,
        "inputs": {"count": report.n_inputs, "source": report.source},
        "batches": list(BATCHES),
        "levels": list(LEVELS) if made.suffix == ".onnx" else [],
        "not_kept": proved.failed,
        "versions": collect_export_versions(),
        "bundle": metadata["digests"],
        "int8": int8 and describe_int8_record(int8) | {"changed_inputs": report.changed_inputs},
    }


def describe_int8_record(record: Int8Record) -> dict[str, Any]:
    """The record as plain data: NaN, which JSON lacks, becomes null."""
    losses = [{"loss": m.loss, **asdict(m)} for m in record.losses]
    known = [{key: None if value != value else value for key, value in loss.items()} for loss in losses]
    return {**asdict(record), "losses": known}


def collect_export_versions() -> dict[str, str | None]:
    """Name → version of phoropter and of the packages that write and run exported files."""
    return {"phoropter": phoropter.__version__, **{name: _find_version(name) for name in ("torch", *ONNX_PACKAGES)}}


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
