"""``lbproc reload``: puts another configuration in force in the running lbproc, and says what changed.

Owns the layout of the answer, which ``config diff`` prints too. Everything else is the supervisor's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from lbproc.cli.client import ask
from lbproc.cli.options import config_option, find_control_socket, socket_option
from lbproc.cli.warning import print_warnings
from lbproc.core.control.messages import ReloadRequest
from lbproc.types import Seconds

TIMEOUT: Seconds = 120.0
"""Longer than all that a reload waits for together."""


@click.command()
@config_option
@socket_option
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="NEW",
    help="What to load, this time, instead of what lbproc was started with.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")
def reload(
    config_path: Path | None, socket_path: Path | None, file: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Put a changed configuration in force without losing a connection.

    Returns when every process serves by it, and prints what changed. A configuration that cannot be used, or
    that a process refuses, changes nothing: the reason is on standard error, and the exit status is 1.
    """
    socket = find_control_socket(socket_path, config_path, os.environ, Path.cwd())
    body = ask_to_reload(socket, file, dry_run=dry_run)
    if not as_json:
        print_warnings(body.get("warnings", ()))
    click.echo(json.dumps(body, indent=2) if as_json else render_reload(body))


def ask_to_reload(socket: Path, file: Path | None, *, dry_run: bool) -> dict[str, Any]:
    """The answer of the running lbproc.

    Raises:
        ControlError: it refused, or there is none.
    """
    path = "" if file is None else str(Path.cwd() / file)
    return ask(socket, ReloadRequest(path, dry_run), TIMEOUT)


def render_reload(body: dict[str, Any]) -> str:
    """The text form of an answer."""
    config, generation, changes = body["config"], body["generation"], body["changes"]
    match body["outcome"]:
        case "done":
            return "\n".join([f"{config} is in force, generation {generation}", *indented(changes)])
        case "planned" if changes:
            return "\n".join([f"{config} would change:", *indented(changes)])
        case _:
            return f"{config} changes nothing; it is in force, generation {generation}"


def indented(changes: Iterable[str]) -> list[str]:
    """Changes below a headline."""
    return [f"  {change}" for change in changes]
