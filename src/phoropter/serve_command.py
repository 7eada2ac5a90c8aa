"""The command `serve`. cli.py adds it to the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from phoropter.commands.options import device_option, trust_option
from phoropter.core.errors import MissingExtraError, SpecError
from phoropter.study_parts import trust_results_if


@dataclass(frozen=True)
class _Flags:
    """The options of the command."""

    port: int
    host: str
    public_names: tuple[str, ...]
    token: str | None
    token_file: Path | None
    log_names: bool
    limits: tuple[str, ...]
    device: str
    trust_code: bool


@click.command("serve")
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8360, help="0: any free one (default: 8360).")
@click.option("--host", default="127.0.0.1", help="Address to bind to (default: this machine alone); others need a token.")
@click.option("--public-name", "public_names", multiple=True, help="Another host name it is reached by, as behind a proxy.")
@click.option("--token", help="That requests must bring; visible in the list of processes, which --token-file is not.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file that holds the token.")
@click.option("--log-names", is_flag=True, help="Log the names of files too.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=NUMBER", help="A limit of requests, as in body_mib=8.")
@device_option
@trust_option
def serve_command(bundles: tuple[Path, ...], **flags: Any) -> None:
    """Serve BUNDLES on this machine: a page that predicts and explains pictures or recordings, and the same over HTTP.

    Several bundles stand side by side. Nothing that is uploaded is kept.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), "deploy", "serving a bundle") from None
    from phoropter.deploy.serve.limits import parse_limits
    from phoropter.deploy.serve.server import ServeAddress, make_rules, serve_bundles

    given = _Flags(**flags)
    address = ServeAddress(given.host, given.port, given.public_names)
    rules = make_rules(address, _read_token(given.token, given.token_file), given.log_names)
    limits = parse_limits(given.limits)
    with trust_results_if(given.trust_code, *bundles):
        serve_bundles(bundles, address, rules, limits=limits, device=given.device, say=lambda line: click.echo(line, err=True))


def _read_token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise SpecError("--token and --token-file are two tokens; give one")
    if file is None:
        return token
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--token-file {file} cannot be read ({getattr(error, 'strerror', error)}); give a text file") from None
