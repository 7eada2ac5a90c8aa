"""Commands of the command line that use a bundle. cli.py adds them to the others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter.commands.options import bad_input_option, device_option, json_option, trust_option, views_option, write_document
from phoropter.console import make_console, print_line, print_predictions, show_prediction_progress
from phoropter.core.errors import SpecError
from phoropter.study_parts import trust_results_if

if TYPE_CHECKING:
    from rich.console import Console

    from phoropter.deploy.engines import AnsweringBundle
    from phoropter.deploy.predictions import BundlePredictions


@click.command("refit")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The bundle's folder, which is made.")
@click.option("--candidate", help="Its name on the leaderboard (default: the first).")
@click.option(
    "--how",
    type=click.Choice(["all", "folds"]),
    default="all",
    help="Trained anew on all rows (default), or the study's own models averaged.",
)
@click.option(
    "--examples", type=click.IntRange(0, 100), default=0, help="Copy so many of the study's pictures or recordings into it."
)
@click.option(
    "--layout",
    "layouts",
    type=click.Choice(["timm", "onnx"]),
    multiple=True,
    help="Also in timm's own layout, under OUT/timm; or as an ONNX file, by which `predict` answers sooner. Repeatable.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Where the study's data lie now, if they were moved.")
@device_option
@trust_option
def refit_command(
    folder: Path, out: Path, candidate: str | None, data: Path | None, device: str, trust_code: bool, **rest: Any
) -> None:
    """Make one classifier of a candidate of the finished study in FOLDER, and save it as a bundle.

    The bundle carries the study's estimate with its interval, and a temperature fitted on the study's held-out predictions.
    """
    from phoropter.refit.bundle_writer import BundleContents
    from phoropter.refit.evidence import describe_evidence
    from phoropter.refit.refit import RefitOptions, refit_candidate
    from phoropter.study.display.progress_bars import show_progress
    from phoropter.training.loop.devices import resolve_device

    to, chosen = make_console(), resolve_device(device)
    contents = BundleContents(rest["examples"], "timm" in rest["layouts"], "onnx" in rest["layouts"])
    options = RefitOptions(candidate, rest["how"], contents, data=data)
    with trust_results_if(trust_code, folder), show_progress(f"refit of {folder}", to) as on_progress:
        record = refit_candidate(folder, out, options, chosen, on_progress)
    for line in describe_evidence(record):
        print_line(to, line)
    print_line(to, f"written: {out}")


@click.command("predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="FILE.csv, .parquet or .jsonl; - for CSV on standard output.")
@bad_input_option
@views_option
@click.option("--explain", "maps", type=click.Path(path_type=Path), help="Also a folder of maps, as `phoropter explain` writes.")
@device_option
@json_option
@trust_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    help="What computes: torch, the bundle's ONNX file, or the sooner of the two (default: auto).",
)
def predict_command(
    bundle: Path, paths: tuple[Path, ...], out: Path | None, on_bad_input: Any, device: str, trust_code: bool, **rest: Any
) -> None:
    """Classify images or recordings at PATHS by a BUNDLE that a study saved, prepared as in the study.

    What cannot be read is listed by name, and the rest is predicted.
    """
    from phoropter.deploy.engines import open_answering_bundle
    from phoropter.deploy.tables import check_output_format, format_predictions_csv, write_predictions

    to_stdout, views, maps, as_json = str(out) == "-", rest["views"], rest["maps"], rest["as_json"]
    if as_json and to_stdout:
        raise SpecError("--json and -o - both write to standard output: keep one")
    if out and not to_stdout:
        check_output_format(out, paths)
    engine = rest["engine"] if maps is None else _require_torch(rest["engine"])
    with trust_results_if(trust_code, bundle):
        answering = open_answering_bundle(bundle, engine, device=device, views=views)
    if maps:
        _check_maps(maps, answering)
    to = make_console(stderr=to_stdout or as_json, answer=out is None)
    with show_prediction_progress() as progress:
        predictions = answering.predict_paths(paths, on_bad_input, progress)
    if not as_json:
        print_predictions(to, predictions)
    if to_stdout:
        sys.stdout.write(format_predictions_csv(predictions))
    files = write_predictions(predictions, out) if out and not to_stdout else []
    if maps:
        _write_maps(maps, answering, predictions, views, device)
    _say_what_was_written(bundle, predictions, [*files, *([maps] if maps else [])], to, as_json)


def _require_torch(engine: str) -> Any:
    """The engine of maps, which need the network. Raises SpecError where another one is asked for."""
    if engine == "onnx":
        raise SpecError("--explain: maps are computed by torch, and --engine is onnx; leave one of the two out")
    return "torch"


def _check_maps(maps: Path, answering: AnsweringBundle) -> None:
    from phoropter.deploy.explain.map_files import check_map_folder

    check_map_folder(maps, (), answering.bundle.recording_view is not None)


def _write_maps(maps: Path, answering: AnsweringBundle, predictions: BundlePredictions, views: Any, device: str) -> None:
    from phoropter.deploy.explain.explain import ExplainOptions
    from phoropter.deploy.explain.map_files import write_explanations
    from phoropter.deploy.predict import Bundle

    assert isinstance(answering.bundle, Bundle)
    with show_prediction_progress() as progress:
        explained = ExplainOptions(views=views, device=device)
        write_explanations(answering.bundle, predictions.dataset, maps, options=explained, progress=progress)


def _say_what_was_written(bundle: Path, predictions: BundlePredictions, files: list[Path], to: Console, as_json: bool) -> None:
    if as_json:
        from phoropter.commands.json_documents import make_predict_document

        write_document(make_predict_document(bundle, predictions, files))
        return
    for file in files:
        print_line(to, f"written: {file}")
