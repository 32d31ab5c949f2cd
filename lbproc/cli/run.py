"""``lbproc run``: reads the configuration and becomes the supervisor.

Owns the options and nothing that happens after: the supervisor's exit status is the command's.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from lbproc import supervisor
from lbproc.cli.options import config_option
from lbproc.cli.warning import print_warnings
from lbproc.config.load import check_config, find_config


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
    checked = check_config(path, os.environ)
    if checked.config.log.error != "stderr":  # they are logged, and need not be there twice
        print_warnings(checked.warnings)
    ctx.exit(supervisor.run(checked.config, path, workers=workers, warnings=checked.warnings))
