"""`phoropter init`: a first study of what lies at a path."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phoropter.console import make_console, print_line

if TYPE_CHECKING:
    from rich.console import Console

    from phoropter.starter.first_look import FirstLook
    from phoropter.starter.recordings_list import RecordingsList


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("study.yaml"), help="The file (default: study.yaml).")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Time to compute (default: 1).")
@click.option("--yes", is_flag=True, help="Take guessed groups without asking.")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Of a folder of recordings: a CSV or Parquet table of what is known of each (labels, outcomes, hospital), by its name.",
)
@click.option("--outcome", metavar="RULE", help="Of recordings: classes by an outcome, as in 'pH<=7.15'.")
def init_command(path: Path, out: Path, hours: float, yes: bool, table: Path | None, outcome: str | None) -> None:
    """Write a commented study of the images or recordings at PATH, which runs as it is.

    Groups are guessed from columns and names; on a terminal you are asked whether the guess is right.
    """
    from phoropter.core.errors import SpecError
    from phoropter.core.files import write_text
    from phoropter.data.stores.store_copy import ask_stores_once
    from phoropter.starter.choices import FirstStudy, choose_baseline, choose_candidates, choose_protocol
    from phoropter.starter.study_text import SCHEMA_FILE, describe_estimate, make_study_name, write_study_text

    if math.isnan(hours):
        raise SpecError("--hours is nan, expected a number above 0")
    if out.exists():
        raise SpecError(f"{out} is there already; name another file with -o, or remove it")
    if (schema := out.with_name(SCHEMA_FILE)).is_dir():
        raise SpecError(f"{schema} is a folder, expected none or a file: name a file in another folder with -o, or rename it")
    to = make_console()
    with ask_stores_once():  # what lies there is opened to tell its kind, its groups, and the time of a study of it
        look = _settle_groups(_look_at_anything(path, out, to, table, outcome), to, yes)
        protocol = choose_protocol(look.dataset)
        name, baseline = make_study_name(look.dataset.name), choose_baseline(look.dataset)
        candidates = choose_candidates(FirstStudy(name, look.spec, protocol, baseline), hours)
    write_text(out, write_study_text(look, protocol, candidates, out, hours))
    _write_schema(schema, to)
    print_line(to, f"{look.dataset.name}: {len(look.dataset):,} rows of {len(look.dataset.classes)} classes")
    for note in look.dataset.notes:
        print_line(to, f"  {note}")
    print_line(to, f"protocol: {protocol.keys['split']}, because {protocol.reason}")
    print_line(to, f"candidates: {', '.join(each.title for each in candidates.chosen)}: {describe_estimate(candidates, hours)}")
    for sentence in candidates.settled:
        print_line(to, f"  {sentence}")
    for file, why in candidates.unused.items():
        print_line(to, f"not used: {file}: {why}")
    if candidates.missing:
        command = f"phoropter weights get {' '.join(candidates.missing)} --to weights"
        print_line(to, f"not on this machine: {len(candidates.missing)} pretrained networks; {command}")
    print_line(to, f"written: {out}; next: phoropter plan {out}")


def _write_schema(file: Path, to: Console) -> None:
    """The schema of this version beside the study; that of another version would underline keys that are right."""
    from phoropter.commands.study_schema import format_schema
    from phoropter.core.files import write_text

    is_there, text = file.exists(), format_schema()
    if is_there and file.read_bytes() == text.encode():
        return
    write_text(file, text)
    if is_there:
        print_line(to, f"written anew: {file}, which was of another version")


def _look_at_anything(path: Path, out: Path, to: Console, table: Path | None, outcome: str | None) -> FirstLook:
    """What lies at a path. Of a folder of recordings without a manifest, one is written beside the study and opened."""
    from phoropter.core.errors import DataError, SpecError
    from phoropter.signals.outcomes import OUTCOME_CLASSES, list_outcome_keys
    from phoropter.starter.first_look import look_at_path
    from phoropter.starter.recordings_list import write_recordings_list

    if outcome is not None:
        list_outcome_keys(outcome)  # a malformed rule is refused before anything is read
    more = {} if outcome is None else {"outcome": outcome, "positive": OUTCOME_CLASSES[1]}
    if table is None:
        try:
            return look_at_path(path, more)
        except (DataError, SpecError):  # of recordings it says below what to do
            written = write_recordings_list(path, out) if path.is_dir() else None
            if written is None:
                raise
    else:
        written = write_recordings_list(path, out, table, outcome) if path.is_dir() else None
        if written is None:
            raise SpecError(f"--table goes with a folder of recordings; {path} is none")
    _print_written(written, to)
    if written.told_by is None:
        raise SpecError(
            f"what the {written.count} recordings show is not told by names: fill in the column `label` of {written.file} "
            f"(docs/recordings.md has others), then phoropter init {written.file} -o {out}; or remove it and name a table of "
            f"labels or outcomes: phoropter init {path} --table FILE -o {out}"
        )
    if written.no_rate:
        raise SpecError(
            f"the rate of the tables is not told by their times ({written.no_rate}): fill in the column `rate_hz` of "
            f"{written.file}, in Hz, then phoropter init {written.file} -o {out}"
        )
    return look_at_path(written.file, more)


def _print_written(written: RecordingsList, to: Console) -> None:
    """What the manifest says, and where it comes from."""
    told = f"labels by {written.told_by}" if written.told_by else "no labels"
    people = f"{written.people} people by {written.people_by}" if written.people else "each of a person of its own"
    print_line(to, f"written: {written.file}, a manifest of {written.count} recordings ({people}, {told}); correct what is wrong")
    for names, words in (
        (written.left_out, "left out: {} recordings that the table does not have"),
        (written.unused, "not used: {} lines of the table, of which there is no recording"),
        (written.passed_over, "not used: {} tables that are empty or have no column of times"),
    ):
        if names:
            print_line(to, f"{words.format(len(names))} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})")


def _is_terminal() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()


def _settle_groups(look: FirstLook, to: Console, yes: bool) -> FirstLook:
    """With the guessed groups where they are taken: on a terminal when the answer is yes, elsewhere always, and said so."""
    guess = look.guess
    if guess is None:
        return look
    print_line(to, f"{guess.count} groups by {guess.words}, for example:")
    for name, group in guess.examples:
        print_line(to, f"  {name} → {group}")
    if not yes and _is_terminal() and not click.confirm("Do rows of one group belong together (one person, one slide)?"):
        return look
    return look.with_guess()
