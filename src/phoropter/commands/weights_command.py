"""`phoropter weights get | list | verify | index`: pretrained weights in one folder, to carry where there is no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phoropter.console import make_console, make_text_table, print_line

if TYPE_CHECKING:
    from phoropter.models.catalog import Architecture
    from phoropter.models.recognition.weight_recognition import ExaminedWeights

_HEADINGS = ("weights", "here", "pretrained on", "licence")
_NOT_STATED = "not stated"


@click.group("weights")
def weights_command() -> None:
    """Pretrained weights in a folder that PHOROPTER_WEIGHTS names: fetch, list and check them."""


@weights_command.command("get")
@click.argument("names", nargs=-1, required=True, metavar="STUDY|NAME…")
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="The folder; what it holds is kept.")
def get_command(names: tuple[str, ...], folder: Path) -> None:
    """Fetch the weights of studies, or of networks by NAME or NAME.TAG, into a folder, each with its digest and licence.

    A mirror of the hub is used where HF_ENDPOINT names one. Stopped downloads go on where they stopped.
    """
    from phoropter.core.files import format_bytes
    from phoropter.models.weights.fetch_folder import WantedWeights, fetch_into_folder

    to, (entries, files) = make_console(), _find_weights(names)
    for entry in entries:
        settings = {
            "architecture": entry.name,
            "num_classes": entry.num_classes,
            "input_size": [3, entry.side, entry.side],
            "mean": list(entry.preprocessing.mean),
            "std": list(entry.preprocessing.std),
            "interpolation": entry.preprocessing.interpolation,
            "crop_pct": entry.preprocessing.crop_pct,
        }
        assert entry.remote is not None
        written, is_new = fetch_into_folder(WantedWeights(entry.tagged_name, entry.tag, entry.remote, settings), folder)
        size, licence = format_bytes(written.bytes), written.licence or "licence not stated"
        print_line(to, f"{'fetched' if is_new else 'there'}: {written.file} ({size}, {licence}, {written.pretraining})")
    for file in files.values():
        print_line(to, f"not fetched: {file}, which the study names by its path, is {'there' if file.exists() else 'missing'}")
    if entries:
        print_line(to, f"use them by PHOROPTER_WEIGHTS={folder.absolute()}")
    elif not files:
        print_line(to, f"nothing to fetch: no network of {', '.join(names)} starts from public weights")


@weights_command.command("list")
@click.argument("names", nargs=-1, metavar="[STUDY|NAME…]")
def list_command(names: tuple[str, ...]) -> None:
    """List weights: whether they are on this machine, what they were pretrained on, their licence. Default: of the folder."""
    from phoropter.core.errors import SpecError
    from phoropter.models.weights.folder_files import read_stated_facts
    from phoropter.models.weights.pretraining_words import describe_pretraining
    from phoropter.models.weights.weight_files import find_cached_weights
    from phoropter.models.weights.weights_folder import VARIABLE, named_folder, read_weights_manifest

    folder = named_folder()
    if not names and not folder:
        raise SpecError(f"{VARIABLE} names no folder; set it, or name a study or networks")
    if not names and folder:
        _list_folder(folder)
        return
    known = read_weights_manifest(folder).weights if folder else {}
    table, (entries, files) = make_text_table(_HEADINGS), _find_weights(names)
    for entry in entries:
        name = entry.tagged_name
        here = find_cached_weights(entry.remote) if entry.remote else None
        place = "no" if here is None else "folder" if folder and here.is_relative_to(folder) else "cache"
        licence = (known[name].licence or _NOT_STATED) if name in known else f"see {_name_origin(entry)}"
        table.add_row(name, place, describe_pretraining(entry.tag), licence)
    for word, file in files.items():
        stated = read_stated_facts(file)
        table.add_row(word, "file" if file.exists() else "no", stated.pretraining, stated.licence or _NOT_STATED)
    make_console(answer=True).print(table)


def _list_folder(folder: Path) -> None:
    """Prints what a folder of weights holds: first what its manifest names, then what somebody put there."""
    from phoropter.models.weights.folder_files import list_unlisted_files, read_stated_facts
    from phoropter.models.weights.weights_folder import read_weights_manifest

    table = make_text_table(_HEADINGS)
    for name, entry in read_weights_manifest(folder).weights.items():
        here = "folder" if (folder / entry.file).is_file() else "no"
        table.add_row(name, here, entry.pretraining, entry.licence or _NOT_STATED)
    unlisted = list_unlisted_files(folder)
    for file in unlisted:
        stated = read_stated_facts(file)
        table.add_row(file.name, "folder", stated.pretraining, stated.licence or _NOT_STATED)
    make_console(answer=True).print(table)
    if unlisted:
        example = f"weights: {unlisted[0].absolute()}"
        print_line(make_console(), f"a file that is not in weights.json may be named by its path, as in {example}")
        print_line(make_console(), f"`phoropter weights verify {folder}` says which network each is of")


@weights_command.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
def verify_command(folder: Path) -> None:
    """Check every file of a FOLDER of weights: listed ones by their digest, others by loading them.

    Exit code 2 where one is missing, changed or damaged.
    """
    from phoropter.core.errors import WeightsError
    from phoropter.models.weights.folder_files import list_unlisted_files
    from phoropter.models.weights.weights_folder import read_weights_manifest, verify_folder

    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder; make one by `phoropter weights get NAME --to {folder}`")
    listed, unlisted = read_weights_manifest(folder).weights, list_unlisted_files(folder)
    if not listed and not unlisted:
        raise WeightsError(f"{folder} holds no weights; `phoropter weights get NAME --to {folder}` fetches some")
    problems, to = verify_folder(folder), make_console(answer=True)
    if listed and not problems:
        print_line(to, f"{folder}: {len(listed)} listed in weights.json, all as recorded")
    found = _examine_files(unlisted)
    for each in found:
        print_line(to, _describe_examined(each))
    if problems:
        raise WeightsError(f"{folder}: {' | '.join(problems)}; `phoropter weights get` fetches again what came from a hub")
    if damaged := [each.file.name for each in found if each.problem]:
        raise WeightsError(f"{folder}: {', '.join(damaged)} cannot be used as stated; copy the file again, or correct its name")
    if found:
        print_line(to, f"not in weights.json: {len(found)}; `phoropter weights index {folder}` records what they are now")


@weights_command.command("index")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def index_command(folder: Path) -> None:
    """Record the files that were put into a FOLDER by hand in its weights.json, so that `verify` finds later changes."""
    from phoropter.models.weights.folder_files import add_unlisted_files

    to = make_console()
    added = add_unlisted_files(folder)
    for entry in added:
        print_line(to, f"recorded: {entry.file} (SHA-256 {entry.sha256}, {entry.licence or 'licence not stated'})")
    if not added:
        print_line(to, f"{folder}: every file of weights is in weights.json already")


def _examine_files(files: list[Path]) -> list[ExaminedWeights]:
    if not files:  # torch is not loaded for nothing
        return []
    from phoropter.models.recognition.weight_recognition import examine_weights

    return [examine_weights(file) for file in files]


def _describe_examined(found: ExaminedWeights) -> str:
    """A line about a file that no manifest names."""
    if found.problem:
        return f"{found.file.name}: {found.problem}"
    if found.network:
        what = f"loads as {found.network}, {f'{found.classes:,} classes' if found.classes else 'without a last layer'}"
    elif found.fitting:
        rename = f"{found.fitting[0]}.TAG{found.file.suffix}"
        what = f"states no network; its tensors are those of {' and '.join(found.fitting)}: call it {rename}"
    else:
        what = "states no network, and its tensors, as they are named, are those of none"
    stated = ", as its JSON states" if found.as_stated else ""
    return f"{found.file.name}: {what}; SHA-256 {found.sha256}{stated}"


def _name_origin(entry: Architecture) -> str:
    remote = entry.remote
    return "no public weights" if remote is None else f"hf.co/{remote.repo}" if remote.repo else str(remote.url)


def _find_weights(names: tuple[str, ...]) -> tuple[list[Architecture], dict[str, Path]]:
    """The networks of studies and names, each once, and the files that studies name by path: as written → where it lies.

    Raises SpecError for a name that is neither, and for one without weights.
    """
    from phoropter.core.errors import SpecError
    from phoropter.models import catalog
    from phoropter.study.spec import list_shipped_studies, read_study

    found: dict[str, Architecture] = {}
    files: dict[str, Path] = {}
    for name in names:
        if Path(name).suffix in (".yaml", ".yml") or name in list_shipped_studies():
            wanted = []
            for part in read_study(name):
                backbones = [b for c in part.parsed_candidates for b in c.backbones]
                wanted += [catalog.describe_backbone(b) for b in backbones if b.custom is None and b.weights == "pretrained"]
                paths = dict.fromkeys(b.weights_path for b in backbones if b.weights_path)
                files |= {path: (part.context.base or Path()) / Path(path).expanduser() for path in paths}
        else:
            wanted = [catalog.find_architecture(name)]
        for entry in wanted:
            if entry.remote is None:
                raise SpecError(f"{entry.tagged_name} has no public weights; choose a tag of {', '.join(entry.tags) or 'none'}")
            found[entry.tagged_name] = entry
    return list(found.values()), files
