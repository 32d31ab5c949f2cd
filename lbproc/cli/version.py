"""``lbproc version``."""

from __future__ import annotations

import json
import platform

import click

from lbproc import __version__


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")
def version(as_json: bool) -> None:
    """Print the version of lbproc (with --json, of Python too)."""
    if as_json:
        click.echo(json.dumps({"version": __version__, "python": platform.python_version()}, indent=2))
    else:
        click.echo(f"lbproc {__version__}")
