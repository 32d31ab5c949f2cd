"""Looking at a running lbproc again and again: on a terminal in place, elsewhere one text after the other.

Owns the rhythm and what is said when lbproc does not answer. Does not own what a look shows.

On a terminal lbproc may come and go: who watches a restart wants to see the end of it. Without one the end of
lbproc is an error, because a script that reads along has nothing more to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from lbproc.errors import ControlError
from lbproc.types import Seconds

Pause = Callable[[Seconds], None]


def watch(
    look: Callable[[], str], interval: Seconds, console: Console | None = None, pause: Pause = time.sleep
) -> None:
    """Shows what ``look`` gives until it is interrupted; Ctrl-C is the way to end it and no error.

    Args:
        look: asks the running lbproc.
        interval: from the end of one look to the next.
        console: where to; standard output by default.
        pause: waits.

    Raises:
        ControlError: lbproc did not answer the first time, or, without a terminal, any time.
        BrokenPipeError: whoever read along has left.
    """
    console = console or Console()
    try:
        if console.is_terminal:
            _redraw(look, interval, console, pause)
        else:
            _print(look, interval, pause)
    except KeyboardInterrupt:
        return


def _redraw(look: Callable[[], str], interval: Seconds, console: Console, pause: Pause) -> None:
    shown, trouble = look(), ""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(_picture(shown, trouble), refresh=True)
            pause(interval)
            try:
                shown, trouble = look(), ""
            except ControlError as error:
                trouble = trouble or f"{_time()} {error}; still looking"


def _print(look: Callable[[], str], interval: Seconds, pause: Pause) -> None:
    while True:
        click.echo(look())
        pause(interval)


def _picture(shown: str, trouble: str) -> Text:
    """The last look; above it, if lbproc does not answer, why."""
    if not trouble:
        return Text(shown, no_wrap=True, overflow="crop")
    return Text.assemble((trouble + "\n\n", "bold red"), (shown, "dim"), no_wrap=True, overflow="crop")


def _time() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")
