"""Options that several commands share, and what they do with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from phoropter.commands.json_shapes import JsonDocument


class ResultsPlace(click.ParamType[Path]):
    """A results folder, or s3://BUCKET/STUDY: then the local folder that mirrors that store, with all runs that it has."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value).startswith("s3:"):  # without NumPy, which the store would load
            return Path(value)
        from phoropter.results.remote_store import open_place

        return open_place(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="dir")]


class LocalFolder(click.ParamType[Path]):
    """A path of this machine; an address of a store is refused, of which a path would be a folder called `s3:`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if str(value).startswith("s3:"):
            from phoropter.core.errors import SpecError

            raise SpecError(
                f"{value} is an address in a store: name a folder of this machine (results of a store have theirs in mirrors/ "
                "of the cache)"
            )
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


out_option = click.option("-o", "--out", type=ResultsPlace(), help="Results folder, or s3://BUCKET/STUDY (default: runs/NAME).")
trust_option = click.option("--trust-code", is_flag=True, help="Import what is named module:NAME. Only for files you have read.")
device_option = click.option("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto.")
smoke_option = click.option(
    "--smoke", is_flag=True, help="A small version of the study, of about ten minutes, to test that it runs."
)
add_option = click.option("--add", is_flag=True, help="Write into a results folder that holds another study; its runs stay.")
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the study, as in recipe.epochs=3. Repeatable."
)
part_option = click.option(
    "--part", "only", multiple=True, metavar="NAME", help="Of a study with several parts only this one. Repeatable."
)
bad_input_option = click.option(
    "--on-bad-input", type=click.Choice(["skip", "stop"]), default="skip", help="What cannot be read (default: skip)."
)
views_option = click.option(
    "--views", type=click.Choice(["none", "flip", "ten-crop"]), help="Averaged views (default: as in its study)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document and nothing else (docs/json.md).")


def places_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where runs are computed; the command gets them as one HowToRun, `how`."""

    @functools.wraps(command)
    def call_command(device: str, jobs: int, **others: Any) -> None:
        from phoropter.study_parts import HowToRun

        places = {name: others.pop(name) for name in ("devices", "per_device", "executor", "address")}
        command(how=HowToRun(device, jobs, places=places), **others)

    options = (
        device_option,
        click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, help="Processes that compute runs at once."),
        click.option("--devices", metavar="LIST", help="A process for each of these GPUs: 0-7, 0,2 or all."),
        click.option("--per-device", type=click.IntRange(1, 16), default=1, help="Processes that share each GPU."),
        click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="Who starts the processes."),
        click.option("--address", help="Of a Ray cluster (default: one of this machine, for the time of the study)."),
    )
    for option in reversed(options):
        call_command = option(call_command)
    return call_command


class StudyName(click.ParamType[str]):
    """A study file or the name of a shipped study, which a shell completes."""

    name = "study"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        folder = Path(__file__).parents[1] / "studies"  # without pydantic, which would cost half a second
        shipped = [file.stem for file in sorted(folder.glob("*.yaml"))]
        named = [CompletionItem(name) for name in shipped if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *named]  # in bash, files are offered where no name fits


class BackboneName(click.ParamType[str]):
    """A network's name, which a shell completes."""

    name = "pattern"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from phoropter.models.catalog import list_architectures

        return [CompletionItem(name) for name in list_architectures(f"{incomplete}*")]


def write_document(document: JsonDocument) -> None:
    """Writes a document to standard output, in lines that a reader can follow."""
    click.echo(document.model_dump_json(indent=1))
