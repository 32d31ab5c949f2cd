"""What one worker built from one configuration: its listeners with their routes, and its pools.

Built beside whatever is in use, without touching it, and then put in its place at once (`Runtime.succeed`).
A request keeps the runtime it started with, for as long as it runs.

Invariants:
- A runtime follows only membership that was published for its own generation.
- Nothing that an old runtime is made of is named by the new one, except for what it has inherited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from lbproc.proxy.balancer import Balancer
from lbproc.proxy.listener import HttpListener
from lbproc.proxy.logged import FORMATS

if TYPE_CHECKING:
    from lbproc.config.model import Config
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Row

_NOBODY: frozenset[Row] = frozenset()


class Runtime:
    """Everything that depends on the configuration in one worker.

    Args:
        config: what the operator asked for.
        context: the worker's; only kept, so a runtime may be built in another thread.
        generation: of the configuration.
    """

    def __init__(self, config: Config, context: WorkerContext, generation: int) -> None:
        self.config = config
        self.generation = generation
        self._context = context
        self._epoch = -1
        self._noticed = -1
        self.pools = {
            name: Balancer(name, pool, context, context.follow_membership)
            for name, pool in config.pools.items()
        }
        self.listeners = {
            name: HttpListener(name, listener, self.pools, generation, FORMATS[config.log.format])
            for name, listener in config.listeners.items()
        }

    @classmethod
    def begin(cls, config: Config, context: WorkerContext, generation: int = 1) -> Runtime:
        """The first runtime of a worker, in use from now on."""
        runtime = cls(config, context, generation)
        context.runtime = runtime
        runtime.follow_membership()
        return runtime

    def succeed(self, previous: Runtime) -> bool:
        """Takes the place of the one in use, with its backends and their idle connections.

        Returns:
            False, and nothing has happened, when the membership of this generation is not published yet.
        """
        membership = self._read_membership()
        if membership is None:
            return False
        for name, balancer in self.pools.items():
            if name in previous.pools:
                balancer.inherit(previous.pools[name])
        for name, listener in self.listeners.items():
            if name in previous.listeners:
                listener.succeed(previous.listeners[name])
            else:
                listener.lineage.draining = self._context.draining
                listener.lineage.leaving = self._context.leaving
        self._context.runtime = self
        for name, listener in previous.listeners.items():
            listener.retire()
            if name not in self.listeners:
                listener.lineage.end()
        self._take_over(membership)
        previous.retire()
        return True

    def follow_membership(self) -> None:
        """Takes over published membership if it changed since the last call."""
        if self._context.view.membership_epoch() != self._epoch:
            membership = self._read_membership()
            if membership is not None:
                self._take_over(membership)

    def _read_membership(self) -> dict[str, Any] | None:
        """The pools that are published for this generation; None when it is for another one."""
        self._epoch, blob = self._context.view.read_membership()
        if not blob:
            return {}
        published = msgpack.unpackb(blob)
        pools: dict[str, Any] = published["pools"]
        return pools if published["generation"] == self.generation else None

    def _take_over(self, membership: dict[str, Any]) -> None:
        for name, balancer in self.pools.items():
            if name in membership:
                balancer.follow(membership[name])
        self._context.view.follow_membership(self._epoch)

    def notice_out(self) -> frozenset[Row]:
        """Closes idle connections to backends that are out of use, when a status has changed.

        Returns:
            Backends that just became so and whose connections are to be cut.
        """
        epoch = self._context.view.status_epoch()
        if epoch == self._noticed:
            return _NOBODY
        self._noticed = epoch
        self.follow_membership()
        return _NOBODY.union(*[balancer.notice_out() for balancer in self.pools.values()])

    def look(self) -> None:
        """Does what is due in the pools without a request; from the worker's pulse."""
        for balancer in self.pools.values():
            balancer.look()

    def close_aged(self, now: float) -> None:
        """Closes backend connections that have been idle too long."""
        for balancer in self.pools.values():
            for backend in balancer.backends:
                backend.close_aged(now)

    def retire(self) -> None:
        """Closes all idle backend connections that nobody has inherited: no request begins here any more."""
        for balancer in self.pools.values():
            balancer.retire()
