"""`phoropter import`: the predictions of another tool become a candidate of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phoropter.commands.options import out_option, trust_option
from phoropter.console import make_console, print_line, print_results
from phoropter.core.language.unit_words import RUN
from phoropter.study_parts import read_parts, trust_if

if TYPE_CHECKING:
    from phoropter.study.spec import StudySpec


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--study", required=True, help="The study whose rows and folds the predictions are of.")
@out_option
@click.option("--name", required=True, help="What the candidate is called on the page.")
@click.option("--columns", "renamed", multiple=True, metavar="OURS=THEIRS", help="As in id=filename. Repeatable.")
@trust_option
def import_command(file: Path, study: str, out: Path | None, name: str, renamed: tuple[str, ...], trust_code: bool) -> None:
    """Add another tool's predictions in FILE (CSV, Parquet or npz) to a study, and write its report.

    FILE has the ids of the study's rows and, for each, the probability of each class (p_CLASS) or logits (logit_CLASS), and the
    fold in which the row was tested, with a repeat and a seed where there are several. The folds must be those of the study,
    which `phoropter folds` writes.
    """
    from phoropter.core.errors import SpecError
    from phoropter.report.page import create_report, read_report_input

    columns = dict(_split_pair(pair) for pair in renamed)
    with trust_if(trust_code, study):
        parts = read_parts(study, out, smoke=False)
        if len(parts) > 1:
            raise SpecError(f"{study} has {len(parts)} parts, and predictions are of one; give that part a file of its own")
        part, folder = parts[0]
        count = import_predictions(part, folder, file, name, columns)
        to = make_console()
        print_line(to, f"imported: {name}, {RUN.count(count)} in {folder}")
        print_results(to, create_report(read_report_input(folder)))


def import_predictions(study: StudySpec, folder: Path, file: Path, name: str, columns: Mapping[str, str]) -> int:
    """Adds a file of predictions to a study and writes its runs into `folder`, all of them or none; how many they are.

    columns: our name of a column → the file's. Runs of other candidates stay as they are, also missing. Raises DataError for a
    file that is missing or not of the study's rows and folds, and what `compute_missing_runs` raises.
    """
    from phoropter.core.errors import DataError, RunError
    from phoropter.study.variants.imported_candidates import copy_import, drop_copy, name_copy, note_import
    from phoropter.study.worker import ComputeOptions, compute_missing_runs

    if not file.is_file():
        raise DataError(f"{file}: this file is missing: check the path")
    with_it, copy = copy_import(study, folder, file, name, columns), name_copy(file)
    try:
        store = compute_missing_runs(with_it, folder, lambda event: None, ComputeOptions("cpu", only=(name,)))
        failed = [note["error"] for note in store.read_failures().values() if note["candidate"] == name]
        if failed:
            raise RunError(f"{file.name} was not imported: {failed[0]}")
        note_import(folder, file, name, columns)
    except DataError as error:
        raise DataError(str(error).replace(copy, file.name)) from None  # the user knows the file by its own name
    finally:
        drop_copy(folder, copy)  # of a file that was refused nothing stays
    return sum(run.candidate_name == name for run in store.runs())


def _split_pair(pair: str) -> tuple[str, str]:
    ours, equals, theirs = pair.partition("=")
    if not equals or not ours or not theirs:
        raise click.BadParameter(f"'{pair}' is not OURS=THEIRS, as in id=filename", param_hint="--columns")
    return ours, theirs
