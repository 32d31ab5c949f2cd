"""What commands that steer backends have in common: naming one, asking, waiting, saying what was done.

Owns the notation POOL/BACKEND and the words of the answers. What is done, and what is refused, is decided by
the running lbproc.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from lbproc.cli.client import ask
from lbproc.cli.completion import complete_backend
from lbproc.cli.options import config_option, find_control_socket, socket_option
from lbproc.core.control.messages import SteeringRequest
from lbproc.errors import ControlError
from lbproc.types import Seconds
from lbproc.units import UnitError, parse_duration

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FOREVER: Seconds = 0.0
"""As a timeout: wait as long as it takes."""


class Target(NamedTuple):
    """A backend as it is written on the command line."""

    pool: str
    backend: str


def parse_target(text: str) -> Target:
    """Reads ``POOL/BACKEND``, split at the first slash: a backend's name may hold others, a pool's may not.

    Raises:
        click.BadParameter: it is something else.
    """
    pool, slash, backend = text.partition("/")
    if not (pool and slash and backend):
        raise click.BadParameter(
            f"{text!r} is not POOL/BACKEND; write the pool, a slash, and the backend's name or address, "
            "such as web/10.0.0.1:8000"
        )
    return Target(pool, backend)


def parse_timeout(text: str) -> Seconds:
    """Reads a span such as ``30s``.

    Raises:
        click.BadParameter: it is something else, or no time at all.
    """
    try:
        seconds = parse_duration(text)
    except UnitError as error:
        raise click.BadParameter(f"{text!r} {error}") from None
    if not seconds:
        raise click.BadParameter("0 is no time to wait; leave out --wait")
    return seconds


def target_argument(function: Decorated) -> Decorated:
    """``POOL/BACKEND``, as the argument ``target``."""
    return click.argument(
        "target", type=parse_target, metavar="POOL/BACKEND", shell_complete=complete_backend
    )(function)


def wait_options(function: Decorated) -> Decorated:
    """``--wait`` and ``--timeout``, as the arguments ``wait`` and ``timeout``."""
    function = click.option(
        "--timeout",
        type=parse_timeout,
        metavar="DURATION",
        default=None,
        help="With --wait: give up after this time, with exit status 1. Default: wait as long as it takes.",
    )(function)
    return click.option("--wait", is_flag=True, help="Return when it has come true, not at once.")(function)


def connection_options(function: Decorated) -> Decorated:
    """``-c``, ``--socket`` and ``--json``, as ``config_path``, ``socket_path`` and ``as_json``."""
    function = click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")(function)
    return config_option(socket_option(function))


def read_wait(wait: bool, timeout: Seconds | None) -> Seconds:
    """The timeout of a request.

    Raises:
        click.UsageError: there is one, and nothing is waited for.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is how long --wait may take; give --wait, too")
    return FOREVER if timeout is None else timeout


def steer(
    request: SteeringRequest,
    say: Callable[[dict[str, Any]], str],
    *,
    config_path: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Asks the running lbproc, waits for what it says, and prints that.

    Args:
        request: what is to be done.
        say: makes the line for people of the answer.
        config_path: names the socket.
        socket_path: the socket.
        as_json: print the answer itself.

    Raises:
        ControlError: refused, or not true in time, or nobody is there.
    """
    path = find_control_socket(socket_path, config_path, os.environ, Path.cwd())
    progress = ProgressLine(is_shown=not as_json and sys.stdout.isatty())
    try:
        body = ask(path, request, on_progress=progress.show)
    finally:
        progress.clear()
    if "pool" not in body:  # the last word to everybody who still waits
        raise ControlError("lbproc was stopped meanwhile")
    if as_json:
        click.echo(json.dumps(body, indent=2))
        return
    click.echo(say(body))
    for warning in body["warnings"]:
        click.echo(f"warning: {warning}", err=True)


class ProgressLine:
    """One line on a terminal that says how far a wait is, and is gone at its end.

    Args:
        is_shown: there is a terminal, and a person looks.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._width = 0

    def show(self, standing: dict[str, Any]) -> None:
        """Says how it stands now."""
        if self._is_shown:
            text = render_progress(standing)
            click.echo(f"\r{text.ljust(self._width)}", nl=False)
            self._width = len(text)

    def clear(self) -> None:
        """Takes the line away."""
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", nl=False)
            self._width = 0


def render_progress(standing: dict[str, Any]) -> str:
    """What is waited for."""
    if standing.get("late_workers"):
        return f"waiting for {standing['late_workers']} worker(s) to take notice"
    if standing.get("health"):
        return f"{standing['health']}, not taking requests yet"
    return f"{standing['in_flight']} in flight"


def title(body: dict[str, Any]) -> str:
    """The backend of an answer."""
    return f"{body['pool']}/{body['backend']}"
