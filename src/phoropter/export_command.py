"""The command `export`. cli.py adds it to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from phoropter.commands.options import trust_option
from phoropter.console import make_console, print_line
from phoropter.core.errors import SpecError
from phoropter.study_parts import trust_results_if


@click.command("export")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="FILE.onnx, FILE.pt2, or a folder for Triton.")
@click.option("--study", type=click.Path(path_type=Path), help="Results folder of its study: held-out rows to compare on.")
@click.option("--inputs", type=click.Path(path_type=Path), multiple=True, help="Files to compare on instead; may be repeated.")
@click.option("--int8", is_flag=True, help="Quantise to 8 bits, calibrated on training rows; needs --study.")
@click.option("--most", type=click.FloatRange(0, 1), help="Loss of a metric by int8 that is accepted (default: 0.01).")
@click.option("--layout", type=click.Choice(["file", "triton"]), default="file", help="triton: -o is the model's own folder.")
@click.option("--views", type=click.Choice(["none", "flip", "ten-crop"]), help="Averaged in the file (default: as in its study).")
@trust_option
def export_command(bundle: Path, out: Path, study: Path | None, inputs: tuple[Path, ...], trust_code: bool, **rest: Any) -> None:
    """Write a BUNDLE as an ONNX file or a torch program, with preprocessing, calibration and class names in it.

    The file is run and compared with the bundle on real inputs before it is kept: held-out rows of --study, else --inputs, else
    the bundle's own examples. Where no file equals the bundle, there is none, and the exit code is 2.
    """
    from phoropter.deploy.bundle import load_bundle
    from phoropter.deploy.export.export import ExportOptions, check_export_target, export_bundle
    from phoropter.deploy.export.inputs import find_proof_inputs
    from phoropter.refit.finished_study import open_finished_study
    from phoropter.refit.held_out import find_bundle_rows
    from phoropter.study.display.progress_bars import show_progress

    int8, most = rest["int8"], rest["most"]
    _check_flags(study, inputs, int8, most)
    options = ExportOptions(rest["layout"], rest["views"], 0.01 if most is None else most)
    check_export_target(out, options, int8)
    to = make_console()
    with trust_results_if(trust_code, bundle, *([study] if study else [])):
        loaded = load_bundle(bundle)
        if study is None:
            proof, rows = find_proof_inputs(loaded, inputs), None
        else:
            with show_progress(f"rows of {study}", to) as on_progress:
                place = find_bundle_rows(open_finished_study(study, on_progress), loaded, on_progress)
            proof, rows = place.find_proof_inputs(), place.find_measured_rows() if int8 else None
    doing = make_console(stderr=True)
    report = export_bundle(loaded, out, proof, options, rows, lambda words: print_line(doing, words))
    for line in report.describe():
        print_line(to, line)
    print_line(to, f"written: {out}")


def _check_flags(study: Path | None, inputs: tuple[Path, ...], int8: bool, most: float | None) -> None:
    """Raises SpecError for flags that would have no effect, or that need another one."""
    if study and inputs:
        raise SpecError("--inputs: the file is compared on rows of --study; give one of the two")
    if int8 and study is None:
        raise SpecError("--int8: it is calibrated and measured on rows of the study; pass --study DIR, its results folder")
    if most is not None and not int8:
        raise SpecError("--most: it bounds the loss by int8; pass --int8, or leave it out")
