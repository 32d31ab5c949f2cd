"""The group of all commands: where each one lives, and the one barrier that turns errors into messages.

Owns the table of commands and the mapping from errors to exit statuses. Does not own any command.

Invariants: a command's module is imported only when that command is called or asked for its own help; an
error that a person can cause reaches them as a message on standard error, never as a traceback. What is left
keeps its traceback, because it is a defect of lbproc.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import IO, Any

import click
from click.shell_completion import CompletionItem

from lbproc import __version__
from lbproc.errors import ConfigError, LbprocError

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("lbproc.cli.run:run", "Balance what a configuration describes, until stopped."),
    "demo": ("lbproc.cli.demo:demo", "Three backends and a balancer on this machine, to look at."),
    "check": ("lbproc.cli.config:check", "Say all that is wrong with a configuration."),
    "config": ("lbproc.cli.config:config", "Look at a configuration as lbproc understands it."),
    "init": ("lbproc.cli.config:init", "Write a configuration to start from."),
    "cert": ("lbproc.cli.cert:cert", "Make a certificate to begin with."),
    "status": ("lbproc.cli.status:status", "Show the workers and backends of the running lbproc."),
    "drain": ("lbproc.cli.drain:drain", "Give a backend no new requests."),
    "ready": ("lbproc.cli.drain:ready", "Give a backend requests again."),
    "maintenance": ("lbproc.cli.drain:maintenance", "Give a backend nothing at all."),
    "weight": ("lbproc.cli.weight:weight", "Give a backend another share of the traffic."),
    "backends": ("lbproc.cli.backends:backends", "Add and remove backends of the running lbproc."),
    "reload": ("lbproc.cli.reload:reload", "Put a changed configuration in force, losing nothing."),
    "stop": ("lbproc.cli.stop:stop", "Stop the running lbproc without losing a request."),
    "completion": ("lbproc.cli.completion:completion", "Print what makes a shell complete lbproc commands."),
    "version": ("lbproc.cli.version:version", "Print the version."),
}
"""Name of a command → where it is defined (module:attribute), and its line in ``lbproc --help``."""

EXTENSION = "lbproc.shm._atomics"


class Failure(click.ClickException):
    """An error as the person sees it: its message on standard error, then exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the message; to standard error unless told otherwise."""
        click.echo(self.message, file=file, err=file is None)


class Unusable(Failure):
    """The configuration is what is wrong: exit status 2."""

    exit_code = 2


class CommandLine(click.Group):
    """A click group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command of this name; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes names of commands and options, without importing any command."""
        names = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a mistyped name is answered with the nearest one."""
        name = args[0]
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if near and name not in COMMANDS:
            ctx.fail(f"There is no command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table: help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Calls the command. What a person can cause leaves as a `Failure`."""
        if sys.platform != "linux":  # epoll, memfd, SO_REUSEPORT that balances
            raise Failure(f"lbproc: runs on Linux only; this is {sys.platform}")
        _occupy_standard_descriptors()
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Unusable(str(error)) from error
        except LbprocError as error:
            raise Failure(f"lbproc: {error}") from error
        except BrokenPipeError:
            raise  # `lbproc status | head`: click ends quietly
        except OSError as error:
            _give_up_output()
            raise Failure(f"lbproc: {describe(error)}") from error
        except ImportError as error:
            if error.name != EXTENSION and EXTENSION not in str(error):
                raise
            raise Failure("lbproc: its C extension is not built; ./scripts/demo builds it") from error


def describe(error: OSError) -> str:
    """What the system refused, in one line: the file, if one is named, and the reason."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, str | bytes) else reason


def _occupy_standard_descriptors() -> None:
    """Opens the null device where standard input, output or error was closed by whoever started this.

    The next thing opened would otherwise become standard output: a listening socket, say, with log lines
    written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _give_up_output() -> None:
    """Drops what standard output still holds if it cannot be written (a full disk).

    The interpreter would otherwise try again while it shuts down, print a traceback and change the status.
    """
    if sys.stdout is None:  # closed when the interpreter started
        return
    try:
        sys.stdout.flush()
    except OSError:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


@click.command(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A first look: lbproc demo. A configuration to start from: lbproc init.",
)
@click.version_option(__version__, "--version", prog_name="lbproc", message="%(prog)s %(version)s")
def main() -> None:
    """A load balancer for multicore Linux hosts: exact over all its workers."""
