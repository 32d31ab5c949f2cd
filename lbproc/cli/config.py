"""The commands about configurations: ``check``, ``config ...`` and ``init``.

Own what they print. Judge nothing themselves: that is the configuration's own.
None of them but ``config diff`` talks to a running lbproc.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from lbproc.cli.options import config_option, find_control_socket, socket_option
from lbproc.cli.reload import ask_to_reload
from lbproc.cli.warning import print_warnings
from lbproc.config.diff import diff
from lbproc.config.load import FILE_NAME, check_config, find_config, load_config
from lbproc.config.problem import Problem, UnusableConfigError
from lbproc.config.reference import render_markdown, render_text
from lbproc.config.schema import render_schema
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
    is any. Warnings, such as of a certificate that expires soon, leave it at 0.
    """
    try:
        path = _path(config_path)
        checked = check_config(path, os.environ)
    except UnusableConfigError as error:
        if not as_json:
            raise
        problems = [_as_json(problem) for problem in error.found]
        click.echo(json.dumps({"ok": False, "problems": problems, "warnings": []}))
        context.exit(UNUSABLE)
    config = checked.config
    backends = sum(len(pool.backends) for pool in config.pools.values())
    if as_json:
        totals = {"listeners": len(config.listeners), "pools": len(config.pools), "backends": backends}
        warnings = [_as_json(warning) for warning in checked.warnings]
        click.echo(
            json.dumps({"ok": True, "file": str(path), **totals, "problems": [], "warnings": warnings})
        )
    else:
        print_warnings(checked.warnings)
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


@config.command("diff")
@config_option
@socket_option
@click.option(
    "--with",
    "other",
    default="running",
    metavar="OLD",
    help="What to compare with: a file, a directory, or the running lbproc (the default).",
)
@_json_option
def show_diff(config_path: Path | None, socket_path: Path | None, other: str, *, as_json: bool) -> None:
    """Prints what a configuration would change. Nothing is changed.

    What only a restart can change is marked. Of the running lbproc it is a refusal, as it would be of
    `lbproc reload`.
    """
    path = _path(config_path)
    if other == "running":
        socket = socket_path or find_control_socket(None, path, os.environ, Path.cwd())
        body = ask_to_reload(socket, path, dry_run=True)
        lines, marked = body["changes"], []
    else:
        changes = diff(load_config(Path(other), os.environ), load_config(path, os.environ))
        lines = [str(change) for change in changes]
        marked = [str(change) for change in changes if change.is_fixed]
    if as_json:
        click.echo(json.dumps({"changes": lines, "needs_restart": marked}, indent=2))
        return
    for line in lines:
        click.echo(f"{line} (needs a restart)" if line in marked else line)
    if not lines:
        click.echo("no difference")


@config.command()
def schema() -> None:
    """Prints the JSON Schema of configurations, for editors that complete and check while one types."""
    click.echo(json.dumps(render_schema(), indent=2))


@config.command()
@click.option("--markdown", is_flag=True, help="Print Markdown instead.")
def reference(*, markdown: bool) -> None:
    """Prints every key of this version with its default and its meaning."""
    click.echo(render_markdown() if markdown else render_text(), nl=False)


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
