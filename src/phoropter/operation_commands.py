"""`phoropter retry`, `submit`, `verify`, `gc`, `merge`, `cancel` and `pack`: what one does with results folders."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phoropter.commands.options import LocalFolder, StudyName, add_option, out_option, places_options, set_option, trust_option
from phoropter.console import make_console, make_warning_console, print_line
from phoropter.core.language.unit_words import RUN
from phoropter.study_parts import HowToRun, describe_other_study, read_parts, run_and_report, trust_if

if TYPE_CHECKING:
    from phoropter.study.spec import StudySpec

CANCEL_WAIT_S = 30.0  # how long `cancel` waits for the commands to leave; they save a checkpoint first
MAX_LISTED = 20


@click.command("retry")
@click.argument("study", type=StudyName())
@out_option
@places_options
@trust_option
def retry_command(study: str, out: Path | None, how: HowToRun, trust_code: bool) -> None:
    """Compute the failed and damaged runs of STUDY again, and what they need; missing runs stay missing.

    `phoropter run` does the same and goes on with the missing runs. Exit codes: as those of run.
    """
    from phoropter.core.errors import SpecError, StoreError, join_words
    from phoropter.results.store import Store

    failed = 0
    with trust_if(trust_code, study):
        named = read_parts(study, out, smoke=False)
        begun = [(part, folder) for part, folder in named if (folder / "study.json").exists()] or named[:1]
        parts = [(part, folder, frozenset(Store(folder).read_failures())) for part, folder in begun]
        if not any(keys for _, _, keys in parts):
            folders = join_words([str(folder) for _, folder, _ in parts])
            raise StoreError(f"no run in {folders} has failed; phoropter run computes the missing ones")
        for part, folder, keys in parts:
            if keys and part.screening is not None:
                raise SpecError(f"{part.name}: what is screened follows from all runs: use phoropter run, which retries them too")
            failed += run_and_report(part, folder, replace(how, keys=keys)) if keys else 0
    if failed:
        sys.exit(1)


@click.command("submit")
@click.argument("study", type=StudyName())
@out_option
@set_option
@add_option
@trust_option
@click.option("--executor", type=click.Choice(["slurm", "local"]), default="slurm", help="local: processes of this machine.")
@click.option("--workers", type=click.IntRange(1, 10_000), default=1, help="Jobs that share the runs.")
@click.option("--minutes", type=click.IntRange(5), default=24 * 60, help="Of each job; it is queued again at the end.")
@click.option("--cpus", type=click.IntRange(1), default=1, help="Of each job.")
@click.option("--gpus", type=click.IntRange(0), default=0, help="Of each job.")
@click.option("--partition", help="Of SLURM (default: its own default).")
def submit_command(
    study: str, out: Path | None, settings: tuple[str, ...], add: bool, trust_code: bool, executor: str, **share: Any
) -> None:
    """Submit jobs that run STUDY together in one results folder, which all machines must see.

    Their logs are in jobs/ of the results folder; `phoropter status` shows how far they are, and `phoropter cancel` stops them.
    """
    from phoropter.core.errors import SpecError
    from phoropter.operations.slurm_jobs import JobShare, submit_study
    from phoropter.results.remote_store import find_remote

    with trust_if(trust_code, study):
        parts = read_parts(study, out, smoke=False, settings=settings)  # refused here, and not by every job
        for part, part_folder in () if add else parts:
            _raise_on_other_study(part, part_folder)
    folder = parts[0][1].parent if len(parts) > 1 else parts[0][1]
    if find_remote(folder) is not None:
        raise SpecError(
            "the logs of jobs are kept in the results folder, so -o must be a folder that all machines see, not s3://"
        )
    words = ["run", study, "-o", str(folder.resolve()), *(word for setting in settings for word in ("--set", setting))]
    words += [*(["--add"] if add else []), *(["--trust-code"] if trust_code else [])]
    names = submit_study(words, folder, JobShare(**share), executor)
    print_line(make_console(), f"submitted: {', '.join(names)}; logs in {folder / 'jobs'}")


def _raise_on_other_study(part: StudySpec, folder: Path) -> None:
    """Raises StoreError where `run` would refuse the folder, because another study is in it. Only then the data are opened."""
    from phoropter.core.files import cache_dir
    from phoropter.results.store import Store
    from phoropter.study import screening
    from phoropter.study.plan import plan_study
    from phoropter.study.variants.imported_candidates import add_imported

    if not (folder / "study.json").exists():
        return
    store, cache = Store(folder), cache_dir(folder)
    planned = plan_study(screening.resolve_rungs(add_imported(part, folder), store, cache), cache)
    if (error := describe_other_study(store, planned)) is not None:
        raise error


@click.command("verify")
@click.argument("folder", type=LocalFolder())
def verify_results_command(folder: Path) -> None:
    """Compare the checksums of all that FOLDER holds: runs, bundles, checkpoints, and the cache beside it.

    FOLDER is a results folder, a folder of several, a bundle or a cache. Nothing is changed: `phoropter run` makes again what
    is damaged. Exit codes: 0 everything is as it was written; 1 something is damaged.
    """
    from collections import Counter

    from phoropter.operations.verify import verify_results

    to, counts, damaged = make_console(), Counter[str](), 0
    for item in verify_results(folder):
        counts[item.kind] += 1
        if item.damage is not None:
            damaged += 1
            print_line(make_warning_console(), f"damaged: {item.kind} {item.path}: {item.damage}")
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print_line(to, f"{folder}: {damaged} of {counts.total()} damaged ({listed})")
    if damaged:
        sys.exit(1)


@click.command("gc")
@click.argument("folder", type=LocalFolder())
@click.option("--cache", "with_cache", is_flag=True, help="Also the cache, once every study beside it is finished.")
@click.option("--delete", is_flag=True, help="Delete what is listed; without it, nothing is changed.")
def gc_command(folder: Path, with_cache: bool, delete: bool) -> None:
    """List what nothing needs in a results FOLDER, and with --delete free its room. Finished runs always stay."""
    from phoropter.core.files import format_bytes
    from phoropter.operations.free_space import delete_unneeded, find_unneeded

    to, items = make_console(), find_unneeded(folder, with_cache)
    for item in sorted(items, key=lambda item: -item.size)[:MAX_LISTED]:
        print_line(to, f"{format_bytes(item.size):>10}  {item.path}: {item.why}")
    if len(items) > MAX_LISTED:
        print_line(to, f"… and {len(items) - MAX_LISTED} more")
    if not items:
        print_line(to, f"{folder}: nothing to free")
    elif delete:
        print_line(to, f"{folder}: {format_bytes(delete_unneeded(folder, items))} freed")
    else:
        print_line(to, f"{folder}: {format_bytes(sum(i.size for i in items))} can be freed: the same command with --delete")


@click.command("merge")
@click.argument("target", type=LocalFolder())
@click.argument("sources", type=LocalFolder(), nargs=-1, required=True)
def merge_command(target: Path, sources: tuple[Path, ...]) -> None:
    """Copy the finished runs of the results folders SOURCES into TARGET, a results folder of the same study.

    Exit codes: 0 done; 1 a run is damaged in its source, or has other predictions there than in TARGET, whose own stay.
    """
    from phoropter.operations.merge import merge_results

    to, wrong = make_console(), 0
    for source in sources:
        done = merge_results(target, source)
        words = {
            "are there already": done.same,
            "are not in its plan": done.unplanned,
            "are computed by another process": done.busy,
        }
        rest = "".join(f"; {len(keys)} {what}" for what, keys in words.items() if keys)
        print_line(to, f"{source}: {RUN.count(len(done.taken))} copied to {target}{rest}")
        for key in done.damaged:
            print_line(make_warning_console(), f"damaged: {source}/runs/{key} was not copied; verify {source} says what is wrong")
        for key in done.other:
            print_line(make_warning_console(), f"other predictions: runs/{key} differs; that of {target} stays")
        wrong += len(done.damaged) + len(done.other)
    print_line(to, f"next: phoropter status {target}, and phoropter report {target}")
    if wrong:
        sys.exit(1)


@click.command("cancel")
@click.argument("folder", type=LocalFolder())
def cancel_command(folder: Path) -> None:
    """Stop every command that computes in a results FOLDER, on this machine or another that sees the folder.

    Each saves a checkpoint and leaves as after SIGTERM, with exit code 143; its own command goes on from there.
    Exit codes: 0 all have stopped; 1 one has not within half a minute.
    """
    from phoropter.core.errors import StoreError
    from phoropter.results.running_commands import list_running_commands, request_stop

    asked = list_running_commands(folder)
    if not asked:
        raise StoreError(f"nothing computes in {folder}: name the results folder of a command that runs")
    request_stop(folder)
    deadline = time.monotonic() + CANCEL_WAIT_S
    while (left := [name for name in list_running_commands(folder) if name in asked]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for name in asked:
        print_line(make_console(), f"{folder}: {name} {'has not stopped yet' if name in left else 'stopped'}")
    if left:
        sys.exit(1)


@click.command("pack")
@click.argument("study", type=StudyName())
@click.option("-o", "--out", type=LocalFolder(), required=True, help="A new folder.")
@click.option("--shard-mib", type=click.IntRange(1, 1 << 20), default=256, help="Pictures in a file, in MiB (default: 256).")
@trust_option
def pack_command(study: str, out: Path, shard_mib: int, trust_code: bool) -> None:
    """Write the data of STUDY as Parquet files with encoded pictures, labels, groups and sites: `data: {parquet: OUT}`."""
    from phoropter.core.errors import SpecError
    from phoropter.data.spec import open_dataset
    from phoropter.operations.pack import pack_dataset

    with trust_if(trust_code, study):
        parts = read_parts(study, None, smoke=False)
        if len({part.data.model_dump_json() for part, _ in parts}) > 1:
            raise SpecError(f"{study} has {len(parts)} parts with data of their own; give the one to pack a file of its own")
        part = parts[0][0]
        if part.data.control:
            raise SpecError(
                f"data.control: {part.data.control} makes other data of these, and pack writes them as they are: remove it"
            )
        dataset = open_dataset(part.data, part.base)
        packed = pack_dataset(dataset, out, shard_bytes=shard_mib << 20, on_bad_input=part.data.on_bad_input)
    for problem in packed.problems:
        print_line(make_warning_console(), f"left out: {problem}")
    several = ", multi_label: true" if dataset.is_multi_label else ""
    print_line(
        make_console(),
        f"written: {out} ({packed.rows:,} pictures in {packed.shards} file{'s' * (packed.shards != 1)}); read it by "
        f"data: {{parquet: {out}{several}}}",
    )
