"""What the keys of ``[pools.NAME.retries]`` may be together, and together with the pool's timeouts.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from lbproc.config.model import PoolTimeouts
from lbproc.config.retries import RetriesConfig
from lbproc.config.wording import quote
from lbproc.units import render_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document
    from lbproc.config.problem import Problem
    from lbproc.config.wording import KeyPath

_RETRIES: Final = TypeAdapter(RetriesConfig)
_TIMEOUTS: Final = TypeAdapter(PoolTimeouts)


def retry_rules(document: Document) -> Iterator[Problem]:
    """A try that ends at its own timeout is tried again, and that timeout can be reached."""
    for pool, table in document.pools.items():
        given = table.get("retries")
        retries = None if given is None else document.read(_RETRIES, given)
        if retries is None or retries.per_try_timeout is None:
            continue
        path: KeyPath = ("pools", pool, "retries", "per_try_timeout")
        if "timeout" not in retries.on:
            yield document.problem(
                path,
                'ends a try that is not tried again, because on lacks "timeout"',
                'add "timeout" to on, or leave it out and write timeouts.response',
            )
        timeouts = document.read(_TIMEOUTS, table.get("timeouts", {}))
        if timeouts is None:
            continue
        longest = timeouts.connect + timeouts.response
        if retries.per_try_timeout >= longest:
            yield document.problem(
                path,
                f"{quote(render_duration(retries.per_try_timeout))} is never reached: timeouts.connect and "
                f"timeouts.response end a try after {quote(render_duration(longest))}",
                "write a shorter one, or leave it out",
            )
