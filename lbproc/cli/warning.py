"""How commands show warnings: a line each on standard error, so that what a program reads stays as it is."""

from __future__ import annotations

from collections.abc import Iterable

import click


def print_warnings(warnings: Iterable[object]) -> None:
    """Prints what should be looked at."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
