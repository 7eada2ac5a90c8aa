"""The command `export`. cli.py adds it to the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter.commands.options import trust_option
from phoropter.console import make_console, print_line
from phoropter.core.errors import SpecError
from phoropter.study_parts import trust_results_if

if TYPE_CHECKING:
    from rich.console import Console

    from phoropter.deploy.bundle import Predictor
    from phoropter.deploy.export.int8 import MeasuredRows
    from phoropter.deploy.export.proof import ProofInputs


@click.command("export")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="FILE.onnx, FILE.pt2, or a folder for Triton.")
@click.option("--into-bundle", is_flag=True, help="Instead of -o: an ONNX file in BUNDLE, by which `predict` answers sooner.")
@click.option("--study", type=click.Path(path_type=Path), help="Results folder of its study: held-out rows to compare on.")
@click.option("--inputs", type=click.Path(path_type=Path), multiple=True, help="Files to compare on instead; may be repeated.")
@click.option("--int8", is_flag=True, help="Quantise to 8 bits, calibrated on training rows; needs --study.")
@click.option("--most", type=click.FloatRange(0, 1), help="Loss of a metric by int8 that is accepted (default: 0.01).")
@click.option("--layout", type=click.Choice(["file", "triton"]), default="file", help="triton: -o is the model's own folder.")
@click.option("--views", type=click.Choice(["none", "flip", "ten-crop"]), help="Averaged in the file (default: as in its study).")
@trust_option
def export_command(bundle: Path, out: Path | None, into_bundle: bool, trust_code: bool, **rest: Any) -> None:
    """Write a BUNDLE as an ONNX file or a torch program, with preprocessing, calibration and class names in it.

    The file is run and compared with the bundle on real inputs before it is kept: held-out rows of --study, else --inputs, else
    the bundle's own examples. Where no file equals the bundle, there is none, and the exit code is 2.
    """
    from phoropter.deploy.bundle import load_bundle
    from phoropter.deploy.export.bundled_export import computes_in_float32
    from phoropter.deploy.export.export import ExportOptions, check_export_target, export_bundle
    from phoropter.deploy.export.export_into_bundle import check_bundle_target, export_into_bundle

    study, int8, most = rest["study"], rest["int8"], rest["most"]
    _check_flags(out, into_bundle, rest)
    options = ExportOptions(rest["layout"], rest["views"], 0.01 if most is None else most)
    if out is not None:
        check_export_target(out, options, int8)
    to, doing = make_console(), make_console(stderr=True)
    with trust_results_if(trust_code, bundle, *([study] if study else [])):
        loaded = load_bundle(bundle)
        if out is None:
            check_bundle_target(loaded.folder)
        proof, rows = _find_rows(loaded, study, rest["inputs"], int8, to)
    if out is None:
        print_line(to, export_into_bundle(loaded, proof, lambda words: print_line(doing, words)).describe_proof())
        how = "" if computes_in_float32(loaded) else " with --engine onnx, because its study computed in another precision"
        print_line(to, f"written into {loaded.folder}: `phoropter predict` answers by it{how}")
        return
    report = export_bundle(loaded, out, proof, options, rows, lambda words: print_line(doing, words))
    for line in report.describe():
        print_line(to, line)
    print_line(to, f"written: {out}")


def _find_rows(
    loaded: Predictor, study: Path | None, inputs: tuple[Path, ...], int8: bool, to: Console
) -> tuple[ProofInputs, MeasuredRows | None]:
    """What the file is compared on, and for int8 what its loss is measured with."""
    from phoropter.deploy.export.inputs import find_proof_inputs
    from phoropter.refit.finished_study import open_finished_study
    from phoropter.refit.held_out import find_bundle_rows
    from phoropter.study.display.progress_bars import show_progress

    if study is None:
        return find_proof_inputs(loaded, inputs), None
    with show_progress(f"rows of {study}", to) as on_progress:
        place = find_bundle_rows(open_finished_study(study, on_progress), loaded, on_progress)
    return place.find_proof_inputs(), place.find_measured_rows() if int8 else None


def _check_flags(out: Path | None, into_bundle: bool, rest: dict[str, Any]) -> None:
    """Raises SpecError for flags that would have no effect, or that need another one."""
    if (out is None) != into_bundle:
        raise SpecError("say where the file goes: -o FILE.onnx, or --into-bundle, one of the two")
    if into_bundle and (rest["int8"] or rest["views"] or rest["layout"] != "file"):
        raise SpecError(
            "--into-bundle: the file in a bundle computes in float32 with the views of its study; leave --int8, --views and "
            "--layout out, or write another file with -o"
        )
    if rest["study"] and rest["inputs"]:
        raise SpecError("--inputs: the file is compared on rows of --study; give one of the two")
    if rest["int8"] and rest["study"] is None:
        raise SpecError("--int8: it is calibrated and measured on rows of the study; pass --study DIR, its results folder")
    if rest["most"] is not None and not rest["int8"]:
        raise SpecError("--most: it bounds the loss by int8; pass --int8, or leave it out")
