"""Active checks of whatever is published: the prober, kept at the membership and the configuration in force.

Owns when the prober is told of a change, and the reading of the membership for it. The controller runs one
`Checking` for its whole life; a reload gives it another configuration.

Invariant: the prober is told of a membership only together with the configuration of the same generation. The
next membership is published before this process hears that it is in force; with the configuration before it,
backends that begin to be checked would be taken for backends that nobody checks, and called up.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from lbproc.core.control.membership import is_host_name, pools_of
from lbproc.health.probe import run_probe
from lbproc.health.prober import Prober
from lbproc.health.targets import Member, read_members

if TYPE_CHECKING:
    from lbproc.config.model import Config
    from lbproc.core.health import CheckCounts
    from lbproc.health.prober import RunProbe
    from lbproc.shm.views import ControllerView
    from lbproc.telemetry.log import ErrorLog
    from lbproc.types import Seconds

LOOK: Seconds = 0.1
"""From one look at whether the membership changed to the next."""

FIRST_CHECKS: Seconds = 1.0
"""How long the start, and a reload, wait for the first checks of backends that get no traffic before them."""


class Checking:
    """The checks of a controller. Made after the fork.

    Args:
        view: of the table.
        config: in force.
        generation: of the configuration.
        log: for what is found.
        probe: probes once.
    """

    __slots__ = ("_config", "_epoch", "_generation", "_prober", "_rehearsed", "_view")

    def __init__(
        self,
        view: ControllerView,
        config: Config,
        generation: int,
        log: ErrorLog,
        probe: RunProbe = run_probe,
    ) -> None:
        self._view = view
        self._config = config
        self._generation = generation
        self._rehearsed = generation
        self._prober = Prober(view, log, random.Random(), probe)  # noqa: S311  it spreads probes
        self._epoch = -1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Checks for ever; started when new backends had their first checks, or the time for it is over."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._prober.run)
            self._look()
            nursery.start_soon(self._keep_looking)
            await self._prober.settle(FIRST_CHECKS)
            task_status.started()

    async def rehearse(self, config: Config, generation: int, resolved: Mapping[str, Sequence[str]]) -> None:
        """Checks what a configuration that may come into force adds, so that its backends are up by then.

        Waits for first results, but not for long. `move` or `forget` comes next, or the rehearsal of a
        later generation, after which this one changes nothing any more.

        Args:
            config: the one that may come. Its backends have their rows.
            generation: that it would have.
            resolved: what host names stand for, as far as it is known.
        """
        if generation < self._rehearsed or generation <= self._view.abandoned():
            return  # it has come to nothing already; rows that it had may be others' at any moment
        self._rehearsed = generation
        places = [
            (name, backend) for name, pool in config.pools.items() if pool.health for backend in pool.backends
        ]
        rows = self._view.reader.find_rows([(name, str(backend.address)) for name, backend in places])
        members = []
        for name, backend in places:
            address = str(backend.address)
            if (name, address) in rows:
                known = () if is_host_name(backend.address) else (address,)
                found = tuple(resolved.get(address, known))
                members.append(Member(name, backend.name, address, rows[name, address], found))
        self._prober.preview(config, members)
        await self._prober.settle(FIRST_CHECKS)

    def move(self, config: Config, generation: int) -> None:
        """Goes on with another configuration, which is in force."""
        self._config = config
        self._generation = self._rehearsed = generation
        self._end_rehearsal()

    def forget(self, generation: int) -> None:
        """Lets go of a rehearsal that has come to nothing, unless that of a later generation has begun."""
        if generation == self._rehearsed:
            self._end_rehearsal()

    def _end_rehearsal(self) -> None:
        self._epoch = -1
        self._prober.end_preview()
        self._look()

    def counts(self) -> list[CheckCounts]:
        """What the checks of each backend came to."""
        return self._prober.counts()

    async def _keep_looking(self) -> None:
        while True:
            await trio.sleep(LOOK)
            self._look()

    def _look(self) -> None:
        if self._view.membership_epoch() == self._epoch:
            return
        self._epoch, blob = self._view.read_membership()
        pools = pools_of(blob, self._generation)
        if pools is None:
            return  # `move` comes with its configuration, and looks again
        self._prober.follow(self._config, read_members(pools))
        if not self._prober.is_previewing:  # it may check what is in no publication
            self._view.follow_membership(self._epoch)
