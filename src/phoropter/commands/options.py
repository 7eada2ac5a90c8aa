"""Options that several commands share, and what they do with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from phoropter.commands.json_shapes import JsonDocument

trust_option = click.option("--trust-code", is_flag=True, help="Import what is named module:NAME. Only for files you have read.")
device_option = click.option("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto.")
out_option = click.option("-o", "--out", type=click.Path(path_type=Path), help="Results folder (default: runs/NAME).")
smoke_option = click.option(
    "--smoke", is_flag=True, help="A small version of the study, of about ten minutes, to test that it runs."
)
add_option = click.option("--add", is_flag=True, help="Write into a results folder that holds another study; its runs stay.")
jobs_option = click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, help="Processes that compute runs at once.")
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the study, as in recipe.epochs=3. Repeatable."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document and nothing else (docs/json.md).")


def write_document(document: JsonDocument) -> None:
    """Writes a document to standard output, in lines that a reader can follow."""
    click.echo(document.model_dump_json(indent=1))
