"""``lbproc backends add`` and ``lbproc backends remove``: backends that come and go while lbproc runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lbproc.cli.completion import complete_backend, complete_pool
from lbproc.cli.steering import connection_options, parse_target, read_wait, steer, title, wait_options
from lbproc.core.control.messages import BackendAddRequest, BackendRemoveRequest
from lbproc.types import Seconds


@click.group()
def backends() -> None:
    """Add and remove backends of the running lbproc."""


@backends.command()
@click.argument("pool", shell_complete=complete_pool)
@click.argument("address")
@click.option("--weight", type=int, metavar="N", help="Its share of the traffic. Default: 1.")
@click.option("--name", metavar="NAME", help="Its name in logs and commands. Default: its address.")
@click.option("--max-connections", type=int, metavar="N", help="The most requests in flight to it.")
@click.option("--backup", is_flag=True, help="Used only while no other backend is left.")
@connection_options
def add(
    pool: str,
    address: str,
    weight: int | None,
    name: str | None,
    max_connections: int | None,
    backup: bool,
    config_path: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Add a backend to a pool.

    ADDRESS is host:port, [IPv6]:port or unix:PATH. The backend stays, also over reloads, until it is removed,
    or until the configuration has it: then it is the configuration's. One of the configuration that was
    removed is taken back.
    """
    given: dict[str, object] = {"address": _absolute(address)}
    given |= {"weight": weight} if weight is not None else {}
    given |= {"name": name} if name is not None else {}
    given |= {"max_connections": max_connections} if max_connections is not None else {}
    given |= {"backup": True} if backup else {}
    request = BackendAddRequest(pool, given)
    steer(request, _say_added, config_path=config_path, socket_path=socket_path, as_json=as_json)


@backends.command()
@click.argument(
    "target",
    metavar="POOL/BACKEND",
    nargs=-1,
    required=True,
    shell_complete=complete_backend,
)
@wait_options
@connection_options
def remove(
    target: tuple[str, ...],
    wait: bool,
    timeout: Seconds | None,
    config_path: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Remove a backend from its pool; requests in flight finish.

    A backend of the configuration stays removed, also over reloads, until it is added again or the
    configuration no longer has it. With --wait it returns when nothing is in flight to it any more.
    """
    match target:
        case (one,):
            pool, backend = parse_target(one)
        case (pool, address):
            backend = _absolute(address)
        case _:
            raise click.UsageError("name one backend: POOL/BACKEND, or POOL and ADDRESS")
    request = BackendRemoveRequest(pool, backend, wait, read_wait(wait, timeout))
    steer(request, _say_removed, config_path=config_path, socket_path=socket_path, as_json=as_json)


def _absolute(address: str) -> str:
    """The path of a Unix socket counts from here, where the person is, and not from where lbproc runs."""
    if not address.startswith("unix:"):
        return address
    return f"unix:{Path.cwd() / address.removeprefix('unix:')}"


def _say_added(body: dict[str, Any]) -> str:
    at = "" if body["backend"] == body["address"] else f" ({body['address']})"
    return f"{title(body)}{at}: added, weight {body['weight']}"


def _say_removed(body: dict[str, Any]) -> str:
    return f"{title(body)}: removed, {body['in_flight']} in flight"
