"""``lbproc weight``: the weight of one backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lbproc.cli.steering import Target, connection_options, steer, target_argument, title
from lbproc.core.control.messages import WeightRequest

RESET = "reset"


def parse_weight(text: str) -> int | str:
    """Reads a whole number, or ``reset``. How large it may be is for the running lbproc to say.

    Raises:
        click.BadParameter: it is something else.
    """
    if text == RESET:
        return RESET
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise click.BadParameter(f"{text!r} is not a weight; write a whole number such as 2, or reset")
    return int(text)


@click.command()
@target_argument
@click.argument("weight", type=parse_weight, metavar="N|reset")
@connection_options
def weight(
    target: Target, weight: int | str, config_path: Path | None, socket_path: Path | None, as_json: bool
) -> None:
    """Give a backend another share of the traffic.

    N is as `weight` in the configuration: 0 is no traffic while another backend has more. It holds, also over
    reloads, until `lbproc weight POOL/BACKEND reset`, or until the configuration gives the backend another
    weight than it does now.
    """
    request = WeightRequest(*target, weight if isinstance(weight, int) else None)
    steer(request, _say, config_path=config_path, socket_path=socket_path, as_json=as_json)


def _say(body: dict[str, Any]) -> str:
    was = ", as before" if body["weight"] == body["was"] else f", was {body['was']}"
    return f"{title(body)}: weight {body['weight']}{was}"
