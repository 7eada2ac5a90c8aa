"""`phoropter weights get | list | verify`: pretrained weights in one folder, to carry where there is no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phoropter.console import make_console, make_text_table, print_line

if TYPE_CHECKING:
    from phoropter.models.catalog import Architecture


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

    to = make_console()
    for entry in _find_entries(names):
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
    print_line(to, f"use them by PHOROPTER_WEIGHTS={folder.absolute()}")


@weights_command.command("list")
@click.argument("names", nargs=-1, metavar="[STUDY|NAME…]")
def list_command(names: tuple[str, ...]) -> None:
    """List weights: whether they are on this machine, what they were pretrained on, their licence. Default: of the folder."""
    from phoropter.core.errors import SpecError
    from phoropter.models.catalog import find_architecture
    from phoropter.models.weights.pretraining_words import describe_pretraining
    from phoropter.models.weights.weight_files import find_cached_weights
    from phoropter.models.weights.weights_folder import VARIABLE, named_folder, read_weights_manifest

    folder = named_folder()
    known = read_weights_manifest(folder).weights if folder else {}
    if not names and not folder:
        raise SpecError(f"{VARIABLE} names no folder; set it, or name a study or networks")
    entries = _find_entries(names) if names else [find_architecture(name) for name in known]
    table = make_text_table(("weights", "here", "pretrained on", "licence"))
    for entry in entries:
        name = entry.tagged_name
        here = find_cached_weights(entry.remote) if entry.remote else None
        place = "no" if here is None else "folder" if folder and here.is_relative_to(folder) else "cache"
        licence = (known[name].licence or "not stated") if name in known else f"see {_name_origin(entry)}"
        table.add_row(name, place, describe_pretraining(entry.tag), licence)
    unlisted = _find_unlisted(folder, {e.file for e in known.values()}) if folder and not names else []
    for file in unlisted:
        table.add_row(file.name, "folder", "not stated", "not stated")
    make_console(answer=True).print(table)
    if unlisted:
        example = f"weights: {unlisted[0].absolute()}"
        print_line(make_console(), f"a file that is not in weights.json may be named by its path, as in {example}")


@weights_command.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
def verify_command(folder: Path) -> None:
    """Check every file of a FOLDER of weights against its digest. Exit code 2 where one is missing or changed."""
    from phoropter.core.errors import WeightsError
    from phoropter.models.weights.weights_folder import read_weights_manifest, verify_folder

    if problems := verify_folder(folder):
        raise WeightsError(f"{folder}: {' | '.join(problems)}; `phoropter weights get` fetches them again")
    print_line(make_console(), f"{folder}: {len(read_weights_manifest(folder).weights)} weights, all as they were downloaded")


def _find_unlisted(folder: Path, listed: set[str]) -> list[Path]:
    """Files of weights in the folder that its manifest does not name: put there by hand, and no less usable."""
    return [file for file in sorted(folder.glob("*.safetensors")) if file.name not in listed]


def _name_origin(entry: Architecture) -> str:
    remote = entry.remote
    return "no public weights" if remote is None else f"hf.co/{remote.repo}" if remote.repo else str(remote.url)


def _find_entries(names: tuple[str, ...]) -> list[Architecture]:
    """The networks of studies and names, each once. Raises SpecError for a name that is neither, and for one without weights."""
    from phoropter.core.errors import SpecError
    from phoropter.models import catalog
    from phoropter.study.spec import list_shipped_studies, read_study

    found: dict[str, Architecture] = {}
    for name in names:
        if Path(name).suffix in (".yaml", ".yml") or name in list_shipped_studies():
            backbones = [b for part in read_study(name) for c in part.parsed_candidates for b in c.backbones]
            wanted = [catalog.describe_backbone(b) for b in backbones if b.custom is None and b.weights == "pretrained"]
        else:
            wanted = [catalog.find_architecture(name)]
        for entry in wanted:
            if entry.remote is None:
                raise SpecError(f"{entry.tagged_name} has no public weights; choose a tag of {', '.join(entry.tags) or 'none'}")
            found[entry.tagged_name] = entry
    return list(found.values())
