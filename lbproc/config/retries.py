"""The table ``[pools.NAME.retries]``: which requests are tried again on another backend, and how many.

Owns its keys, their defaults and what each value may look like. What it may be together with other keys is
in ``crosscheck``; what it means is in ``lbproc.core.retry``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Final

from pydantic import Field, PlainSerializer, PlainValidator

from lbproc.config.table import Table, strings, whole
from lbproc.config.values import Timeout, parse_bytes
from lbproc.config.wording import nearest, quote, wrong, wrong_type
from lbproc.units import render_size

FAULT_CONDITIONS: Final = ("reset", "timeout", "malformed")
STATUS_CONDITIONS: Final = ("408", "429")
"""And every status from 500 on."""

_SERVER_ERROR: Final = re.compile(r"5[0-9][0-9]")
_RIGHT: Final = 'write "reset", "timeout", "malformed", "408", "429" or a status of "500" to "599"'


def parse_condition(value: object) -> str:
    """What may be tried again: the name of a failure, or a status in quotes."""
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        raise wrong("is an integer, not a string", f'write it in quotes: "{value}"')
    if not isinstance(value, str):
        raise wrong_type(value, "a condition", '"reset" or "503"')
    if value in FAULT_CONDITIONS or value in STATUS_CONDITIONS or _SERVER_ERROR.fullmatch(value):
        return value
    guess = nearest(value, FAULT_CONDITIONS)
    raise wrong(
        f"{quote(value)} is nothing that is tried again",
        f"did you mean {quote(guess)}? {_RIGHT}" if guess else _RIGHT,
    )


def parse_budget(value: object) -> float:
    """A share of the requests, to a thousandth."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(value, "a share of the requests", "0.2, which is one retry for every five requests")
    if not 0.001 <= value <= 1:  # NaN is not, either
        side = "more than 1" if value > 1 else "less than 0.001"
        raise wrong(
            f"is {value:g}, which is {side}",
            "write a share of 0.001 to 1, such as 0.2; for no retries leave out the whole table",
        )
    return float(value)


class RetriesConfig(Table):
    """Which requests are tried again on another backend when a try has failed, and how many at most."""

    attempts: Annotated[int, whole(1, 10, 1)] = Field(
        default=1, description="further tries of one request at most"
    )
    on: Annotated[tuple[Annotated[str, PlainValidator(parse_condition)], ...], strings("timeout")] = Field(
        default=("reset", "timeout"),
        description="what is tried again: reset, timeout, malformed, and statuses such as 503",
    )
    budget: Annotated[float, PlainValidator(parse_budget)] = Field(
        default=0.2, description="retries as a share of the requests, over all workers; ten at once at most"
    )
    per_try_timeout: Timeout | None = Field(
        default=None, description="from the beginning of a try to the end of the response head"
    )
    max_body: Annotated[
        int,
        PlainValidator(partial(parse_bytes, least=0, most=16 * 1024**2, example="64KiB")),
        PlainSerializer(render_size),
    ] = Field(default=64 * 1024, description="the largest request body that is kept to be sent again")
