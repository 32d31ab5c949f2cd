"""The table ``[pools.NAME.outlier]``, and the shares and times that belong to it: passive checks.

Owns its keys, their defaults and what each value may look like. What it may be together with other keys is
in ``crosscheck``; what it means is in ``lbproc.core.outlier``, ``core.pool`` and ``core.slow_start``.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field, PlainSerializer, PlainValidator

from lbproc.config.table import Table, whole
from lbproc.config.values import DAY, parse_span
from lbproc.config.wording import wrong, wrong_type
from lbproc.types import Seconds
from lbproc.units import render_duration

EJECT_FOR: Final = 30.0
GROWTH: Final = 10
"""``max_eject_for`` where it is not given, as a multiple of ``eject_for``."""


def parse_share(value: object, *, least: float, example: str, remedy: str) -> float:
    """A part of a whole, up to all of it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(value, "a share", example)
    if not least <= value <= 1:  # NaN is not, either
        side = "more than 1, which is all of them" if value > 1 else f"less than {least:g}"
        raise wrong(f"is {value:g}, which is {side}", remedy)
    return float(value)


SlowStart = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.0, most=DAY, example="30s")),
    PlainSerializer(render_duration),
]
PanicThreshold = Annotated[
    float,
    PlainValidator(
        partial(
            parse_share,
            least=0.0,
            example="0.5, which is half of them",
            remedy="write a share of 0 to 1, such as 0.5",
        )
    ),
]
EjectFor = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.1, most=DAY, example="30s")),
    PlainSerializer(render_duration),
]
LongestEjection = Annotated[
    Seconds,
    PlainValidator(partial(parse_span, least=0.1, most=365 * DAY, example="5m")),
    PlainSerializer(render_duration),
]


def _grown(fields: dict[str, Any]) -> Seconds:
    return round(GROWTH * float(fields.get("eject_for", EJECT_FOR)), 3)  # a millisecond is the finest


class OutlierConfig(Table):
    """Passive checks: backends that fail real requests are ejected for a while."""

    consecutive_errors: Annotated[int, whole(1, 1_000_000, 5)] = Field(
        default=5, description="failures in a row, over all workers, that eject a backend"
    )
    eject_for: EjectFor = Field(
        default=EJECT_FOR, description="how long; twice as long the second time in a row, and so on"
    )
    max_eject_for: LongestEjection = Field(
        default_factory=_grown, description="how long at most; default: ten times eject_for"
    )
    max_ejected: Annotated[
        float,
        PlainValidator(
            partial(
                parse_share,
                least=0.001,
                example="0.5, which is half of them",
                remedy="write a share of 0.001 to 1, such as 0.5; for no ejections leave out the whole table",
            )
        ),
    ] = Field(default=0.5, description="the largest share of the pool's backends that is ejected at once")
