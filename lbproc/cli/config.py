"""The commands about configurations: ``check``, ``config show`` and ``init``.

Own what they print. Judge nothing themselves: that is the configuration's own.
None of them talks to a running lbproc.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from lbproc.cli.options import config_option
from lbproc.config.load import FILE_NAME, find_config, load_config
from lbproc.config.problem import Problem, UnusableConfigError
from lbproc.config.show import effective, render_config
from lbproc.config.source import shown
from lbproc.config.starter import STARTER
from lbproc.config.wording import count, dotted
from lbproc.errors import LbprocError

UNUSABLE = 2

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.command()
@config_option
@_json_option
@click.pass_context
def check(context: click.Context, config_path: Path | None, *, as_json: bool) -> None:
    """Says all that is wrong with a configuration, or that nothing is.

    Every problem is one line: file, line, key, what is wrong, what would be right. Exit status 2 if there
    is any.
    """
    try:
        path = _path(config_path)
        config = load_config(path, os.environ)
    except UnusableConfigError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"ok": False, "problems": [_as_json(problem) for problem in error.found]}))
        context.exit(UNUSABLE)
    backends = sum(len(pool.backends) for pool in config.pools.values())
    if as_json:
        totals = {"listeners": len(config.listeners), "pools": len(config.pools), "backends": backends}
        click.echo(json.dumps({"ok": True, "file": str(path), **totals, "problems": []}))
    else:
        click.echo(
            f"{shown(path)}: ok, {count(len(config.listeners), 'listener')}, {count(backends, 'backend')}"
        )


@click.group()
def config() -> None:
    """Looks at a configuration as lbproc understands it."""


@config.command()
@config_option
@_json_option
def show(config_path: Path | None, *, as_json: bool) -> None:
    """Prints the effective configuration: what is set, and the defaults of the rest. No secret shows."""
    loaded = load_config(_path(config_path), os.environ)
    click.echo(json.dumps(effective(loaded), indent=2) if as_json else render_config(loaded), nl=as_json)


@click.command()
@click.argument("path", default=FILE_NAME, type=click.Path(path_type=Path))
def init(path: Path) -> None:
    """Writes a configuration to start from, with comments, to PATH (default: lbproc.toml).

    A file that is there already stays as it is.
    """
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(STARTER)
    except FileExistsError:
        raise LbprocError(f"{shown(path)} is there already; name another file, or move it away") from None
    except OSError as error:
        raise LbprocError(f"{shown(path)} cannot be written: {error.strerror}; name another file") from None
    click.echo(f"{shown(path)} written. Next: change its backends, then lbproc check, then lbproc run.")


def _path(named: Path | None) -> Path:
    """The configuration that is named, or the one that is found."""
    return named or find_config(os.environ, Path.cwd())


def _as_json(problem: Problem) -> dict[str, str | int]:
    """A problem for a program: the keys are documented."""
    return {
        "file": problem.file,
        "line": problem.line,
        "key": dotted(problem.key),
        "what": problem.what,
        "remedy": problem.right,
    }
