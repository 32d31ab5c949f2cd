"""``lbproc completion SHELL``: what a shell has to read to complete lbproc's commands, options and names.

The script comes from click: at each press of the tab key it calls lbproc itself. Owns which names of the
running lbproc are offered besides, and that asking for them never costs more than a moment: without an answer
nothing is offered.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from lbproc.cli.client import ask
from lbproc.cli.options import find_control_socket
from lbproc.core.control.messages import StatusRequest
from lbproc.errors import LbprocError
from lbproc.types import Seconds

VARIABLE = "_LBPROC_COMPLETE"
"""What click looks for in the environment of a program of this name."""

PATIENCE: Seconds = 0.5


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Prints what makes a shell complete lbproc commands.

    \b
    bash: eval "$(lbproc completion bash)"     in ~/.bashrc
    zsh:  eval "$(lbproc completion zsh)"      in ~/.zshrc
    fish: lbproc completion fish > ~/.config/fish/completions/lbproc.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    script = kind(root, {}, "lbproc", VARIABLE)
    click.echo(script.source_template % script.source_vars())


def complete_pool(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The pools of the running lbproc, for an argument ``POOL``."""
    return [
        CompletionItem(name, help=f"{pool['policy']}, {len(pool['backends'])} backends")
        for name, pool in _pools(ctx).items()
        if name.startswith(incomplete)
    ]


def complete_backend(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The backends of the running lbproc, for an argument ``POOL/BACKEND``."""
    return [
        CompletionItem(name, help=f"{backend['health']}, {backend['admin']}")
        for pool_name, pool in _pools(ctx).items()
        for backend in pool["backends"]
        if (name := f"{pool_name}/{backend['name']}").startswith(incomplete)
    ]


def _pools(ctx: click.Context) -> dict[str, Any]:
    """The pools as ``lbproc status`` shows them; none when nobody says."""
    given = ctx.params
    try:
        path = find_control_socket(given.get("socket_path"), given.get("config_path"), os.environ, Path.cwd())
        body = ask(path, StatusRequest(), PATIENCE)
    except (LbprocError, click.ClickException, OSError):
        return {}
    pools = body.get("pools")
    return pools if isinstance(pools, dict) else {}
