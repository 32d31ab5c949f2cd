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
from lbproc.config.certified import date, listed_names
from lbproc.core.control.messages import StatusRequest
from lbproc.types import Seconds

_SOON = 14  # days, as `config.certified` has it

SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))

NOTES = {"weight": "* by `lbproc weight`", "added": "+ by `lbproc backends add`"}
"""What marks in the table mean. An admin state needs none: nothing but a command brings it about."""


@click.command()
@config_option
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")
@click.option("--watch", "is_watched", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    default=2.0,
    help="With --watch: from one look to the next, 2 if not given.",
)
def status(
    config_path: Path | None,
    socket_path: Path | None,
    *,
    as_json: bool,
    is_watched: bool,
    interval: Seconds,
) -> None:
    """Show the workers and backends of the running lbproc."""
    path = find_control_socket(socket_path, config_path, os.environ, Path.cwd())

    def look() -> str:
        body = ask(path, StatusRequest())
        if as_json:
            return json.dumps(body, indent=None if is_watched else 2)  # one object a line for who reads along
        return render_status(body)

    if not is_watched:
        click.echo(look())
        return
    from lbproc.cli.watch import watch  # noqa: PLC0415  rich takes 0.1 s to import, more than a status takes

    watch(look, interval)


def render_status(body: dict[str, Any]) -> str:
    """The text form of a status, without colours: it is read by people and by grep."""
    lines = [_headline(body), "", *_workers(body["workers"])]
    for name, pool in body["pools"].items():
        lines += ["", *_pool(name, pool)]
    if certificates := body.get("certificates"):
        lines += ["", *_certificates(certificates)]
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


def _certificates(certificates: Iterable[dict[str, Any]]) -> list[str]:
    """The certificates, those that expire first before the others."""
    heads = ("CERTIFICATE", "KEY", "OF", "EXPIRES", "DAYS LEFT")
    rows = []
    for one in sorted(certificates, key=lambda one: float(one["not_after"])):
        whose = f"listener {one['listener']}" if one["listener"] else f"pool {one['pool']}"
        days = one["days_left"]
        left = "EXPIRED" if days < 0 else f"{days} !" if days < _SOON else str(days)
        rows.append((listed_names(tuple(one["names"])), one["key_kind"], whose, date(one["not_after"]), left))
    return table(heads, rows)


def _pool(name: str, pool: dict[str, Any]) -> list[str]:
    parts = [f"pool {name}", pool["policy"]]
    if pool.get("panic"):
        parts.append("PANIC: too few are available, so all that are ready get requests")
    lines = [", ".join(parts), *_backends(pool["backends"])]
    marks = {mark for backend in pool["backends"] for mark in backend.get("overridden", ())}
    notes = [NOTES[mark] for mark in NOTES if mark in marks]
    if pool.get("removed"):
        notes.append(f"removed: {', '.join(pool['removed'])}")
    return lines + ([f"({'; '.join(notes)})"] if notes else [])


def _backends(backends: Sequence[dict[str, Any]]) -> list[str]:
    keys = ("name", "address", "weight", "health", "admin", "in_flight", "requests", "failures")
    heads = ["BACKEND", "ADDRESS", "WEIGHT", "HEALTH", "ADMIN", "IN FLIGHT", "REQUESTS", "FAILURES"]
    rows = []
    for backend in backends:
        cells = _cells(backend, keys)
        overridden = backend.get("overridden", ())
        cells[0] += " +" * ("added" in overridden) + " (backup)" * bool(backend.get("backup"))
        cells[2] += "*" * ("weight" in overridden)
        cells[3] = _health(backend)
        rows.append(cells)
    ages = [backend.get("checked_seconds_ago") for backend in backends]
    if any(age is not None for age in ages):
        heads.insert(4, "CHECKED")
        for cells, age in zip(rows, ages, strict=True):
            cells.insert(
                4, "-" if age is None else f"{age:.1f} s ago" if age < 60 else f"{render_span(age)} ago"
            )
    return table(heads, rows)


def _health(backend: dict[str, Any]) -> str:
    """What is known of a backend in a few words: checks, slow start, liveness, ejection."""
    words = str(backend["health"])
    if words == "starting" and backend["weight"]:
        words += f" {round(100 * backend['effective_weight'] / backend['weight'])}%"
    if backend.get("liveness", "unknown") != "unknown":
        words += f", {backend['liveness']}"
    if backend.get("ejected"):
        left = backend.get("ejected_seconds_left")
        words += " (ejected)" if left is None else f" (ejected, {render_span(left)} left)"
    return words


def _cells(values: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return ["-" if values.get(key) is None else str(values[key]) for key in keys]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; a column of numbers is aligned to the right."""
    columns = list(zip(*rows, strict=True)) or [()] * len(heads)
    widths = [max(map(len, (head, *column))) for head, column in zip(heads, columns, strict=True)]
    numeric = [all(cell.rstrip("*").isdigit() or cell == "-" for cell in column) for column in columns]
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
