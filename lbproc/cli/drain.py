"""``lbproc drain``, ``ready`` and ``maintenance``: the admin state of one backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lbproc.cli.steering import (
    Target,
    connection_options,
    read_wait,
    steer,
    target_argument,
    title,
    wait_options,
)
from lbproc.core.control.messages import AdminRequest
from lbproc.types import Seconds


@click.command()
@target_argument
@wait_options
@connection_options
def drain(
    target: Target,
    wait: bool,
    timeout: Seconds | None,
    config_path: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Give a backend no new requests; those in flight finish.

    With --wait it returns when nothing is in flight to the backend any more: then it can be stopped and
    nobody notices. Ctrl-C ends the waiting, not the draining; `lbproc ready` ends that.
    """
    request = AdminRequest(*target, "drain", wait, read_wait(wait, timeout))
    steer(request, say_state, config_path=config_path, socket_path=socket_path, as_json=as_json)


@click.command()
@target_argument
@wait_options
@connection_options
def maintenance(
    target: Target,
    wait: bool,
    timeout: Seconds | None,
    config_path: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Give a backend nothing at all.

    As `lbproc drain`, and no idle connection to it is kept. In a pool with on_down = "cut" the requests and
    tunnels that are under way are cut. With --wait it returns when nothing is in flight any more.
    """
    request = AdminRequest(*target, "maintenance", wait, read_wait(wait, timeout))
    steer(request, say_state, config_path=config_path, socket_path=socket_path, as_json=as_json)


@click.command()
@target_argument
@wait_options
@connection_options
def ready(
    target: Target,
    wait: bool,
    timeout: Seconds | None,
    config_path: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Give a backend requests again, if checks find it up.

    With --wait it returns when the backend takes requests: it is up and not ejected.
    """
    request = AdminRequest(*target, "ready", wait, read_wait(wait, timeout))
    steer(request, say_state, config_path=config_path, socket_path=socket_path, as_json=as_json)


def say_state(body: dict[str, Any]) -> str:
    """The answer in one line."""
    state = body["admin"] if body["admin"] != body["was"] else f"{body['admin']}, as before"
    return f"{title(body)}: {state}, {body['in_flight']} in flight"
