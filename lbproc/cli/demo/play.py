"""Puts the demo together: the stage, the traffic, a look at the status again and again, the picture.

Owns the loop, the signals and the choice between picture and plain lines.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import click
import trio
from rich.console import Console
from rich.live import Live

from lbproc.cli.client import ask
from lbproc.cli.demo.picture import Heading, TrafficScene, draw, draw_counts, render_line, render_summary
from lbproc.cli.demo.scene import Sampler, Scene
from lbproc.cli.demo.stage import SLOW_BACKEND, Stage
from lbproc.cli.demo.traffic import Traffic
from lbproc.core.control.messages import StatusRequest
from lbproc.errors import ControlError, LbprocError, StartError
from lbproc.types import Seconds

PICTURE_INTERVAL: Seconds = 0.25
LINE_INTERVAL: Seconds = 1.0
START_TIMEOUT: Seconds = 30.0
START_INTERVAL: Seconds = 0.05
ENDING_TIMEOUT: Seconds = 3.0

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line. ``seconds`` None: until Ctrl-C."""

    policy: str
    workers: int | None
    clients: int
    seconds: Seconds | None
    plain: bool


Display = Callable[[Scene, TrafficScene], None]


def show(options: Options) -> None:
    """Runs the demo to its end, which Ctrl-C is.

    Raises:
        StartError: the balancer did not start, or ended on its own.
        OSError: the system refused something, for instance to write to standard output.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        _say("Starting three backends and a balancer.")
        with closing(Stage(options.policy, options.workers)) as stage:
            trio.run(_play, stage, options)
    except KeyboardInterrupt:
        return


async def _play(stage: Stage, options: Options) -> None:
    """Everything that moves. The first failure ends the rest and is raised plain, not in a group."""
    failure: LbprocError | OSError | None = None
    connect = partial(trio.open_tcp_stream, "127.0.0.1", stage.port)
    host = f"127.0.0.1:{stage.port}"
    traffic = Traffic(connect, host, Random())  # noqa: S311  # thinking times, not secrets
    with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope)
            try:
                await _wait_ready(stage)
                nursery.start_soon(traffic.run, options.clients)
                await _look(stage, options, traffic)
            except (LbprocError, OSError) as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(aiter(signals))
    scope.cancel()


async def _wait_ready(stage: Stage) -> dict[str, Any]:
    """Waits until every worker is ready."""
    with trio.move_on_after(START_TIMEOUT):
        while True:
            stage.require_running()
            try:
                status = await _ask_status(stage)
            except ControlError:  # not listening yet
                pass
            else:
                if all(worker["state"] == "ready" for worker in status["workers"]):
                    return status
            await trio.sleep(START_INTERVAL)
    raise StartError(f"the demo's balancer is not ready after {START_TIMEOUT:.0f} s")


async def _ask_status(stage: Stage) -> dict[str, Any]:
    return await trio.to_thread.run_sync(
        partial(ask, stage.control_socket, StatusRequest()), abandon_on_cancel=True
    )


async def _ask_while_running(stage: Stage) -> dict[str, Any]:
    """As `_ask_status`; a balancer that does not answer because it is about to end is reported as ended."""
    try:
        return await _ask_status(stage)
    except ControlError:
        with trio.move_on_after(ENDING_TIMEOUT):
            while True:
                stage.require_running()
                await trio.sleep(START_INTERVAL)
        raise


async def _look(stage: Stage, options: Options, traffic: Traffic) -> None:
    """Shows a scene at every interval until the time is over; cancelled, it still says how it went."""
    console = Console(highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    heading = Heading(
        url=f"http://127.0.0.1:{stage.port}",
        policy=options.policy,
        slow=SLOW_BACKEND,
        status_command=f"{find_own_command(sys.argv[0])} status --socket {stage.control_socket}",
        clients=options.clients,
    )
    sampler = Sampler()
    scene = None
    opened = _picture(console, heading) if live and not options.plain else _lines(heading)
    try:
        with opened as (display, interval):
            deadline = trio.current_time() + (options.seconds or float("inf"))
            while True:
                stage.require_running()
                status = await _ask_while_running(stage)
                scene = sampler.observe(trio.current_time(), status)
                display(scene, _seen(traffic))
                if trio.current_time() >= deadline:
                    return
                await trio.sleep_until(min(trio.current_time() + interval, deadline))
    finally:
        if scene is not None:
            _say(render_summary(scene, _seen(traffic)))


def find_own_command(invoked: str) -> str:
    """What a person types in this shell to get this very lbproc, from ``sys.argv[0]``."""
    script = Path(invoked)
    if script.name != "lbproc":
        return f"{sys.executable} -m lbproc"
    on_path = shutil.which("lbproc")
    return "lbproc" if on_path and script.exists() and script.samefile(on_path) else os.path.relpath(script)


def _seen(traffic: Traffic) -> TrafficScene:
    return TrafficScene(traffic.answered, traffic.failed, traffic.median_latency())


@contextmanager
def _picture(console: Console, heading: Heading) -> Iterator[tuple[Display, Seconds]]:
    """A live picture on the alternate screen, which survives resizing. Its last state stays after it."""
    last = None

    def display(scene: Scene, traffic: TrafficScene) -> None:
        nonlocal last
        last = scene, traffic
        live.update(draw(heading, scene, traffic, console.width), refresh=True)

    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            yield display, PICTURE_INTERVAL
    finally:
        if last is not None:
            console.print(draw_counts(heading, *last, console.width))
            console.print()


@contextmanager
def _lines(heading: Heading) -> Iterator[tuple[Display, Seconds]]:
    _say(f"lbproc answers at {heading.url} ({heading.policy}); backend {heading.slow} is slow on purpose.")
    _say(f"Ask for yourself: curl -i {heading.url}/")
    _say(f"Ask lbproc:       {heading.status_command}")
    yield lambda scene, traffic: _say(render_line(scene, traffic)), LINE_INTERVAL


def _say(line: str) -> None:
    click.echo(line)  # flushes
