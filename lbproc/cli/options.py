"""Options that several commands share, and how a command finds the running lbproc.

Owns the order of look-ups for the control socket. Does not talk to it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from lbproc.config.load import find_config
from lbproc.errors import ConfigError, ControlError
from lbproc.net.control_socket import default_control_socket

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

SOCKET_VARIABLE = "LBPROC_SOCKET"


def config_option(function: Decorated) -> Decorated:
    """``-c FILE``: a configuration file or directory, as the argument ``config_path``."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration: a file, or a directory of files. Default: lbproc.toml here, "
        "then /etc/lbproc/lbproc.toml.",
    )(function)


def socket_option(function: Decorated) -> Decorated:
    """``--socket PATH``: the control socket of a running lbproc, as the argument ``socket_path``."""
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The control socket of the running lbproc. Default: the one that the configuration given by -c "
        f"names, then ${SOCKET_VARIABLE}, then the default configuration's.",
    )(function)


def find_control_socket(
    socket_path: Path | None, config_path: Path | None, environ: Mapping[str, str], directory: Path
) -> Path:
    """The control socket to talk to.

    In this order: ``--socket``, the configuration named by ``-c``, ``LBPROC_SOCKET``, the configuration in
    ``directory`` or ``/etc/lbproc``, and, where there is none of these, the place where lbproc of this user
    has its socket when its configuration does not say.

    Raises:
        click.UsageError: both options were given.
        ControlError: the configuration cannot be read far enough to tell.
    """
    if socket_path is not None and config_path is not None:
        raise click.UsageError("-c and --socket both say which lbproc is meant; give one of them")
    if socket_path is not None:
        return socket_path
    if config_path is None and environ.get(SOCKET_VARIABLE):
        return Path(environ[SOCKET_VARIABLE])
    if config_path is None:
        try:
            config_path = directory / find_config(environ, directory)
        except ConfigError:
            return default_control_socket()
    return socket_named_in(config_path) or default_control_socket()


def socket_named_in(config_path: Path) -> Path | None:
    """``[runtime] control_socket`` of a configuration; None when it does not say.

    Reads that one key and judges nothing else: the running lbproc must be reachable while its file is being
    edited, and from a shell that does not have the secrets which the file takes from the environment.

    Raises:
        ControlError: the file is missing, unreadable or not TOML.
    """
    found = None
    try:
        for file in sorted(config_path.glob("*.toml")) if config_path.is_dir() else [config_path]:
            value = _control_socket(file.read_text(encoding="utf-8"))
            found = found if value is None else file.parent / value
    except OSError as error:
        why = f"cannot read {config_path}: {error.strerror}; --socket PATH works without it"
        raise ControlError(why) from error
    except ValueError as error:  # not TOML, or not UTF-8
        why = f"{config_path} is not TOML: {error}; --socket PATH works without it"
        raise ControlError(why) from error
    return found


def _control_socket(text: str) -> str | None:
    runtime = tomllib.loads(text).get("runtime")
    value = runtime.get("control_socket") if isinstance(runtime, dict) else None
    return value if isinstance(value, str) and value else None
