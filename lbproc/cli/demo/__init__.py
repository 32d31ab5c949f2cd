"""``lbproc demo``: three backends, a balancer and some traffic on this machine, shown live.

Owns the options. ``stage`` owns the processes and files, ``backend`` and ``proxy`` are what those processes
run, ``traffic`` is the clients, ``scene`` says what is to be seen, ``picture`` draws it, ``play`` puts them
together.
"""

from __future__ import annotations

import click

from lbproc.config.policies import POLICIES


@click.command()
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    default=POLICIES[0],
    metavar="POLICY",
    help=f"How to balance: {', '.join(POLICIES)}.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Worker processes. Default: one per CPU, 2 to 4.",
)
@click.option(
    "--clients",
    type=click.IntRange(0, 1000),
    default=12,
    metavar="N",
    help="Clients that the demo itself runs; 0 leaves the traffic to you. Default: 12.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="End after so many seconds. Default: on Ctrl-C.",
)
@click.option("--plain", is_flag=True, help="Print a line a second, as in a pipe, instead of a live picture.")
def demo(policy: str, workers: int | None, clients: int, seconds: float | None, plain: bool) -> None:
    """Show lbproc at work: three backends and a balancer on this machine.

    Needs nothing else installed and leaves nothing behind. Two of the backends are fast, one is slow. Ports
    8080 and 9001 to 9003 are used if they are free, others if not.
    """
    from lbproc.cli.demo.play import Options, show  # noqa: PLC0415  # --help needs neither trio nor rich

    show(Options(policy=policy, workers=workers, clients=clients, seconds=seconds, plain=plain))
