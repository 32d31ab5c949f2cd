"""Commands that fail in the ways a person can cause, for the tests of the barrier."""

from __future__ import annotations

from pathlib import Path

import click

from lbproc.errors import ConfigError, ControlError


@click.command()
def bad_config() -> None:
    raise ConfigError(
        ("lbproc.toml:3: pools.web: is empty; give it backends", "lbproc.toml:9: x: what; that")
    )


@click.command()
def not_running() -> None:
    raise ControlError("no lbproc is running here")


@click.command()
def missing_file() -> None:
    Path("/nonexistent/lbproc.toml").read_bytes()


@click.command()
def nameless() -> None:
    raise OSError(28, "No space left on device")


@click.command()
def no_extension() -> None:
    raise ModuleNotFoundError("No module named 'lbproc.shm._atomics'", name="lbproc.shm._atomics")


@click.command()
def defect() -> None:
    raise ImportError("cannot import name 'x'", name="lbproc.shm.table")


@click.command()
def talkative() -> None:
    for _ in range(100_000):
        click.echo("a line of output")
