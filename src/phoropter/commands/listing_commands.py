"""Commands that list what is there: the data at a path, networks, shipped studies, the installation, keys of a study file."""

from __future__ import annotations

from pathlib import Path

import click

from phoropter.commands.options import BackboneName, json_option, part_option, write_document
from phoropter.console import format_large_count, make_console, make_text_table, print_line


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--preview",
    type=click.Path(path_type=Path),
    help="Write a sheet: of recordings windows and their traces, of a study its pictures under each filter and augmentation.",
)
@part_option
@json_option
def inspect_command(path: Path, preview: Path | None, only: tuple[str, ...], as_json: bool) -> None:
    """Describe the images or recordings at PATH, or those of a study: counts per class, group and site, sizes, problems.

    Of a study with several parts, the data of the first one, or of the one that --part names.
    """
    from phoropter.core.errors import SpecError
    from phoropter.data.inspect import detect_data_spec, summarize_dataset
    from phoropter.data.spec import open_dataset
    from phoropter.data.stores.store_copy import ask_stores_once
    from phoropter.data.unit_names import name_units
    from phoropter.study.spec import list_shipped_studies
    from phoropter.study_parts import read_parts

    if preview is not None:
        from phoropter.data.recordings.contact_sheet import check_preview_file

        check_preview_file(preview)  # before anything is read
    is_study = path.suffix in (".yaml", ".yml") or (not path.exists() and str(path) in list_shipped_studies())
    if only and not is_study:
        raise SpecError(f"--part is of a study, and {path} is none; leave it out")
    parts = [part for part, _ in read_parts(str(path), None, False, only=only)] if is_study else []
    with ask_stores_once():
        spec = parts[0].data if parts else detect_data_spec(path)
        dataset = open_dataset(spec, parts[0].base if parts else None)
    summary = summarize_dataset(dataset, words=name_units(spec, dataset))
    if as_json:
        from phoropter.commands.json_documents import make_inspect_document

        write_document(make_inspect_document(spec.source, summary))
    else:
        print_line(make_console(answer=True), str(summary))
    if any(part.data != parts[0].data for part in parts):
        chosen = f"these are the data of {parts[0].name}, the first of {len(parts)} parts; --part NAME chooses another"
        print_line(make_console(stderr=as_json), chosen)
    if preview is not None:
        from phoropter.data.recordings.contact_sheet import write_contact_sheet
        from phoropter.operations.treatment_sheet import write_treatment_sheet

        written = write_treatment_sheet(parts, preview) if parts else write_contact_sheet(dataset, preview)
        print_line(make_console(stderr=as_json), f"preview: {written}")


@click.command("backbones")
@click.argument("pattern", default="*", type=BackboneName())
@json_option
def backbones_command(pattern: str, as_json: bool) -> None:
    """List networks whose name matches PATTERN (like 'resnet*') or contains it: parameters, multiply-adds, input size."""
    from phoropter.core.errors import SpecError, did_you_mean
    from phoropter.models import catalog

    names = catalog.list_architectures(pattern)
    if not names and not set(pattern) & set("*?["):
        names = catalog.list_architectures(f"*{pattern}*")
    if not names:
        raise SpecError(f"no backbone matches '{pattern}'{did_you_mean(pattern.strip('*'), catalog.list_architectures('*'))}")
    if as_json:
        from phoropter.commands.json_documents import make_backbones_document

        write_document(make_backbones_document(names))
        return
    table = make_text_table(("name",), ("parameters", "multiply-adds", "side", "width"))
    for name in names:
        entry = catalog.find_architecture(name)
        numbers = [
            format_large_count(entry.parameters),
            format_large_count(entry.estimate_macs(entry.side)),
            str(entry.side),
            str(entry.num_features or ""),
        ]
        table.add_row(name, *numbers)
    make_console(answer=True).print(table)


@click.command("studies")
@json_option
def studies_command(as_json: bool) -> None:
    """List the studies that come with phoropter."""
    from phoropter.report.render.wording import count_with_noun
    from phoropter.study.spec import list_shipped_studies, read_study

    if as_json:
        from phoropter.commands.json_documents import make_studies_document

        write_document(make_studies_document())
        return
    to = make_console(answer=True)
    for name in list_shipped_studies():
        parts = read_study(name)
        to.print(f"[bold]{name}[/bold]", highlight=False)
        about = parts[0].about
        if about:
            for label, text in (("source", about.source), ("expect", about.expect), ("time", about.time), ("data", about.data)):
                if text:
                    print_line(to, f"    {label}: {text}")
        for part in parts if len(parts) > 1 else ():
            print_line(to, f"    part {part.name}: {count_with_noun(len(part.parsed_candidates), 'candidate')}")


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Check this installation: versions, devices, caches, torchvision's operators."""
    from phoropter.commands.json_documents import make_doctor_document
    from phoropter.models import timm_compat
    from phoropter.training.loop.devices import list_devices

    document = make_doctor_document(timm_compat.describe_installation(), list_devices())
    if as_json:
        write_document(document)
        return
    to = make_console(answer=True)
    facts = {**document.versions, **document.notes, "devices": ", ".join(document.devices), "cores": str(document.cores)}
    facts |= {"cache": document.cache, "weights folder": document.weights_folder or "none (PHOROPTER_WEIGHTS is not set)"}
    for name, value in facts.items():
        print_line(to, f"{name}: {value}")


@click.command("schema")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file (default: standard output).")
def schema_command(out: Path | None) -> None:
    """Write the JSON Schema of study files, by which an editor completes keys and explains them."""
    from phoropter.commands.study_schema import format_schema
    from phoropter.core.files import write_text

    text = format_schema()
    if out is None:
        click.echo(text, nl=False)
        return
    write_text(out, text)
    print_line(make_console(), f"written: {out}; a study file begins with the line: # yaml-language-server: $schema={out}")
