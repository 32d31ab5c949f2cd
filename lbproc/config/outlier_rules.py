"""What the keys of passive checks and slow start may be together, and together with their pool.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself. A key at its default is always right, so that what ``config show`` writes can be read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from lbproc.config.outlier import OutlierConfig, SlowStart
from lbproc.config.wording import quote
from lbproc.units import render_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document
    from lbproc.config.problem import Problem

_OUTLIER: Final = TypeAdapter(OutlierConfig)
_SLOW_START: Final = TypeAdapter[float](SlowStart)


def outlier_rules(document: Document) -> Iterator[Problem]:
    """Ejections do not end before their time, and a slow start has weights to work on."""
    for pool, table in document.pools.items():
        given = table.get("outlier")
        outlier = None if given is None else document.read(_OUTLIER, given)
        if outlier is not None and outlier.max_eject_for < outlier.eject_for:
            yield document.problem(
                ("pools", pool, "outlier", "max_eject_for"),
                f"{quote(render_duration(outlier.max_eject_for))} is shorter than eject_for, which is "
                f"{quote(render_duration(outlier.eject_for))}",
                "write a longer one, or leave it out for ten times eject_for",
            )
        if table.get("policy") == "first_available" and document.read(_SLOW_START, table.get("slow_start")):
            yield document.problem(
                ("pools", pool, "slow_start"),
                'has no effect with policy = "first_available", which does not look at weights',
                "choose another policy, or leave out slow_start",
            )
