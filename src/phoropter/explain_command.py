"""The command `explain`. cli.py adds it to the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter.commands.options import bad_input_option, device_option, trust_option, views_option
from phoropter.console import make_console, print_line, show_prediction_progress
from phoropter.study_parts import trust_results_if

if TYPE_CHECKING:
    from phoropter.deploy.explain.explain import ExplainOptions

METHODS = ("auto", "grad-cam", "token-gradient", "gradient-rollout", "rollout")


@click.command("explain")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The folder, which is made.")
@click.option("--target", help="The class that is explained (default: the likeliest of each input).")
@click.option("--method", type=click.Choice(METHODS), default="auto", help="How maps are made (default: by the network).")
@click.option("--layer", "layers", multiple=True, help="Layer that is read, such as blocks.3; of a fusion BRANCH=LAYER.")
@click.option(
    "--write",
    "formats",
    multiple=True,
    type=click.Choice(["png", "svg", "npz", "csv"]),
    help="May be repeated (default: png, npz).",
)
@bad_input_option
@views_option
@device_option
@trust_option
def explain_command(bundle: Path, paths: tuple[Path, ...], out: Path, trust_code: bool, on_bad_input: Any, **rest: Any) -> None:
    """Show where a BUNDLE found the evidence for its answers, in images or recordings at PATHS.

    Of images a map over the picture, of recordings along time in seconds, of a fusion each branch too; as figures and numbers.
    """
    from phoropter.deploy.bundle import load_bundle
    from phoropter.deploy.explain.map_files import check_map_folder, write_explanations
    from phoropter.deploy.inputs import find_paths
    from phoropter.deploy.predictions import open_inputs

    formats: Any = rest["formats"] or ("png", "npz")
    with trust_results_if(trust_code, bundle):
        loaded = load_bundle(bundle)
    check_map_folder(out, formats, loaded.recording_view is not None)
    there, missing = find_paths(paths, on_bad_input)
    dataset = open_inputs(loaded, there, on_bad_input)
    options = _read_options(rest)
    with show_prediction_progress() as progress:
        written = write_explanations(loaded, dataset, out, formats, options, on_bad_input, progress)
    to = make_console()
    for problem in (*missing, *written.problems):
        print_line(to, f"left out: {problem}")
    print_line(to, f"written: {out} ({written.count} explained)")


def _read_options(flags: dict[str, Any]) -> ExplainOptions:
    from phoropter.deploy.explain.explain import ExplainOptions

    named = dict(layer.split("=", 1) for layer in flags["layers"] if "=" in layer)
    single = [layer for layer in flags["layers"] if "=" not in layer]
    layers = single[0] if single and not named and len(single) == 1 else named or None
    if len(single) > 1 or (single and named):
        raise click.UsageError("--layer: one name for a single network, or BRANCH=LAYER for each branch of a fusion")
    return ExplainOptions(flags["target"], flags["method"], layers, flags["views"], flags["device"])
