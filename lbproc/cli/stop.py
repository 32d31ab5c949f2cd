"""``lbproc stop``: asks the running lbproc to stop and waits until it has."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lbproc.cli.client import ask_to_stop
from lbproc.cli.options import config_option, find_control_socket, socket_option


@click.command()
@config_option
@socket_option
@click.option("--now", is_flag=True, help="Do not wait for requests in flight: cut them off.")
def stop(config_path: Path | None, socket_path: Path | None, now: bool) -> None:
    """Stop the running lbproc without losing a request.

    New connections are no longer taken, what has been received is answered, then lbproc exits. The command
    returns when it has: at the latest soon after the configuration's drain_timeout. Ctrl-C ends the waiting,
    not the stopping.
    """
    ask_to_stop(find_control_socket(socket_path, config_path, os.environ, Path.cwd()), now=now)
    click.echo("lbproc has stopped")
