"""The tables ``[limits.NAME]``: how much is let in, counted by what.

Owns their keys, their defaults and what each value may look like. Which listeners a limit may stand at is in
``crosscheck``; how it is counted is in ``lbproc.core.limits``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator

from lbproc.config.table import Table, choice, whole
from lbproc.config.wording import quote, wrong, wrong_type
from lbproc.units import Rate, UnitError, parse_rate, render_rate


def parse_rate_value(value: object) -> Rate:
    """So many in a second, minute, hour or day."""
    if not isinstance(value, str):
        raise wrong_type(value, "a rate", '"100/second"')
    try:
        rate = parse_rate(value)
    except UnitError as error:
        raise wrong(f"{quote(value)} {error.what}", error.right) from None
    if rate.amount > 1_000_000_000:
        raise wrong(f"{quote(value)} is too much", 'write at most "1000M" in each period')
    return rate


def parse_limit_name(value: object) -> str:
    """The name of a limit, used at a listener. Whether there is such a limit is seen in ``crosscheck``."""
    if not isinstance(value, str):
        raise wrong_type(value, "the name of a limit", '"per_ip"')
    return value


def _one_second(fields: dict[str, Any]) -> int | None:
    rate = fields.get("new_connections")
    return min(max(1, rate.amount // rate.per_seconds), _MOST_AT_ONCE) if isinstance(rate, Rate) else None


_MOST_AT_ONCE = 1_000_000

RateValue = Annotated[Rate, PlainValidator(parse_rate_value), PlainSerializer(render_rate)]
LimitName = Annotated[str, PlainValidator(parse_limit_name)]


class LimitConfig(Table):
    """How much of something is let in. Listeners name it in `limits`, and it is counted over all of them."""

    key: Annotated[
        Literal["client_ip", "listener"], choice("what a limit counts by", "client_ip", "listener")
    ] = Field(
        default="client_ip",
        description="client_ip: for each address apart; listener: for each listener apart",
    )
    connections: Annotated[int, whole(1, 1_000_000, 50)] | None = Field(
        default=None, description="the most connections that are open at once, over all workers"
    )
    new_connections: RateValue | None = Field(
        default=None, description="the most connections that are let in within a time"
    )
    burst: Annotated[int, whole(1, _MOST_AT_ONCE, 50)] | None = Field(
        default_factory=_one_second,
        description="new connections that may come at once; default: those of one second, at least 1",
    )
    when_full: Annotated[
        Literal["admit", "refuse"], choice("a way to treat what cannot be counted", "admit", "refuse")
    ] = Field(
        default="admit",
        description="connections that cannot be counted, as `[runtime] max_keys` are in use: admit or refuse",
    )
