"""``lbproc run``: reads the configuration and becomes the supervisor.

Owns the options and nothing that happens after: the supervisor's exit status is the command's.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from lbproc import supervisor
from lbproc.cli.options import config_option
from lbproc.config.load import find_config, load_config


@click.command()
@config_option
@click.option(
    "--workers",
    type=click.IntRange(1, 200),
    metavar="N",
    help="How many worker processes, instead of what the configuration says.",
)
@click.pass_context
def run(ctx: click.Context, config_path: Path | None, workers: int | None) -> None:
    """Balance what a configuration describes, until stopped.

    Runs in the foreground. SIGTERM and Ctrl-C stop it and answer every request that has been received;
    SIGQUIT stops it at once; SIGHUP reloads the configuration; SIGUSR1 reopens the logs.
    """
    path = config_path or find_config(os.environ, Path.cwd())
    config = load_config(path, os.environ)
    ctx.exit(supervisor.run(config, path, workers=workers))
