"""``lbproc status``: what the running lbproc says of its workers and backends, as tables or as JSON.

Owns the layout of the text. The values come from the supervisor; the JSON is passed on as it came, with the
keys that docs/status.md lists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from lbproc.cli.client import ask
from lbproc.cli.options import config_option, find_control_socket, socket_option
from lbproc.core.control.messages import StatusRequest

SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


@click.command()
@config_option
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")
def status(config_path: Path | None, socket_path: Path | None, as_json: bool) -> None:
    """Show the workers and backends of the running lbproc."""
    path = find_control_socket(socket_path, config_path, os.environ, Path.cwd())
    body = ask(path, StatusRequest())
    click.echo(json.dumps(body, indent=2) if as_json else render_status(body))


def render_status(body: dict[str, Any]) -> str:
    """The text form of a status, without colours: it is read by people and by grep."""
    lines = [_headline(body), "", *_workers(body["workers"])]
    for name, pool in body["pools"].items():
        lines += ["", f"pool {name}, {pool['policy']}", *_backends(pool["backends"])]
    return "\n".join(lines)


def _headline(body: dict[str, Any]) -> str:
    parts = [f"lbproc {body['version']}"]
    if "pid" in body:
        parts.append(f"pid {body['pid']}")
    parts += [f"up {render_span(body['uptime_seconds'])}", f"generation {body['generation']}"]
    if body.get("config"):
        parts.append(str(body["config"]))
    return ", ".join(parts)


def _workers(workers: Iterable[dict[str, Any]]) -> list[str]:
    keys = ("slot", "pid", "state", "connections", "requests", "restarts")
    heads = ("WORKER", "PID", "STATE", "CONNECTIONS", "REQUESTS", "RESTARTS")
    return table(heads, [_cells(worker, keys) for worker in workers])


def _backends(backends: Iterable[dict[str, Any]]) -> list[str]:
    keys = ("name", "address", "weight", "health", "admin", "in_flight", "requests", "failures")
    heads = ("BACKEND", "ADDRESS", "WEIGHT", "HEALTH", "ADMIN", "IN FLIGHT", "REQUESTS", "FAILURES")
    rows = []
    for backend in backends:
        cells = _cells(backend, keys)
        if backend.get("ejected"):
            cells[3] += " (ejected)"
        rows.append(cells)
    return table(heads, rows)


def _cells(values: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return ["-" if values.get(key) is None else str(values[key]) for key in keys]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; a column of numbers is aligned to the right."""
    columns = list(zip(*rows, strict=True)) or [()] * len(heads)
    widths = [max(map(len, (head, *column))) for head, column in zip(heads, columns, strict=True)]
    numeric = [all(cell.isdigit() or cell == "-" for cell in column) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (heads, *rows)
    ]


def render_span(seconds: float) -> str:
    """A span as a person says it: ``12 s``, ``5 min 3 s``, ``2 h 10 min``, ``3 d 4 h``."""
    whole = int(seconds)
    for size, unit, lesser_size, lesser in SPANS:
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lesser_size} {lesser}"
    return f"{whole} s"
